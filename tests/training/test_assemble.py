"""From a dataset to a published bundle, through the command line where there is one."""

import json

import numpy as np
import pytest

from scanner.cli.main import main
from scanner.ensemble import bundle as bundles
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, InputMissingError
from scanner.evaluation.labelled_data import Dataset
from scanner.evaluation.results import Evaluation
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBER_PIXELS, MEMBERS
from scanner.training.batches import Feed
from scanner.training.jobs import TrainingJob, all_members, run_job
from scanner.training.presets import PRESETS, QUICK
from scanner.training.runs import read_ensemble
from scanner.training.scaled import scale_dataset

torch = pytest.importorskip("torch")

STAGE_LISTS = ("stages_200", "stages_66", "started_200", "started_66")


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_dataset):
    """A training set, a held-out set, and seven members that have seen next to nothing."""
    root = tmp_path_factory.mktemp("assemble")
    write_dataset(root / "train", 80, 0)
    write_dataset(root / "held-out", 24, 1)
    brief = {"passes": 0.2, "batch": 8, "validations": 1}
    preset = QUICK.model_copy(
        update={name: tuple(stage.model_copy(update=brief) for stage in getattr(QUICK, name)) for name in STAGE_LISTS}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "quick", preset)
        first = TrainingJob(data=root / "train", out=root / "runs", member="OU-J", preset="quick", seed=1)
        for job in all_members(first, 1):
            run_job(job)
    return root


@pytest.fixture(scope="module")
def bundle(place):
    words = ["train", "bundle", "--data", place / "train", "--members", place / "runs", "--out", place / "bundle"]
    words += ["--evaluate-on", place / "held-out", "--name", "rings", "--embed", "100"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 0
    return bundles.load(place / "bundle")


def test_the_bundle_is_whole(bundle, place):
    assert bundle.manifest.name == "rings"
    assert bundle.manifest.preprocessing == "asinh_mad"
    assert bundle.manifest.decides_on == "grid"
    assert bundle.manifest.thresholds[0].beta == 0.03
    assert bundle.grid.counts.sum() == 100
    assert {metric.member for metric in bundle.manifest.metrics} == {*MEMBERS, "grid", "ranking", "calibrated"}
    card = (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Simulations are not the sky" in card
    metric = next(m for m in bundle.manifest.metrics if (m.member, m.metric) == ("calibrated", "auroc"))
    assert f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]" in card


def test_the_graph_gives_the_members_log_odds(bundle, place):
    dataset = Dataset(place / "train")
    ensemble = read_ensemble(place / "runs", dataset.fingerprint)
    images = scale_dataset(dataset, place / "runs" / "scaled-asinh_mad", "asinh_mad")
    rows = np.arange(6)
    batch, vis, nisp = next(dataset.batches(rows, 6))
    found = open_session(bundle).logits(vis, nisp, batch.sky, batch.sigma)
    for number, member in enumerate(MEMBERS):
        with torch.inference_mode():
            logits = ensemble.networks[member](torch.from_numpy(Feed(images, member, MEMBER_PIXELS[member]).read(rows)))
        # The trainer's images are float16.
        np.testing.assert_allclose(found[:, number], (logits[:, LENS] - logits[:, NON_LENS]).numpy(), atol=0.05)


def test_evaluate_writes_what_it_prints(bundle, place, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(bundle.path), "--data", str(place / "held-out"), "--out", str(place / "figures")])
    assert stopped.value.code == 0
    evaluation = Evaluation.model_validate_json((place / "figures" / "evaluation.json").read_text())
    printed = capsys.readouterr().out
    assert str(evaluation.bundles[0].find("calibrated", "all", "all").auroc).split(" ")[0] in printed
    assert evaluation.n_objects == 24
    assert (place / "figures" / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_runs_on_other_data_are_refused(place):
    with pytest.raises(ContentError, match="another dataset"):
        read_ensemble(place / "runs", "0" * 64)
    with pytest.raises(InputMissingError, match="no finished training run"):
        read_ensemble(place / "nothing", "0" * 64)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["evaluate", "--data", "nowhere"], 66, "not a dataset"),
        (["evaluate", "--data", "nowhere", "--beta", "0"], 64, "--beta"),
        (["train", "member", "OU-77", "--data", "x", "--out", "y"], 64, "OU-77"),
        (["train", "member", "OU-66", "--data", "x", "--out", "y", "--time-budget", "-1"], 64, "--time-budget"),
        (["train", "bundle", "--data", "x", "--members", "y", "--out", "z"], 66, "not a dataset"),
    ],
)
def test_bad_input_gets_one_line(words, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_copy_waits_for_what_it_begins_from(place, tmp_path):
    job = TrainingJob(data=place / "train", out=tmp_path, member="OU-200", preset="quick", seed=1)
    with pytest.raises(InputMissingError, match="train that one first"):
        run_job(job)


def test_a_common_budget_is_shared(tmp_path):
    first = TrainingJob(data=tmp_path, out=tmp_path, member="OU-J", preset="quick", seed=1, time_budget=100.0)
    jobs = all_members(first, workers=2)
    assert jobs[0].member == "OU-VIS"
    assert {job.member for job in jobs} == set(MEMBERS)
    assert sum(job.time_budget for job in jobs) == pytest.approx(200)
    assert json.loads(jobs[0].model_dump_json())["member"] == "OU-VIS"
