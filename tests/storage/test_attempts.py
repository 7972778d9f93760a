"""Folders of an object store whose writers die, whose answers are lost, or who overlap: none or whole, every time."""

import multiprocessing
import os
import re
import signal
from contextlib import suppress

import pytest
from waiting import LIMIT_S

from scanner.errors import UnavailableError
from scanner.storage import open_store
from scanner.storage.object_store import FENCE_BYTES
from scanner.storage.requests import PIECE_BYTES

FILES = {"scores.parquet": b"scores", "cutouts.zarr/c/0": b"", "cutouts.zarr/zarr.json": b"{}"}


def stage(store, label, larger=0, scratch=None):
    with store.staged("tiles/7", "commit.json", scratch) as staging:
        for name, content in FILES.items():
            path = staging.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(label + (content or bytes(larger)))
        (staging.path / "commit.json").write_bytes(label + b" " + staging.place.encode())


def found(store, larger=0):
    """Label of the folder that is there, None where there is none; fails where its record names what is not whole."""
    try:
        label, place = store.read("tiles/7/commit.json").split()
    except FileNotFoundError:
        return None
    for name, content in FILES.items():
        assert store.read(f"tiles/7/{place.decode()}/{name}") == label + (content or bytes(larger))
    return label


def objects(store):
    listed = (meta for meta in store.below("") if meta["size"] != FENCE_BYTES and not meta["path"].endswith(("zarr", "/c")))
    return sorted(meta["path"].partition("/")[2] for meta in listed)


def only_the_record_s_files_are_left(store):
    store.sweep("tiles", "commit.json")
    try:
        place = store.read("tiles/7/commit.json").split()[1].decode()
    except FileNotFoundError:
        return objects(store) == []
    return objects(store) == sorted(["tiles/7/commit.json", *(f"tiles/7/{place}/{name}" for name in FILES)])


@pytest.mark.parametrize("older", [False, True])
def test_a_writer_that_dies_before_or_after_any_request_leaves_none_or_whole(s3, faulty_s3, older):
    first = open_store(s3.fresh(), faulty_s3.config())
    if older:
        stage(first, b"old")
        faulty_s3.requests.clear()
    stage(first, b"new")
    steps = len(faulty_s3.requests)
    assert steps >= 6
    outcomes = []
    for step in range(steps):
        for fault in ("drop", "lose"):
            location = s3.fresh()
            server = open_store(location, s3.config)
            if older:
                stage(server, b"old")
            faulty_s3.requests.clear()
            # From the server's side: this request is the last to come, or the one before it was.
            faulty_s3.fault = lambda number, *_, step=step, fault=fault: (
                None if number < step else fault if number == step else "drop"
            )
            with suppress(UnavailableError):
                stage(open_store(location, faulty_s3.config(retries=0)), b"new")
            outcomes.append(found(server))
            assert only_the_record_s_files_are_left(server)
            assert found(server) == outcomes[-1]
            stage(server, b"again")
            assert found(server) == b"again"
            assert only_the_record_s_files_are_left(server)
    before = b"old" if older else None
    assert set(outcomes) == {before, b"new"}
    assert outcomes == sorted(outcomes, key=lambda label: label == b"new")


@pytest.mark.parametrize(("fault", "larger"), [("lose", 0), ("busy", 0), ("lose", PIECE_BYTES)])
def test_a_single_request_that_fails_is_given_again_and_changes_nothing(s3, faulty_s3, fault, larger):
    """A larger file goes in several requests: these only are looked at where there is one."""
    first = open_store(s3.fresh(), faulty_s3.config())
    stage(first, b"old")
    faulty_s3.requests.clear()
    stage(first, b"new", larger)
    for step in [step for step, request in enumerate(faulty_s3.requests) if not larger or "upload" in request]:
        location = s3.fresh()
        stage(open_store(location, s3.config), b"old")
        faulty_s3.requests.clear()
        faulty_s3.fault = lambda number, *_, step=step: fault if number == step else None
        store = open_store(location, faulty_s3.config(retries=2))
        try:
            stage(store, b"new", larger)
        except UnavailableError:
            # Some requests may not be given again once they may have been heard.
            assert fault != "busy"
        faulty_s3.fault = lambda *_: None
        if store.read("tiles/7/commit.json").startswith(b"new"):
            assert found(store, larger) == b"new"
        else:
            assert fault != "busy"
            assert found(store) == b"old"
        assert only_the_record_s_files_are_left(store)


