import errno
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from programs import start_scanner
from tile_jobs import job_of, left_by, run_folder
from waiting import LIMIT_S

from scanner.config import StorageConfig
from scanner.cutouts.store import CutoutStore
from scanner.processes import cores
from scanner.records import ImageRef
from scanner.storage import open_store
from scanner.survey.scan import tile
from scanner.survey.scan.output import TileOutput
from scanner.survey.scan.scratch import worker_scratch
from scanner.survey.scan.tile import load_scorer, parallel_scores, prefetch_tile, scan_tile, score_batch

UNREACHABLE = StorageConfig(endpoint="http://127.0.0.1:9", retries=0, timeout_s=2.0, anonymous=True)


@pytest.fixture(scope="module")
def scanned(sky, tmp_path_factory):
    """The first tile, scanned plainly; not to be changed."""
    job = job_of(sky, tmp_path_factory.mktemp("scanned"), cutouts__keep="all")
    outcome = scan_tile(job)
    assert outcome.commit is not None
    return job, outcome.commit


@pytest.mark.parametrize(("parallel", "batch"), [(2, 4), (5, 3), (None, 64), (1, 1)])
def test_neither_threads_nor_batches_change_a_byte(sky, scanned, tmp_path, parallel, batch):
    again = {"cutouts__keep": "all", "engine__parallel_scores": parallel, "cutouts__batch_size": batch}
    job = job_of(sky, tmp_path, **again)
    assert scan_tile(job).failed is None
    assert left_by(job) == left_by(scanned[0])


def test_one_batch_is_cut_and_one_written_while_one_is_scored(sky, scanned, tmp_path, monkeypatch):
    """The second batch is not scored before the third is cut and the first written; one after the other, it would never be."""
    happened, scored = {"3 cut": threading.Event(), "1 written": threading.Event()}, []
    n_cut = []

    def count_cut(n):
        n_cut.append(n)
        if len(n_cut) == 3:
            happened["3 cut"].set()

    def write(self, *words):
        append(self, *words)
        happened["1 written"].set()

    def score(scorer, batch):
        scored.append(batch)
        if len(scored) == 2:
            assert all(event.wait(LIMIT_S) for event in happened.values())
        return score_batch(scorer, batch)

    append = TileOutput.append
    monkeypatch.setattr(tile.metrics, "objects_cut", count_cut)
    monkeypatch.setattr(TileOutput, "append", write)
    monkeypatch.setattr(tile, "score_batch", score)
    job = job_of(sky, tmp_path, cutouts__keep="all")
    assert scan_tile(job).failed is None
    assert len(n_cut) >= 3
    assert left_by(job) == left_by(scanned[0])


def test_the_commit_counts_what_is_there(scanned):
    job, commit = scanned
    folder = Path(job.run_folder, "tiles", job.tile.tile_id)
    rows = pq.read_table(folder / "scores.parquet")
    assert commit.n_targets == len(rows) == len(CutoutStore(folder / "cutouts.zarr")) > 8
    assert commit.n_scored == np.isfinite(rows["p_calibrated"].to_numpy()).sum()
    assert commit.n_flagged == (rows["flags"].to_numpy() != 0).sum()
    assert commit.n_decided == np.asarray(rows["is_candidate"]).sum() > 0
    files = {reference.path for band in job.tile.bands.values() for reference in (band.image, band.rms, band.flag) if reference}
    files.add(job.tile.catalogue.path)
    assert commit.bytes_read == sum(Path(path).stat().st_size for path in files)
    assert commit.bundle_fingerprint == job.bundle_fingerprint
    assert "onnxruntime" in commit.machine


@pytest.mark.parametrize("parallel", [1, 2])
def test_processor_time_is_all_accounted_for(sky, tmp_path, parallel):
    """Stages, scoring threads and what libraries do on their own add up to what the process spent, and no more."""
    job = job_of(sky, tmp_path, engine__parallel_scores=parallel)
    load_scorer(job)
    wall, core = time.perf_counter(), time.process_time()
    commit = scan_tile(job).commit
    wall, core = time.perf_counter() - wall, time.process_time() - core
    stages = {"open", "targets", "cut", "score", "store", "commit"}
    assert commit.seconds.keys() == {*stages, "tile"}
    assert commit.core_seconds.keys() == {*stages, "other"}
    # Each is rounded to a millisecond; the process does a little before and after.
    assert 0 < sum(commit.core_seconds.values()) <= core + 0.01
    assert max(commit.seconds.values()) == commit.seconds["tile"] <= wall + 0.001
    assert commit.gpu_seconds == 0


