"""A bundle in 8-bit integers: near the numbers of the one in float32, the same bits whoever asks, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_network import light_bundle, with_eighth, write_rings

import scanner
from scanner.cli.main import main
from scanner.ensemble import bundles, session
from scanner.ensemble.bundle import content_of, write_bundle
from scanner.ensemble.preprocessing import member_input
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ContentError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS
from scanner.training import quantised
from scanner.training.cascade import change_at
from scanner.training.export import read_members

has_vnni = session._has_some_of(session.VNNI)
pytestmark = pytest.mark.skipif(not has_vnni, reason="the processor adds 8-bit integers with errors")


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    return write_rings(tmp_path_factory.mktemp("rings") / "rings", n=240)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The default bundle, whose screen nothing passes, so that a scan by it is quick."""
    content = content_of(bundles.load(None))
    screen = content.screen.model_copy(update={"log_odds_above": 99.0})
    return write_bundle(tmp_path_factory.mktemp("exact") / "bundle", replace(content, screen=screen))


@pytest.fixture(scope="module")
def made(exact, rings, tmp_path_factory):
    """The same in integers, by the command."""
    out = tmp_path_factory.mktemp("int8") / "bundle"
    words = ["models", "quantise", exact.path, "--data", rings, "--out", out, "--provider", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised, "RANGE_OBJECTS", 32)
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
    assert stopped.value.code == 0
    return bundles.load(out)


@pytest.fixture(scope="module")
def cutouts(rings):
    (batch, vis, nisp) = next(LabelledSet(rings).batches(np.arange(24), 24))
    return vis, nisp, batch.sky, batch.sigma


def test_log_odds_are_near_those_of_float32_and_rank_alike(exact, made, cutouts):
    before = open_session(exact, "cpu").plain_logits(*cutouts)
    after = open_session(made, "cpu").plain_logits(*cutouts)
    assert 0 < np.abs(after - before).max() < 1.5
    assert np.median(np.abs(after - before)) < 0.25
    for member in (MEMBERS.index("OU-VIS"), MEMBERS.index("OU-66")):
        assert np.corrcoef(before[:, member], after[:, member])[0, 1] > 0.98


def test_whoever_asks_gets_the_same_bits(made, cutouts):
    """By the graph of the screen, of the members that turn, or of all; alone or among others."""
    opened = open_session(made, "cpu", screens=True)
    whole = opened.plain_logits(*cutouts)
    for part, names in (
        (opened.screen_logits(*cutouts), made.manifest.screen.members),
        (opened.turned_logits(*cutouts), made.manifest.second_look.members),
    ):
        columns = [MEMBERS.index(name) for name in names]
        np.testing.assert_array_equal(part[:, columns], whole[:, columns])
    np.testing.assert_array_equal(opened.plain_logits(*(array[5:6] for array in cutouts)), whole[5:6])


def test_the_bundle_says_what_it_is_and_what_that_changes(exact, made):
    before = exact.manifest
    manifest = made.manifest
    assert (before.arithmetic, manifest.arithmetic, manifest.version) == ("float32", "int8", f"{before.version}+int8")
    for name in ("calibration", "screen", "second_look", "thresholds", "trained_on", "grid"):
        assert getattr(manifest, name) == getattr(before, name)
    (change,) = manifest.metrics[len(before.metrics) :]
    # Of 104 non-lenses one may pass at 1e-2, none at 1e-3.
    assert (change.metric, change.set, change.n_pos, change.n_neg) == (change_at(1e-2), "all sets", 104, 104)
    assert -0.2 < change.low <= change.value <= change.high < 0.2
    card = (made.path / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {manifest.name} {manifest.version}\n")
    assert f"| rings | 104 | 104 | {change.value:.3f} [{change.low:.3f}, {change.high:.3f}] | too few |" in card


def test_the_change_is_counted_by_what_a_scan_scores(exact, made, rings):
    """Brute force: both scorers over all objects that set no range."""
    data = LabelledSet(rings)
    is_lens = data.truth.is_lens
    generator, ranged = np.random.default_rng(0), np.zeros(240, bool)
    for kind in (np.flatnonzero(is_lens), np.flatnonzero(~is_lens)):
        ranged[generator.choice(kind, 16, replace=False)] = True
    recall = []
    for bundle in (exact, made):
        (batch, vis, nisp) = next(data.batches(np.arange(240), 240))
        scorer = Scorer(bundle, "cpu", screen="auto")
        found = scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags).calibrated
        second = np.sort(found[~is_lens & ~ranged])[-2]
        recall.append(np.mean(found[is_lens & ~ranged] > second))
    assert made.manifest.metrics[-1].value == pytest.approx(recall[1] - recall[0], abs=1e-9)