def test_a_creation_whose_answer_is_lost_is_known_for_one_s_own(s3, faulty_s3):
    store = open_store(s3.fresh(), faulty_s3.config(retries=3))
    faulty_s3.fault = lambda number, *_: "lose" if number == 0 else None
    try:
        made = store.create("a", b"x")
    except UnavailableError:
        pytest.skip("this version of the library does not repeat such a request")
    assert made
    assert not store.create("a", b"x")


def zombie(store, moment, monkeypatch, act):
    """Stage a folder as a worker does that was given up; ``act`` happens at a moment of its publication."""
    from scanner.storage import object_store

    original = getattr(object_store, moment)

    def disturbed(*arguments):
        monkeypatch.setattr(object_store, moment, original)
        act()
        return original(*arguments)

    monkeypatch.setattr(object_store, moment, disturbed)
    stage(store, b"zombie")


@pytest.mark.parametrize("moment", ["upload", "_put_record"])
def test_a_zombie_loses_to_a_later_attempt_that_was_first_to_be_published(s3, monkeypatch, moment):
    store = open_store(s3.fresh(), s3.config)
    with pytest.raises(UnavailableError, match="another worker"):
        zombie(store, moment, monkeypatch, lambda: stage(open_store(store.root, s3.config), b"living"))
    assert found(store) == b"living"
    assert only_the_record_s_files_are_left(store)


@pytest.mark.parametrize("remove", [lambda store: store.sweep("tiles", "commit.json"), lambda store: store.delete("tiles")])
def test_a_zombie_whose_files_were_removed_leaves_no_record(s3, monkeypatch, remove):
    store = open_store(s3.fresh(), s3.config)
    driver = open_store(store.root, s3.config)
    with pytest.raises(UnavailableError, match="another worker"):
        zombie(store, "_put_record", monkeypatch, lambda: remove(driver))
    assert found(store) is None
    assert objects(store) == []


def staged_forever(location, config, scratch, ready):
    store = open_store(location, config)
    from scanner.storage import object_store

    def stop(*_):
        ready.set()
        signal.pause()

    object_store._put_record = stop
    stage(store, b"killed", scratch=scratch)


def test_files_of_a_writer_that_was_killed_are_swept(s3, tmp_path):
    store = open_store(s3.fresh(), s3.config)
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=staged_forever, args=(store.root, s3.config, tmp_path, ready))
    process.start()
    assert ready.wait(LIMIT_S)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert found(store) is None
    assert len(objects(store)) == len(FILES)
    assert re.fullmatch(r"tiles/7/attempt-[0-9a-f]{12}/scores\.parquet", objects(store)[-1])
    store.sweep("tiles", "commit.json")
    assert objects(store) == []


def test_a_sweep_of_many_folders_keeps_those_that_are_whole(s3):
    store = open_store(s3.fresh(), s3.config)
    for tile in range(6):
        place = f"attempt-{tile:012x}"
        store.write(f"tiles/{tile}/{place}/scores", b"x")
        if tile % 2:
            store.write(f"tiles/{tile}/commit.json", place.encode())
        if tile % 3 == 0:
            store.write(f"tiles/{tile}/attempt-{tile + 100:012x}/scores", b"x")
    store.write("tiles/8/notes/text", b"not of an attempt")
    store.sweep("tiles", "commit.json")
    kept = [f"tiles/{tile}/{name}" for tile in (1, 3, 5) for name in (f"attempt-{tile:012x}/scores", "commit.json")]
    assert objects(store) == [*kept, "tiles/8/notes/text"]


def test_a_record_must_name_the_place(s3):
    store = open_store(s3.fresh(), s3.config)
    staged = store.staged("tiles/7", "commit.json")
    staging = staged.__enter__()
    (staging.path / "a").touch()
    (staging.path / "commit.json").touch()
    with pytest.raises(ValueError, match="does not hold the place"):
        staged.__exit__(None, None, None)
    assert objects(store) == []