def test_a_gpu_is_held_for_the_whole_task(sky, tmp_path, monkeypatch):
    job = job_of(sky, tmp_path)
    scorer = load_scorer(job)
    monkeypatch.setattr(scorer, "provider", "cuda")
    commit = scan_tile(job).commit
    assert commit.seconds["score"] < commit.gpu_seconds <= commit.seconds["tile"]
    assert "provider cuda" in commit.machine


def test_progress_goes_from_nothing_to_all(sky, tmp_path):
    seen = []
    commit = scan_tile(job_of(sky, tmp_path), seen.append).commit
    n = commit.n_targets
    assert [progress.doing for progress in seen if progress.doing] == ["opening", "finding objects"]
    counted = [progress for progress in seen if not progress.doing]
    assert [progress.n_done for progress in counted] == [*range(0, n, 4), n]
    assert {progress.n_targets for progress in counted} == {n}


def test_a_tile_that_is_committed_is_not_scanned_again(scanned):
    job, commit = scanned
    seen = []
    assert scan_tile(job, seen.append).commit == commit
    assert seen == []


@pytest.mark.parametrize("changed", ["config_fingerprint", "bundle_fingerprint"])
def test_a_commit_of_other_settings_stands(sky, tmp_path, changed):
    """No run gets so far: it refuses such a tile when it begins."""
    job = job_of(sky, tmp_path)
    commit = scan_tile(job.model_copy(update={changed: "another"})).commit
    assert "another worker" in scan_tile(job).temporary.reason
    assert run_folder(job).commit_of(job.tile.tile_id) == commit


class GivenUp(BaseException):
    """What an engine raises to have a tile left."""


def test_a_tile_that_is_given_up_leaves_nothing(sky, tmp_path):
    def give_up(progress):
        if progress.n_done:
            raise GivenUp

    job = job_of(sky, tmp_path / "out", cutouts__keep="all", engine__scratch=str(tmp_path / "scratch"))
    with pytest.raises(GivenUp):
        scan_tile(job, give_up)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not list(worker_scratch(job.config.engine).path.glob("[!.]*"))


def test_a_tile_that_cannot_be_read_has_failed(sky, tmp_path):
    job = job_of(sky, tmp_path)
    files = job.tile.bands["VIS"].model_copy(update={"image": ImageRef(path="nowhere.fits")})
    tile = job.tile.model_copy(update={"bands": {**job.tile.bands, "VIS": files}})
    outcome = scan_tile(job.model_copy(update={"tile": tile}))
    assert outcome.failed.tile_id == tile.tile_id
    assert "nowhere.fits" in outcome.failed.reason


def test_a_folder_that_cannot_be_written_stops_the_run(sky, tmp_path):
    (tmp_path / "file").touch()
    outcome = scan_tile(job_of(sky, tmp_path / "file"))
    assert outcome.fatal.exit_code == 73
    assert "cannot be written" in outcome.fatal.message


