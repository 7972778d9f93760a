import os
from pathlib import Path

import numpy as np
import pytest
from made_records import commit_record, commit_tile, run_record
from programs import start_scanner
from pydantic import ValidationError

from scanner.atomic_file import tree_sha256
from scanner.config import StorageConfig
from scanner.cutouts.store import CutoutWriter
from scanner.errors import ContentError, InputMissingError, OutputError, UnavailableError
from scanner.records import CutoutBatch, Targets
from scanner.storage import open_store
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, RunFolder
from scanner.survey.folder.resume import open_run

KILLED = """
import os, sys
from scanner.config import StorageConfig
from scanner.survey.folder.ledger import RunRecord
from scanner.survey.folder.resume import open_run
storage, record = StorageConfig.model_validate_json(sys.argv[2]), RunRecord.model_validate_json(sys.argv[3])
with open_run(sys.argv[1], storage, record) as folder, folder.staged_tile("2") as staging:
    (staging.path / "scores.parquet").write_bytes(b"half")
    os._exit(9)
"""


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """Where a run folder may be made, on a disk and on an object store: location and storage settings."""
    if request.param == "local":
        return str(tmp_path / "out"), StorageConfig()
    s3 = request.getfixturevalue("s3")
    return s3.fresh(), s3.config


def batch(n):
    numbers = np.arange(n, dtype=np.float64)
    targets = Targets(np.arange(n), numbers, numbers, numbers, numbers, numbers.astype(np.float32))
    pixels = np.random.default_rng(1).standard_normal((n, 200, 200), np.float32)
    ones = np.ones((n, 4), np.float32)
    index, flags, offset = np.arange(n), np.zeros(n, np.uint32), np.zeros((n, 2), np.float32)
    nisp = np.repeat(pixels[:, None, :66, :66], 3, axis=1)
    return CutoutBatch(targets, pixels, nisp, index, index, offset, 0 * ones, 0 * ones, ones, flags)


@pytest.mark.parametrize(
    ("listed", "beginning"),
    [
        ("/sky/wide field.v2.txt", "wide-field.v2-"),
        ("s3://bucket/lists/tiles.txt", "tiles-"),
        ("/sky/.hidden", "hidden-"),
        ("/sky/Ж.txt", "run-"),
        (f"/sky/{'x' * 200}.txt", f"{'x' * 64}-"),
    ],
)
def test_runs_have_names_that_say_what_they_are_of_and_not_where(listed, beginning):
    record = run_record(tile_list=listed)
    name, _, digits = record.run_id.rpartition("-")
    assert f"{name}-" == beginning
    assert len(digits) == 8
    elsewhere = record.model_copy(update={"tile_list": f"/elsewhere/{listed.rpartition('/')[2]}", "scanner_version": "9"})
    assert elsewhere.run_id == record.run_id
    for change in ({"config_fingerprint": "d"}, {"bundle_fingerprint": "d"}, {"tile_ids": ("1", "2")}):
        assert record.model_copy(update=change).run_id != record.run_id


def test_a_tile_is_there_only_when_it_is_whole(place):
    with open_run(*place, run_record()) as folder:
        assert folder.commit_of("1") is None
        with pytest.raises(ValidationError):
            commit_tile(folder, n_scored="many")
        assert folder.commit_of("1") is None
        assert folder.committed() == ()
        commit = commit_tile(folder)
        assert folder.commit_of("1") == commit
    with open_run(*place, run_record()) as folder:
        assert folder.committed() == ("1",)
        assert folder.commit_of("1") == commit
        assert folder.scores(commit)["target_id"].to_pylist() == [1, 2, 3]


def test_a_committed_tile_stands_until_it_is_discarded(place):
    with open_run(*place, run_record()) as folder:
        first = commit_tile(folder, rows=(1, 2))
        with pytest.raises(UnavailableError, match="another worker"):
            commit_tile(folder, rows=(3,), n_targets=1)
        assert folder.commit_of("1") == first
        folder.discard("1")
        assert folder.commit_of("1") is None
        second = commit_tile(folder, rows=(3,), n_targets=1)
        assert folder.scores(second)["target_id"].to_pylist() == [3]


def test_a_worker_that_outlives_its_driver_commits_nothing(place):
    with open_run(*place, run_record()) as folder:
        workers = RunFolder(open_store(*place), folder.hold)
    with pytest.raises(UnavailableError, match="followed by another"):
        commit_tile(workers)
    with open_run(*place, run_record()) as folder:
        with pytest.raises(UnavailableError, match="followed by another"):
            commit_tile(workers)
        assert folder.commit_of("1") is None


def test_a_killed_driver_leaves_nothing_behind(tmp_path):
    location, storage = str(tmp_path / "out"), StorageConfig()
    with open_run(location, storage, run_record()) as folder:
        commit_tile(folder)
    words = ["-c", KILLED, location, storage.model_dump_json(), run_record().model_dump_json()]
    killed = start_scanner(words, log=tmp_path / "log", environment=os.environ, folder=Path(__file__).parent)
    assert killed.wait() == 9, (tmp_path / "log").read_text()
    assert len(list((tmp_path / "out" / "tiles").iterdir())) == 2
    with open_run(location, storage, run_record()) as folder:
        assert folder.committed() == ("1",)
        assert [path.name for path in (tmp_path / "out" / "tiles").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scanner_version": "0.2.0"}, "scanner 0.1.0 → 0.2.0"),
        ({"bundle_fingerprint": "x", "bundle_version": "2"}, "bundle ou 1 → ou 2"),
        ({"provider": "cuda"}, "provider cpu → cuda"),
        ({"config_fingerprint": "x", "targets__magnitude_limit": 21.0}, r"targets\.magnitude_limit 23\.0 → 21\.0"),
    ],
)
def test_another_run_is_refused_and_told_why(tmp_path, changes, told):
    out, storage = str(tmp_path), StorageConfig()
    with open_run(out, storage, run_record()):
        pass
    with pytest.raises(ContentError, match=told) as caught, open_run(out, storage, run_record(**changes)):
        pass
    assert "--restart" in str(caught.value)
    with open_run(out, storage, run_record(**changes), restart=True) as folder:
        assert folder.record() == run_record(**changes)


