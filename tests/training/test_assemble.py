"""From a dataset to a published bundle, through the command line where there is one."""

import json
import multiprocessing
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from PIL import Image

from scanner.cli.main import main
from scanner.ensemble import bundles
from scanner.ensemble.bundle import MODEL_FILE
from scanner.ensemble.embedding_grid import GridRule
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, InputMissingError, ScannerError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBER_PIXELS, MEMBERS
from scanner.training.assemble import read_ensemble, training_logits
from scanner.training.card import model_card
from scanner.training.data import TrainingData, scale_data
from scanner.training.export import read_members
from scanner.training.jobs import TrainingJob, all_jobs, run_job, run_jobs
from scanner.training.presets import BEST, PAPER, PRESETS, SHARE, time_shares
from scanner.training.trainer import Feed

STAGE_LISTS = ("stages_200", "stages_66", "copied_200", "copied_66", "continued_200", "continued_66")
BRIEF = BEST.model_copy(
    update={
        name: tuple(stage.model_copy(update={"passes": 0.2, "batch": 8, "validations": 1}) for stage in getattr(BEST, name))
        for name in STAGE_LISTS
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_dataset):
    """A training set, a held-out set, and seven members that have seen next to nothing."""
    root = tmp_path_factory.mktemp("assemble")
    write_dataset(root / "train", 56, 0)
    write_dataset(root / "held-out", 24, 1)
    fits.writeto(root / "ringlet.fits", np.random.default_rng(3).normal(size=(210, 210)).astype(np.float32))
    (root / "known.txt").write_text("id=ringlet VIS=ringlet.fits scale=0.1\n")
    first = TrainingJob(
        data=(root / "train",), out=root / "runs", member="OU-J", preset=BRIEF, seed=1, mirror=str(root / "mirror")
    )
    for job in all_jobs(first, 1):
        run_job(job)
    return root


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def bundle_words(place, name="bundle", *, evaluated=True):
    words = ["train", "bundle", "--data", place / "train", "--members", place / "runs", "--out", place / name]
    if evaluated:
        words += ["--evaluate-on", place / "held-out", "--known", place / "known.txt", "--rotations", "0"]
    return [*words, "--name", "rings", "--licence", "CC-BY-4.0", "--embed", "100", "--jobs", "1"]


@pytest.fixture(scope="module")
def bundle(place):
    """Made where one member was lost and comes from the mirror, and published."""
    shutil.rmtree(place / "runs" / "OU-H")
    assert run(*bundle_words(place), "--mirror", place / "mirror", "--publish", place / "store") == 0
    return bundles.load(place / "bundle")


def test_the_bundle_is_published(bundle, place):
    published = bundles.load(str(place / "store" / "latest"))
    assert published.fingerprint == bundle.fingerprint
    assert published.location == str((place / "store" / bundle.fingerprint).resolve())
    assert not (place / "store" / "current.json").exists()


def test_the_bundle_is_whole(bundle, place):
    assert bundle.manifest.name == "rings"
    assert bundle.manifest.preprocessing == "asinh_mad"
    assert bundle.manifest.decides_on == "grid"
    assert bundle.manifest.thresholds[0].beta == 0.03
    assert bundle.grid.counts.sum() == 100
    assert {metric.member for metric in bundle.manifest.metrics} == {*MEMBERS, "grid", "calibrated"}
    assert [point.beta for point in bundle.manifest.thresholds] == [0.03, 0.1, 0.3, 1.0, 2.0]
    assert bundle.grid.counts.shape == (5, 5)
    card = (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Simulations are not the sky" in card
    assert bundle.manifest.licence == "CC-BY-4.0"
    assert "Licence of the weights: CC-BY-4.0." in card
    assert "| ringlet | " in card
    metric = next(m for m in bundle.manifest.metrics if (m.member, m.metric) == ("calibrated", "auroc"))
    assert f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]" in card
    assert "is the lowest whose F-beta is within a standard error of the highest at β = 0.03" in card
    assert "from OU-VIS" in bundle.manifest.members[-1].source
    assert bundle.manifest.trained_on == (LabelledSet(place / "train").fingerprint,)


def test_the_paper_figures_are_drawn(bundle, place):
    for name in ("roc.png", "embedding.png", "groups.png"):
        with Image.open(place / "runs" / name) as picture:
            assert min(picture.size) > 400
    rows = pq.read_table(place / "runs" / "OU-66" / "history.parquet").to_pylist()
    assert [row["stage"] for row in rows] == ["crop", "full", "dense"]


def test_the_papers_grid(bundle, place):
    """Section 3.3: the outputs for the training set as it is; nothing is scored twice."""
    assert run(*bundle_words(place, "paper", evaluated=False), "--paper", "--cells", 4) == 0
    made = bundles.load(place / "paper")
    assert made.grid.rule == GridRule(embeds="probabilities", places="opentsne")
    assert (made.manifest.second_look, made.manifest.screen) == (None, None)
    assert made.threshold() == made.curve.best(0.03, exact=True).threshold
    assert made.threshold(0.77) == made.curve.best(0.77, exact=True).threshold
    assert "The default threshold maximises F-beta at β = 0.03" in (made.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    data = TrainingData([place / "train"])
    assert made.grid.counts.sum() == len(made.grid.logits) == len(data.split.train)
    session = open_session(made)
    batch, vis, nisp = next(data.batches(data.split.train[:3], 3))
    np.testing.assert_allclose(made.grid.logits[:3], session.logits(vis, nisp, batch.sky, batch.sigma), atol=1e-4)


def test_the_card_states_the_shares_of_the_preset(bundle, place):
    records = {
        member: record.model_copy(update={"plan": record.plan.model_copy(update={"preset": PAPER})})
        for member, record in read_ensemble(place / "runs").records.items()
    }
    card = " ".join(model_card(bundle.manifest, records, "", 80, None).split())
    assert "were trained on (75%," in card
    assert "5% chose the best weights, 20% set the calibration and the thresholds" in card


def test_log_odds_are_scored_once_and_go_on(bundle, place):
    data = TrainingData([place / "train"])
    cache = place / "runs" / "log-odds"
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert run(*bundle_words(place)) == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == files
    assert bundles.load(place / "bundle").fingerprint == bundle.fingerprint
    rows, turned = np.array([7, 3, 50]), np.array([0, 5, 2])
    plain = bundles.load(cache / "plain-bundle")
    found = training_logits(plain, data, rows, turned, place / "others")
    session = open_session(plain)
    for row, orientation, logits in zip(rows, turned, found, strict=True):
        batch, vis, nisp = next(data.batches(np.array([row]), 1))
        images = [
            np.ascontiguousarray(np.rot90(x[..., ::-1] if orientation > 3 else x, orientation % 4, (-2, -1)))
            for x in (vis, nisp)
        ]
        np.testing.assert_allclose(session.logits(*images, batch.sky, batch.sigma)[0], logits, atol=1e-5)


def test_the_graph_gives_the_members_log_odds(bundle, place):
    data = TrainingData([place / "train"])
    ensemble = read_ensemble(place / "runs", data.fingerprint)
    images = scale_data(data, place / "runs" / "scaled-asinh_mad", "asinh_mad")
    rows = np.arange(6)
    batch, vis, nisp = next(data.batches(rows, 6))
    found = open_session(bundle).logits(vis, nisp, batch.sky, batch.sigma)
    for number, member in enumerate(MEMBERS):
        with torch.inference_mode():
            logits = ensemble.networks[member](Feed(images, member, MEMBER_PIXELS[member]).read(rows))
        # The trainer's images are float16.
        np.testing.assert_allclose(found[:, number], (logits[:, LENS] - logits[:, NON_LENS]).numpy(), atol=0.05)


def test_the_best_non_lenses_set_the_limit_of_a_second_look(bundle, place):
    data = TrainingData([place / "train"])
    rows = data.split.calibration
    cache = place / "runs" / "log-odds"
    plain = bundles.load(cache / "plain-bundle")
    once = training_logits(plain, data, rows, np.zeros_like(rows), cache)
    is_lens = data.labels.is_lens[rows]
    levels = bundle.calibration.log_odds(once)
    rule = bundle.manifest.second_look
    assert rule.share == 0.05
    assert rule.log_odds_above == pytest.approx(np.quantile(levels[~is_lens], 0.95))
    again = rows[levels >= rule.log_odds_above]
    assert len(again) > 0
    turned = [training_logits(plain, data, again, np.full_like(again, o), cache) for o in range(8)]
    batch, vis, nisp = next(data.batches(again, len(again)))
    found = open_session(bundle).logits(vis, nisp, batch.sky, batch.sigma)
    expected = turned[0].copy()
    two = np.isin(MEMBERS, ("OU-VIS", "OU-66"))
    assert rule.members == ("OU-VIS", "OU-66")
    expected[:, two] = rule.slope * np.mean(turned, axis=0)[:, two] + rule.intercept
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_best_non_lenses_set_the_limit_of_the_screen(bundle, place):
    data = TrainingData([place / "train"])
    rows = data.split.calibration
    is_lens = data.labels.is_lens[rows]
    cache = place / "runs" / "log-odds"
    once = training_logits(bundles.load(cache / "plain-bundle"), data, rows, np.zeros_like(rows), cache)
    screen = bundle.manifest.screen
    assert (screen.members, screen.share) == (("OU-66",), 0.1)
    screening = bundle.screening("bundle")
    assert screen.log_odds_above == pytest.approx(np.quantile(screening.calibration.log_odds(once[~is_lens]), 0.9))
    batch, vis, nisp = next(data.batches(rows, len(rows)))
    first = open_session(bundle, screens=True).screen_logits(vis, nisp, batch.sky, batch.sigma)
    np.testing.assert_allclose(first[:, MEMBERS.index("OU-66")], once[:, MEMBERS.index("OU-66")], atol=1e-5)
    assert "## Screening" in (bundle.path / "MODEL_CARD.md").read_text()


def test_a_bundle_may_take_one_look_only_at_everything(bundle, place):
    assert run(*bundle_words(place, "one-look", evaluated=False), "--second-look", "0", "--screen", "0") == 0
    manifest = bundles.load(place / "one-look").manifest
    assert (manifest.second_look, manifest.screen) == (None, None)


def test_runs_on_other_data_are_refused(place):
    with pytest.raises(ContentError, match="another dataset"):
        read_ensemble(place / "runs", "0" * 64)
    with pytest.raises(InputMissingError, match="no finished training run"):
        read_ensemble(place / "nothing", "0" * 64)


def test_members_without_a_run_are_the_bundles(bundle, place, tmp_path):
    shutil.copytree(place / "runs" / "OU-66", tmp_path / "OU-66")
    ensemble = read_ensemble(tmp_path, bundle=bundle)
    runs, exported = read_ensemble(place / "runs"), read_members(bundle.path / MODEL_FILE)
    for member in MEMBERS:
        origin = runs.networks[member] if member == "OU-66" else exported[member]
        assert all(map(torch.equal, ensemble.networks[member].parameters(), origin.parameters()))
    assert list(ensemble.records) == ["OU-66"]
    assert ensemble.sources == {entry.name: entry.source for entry in bundle.manifest.members}
    assert ensemble.trained_on([]) == bundle.manifest.trained_on
    card = model_card(bundle.manifest, ensemble.records, "", 80, None)
    assert "- OU-VIS as it was: preset " in card
    assert "- OU-66 as it was" not in card
    with pytest.raises(InputMissingError, match="no training run of any member"):
        read_ensemble(tmp_path / "nothing", bundle=bundle)
    with pytest.raises(InputMissingError, match="OU-J: no finished training run"):
        read_ensemble(tmp_path)
    other = replace(bundle, manifest=bundle.manifest.model_copy(update={"preprocessing": "minmax"}))
    with pytest.raises(ContentError, match="see minmax images"):
        read_ensemble(tmp_path, bundle=other)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "member", "OU-77", "--data", "x", "--out", "y"], 64, "OU-77"),
        (["train", "member", "OU-66", "--data", "x", "--out", "y", "--time-budget", "-1"], 64, "'-1' is no time"),
        (["train", "all", "--data", "x", "--out", "y", "--time-budget", "20"], 64, "20m"),
        (["train", "all", "--data", "x", "--out", "y", "--from", "nowhere"], 66, "no such bundle"),
        (["train", "bundle", "--data", "x", "--members", "y", "--out", "z"], 66, "not a dataset"),
    ],
)
def test_bad_input_gets_one_line(words, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_copy_waits_for_what_it_begins_from(place, tmp_path):
    job = TrainingJob(data=(place / "train",), out=tmp_path, member="OU-200", preset=BRIEF, seed=1)
    with pytest.raises(InputMissingError, match="train that one first"):
        run_job(job)


def test_two_members_go_on_from_a_bundle_side_by_side(bundle, place, tmp_path):
    first = TrainingJob(
        data=(place / "train",),
        out=tmp_path / "runs",
        member="OU-J",
        preset=BRIEF,
        seed=1,
        bundle=bundle.path,
        time_budget=60.0,
    )
    seen = []
    records = list(run_jobs(all_jobs(first, 2, ("OU-J", "OU-200")), 2, lambda event: seen.append(event.member)))
    assert {record.plan.member for record in records} == set(seen) == {"OU-J", "OU-200"}
    assert {record.plan.begins_as for record in records} == {bundle.fingerprint}
    assert {record.plan.seen_before for record in records} == {bundle.manifest.trained_on}
    with pytest.raises(UsageError, match="another --preset"):
        run_job(first.model_copy(update={"preset": PAPER}))


def test_an_error_in_a_process_is_an_error_here(place, tmp_path):
    job = TrainingJob(data=(place / "train",), out=tmp_path, member="OU-200", preset=BRIEF, seed=1)
    with pytest.raises(InputMissingError, match="train that one first"):
        list(run_jobs([job.model_copy(update={"member": "OU-H"})], 1))


def test_a_process_that_is_told_to_stop_is_not_one_that_finished(place, tmp_path):
    job = TrainingJob(data=(place / "train",), out=tmp_path, member="OU-JYH", preset=BRIEF, seed=1)

    def stop(event):
        for process in multiprocessing.active_children():
            process.terminate()

    with pytest.raises(ScannerError, match=r"the process that trained OU-(JYH|66) was stopped; give the same command again"):
        list(run_jobs([job, job.model_copy(update={"member": "OU-66"})], 2, stop))
    assert not multiprocessing.active_children()


def test_a_common_budget_is_shared(tmp_path):
    first = TrainingJob(data=(tmp_path,), out=tmp_path, member="OU-J", preset=PRESETS["best"], seed=1, time_budget=100.0)
    copies = all_jobs(first, workers=2)
    assert copies[0].member == "OU-VIS"
    assert {job.member for job in copies} == set(MEMBERS)
    # OU-200 cannot begin before OU-VIS is done.
    times = {job.member: job.time_budget for job in copies}
    assert times["OU-VIS"] + times["OU-200"] == pytest.approx(100.0)
    alone = {job.member: job.time_budget for job in all_jobs(first.model_copy(update={"bundle": tmp_path}), workers=2)}
    assert sum(alone.values()) == pytest.approx(200.0, rel=0.05)
    assert json.loads(copies[0].model_dump_json())["member"] == "OU-VIS"


def test_one_worker_does_all_in_the_time():
    shares = time_shares(MEMBERS, {}, 1)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["OU-VIS"] / shares["OU-H"] == pytest.approx(SHARE["OU-VIS"] / SHARE["OU-H"])
    assert time_shares(("OU-J",), {"OU-J": "OU-JYH"}, 2) == {"OU-J": 1.0}