def test_a_full_disk_in_the_middle_stops_the_run_and_leaves_nothing(sky, tmp_path, monkeypatch):
    def full(self, *words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("scanner.survey.scan.output.TileOutput.append", full)
    outcome = scan_tile(job_of(sky, tmp_path))
    assert outcome.fatal.exit_code == 73
    assert "the disk is full" in outcome.fatal.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_missing_bundle_stops_the_run(sky, tmp_path):
    outcome = scan_tile(job_of(sky, tmp_path).model_copy(update={"bundle": str(tmp_path / "no-bundle")}))
    assert outcome.fatal.exit_code == 66
    assert "no-bundle" in outcome.fatal.message


def test_a_store_that_does_not_answer_is_passing(sky):
    outcome = scan_tile(job_of(sky, "s3://bucket/run", storage=UNREACHABLE))
    assert outcome.temporary.tile_id
    assert "s3://bucket" in outcome.temporary.reason


def test_an_internal_error_names_tile_and_line(sky, tmp_path, monkeypatch, caplog):
    def wrong(*words):
        raise ValueError("shapes (3,) and (4,)")

    monkeypatch.setattr(tile, "score_batch", wrong)
    job = job_of(sky, tmp_path)
    with caplog.at_level(logging.ERROR):
        outcome = scan_tile(job)
    reason = outcome.failed.reason
    assert reason.startswith(f"tile {job.tile.tile_id}: internal error")
    assert "ValueError: shapes (3,) and (4,) (tile.py:" in reason
    assert caplog.records[0].tile == job.tile.tile_id
    assert caplog.records[0].exc_info[0] is ValueError


def test_cores_are_shared_among_the_workers(sky, tmp_path):
    job = job_of(sky, tmp_path, engine__parallel_scores="none")
    assert parallel_scores(job.config, 1) == cores()
    assert parallel_scores(job.config, 10 * cores()) == 1
    assert parallel_scores(job_of(sky, tmp_path, engine__parallel_scores=7).config, 1) == 7
    threads = job_of(sky, tmp_path, engine__parallel_scores="none", scoring__threads=cores())
    assert parallel_scores(threads.config, 1) == 1


def test_a_killed_worker_leaves_a_tile_that_another_scans(sky, scanned, tmp_path):
    """SIGKILL in the middle of a tile: the next worker in the same folders ends with the same bytes, and sweeps."""
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    job = job_of(sky, out, cutouts__keep="all", engine__scratch=str(scratch))
    program = (
        "import os, signal, sys\nfrom scanner.survey.messages import TileJob\n"
        "from scanner.survey.scan.tile import scan_tile\n"
        "die = lambda progress: progress.n_done and os.kill(os.getpid(), signal.SIGKILL)\n"
        "scan_tile(TileJob.model_validate_json(sys.argv[1]), die)\n"
    )
    words = ["-c", program, job.model_dump_json()]
    assert start_scanner(words, log=tmp_path / "log", environment=os.environ, folder=tmp_path).wait() == -9
    assert len(list(scratch.iterdir())) == 1
    assert scan_tile(job).commit is not None
    assert left_by(job) == left_by(scanned[0])
    assert [folder.name for folder in scratch.iterdir()] == [worker_scratch(job.config.engine).path.name]


def test_from_and_to_an_object_store(sky, scanned, s3, tmp_path):
    """Fetched ahead or not, a tile on S3 gives the bytes of the local one, and scratch is empty afterwards."""
    place = s3.fresh()
    store = open_store(place, s3.config)
    for path in sky.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(sky).as_posix(), path.read_bytes())
    scratch = tmp_path / "scratch"
    job = job_of(place, s3.fresh(), storage=s3.config, cutouts__keep="all", engine__scratch=str(scratch))
    ahead = worker_scratch(job.config.engine).path / job.tile.tile_id
    prefetch_tile(job)
    assert len([path for path in ahead.rglob("*") if path.is_file()]) > 4
    worker_scratch(job.config.engine).forget_all()
    assert not ahead.exists()
    prefetch_tile(job)
    commit = scan_tile(job).commit
    assert not ahead.exists()
    told, content = left_by(job)
    expected, files = left_by(scanned[0])
    assert content == files
    prints = {"input_fingerprint", "input_files"}
    assert {name for name in told if told[name] != expected[name]} == prints
    assert commit.seconds["fetch"] > 0


def test_a_file_that_is_replaced_after_it_was_fetched_is_fetched_again(sky, s3, tmp_path):
    place = s3.fresh()
    store = open_store(place, s3.config)
    for path in sky.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(sky).as_posix(), path.read_bytes())
    job = job_of(place, tmp_path / "out", storage=s3.config, engine__scratch=str(tmp_path / "scratch"))
    prefetch_tile(job)
    key = job.tile.catalogue.path.removeprefix(f"{place}/")
    store.write(key, b"another version")
    outcome = scan_tile(job)
    assert job.tile.catalogue.path in outcome.failed.reason


def test_a_fetch_that_fails_is_left_to_the_scan(sky, tmp_path):
    job = job_of(sky, tmp_path, storage=UNREACHABLE)
    files = job.tile.bands["VIS"].model_copy(update={"image": ImageRef(path="s3://bucket/vis.fits")})
    far = job.model_copy(update={"tile": job.tile.model_copy(update={"bands": {**job.tile.bands, "VIS": files}})})
    assert prefetch_tile(far) is None
    assert "s3://bucket" in scan_tile(far).temporary.reason
