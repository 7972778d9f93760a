import json
import os
from pathlib import Path

import pytest
from programs import start_scanner
from tile_jobs import job_of, left_by, run_folder

from scanner.config import StorageConfig
from scanner.cutouts.store import CutoutStore
from scanner.survey.messages import CutOutcome
from scanner.survey.scan import output
from scanner.survey.scan.tile import cut_tile, scan_tile, score_tile

UNREACHABLE = StorageConfig(endpoint="http://127.0.0.1:9", retries=0, timeout_s=2.0, anonymous=True)


def waiting(job):
    """The folder of a local handover."""
    return Path(job.run_folder, "handover", job.tile.tile_id)


@pytest.fixture(scope="module")
def whole(sky, tmp_path_factory):
    """What a tile leaves that is scanned in one task, by rule and codec, each made when it is first asked for."""
    made = {}

    def left(number, keep, codec):
        if (number, keep, codec) not in made:
            job = job_of(sky, tmp_path_factory.mktemp("whole"), number, cutouts__keep=keep, cutouts__codec=codec)
            scan_tile(job)
            made[number, keep, codec] = left_by(job)
        return made[number, keep, codec]

    return left


@pytest.mark.parametrize(
    ("keep", "codec"),
    [("all", "exact"), ("all", "compact"), ("candidates", "compact"), ("sample:0.4", "exact"), ("none", "exact")],
)
def test_two_tasks_leave_the_bytes_of_one(sky, whole, tmp_path, keep, codec):
    job = job_of(sky, tmp_path, cutouts__keep=keep, cutouts__codec=codec)
    cut = cut_tile(job)
    outcome = score_tile(job, CutOutcome.model_validate_json(cut.model_dump_json()))
    assert left_by(job) == whole(0, keep, codec)
    assert not waiting(job).exists()
    stages = {"open", "targets", "cut", "fetch", "score", "store", "commit"}
    assert outcome.commit.core_seconds.keys() == {*stages, "other"}
    assert outcome.commit.seconds["tile"] >= outcome.commit.seconds["score"]


def test_two_tasks_leave_the_bytes_of_one_with_test_time_augmentation(sky, tmp_path):
    flags = {"augmented": True, "targets__magnitude_limit": 21.0, "cutouts__batch_size": 3, "cutouts__keep": "all"}
    job, one = job_of(sky, tmp_path / "two", **flags), job_of(sky, tmp_path / "one", **flags)
    assert score_tile(job, cut_tile(job)).commit.n_targets > 3
    scan_tile(one)
    assert left_by(job) == left_by(one)


def test_a_tile_that_has_to_be_resampled(sky, whole, tmp_path):
    job = job_of(sky, tmp_path, 1, cutouts__keep="all", cutouts__codec="exact")
    score_tile(job, cut_tile(job))
    assert left_by(job) == whole(1, "all", "exact")


def test_a_tile_without_targets(sky, tmp_path):
    faint = {"targets__magnitude_limit": 1.0, "cutouts__keep": "all"}
    job, one = job_of(sky, tmp_path / "two", **faint), job_of(sky, tmp_path / "one", **faint)
    assert score_tile(job, cut_tile(job)).commit.n_targets == 0
    scan_tile(one)
    assert left_by(job) == left_by(one)


def test_scoring_reads_no_mosaic(sky, whole, tmp_path):
    job = job_of(sky, tmp_path / "out")
    cut = cut_tile(job)
    nowhere = json.loads(job.tile.model_dump_json().replace(str(sky), "/nowhere"))
    elsewhere = job.model_copy(update={"tile": job.tile.model_validate(nowhere)})
    assert score_tile(elsewhere, cut).commit.n_targets > 0
    assert left_by(job) == whole(0, "candidates", "compact")


def test_the_handover_holds_every_object_whatever_is_kept(sky, tmp_path):
    job = job_of(sky, tmp_path, cutouts__keep="none", cutouts__codec="compact")
    seen = []
    cut_tile(job, seen.append)
    store = CutoutStore(waiting(job) / "cutouts.zarr")
    assert len(store) == seen[-1].n_targets > 8
    assert store.attributes.codec == "exact"
    assert {progress.n_done for progress in seen} == {0}


def test_a_handover_that_stands_is_not_cut_again(sky, tmp_path):
    job = job_of(sky, tmp_path)
    first = cut_tile(job)
    seen, record = [], (waiting(job) / "handover.json").read_bytes()
    assert cut_tile(job, seen.append) == first
    assert seen == []
    assert (waiting(job) / "handover.json").read_bytes() == record


def test_a_tile_that_is_committed_is_neither_cut_nor_scored(sky, tmp_path):
    job, seen = job_of(sky, tmp_path), []
    commit = score_tile(job, cut_tile(job)).commit
    cut = cut_tile(job, seen.append)
    assert not waiting(job).exists()
    assert score_tile(job, cut, seen.append).commit == commit
    assert seen == []