def test_two_drivers_on_one_folder(place):
    location, storage = place
    with (
        open_run(location, storage, run_record()) as folder,
        pytest.raises(OutputError, match=f"another scanner run.*process {os.getpid()}"),
        open_run(location, storage, run_record(provider="cuda"), restart=True),
    ):
        pass
    assert folder.record() == run_record()
    with open_run(location, storage, run_record()):
        pass


def test_restart_forgets_all_that_the_run_left(place):
    with open_run(*place, run_record()) as folder:
        commit_tile(folder)
        folder.store.write("status.json", b"{}")
    with open_run(*place, run_record(), restart=True) as folder:
        assert folder.commit_of("1") is None
        assert [entry.name for entry in folder.store.entries() if not entry.is_folder] == ["run.json"]


def test_restart_touches_nothing_outside(tmp_path):
    outside, out, storage = tmp_path / "outside", tmp_path / "out", StorageConfig()
    outside.mkdir()
    (outside / "keep").touch()
    with open_run(str(out), storage, run_record()):
        (out / "link").symlink_to(outside)
    with open_run(str(out), storage, run_record(), restart=True):
        assert not (out / "link").exists()
    assert (outside / "keep").exists()


def test_a_folder_of_other_things_is_left_alone(place):
    location, storage = place
    store = open_store(location, storage)
    store.write("thesis.tex", b"Chapter 1")
    with pytest.raises(OutputError, match="not a run's"), open_run(location, storage, run_record(), restart=True):
        pass
    assert [entry.name for entry in store.entries()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out"), open_run(str(tmp_path / "out"), StorageConfig(), run_record()):
        pass


def test_what_is_handed_over_outlives_a_session_but_not_the_run(place):
    def leave(folder):
        folder.store.write(f"{folder.handover('1')}/handover.json", b"{}")
        raise InputMissingError("the store has gone")

    with pytest.raises(InputMissingError), open_run(*place, run_record()) as folder:
        leave(folder)
    with open_run(*place, run_record()) as folder:
        assert folder.store.exists(folder.handover("1"))
    assert not folder.store.exists("handover")


def test_damaged_records_are_told(tmp_path):
    with open_run(str(tmp_path), StorageConfig(), run_record()) as folder:
        commit_tile(folder)
        (tmp_path / "tiles" / "1" / COMMIT).write_text("{")
        with pytest.raises(ContentError, match=r"commit\.json: damaged"):
            folder.commit_of("1")
    (tmp_path / "run.json").write_text("{}")
    with (
        pytest.raises(ContentError, match=r"run\.json: damaged"),
        open_run(str(tmp_path), StorageConfig(), run_record()),
    ):
        pass
    with pytest.raises(InputMissingError, match=r"not a run folder"):
        RunFolder(open_store(str(tmp_path / "elsewhere"), StorageConfig())).record()


def test_a_table_that_is_not_the_committed_one_is_refused(place):
    with open_run(*place, run_record()) as folder:
        commit = commit_tile(folder)
        key = "/".join(part for part in ("tiles/1", commit.place, "scores.parquet") if part)
        content = folder.store.read(key)
        folder.store.write(key, content[:-1])
        with pytest.raises(ContentError, match="checksum"):
            folder.scores(commit)
        folder.store.delete(key)
        with pytest.raises(ContentError, match=r"scores\.parquet: missing"):
            folder.scores(commit)


def test_cutouts_are_read_wherever_they_lie(place, tmp_path):
    objects = batch(2)
    with open_run(*place, run_record()) as folder:
        with folder.staged_tile("1") as staging:
            with CutoutWriter(
                staging.path / CUTOUTS, tile_id="1", wcs_header="", zero_points={}, units={}, codec="exact"
            ) as writer:
                writer.append(objects)
            commit = commit_record(place=staging.place, sha256=tree_sha256(staging.path))
            (staging.path / COMMIT).write_bytes(commit.to_bytes())
        stored = folder.cutouts(commit, tmp_path)
        np.testing.assert_array_equal(stored.read(slice(None)).vis, objects.vis)
        assert folder.cutouts(commit_record(), tmp_path) is None


def test_results_take_the_place_of_older_ones_when_all_are_written(place):
    def write(staging, text):
        (staging / "candidates.fits").write_text(text)
        (staging / "catalogue").mkdir()
        (staging / "catalogue" / "part").write_text(text)

    def write_twice(folder):
        with folder.staged_results(run_record()) as staging:
            write(staging, "half")
            write(staging, "half")

    with open_run(*place, run_record()) as folder:
        with folder.staged_results(run_record()) as staging:
            write(staging, "old")
        with pytest.raises(OutputError, match="File exists"):
            write_twice(folder)
        assert folder.store.read("catalogue/part") == folder.store.read("candidates.fits") == b"old"
        with folder.staged_results(run_record()) as staging:
            write(staging, "new")
        assert folder.store.read("catalogue/part") == folder.store.read("candidates.fits") == b"new"
        assert {entry.name for entry in folder.store.entries()} == {"candidates.fits", "catalogue", "run.json"}
    if Path(place[0]).is_dir():
        assert not list(Path(place[0]).glob(".partial-*"))