def test_its_networks_can_be_read_back_as_rounded(exact, made, cutouts):
    """For explanations and further training: torch with the rounded weights stays near the integers' log-odds."""
    given = read_members(exact.path / "ensemble.onnx")
    rounded = read_members(made.path / "ensemble.onnx")
    for member in MEMBERS:
        for name, value in given[member].state_dict().items():
            found = rounded[member].state_dict()[name]
            if value.ndim == 4:
                # Half a step of a kernel's scale, which is its largest weight over 127.
                step = value.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
                assert ((found - value).abs() <= 0.51 * step).all()
                assert not torch.equal(found, value)
    whole = open_session(made, "cpu").plain_logits(*cutouts)
    images = member_input("OU-66", *cutouts, preprocessing="asinh_mad")
    with torch.inference_mode():
        logits = rounded["OU-66"](torch.from_numpy(images).float())
    difference = (logits[:, 1] - logits[:, 0]).numpy() - whole[:, MEMBERS.index("OU-66")]
    assert np.abs(difference).max() < 1.5


def test_made_again_a_graph_has_the_same_bytes(exact, cutouts):
    names = ("vis", "nisp", "sky", "sigma")
    feeds = [{name: array[row : row + 1] for name, array in zip(names, cutouts, strict=True)} for row in range(4)]
    first, second = (quantised.quantised_graph(exact.screen_model, feeds) for _ in range(2))
    assert first == second
    assert len(first) < 0.7 * len(exact.screen_model)


def test_networks_without_convolutions_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(quantised, "RANGE_OBJECTS", 8)
    eighth = with_eighth(tmp_path).bundle
    others = write_rings(tmp_path / "others", seed=6)
    made = scanner.quantise(eighth, others, tmp_path / "int8", provider="cpu").bundle
    assert (made.model, made.further) == (eighth.model, eighth.further)


def test_a_set_may_give_all_of_its_objects_for_the_ranges(tmp_path, monkeypatch):
    """Three sets of two objects beside one of 40: with 42 of 46 for the ranges, one of the small ones is spent whole."""
    monkeypatch.setattr(quantised, "RANGE_OBJECTS", 42)
    monkeypatch.setattr(quantised, "FEWEST_OF_CLASS", 2)
    sets = [write_rings(tmp_path / f"few-{seed}", n=2, seed=seed) for seed in (7, 8, 9)]
    sets.append(write_rings(tmp_path / "many", n=40, seed=6))
    made = scanner.quantise(light_bundle(tmp_path / "light"), sets, tmp_path / "int8", provider="cpu")
    assert made.bundle.manifest.arithmetic == "int8"
    assert made.changes == (), "two non-lenses are too few to measure on"


def test_what_cannot_be_is_refused(exact, made, rings, tmp_path, monkeypatch):
    version = made.manifest.version
    with pytest.raises(UsageError, match=r"computes in 8-bit integers already; give the bundle that it was made from\.$"):
        scanner.quantise(made, rings, tmp_path / "again")
    with pytest.raises(
        UsageError, match=rf"is {exact.manifest.name} {version.replace('+', '.')} already; name another --version\.$"
    ):
        scanner.quantise(made, rings, tmp_path / "again", version=version)
    with pytest.raises(ContentError, match=r"148 lenses and as many others are needed; give larger sets, or more of them\.$"):
        scanner.quantise(exact, rings, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    old = tmp_path / "cpuinfo"
    old.write_text("flags : fpu avx2 avx512f\n")
    monkeypatch.setattr(session, "PROCESSOR", old)
    monkeypatch.setattr(session.platform, "machine", lambda: "x86_64")
    with pytest.raises(UsageError, match=r"no VNNI; choose the bundle that it was made from\.$"):
        open_session(made, "cpu")
    monkeypatch.setattr(session.platform, "machine", lambda: "aarch64")
    assert open_session(made, "cpu").provider == "cpu"
