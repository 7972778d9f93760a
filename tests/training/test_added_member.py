import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from damage import resealed
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit
from tiny_network import ALL, answers, light_bundle, seen, weights, with_eighth, write_network, write_rings

from scanner.ensemble import bundles
from scanner.ensemble.preprocessing import nisp_on_vis
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Flag
from scanner.training.added_member import NewMember, add_member, read_network, try_network, wrap


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    return light_bundle(tmp_path_factory.mktemp("light") / "bundle")


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    return with_eighth(tmp_path_factory.mktemp("eighth"))


@pytest.fixture(scope="module")
def plain(added, tmp_path_factory):
    """The bundle with the eighth member, without test-time augmentation."""
    copy = shutil.copytree(added.bundle.path, tmp_path_factory.mktemp("plain") / "bundle")
    resealed(copy / "bundle.json", second_look=None)
    return bundles.load(copy)


@pytest.fixture(scope="module")
def cutouts():
    """Four cutouts: vis, nisp, sky, sigma."""
    rng = np.random.default_rng(3)
    vis, nisp = rng.normal(1, 2, (4, 200, 200)), rng.normal(-3, 4, (4, 3, 66, 66))
    vis[:, 80:120, 90:95] += 40
    nisp[:, :, 28:40, 30:33] += 70
    sky, sigma = np.tile([1, -3, -3, -3], (4, 1)), np.tile([2, 4, 4, 4], (4, 1))
    return tuple(array.astype(np.float32) for array in (vis, nisp, sky, sigma))


def _member(path, **changed):
    return NewMember(path, **{"name": "ring", "bands": ALL, "pixels": 100, **changed})


def _run(graph, cutouts):
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = dict(zip(("vis", "nisp", "sky", "sigma"), cutouts, strict=True))
    return session.run(["logits"], {node.name: feed[node.name] for node in session.get_inputs()})[0]


@pytest.mark.parametrize(
    ("bands", "pixels", "scaling"),
    [
        (ALL, 100, "sigma"),
        (("H", "VIS"), 200, "asinh_mad"),
        (("J", "Y"), 40, "sigma"),
        (ALL, 64, "minmax"),
        (("VIS",), 130, "sigma"),
    ],
)
def test_a_network_sees_what_the_page_says(tmp_path, cutouts, bands, pixels, scaling):
    member = _member(write_network(tmp_path / "net.onnx", bands, pixels), bands=bands, pixels=pixels, scaling=scaling)
    found = _run(wrap(read_network(member), member, "logit"), cutouts)
    np.testing.assert_allclose(found, answers(bands, pixels, scaling, *cutouts), rtol=2e-5, atol=2e-5)


def test_nisp_lies_on_vis_to_a_hundredth_of_a_pixel():
    """A source of 0.45", anywhere: its centroid in the resampled NISP image is where VIS has it."""
    matrix = nisp_on_vis(160)
    for offset in (-3.1, -0.37, 0.0, 0.05, 2.5):
        nisp = np.exp(-((np.arange(66) - 32.5 - offset / 3) ** 2) / 2)
        vis_pixels = np.arange(160) - 79.5
        found = matrix @ nisp
        assert (found @ vis_pixels) / found.sum() == pytest.approx(offset, abs=0.01)


@pytest.mark.parametrize(
    ("last", "outputs", "output"),
    [(None, 1, "logit"), ("Sigmoid", 1, "probability"), (None, 2, "logits"), ("Softmax", 2, "softmax")],
)
def test_every_kind_of_output_becomes_log_odds(tmp_path, cutouts, last, outputs, output):
    member = _member(write_network(tmp_path / "net.onnx", last=last, outputs=outputs))
    model = read_network(member)
    assert try_network(model, member) == output
    says = answers(ALL, 100, "sigma", *cutouts, outputs=outputs)
    expected = says[:, 1:] - says[:, :1] if outputs == 2 else says
    np.testing.assert_allclose(_run(wrap(model, member, output), cutouts), expected, atol=2e-3)


