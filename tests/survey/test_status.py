import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from made_records import commit_record, run_record
from waiting import LIMIT_S, wait_for

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.records import FailedTile
from scanner.storage import open_store
from scanner.survey import status
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.folder.resume import open_run
from scanner.survey.messages import MergeStarted, RunStarted, TileFinished, TileProgress
from scanner.survey.status import NAMED_FAILURES, StatusFile


@pytest.fixture
def folder(tmp_path):
    return RunFolder(open_store(str(tmp_path), StorageConfig()))


def started(n_tiles, n_done_before=0):
    return RunStarted(n_tiles, n_done_before, 2, "cpu", "out", "ou", "1")


def failed(tile_id, reason="unreadable"):
    return TileFinished(tile_id, None, FailedTile(tile_id=tile_id, reason=reason))


def test_the_story_of_a_run(folder):
    with StatusFile(folder, run_record(tile_ids=("1", "2", "3", "4", "5"))) as file:
        first = status.read(folder.store)
        assert (first.state, first.n_tiles, first.n_done, first.running) == ("running", 5, 0, ())
        assert (first.pid, first.host) == (os.getpid(), socket.gethostname())
        file(started(5, n_done_before=1))
        file(TileProgress(tile_id="3", n_done=10, n_targets=40))
        file(TileProgress(tile_id="2", n_done=0, n_targets=8))
        file(TileFinished("4", commit_record(tile_id="4"), None))
        file(failed("5", "no such file"))
        now = file.status()
        assert (now.n_done, now.n_failed, now.eta_s is not None) == (2, 1, True)
        assert now.failed == (FailedTile(tile_id="5", reason="no such file"),)
        assert [(tile.tile_id, tile.n_done, tile.n_targets) for tile in now.running] == [("2", 0, 8), ("3", 10, 40)]
        assert now.objects_per_s > 0
        file(MergeStarted())
        merging = file.status()
        assert (merging.state, merging.running, merging.eta_s, merging.objects_per_s) == ("merging", (), None, 0.0)
    assert status.read(folder.store).state == "merging"


def test_the_file_is_written_again_without_any_event(folder, monkeypatch):
    monkeypatch.setattr("scanner.survey.status.LOCAL_INTERVAL_S", 0.01)
    twice, written = threading.Event(), []
    write = folder.store.write

    def counted(key, content):
        write(key, content)
        written.append(key)
        if len(written) == 3:
            twice.set()

    monkeypatch.setattr(folder.store, "write", counted)
    with StatusFile(folder, run_record()):
        assert twice.wait(LIMIT_S)
    assert set(written) == {"status.json"}


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", None),
        (OutputError("out: the disk is full."), "failed", "out: the disk is full."),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_how_a_run_ended_is_the_last_word(folder, error, state, reason):
    with pytest.raises(type(error)), StatusFile(folder, run_record()):
        raise error
    known = status.read(folder.store)
    assert (known.state, known.reason, known.is_over) == (state, reason, True)
    assert not known.driver_is_silent(datetime.now(UTC) + timedelta(days=1))


def test_failures_survive_but_do_not_fill_the_file(folder):
    with StatusFile(folder, run_record()) as file:
        for number in range(NAMED_FAILURES + 5):
            file(failed(f"{number:06}"))
    known = status.read(folder.store)
    assert known.n_failed == NAMED_FAILURES + 5
    assert [tile.tile_id for tile in known.failed] == [f"{number:06}" for number in range(NAMED_FAILURES)]


def test_a_place_that_cannot_be_written_is_told_when_the_run_asks(tmp_path):
    (tmp_path / "out").touch()
    with StatusFile(RunFolder(open_store(str(tmp_path / "out"), StorageConfig())), run_record()) as file:
        file(started(3))
        with pytest.raises(OutputError, match="out"):
            file.raise_if_refused()


def test_a_driver_that_was_taken_for_dead_stops(s3, monkeypatch):
    """Another driver has taken the folder: the first one must not go on for days and fail at the end."""
    monkeypatch.setattr("scanner.storage.lease.RENEW_S", 0.01)
    monkeypatch.setattr("scanner.survey.status.REMOTE_INTERVAL_S", 0.01)
    location = s3.fresh()

    def go_on_while_another_takes_over():
        with open_run(location, s3.config, run_record()) as folder, StatusFile(folder, run_record()) as file:
            file.raise_if_refused()
            open_store(location, s3.config).write(".lock", b"another's")
            wait_for("the refusal", file.raise_if_refused)

    with pytest.raises(OutputError, match="another scanner run took this folder over"):
        go_on_while_another_takes_over()
    assert status.read(open_store(location, s3.config)).state == "running"


def test_a_silent_driver_is_told_from_a_busy_one(folder):
    with StatusFile(folder, run_record()):
        known = status.read(folder.store)
    assert not known.driver_is_silent(known.updated + timedelta(seconds=2 * known.interval_s))
    for minutes in (5, -5):
        assert known.driver_is_silent(known.updated + timedelta(minutes=minutes))
    assert not known.driver_is_gone
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert known.model_copy(update={"pid": ended.pid}).driver_is_gone
    assert not known.model_copy(update={"pid": ended.pid, "host": "another"}).driver_is_gone


def test_no_run_and_a_damaged_one(folder):
    with pytest.raises(InputMissingError, match="no run here"):
        status.read(folder.store)
    folder.store.write("status.json", b"{}")
    with pytest.raises(ContentError, match=r"status\.json: damaged"):
        status.read(folder.store)