@pytest.mark.parametrize("changed", ["settings", "inputs"])
def test_a_handover_of_other_settings_or_inputs_is_never_used(sky, tmp_path, changed):
    job = job_of(sky, tmp_path)
    cut = cut_tile(job)
    if changed == "settings":
        job = job.model_copy(update={"config_fingerprint": "other"})
    else:
        cut = cut.model_copy(update={"input_fingerprint": "other"})
    outcome = score_tile(job, cut)
    assert "has to be cut again" in outcome.temporary.reason
    assert run_folder(job).commit_of(job.tile.tile_id) is None
    again = cut_tile(job)
    commit = score_tile(job, again).commit
    assert (commit.config_fingerprint, commit.input_fingerprint) == (job.config_fingerprint, again.input_fingerprint)


@pytest.mark.parametrize("damage", ["record", "chunk", "gone"])
def test_a_damaged_handover_is_removed_and_cut_again(sky, whole, tmp_path, damage):
    job = job_of(sky, tmp_path)
    cut = cut_tile(job)
    folder = waiting(job)
    path = folder / "handover.json" if damage == "record" else folder / "cutouts.zarr" / "vis" / "c" / "0" / "0" / "0"
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2 - 100 : len(content) // 2 + 100] = bytes(200)
        path.write_bytes(content)
    assert "has to be cut again" in score_tile(job, cut).temporary.reason
    assert not (folder / "cutouts.zarr").exists() or damage == "record"
    assert score_tile(job, cut_tile(job)).commit is not None
    assert left_by(job) == whole(0, "candidates", "compact")
    assert not folder.exists()


PLACES = ("cutting", "before its handover", "after its handover", "scoring", "after the commit")
#: One process whose children each die in another place, so that it imports everything once.
KILLED = """
import os, signal, sys
from scanner.survey.scan import output
from scanner.survey.messages import TileJob
from scanner.survey.scan.tile import cut_tile, score_tile

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_late(progress):
    if progress.n_done:
        die()

def work(job, place):
    if place == "before its handover":
        output.write_record = die
    cut = cut_tile(job, die if place == "cutting" else lambda _: None)
    if place == "after its handover":
        die()
    if place == "after the commit":
        output.remove = die
    score_tile(job, cut, die_late if place == "scoring" else lambda _: None)

for line in sys.argv[1].splitlines():
    place, job = line.split(": ", 1)
    child = os.fork()
    if not child:
        work(TileJob.model_validate_json(job), place)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, place
"""


@pytest.fixture(scope="module")
def killed(sky, tmp_path_factory):
    """Jobs by the place where the worker was killed that had them."""
    jobs = {}
    for place in PLACES:
        folder = tmp_path_factory.mktemp("killed")
        jobs[place] = job_of(sky, folder / "out", engine__scratch=str(folder / "scratch"))
    orders = "".join(f"{place}: {job.model_dump_json()}\n" for place, job in jobs.items())
    log = folder / "log"
    process = start_scanner(["-c", KILLED, orders], log=log, environment=os.environ, folder=folder)
    assert process.wait() == 0, log.read_text()
    return jobs


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_that_is_killed_anywhere(whole, killed, place):
    job = killed[place]
    assert (run_folder(job).commit_of(job.tile.tile_id) is not None) == (place == "after the commit")
    assert (waiting(job) / "handover.json").exists() == (place not in ("cutting", "before its handover"))
    assert score_tile(job, cut_tile(job)).commit is not None
    assert left_by(job) == whole(0, "candidates", "compact")
    assert not waiting(job).exists()


def test_failures_of_the_cut_come_out_of_the_scoring(sky, tmp_path):
    job = job_of(sky, tmp_path)
    missing = json.loads(job.tile.model_dump_json().replace(str(sky), "/nowhere"))
    broken = job.model_copy(update={"tile": job.tile.model_validate(missing)})
    cut = cut_tile(broken)
    assert "/nowhere" in cut.failed.reason
    assert score_tile(broken, cut).failed == cut.failed
    far = job_of(sky, "s3://bucket/run", storage=UNREACHABLE)
    assert score_tile(far, cut_tile(far)).temporary is not None
    (tmp_path / "file").touch()
    unwritable = job_of(sky, tmp_path / "file")
    assert score_tile(unwritable, cut_tile(unwritable)).fatal.exit_code == 73


def test_through_an_object_store(sky, whole, s3, tmp_path):
    job = job_of(sky, s3.fresh(), storage=s3.config, engine__scratch=str(tmp_path), cutouts__keep="all", cutouts__codec="exact")
    folder = run_folder(job)
    cut = cut_tile(job)
    assert folder.store.exists(f"handover/{job.tile.tile_id}/handover.json")
    record = output.find(folder, job.tile.tile_id, cut.input_fingerprint, job.config_fingerprint)
    # A file of the cutouts is lost on the way.
    folder.store.delete(f"handover/{job.tile.tile_id}/{record.place}/cutouts.zarr/nisp/c")
    assert "has to be cut again" in score_tile(job, cut).temporary.reason
    assert score_tile(job, cut_tile(job)).commit is not None
    assert left_by(job) == whole(0, "all", "exact")
    with pytest.raises(FileNotFoundError):
        folder.store.fetch("handover", tmp_path / "left")
    assert not list(tmp_path.glob("*/[!.]*"))