class TestTheBundle:
    def test_has_it_as_its_eighth_member(self, added, light):
        manifest = bundles.load(added.bundle.path).manifest
        assert manifest.member_names == (*MEMBERS, "ring")
        entry = manifest.further[0]
        assert (entry.file, entry.bands, entry.pixels, entry.scaling) == ("ring.onnx", ALL, 100, "sigma")
        assert entry.parameters == weights().size + 1
        graph = (added.bundle.path / "ring.onnx").read_bytes()
        assert manifest.sha256["ring.onnx"] == hashlib.sha256(graph).hexdigest()
        assert (added.bundle.path / "ensemble.onnx").read_bytes() == light.model
        assert manifest.version.endswith("+ring")
        assert manifest.decides_on == "calibrated"

    def test_scores_as_the_network_does_and_combines_all(self, plain, light, cutouts):
        bad, flags = np.zeros((4, 4), np.float32), np.zeros(4, np.uint32)
        scores = Scorer(plain, "cpu").score(*cutouts, bad, flags)
        seven = open_session(light, "cpu").plain_logits(*cutouts)
        np.testing.assert_array_equal(scores.logits[:, :7], seven)
        expected = answers(ALL, 100, "sigma", *cutouts)
        np.testing.assert_allclose(scores.logits[:, 7:], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(scores.probabilities[:, 7:], expit(expected), rtol=1e-4)
        calibration = plain.calibration
        clipped = np.clip(scores.logits.astype(np.float64), -20, 20)
        at = np.log(calibration.sky_prevalence / (1 - calibration.sky_prevalence)) - np.log(
            calibration.training_prevalence / (1 - calibration.training_prevalence)
        )
        log_odds = calibration.intercept + at + clipped @ np.array(calibration.coefficients)
        np.testing.assert_allclose(scores.calibrated, expit(log_odds), rtol=1e-4, atol=1e-30)
        np.testing.assert_array_equal(scores.decision, scores.calibrated >= np.float32(plain.threshold()))
        np.testing.assert_array_equal(scores.grid_value, plain.grid.lookup(seven).value)

    def test_leaves_it_out_where_a_band_is_missing(self, plain, cutouts):
        bad, flags = np.tile(np.float32([0, 1, 0, 0]), (4, 1)), np.zeros(4, np.uint32)
        scores = Scorer(plain, "cpu").score(*cutouts, bad, flags)
        known = np.array([name in ("OU-J", "OU-H", "OU-VIS") for name in plain.manifest.member_names])
        assert (np.isfinite(scores.logits) == known).all()
        alone = plain.calibration.distilled(known, plain.calibration_set.logits)
        np.testing.assert_array_equal(scores.calibrated, alone.apply(np.nan_to_num(scores.logits)))
        assert (scores.flags & Flag.BANDS_MISSING > 0).all()

    def test_says_what_it_gains(self, added):
        assert added.own.value > 0.9
        area = added.gains[0]
        assert area.figure == "AUROC"
        assert area.difference.low <= area.after - area.before <= area.difference.high
        card = (added.bundle.path / "MODEL_CARD.md").read_text()
        assert "## Member `ring`" in card
        assert f"| AUROC | {area.before:.3f} | {area.after:.3f} |" in card
        of_member = [metric for metric in added.bundle.manifest.metrics if metric.member == "ring"]
        assert of_member[0].value == added.own.value

    def test_must_fit_together(self, added, tmp_path):
        for change, word in (
            (lambda members: [*members, members[-1]], "taken"),
            (lambda members: [members[-1], *members[:-1]], "must begin with"),
            (lambda members: [*members[:-1], {**members[-1], "file": "ensemble.onnx"}], "file of its own"),
            (lambda members: members[:-1], "8 coefficients for 7 members"),
        ):
            copy = shutil.copytree(added.bundle.path, tmp_path / "copy")
            members = json.loads((copy / "bundle.json").read_text())["members"]
            resealed(copy / "bundle.json", members=change(members))
            with pytest.raises(ContentError, match=word):
                bundles.load(copy)
            shutil.rmtree(copy)

    def test_takes_another_one(self, added, tmp_path):
        member = _member(write_network(tmp_path / "net.onnx", ("VIS",), 60, batch=1), name="small", bands=("VIS",), pixels=60)
        again = add_member(
            added.bundle, member, LabelledSet(write_rings(tmp_path / "rings")), tmp_path / "nine", provider="cpu"
        )
        assert again.bundle.manifest.member_names == (*MEMBERS, "ring", "small")
        assert len(again.bundle.calibration.coefficients) == 9


def test_augmentation_turns_all_members(added, cutouts, tmp_path):
    """The fixture's rule is that of the bundle it came from; here every object is augmented."""
    assert added.bundle.manifest.second_look.share == bundles.load(None).manifest.second_look.share
    copy = shutil.copytree(added.bundle.path, tmp_path / "copy")
    resealed(copy / "bundle.json", second_look={"log_odds_above": -1e6, "share": 0.5})
    found = open_session(bundles.load(copy), "cpu").logits(*cutouts)
    turned = [
        answers(ALL, 100, "sigma", *(np.rot90(part, k, axes=(-2, -1)) for part in (vis, nisp)), *cutouts[2:])
        for vis, nisp in (cutouts[:2], (cutouts[0][..., ::-1], cutouts[1][..., ::-1]))
        for k in range(4)
    ]
    np.testing.assert_allclose(found[:, 7:], np.mean(turned, axis=0), rtol=1e-4, atol=1e-4)


def _noise(name):
    return [helper.make_node(name, ["images"], ["drawn"]), helper.make_node("Add", ["images", "drawn"], ["changed"])]


def _elsewhere(path):
    model = onnx.load(write_network(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def _huge(path):
    model = onnx.load(write_network(path))
    model.graph.initializer.add(name="huge", data_type=TensorProto.FLOAT, dims=[10**9])
    onnx.save(model, path)


def _huge_when_run(path):
    size = numpy_helper.from_array(np.array([40_000, 1_000_000], np.int64), "size")
    fill = helper.make_node("ConstantOfShape", ["size"], ["much"])
    total = helper.make_node("ReduceSum", ["much"], ["total"], keepdims=0)
    write_network(path, extra=[fill, total, helper.make_node("Add", ["images", "total"], ["changed"])])
    model = onnx.load(path)
    model.graph.initializer.append(size)
    onnx.save(model, path)


def _constant(path):
    write_network(path, extra=[helper.make_node("Sub", ["images", "images"], ["changed"])])


def _nan(path):
    nodes = [helper.make_node("Neg", ["images"], ["less"]), helper.make_node("Log", ["less"], ["changed"])]
    write_network(path, extra=nodes)


def _truncated(path):
    content = write_network(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _custom(path):
    write_network(path, extra=[helper.make_node("Conjure", ["images"], ["changed"], domain="com.example")])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (_truncated, "no whole ONNX file"),
        (lambda path: path.write_bytes(b"not onnx at all"), "no whole ONNX file"),
        (_elsewhere, "keeps weights in another file"),
        (_huge, r"constant 'huge' of \[1000000000\] numbers"),
        (_custom, "operators of com.example"),
        (lambda path: write_network(path, kind=TensorProto.STRING), r"takes string \(N, 4, 100, 100\)"),
        (
            lambda path: write_network(path, pixels=98),
            r"takes float \(N, 4, 98, 98\); its input must be float32 \(N, 4, 100, 100\)",
        ),
        (lambda path: write_network(path, ("VIS",)), r"takes float \(N, 1, 100, 100\)"),
        (lambda path: write_network(path, outputs=3), r"gives float \(N, 3\)"),
        (lambda path: write_network(path, batch=4), r"takes float \(4, 4, 100, 100\)"),
        (lambda path: write_network(path, opset=11), "opset 11; export it with an opset from 13"),
        (lambda path: write_network(path, extra=_noise("RandomNormalLike")), "draws random numbers"),
    ],
)
def test_what_cannot_be_a_member_is_refused_in_one_sentence(tmp_path, write, sentence):
    path = tmp_path / "net.onnx"
    write(path)
    with pytest.raises(ContentError, match=sentence) as caught:
        read_network(_member(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (_huge_when_run, "memory|allocate"),
        (_constant, "answers the same whatever it sees"),
        (_nan, "NaN or infinity"),
    ],
)
def test_what_is_of_no_use_when_it_runs_is_refused(tmp_path, write, sentence):
    path = tmp_path / "net.onnx"
    write(path)
    with pytest.raises(ContentError, match=sentence) as caught:
        try_network(read_network(_member(path)), _member(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": "OU-J"}, "small letters"),
        ({"name": "ou_j"}, "taken"),
        ({"name": "grid"}, "taken"),
        ({"name": "p; drop"}, "small letters"),
        ({"pixels": 101}, "even number"),
        ({"pixels": 202}, "up to 200"),
        ({"bands": ("Y",), "pixels": 100}, "up to 66"),
        ({"bands": ("VIS", "VIS")}, "twice"),
    ],
)
def test_names_bands_and_pixels_that_make_no_sense(light, tmp_path, changed, sentence):
    dataset = LabelledSet(write_rings(tmp_path / "rings", 4))
    with pytest.raises(UsageError, match=sentence):
        add_member(light, _member(tmp_path / "net.onnx", **changed), dataset, tmp_path / "new")


def test_what_is_missing_or_too_small(light, tmp_path):
    dataset = LabelledSet(write_rings(tmp_path / "rings", 4))
    with pytest.raises(ContentError, match="20 lenses"):
        add_member(light, _member(tmp_path / "net.onnx"), dataset, tmp_path / "new")
    with pytest.raises(InputMissingError, match="no such file"):
        read_network(_member(tmp_path / "net.onnx"))


def test_the_reference_of_these_tests_is_the_cutouts_centre(cutouts):
    vis, nisp = (array.astype(np.float64) for array in cutouts[:2])
    np.testing.assert_array_equal(seen(("VIS",), 100, "sigma", *cutouts)[:, 0], (vis[:, 50:150, 50:150] - 1.0) / 2.0)
    np.testing.assert_array_equal(seen(("J",), 40, "sigma", *cutouts)[:, 0], (nisp[:, 1, 13:53, 13:53] + 3.0) / 4.0)
