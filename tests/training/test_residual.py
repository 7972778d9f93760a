"""The residual network: what it is shown, that it learns, resumes and is exported, and that a bundle takes it as a member."""

import copy
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_network import light_bundle, seen

from scanner.cli.main import main
from scanner.ensemble.session import open_session
from scanner.errors import UsageError
from scanner.labelled_set import LabelledSet
from scanner.training import jobs, presets
from scanner.training.added_member import NewMember, add_member
from scanner.training.fit import FitRequest, Reports, fit
from scanner.training.presets import BEST, RESIDUAL
from scanner.training.residual import BANDS, PIXELS, ResidualNetwork, ResidualTrainer, to_onnx

SHORT = BEST.model_copy(
    update={
        "stages_residual": tuple(
            stage.model_copy(update={"passes": 5.0, "batch": 8, "validations": 2}) for stage in BEST.stages_residual
        )
    }
)


def train(labelled, folder, report=lambda rows: None, **settings):
    request = FitRequest(member=RESIDUAL, preset=SHORT, dataset_sha256="0" * 64, **{"seed": 5, **settings})
    return fit(*labelled, request, folder, Reports(validated=report))


@pytest.fixture(scope="module")
def trained(labelled, tmp_path_factory):
    """A network that has learned what a ring is, and its record."""
    return train(labelled, tmp_path_factory.mktemp("residual"))


def test_it_learns_rings(labelled, trained):
    network, record = trained
    assert isinstance(network, ResidualNetwork)
    assert (record.plan.member, record.plan.beginning) == ("residual", "random")
    assert record.validation_auroc == 1.0
    images, labels, split = labelled
    trainer = ResidualTrainer(images, labels, split, "OU-200", SHORT, 5)
    trainer.network = copy.deepcopy(network)
    log_odds = trainer.log_odds(trainer.feed(SHORT.stages_residual[0]), split.calibration)
    assert log_odds[labels.is_lens[split.calibration]].min() > log_odds[~labels.is_lens[split.calibration]].max()


def test_a_resumed_run_gives_identical_weights(labelled, trained, tmp_path):
    count = itertools.count(1)

    def stop(rows):
        if next(count) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(labelled, tmp_path, report=stop)
    resumed, _ = train(labelled, tmp_path)
    for key, value in trained[0].state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_it_is_shown_what_a_scan_shows_it(labelled, drawn):
    """The feed of the training, from scaled float16 images, against the member's input by another way, point by point."""
    images, labels, split = labelled
    vis, nisp, sky, sigma, _ = drawn(120)
    trainer = ResidualTrainer(images, labels, split, "OU-200", SHORT, 5)
    rows = np.array([3, 50, 119])
    found = trainer.feed(SHORT.stages_residual[0]).read(rows).numpy()
    wanted = seen(BANDS, PIXELS, "asinh_mad", vis[rows], nisp[rows], sky[rows], sigma[rows])
    assert found.shape == wanted.shape == (3, 4, PIXELS, PIXELS)
    np.testing.assert_allclose(found, wanted, atol=6e-4)


def test_the_exported_graph_is_the_network(labelled, trained):
    """Against torch in float64, with the statistics of its normalisation as they were learned; alone or among others."""
    network, _ = trained
    generator = np.random.default_rng(2)
    images = generator.uniform(0.1, 0.9, (5, 4, PIXELS, PIXELS)).astype(np.float32)
    with torch.inference_mode():
        logits = copy.deepcopy(network).double()(torch.from_numpy(images).double()).numpy()
    model = to_onnx(network)
    assert to_onnx(network) == model
    assert {node.op_type for node in onnx.load_model_from_string(model).graph.node}.isdisjoint({"BatchNormalization"})
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    np.testing.assert_allclose(found[:, 0], logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-5)
    (alone,) = session.run(None, {"images": images[2:3]})
    np.testing.assert_allclose(alone[0], found[2], atol=1e-5)


def test_a_new_network_is_a_function_of_its_seed():
    first, same, other = (ResidualNetwork(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not torch.equal(first["hidden.weight"], other["hidden.weight"])


def test_a_run_of_the_command_becomes_a_member_of_a_bundle(write_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(presets.PRESETS, "best", SHORT)
    data = write_dataset(tmp_path / "train", 80, 0)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "member", "residual", "--data", str(data), "--out", str(tmp_path / "runs")])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("residual: 5.0 passes in ")
    network = tmp_path / "runs" / "residual" / jobs.ONNX
    rings = LabelledSet(write_dataset(tmp_path / "held out", 60, 1))
    member = NewMember(network, "residual", BANDS, PIXELS, "asinh_mad")
    added = add_member(light_bundle(tmp_path / "light", second_look=None), member, rings, tmp_path / "eight", provider="cpu")
    assert added.bundle.manifest.further_names == ("residual",)
    assert added.own.value > 0.9
    (batch, vis, nisp) = next(rings.batches(np.arange(6), 6))
    found = open_session(added.bundle, "cpu").plain_logits(vis, nisp, batch.sky, batch.sigma)[:, -1]
    shown = seen(BANDS, PIXELS, "asinh_mad", vis, nisp, batch.sky, batch.sigma).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"]).run(None, {"images": shown})
    np.testing.assert_allclose(found, wanted[:, 0], atol=1e-3)


@pytest.mark.parametrize("words", [("--preset", "paper"), ("--from", "ou-euclid-sixth")])
def test_it_begins_from_random_weights_by_the_preset_best(write_dataset, tmp_path, words, capsys):
    data = write_dataset(tmp_path / "train", 80, 0)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "member", "residual", "--data", str(data), "--out", str(tmp_path / "runs"), *words])
    assert stopped.value.code == 64
    assert "residual begins from random weights, by preset best: leave --from and --preset out." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_preset_of_the_paper_knows_it_not():
    with pytest.raises(UsageError, match="residual begins from random weights"):
        SHORT.model_copy(update={"stages_residual": ()}).stages(RESIDUAL, "random")
