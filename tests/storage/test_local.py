"""What only a local folder has to cope with."""

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanner.errors import OutputError, UnavailableError
from scanner.storage import Entry
from scanner.storage.disk import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def test_everything_is_read_in_place(store):
    store.write("a/b", b"x")
    assert store.local("a/b").read_bytes() == b"x"
    assert store.where("a/b") == str(store.path / "a" / "b")


def test_links_to_nothing_are_not_listed(store):
    store.write("a", b"x")
    (store.path / "b").symlink_to("nowhere")
    (store.path / "c").symlink_to("a")
    assert [(entry.name, entry.size) for entry in store.entries()] == [("a", 1), ("c", 1)]
    assert store.entry("b") is None
    store.delete("b")
    assert sorted(path.name for path in store.path.iterdir()) == ["a", "c"]


def test_where_there_are_no_hard_links_one_still_makes_a_file(store, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: store.create("one", b"%d" % number), range(8)))
    assert made.count(True) == 1
    assert store.read("one") == b"%d" % made.index(True)
    assert [path.name for path in store.path.iterdir()] == ["one"]


def test_a_disk_that_fills_up_leaves_no_file_that_was_to_be_made(store, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    for call in (lambda: store.create("one", b"x"), lambda: store.write("one", b"x")):
        with pytest.raises(OutputError, match="disk is full"):
            call()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    with pytest.raises(OutputError, match="disk is full"):
        store.create("one", b"x")
    assert list(store.path.iterdir()) == []


def test_files_and_folders_are_published_from_another_file_system(store):
    elsewhere = Path("/dev/shm")
    store.path.mkdir()
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == store.path.stat().st_dev:
        pytest.skip("this machine has no second file system")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        Path(folder, "deep").mkdir()
        Path(folder, "deep", "file").write_bytes(b"x")
        store.publish(Path(folder), "catalogue")
        store.publish(Path(folder, "deep", "file"), "file")
    assert store.entries() == (Entry("catalogue", 0, "", is_folder=True), store.entry("file"))
    assert store.read("catalogue/deep/file") == store.read("file") == b"x"
    assert sorted(path.name for path in store.path.iterdir()) == ["catalogue", "file"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_stays(store, tmp_path, monkeypatch, error):
    store.write("catalogue/file", b"old")
    (tmp_path / "new").mkdir()

    def replace(self, target):
        raise error

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        store.publish(tmp_path / "new", "catalogue")
    assert [path.name for path in store.path.iterdir()] == ["catalogue"]
    assert store.read("catalogue/file") == b"old"


def test_a_sweep_removes_what_killed_writers_left(store):
    store.write("tiles/7/commit.json", b"{}")
    # As a process leaves them that is killed in the block.
    staged = store.staged("tiles/8", "commit.json")
    (staged.__enter__().path / "scores").touch()
    (store.path / "tiles" / ".partial-9").touch()
    store.sweep("tiles", "commit.json")
    assert [path.name for path in (store.path / "tiles").iterdir()] == ["7"]
    # A process that was taken for dead cannot bring what is left of it into its place.
    with pytest.raises(UnavailableError, match="another worker"):
        staged.__exit__(None, None, None)
    assert [path.name for path in (store.path / "tiles").iterdir()] == ["7"]


@pytest.mark.parametrize("hold", [None, ""])
def test_a_writer_that_makes_its_swept_folder_again_is_refused(store, hold):
    """As zarr does, which makes every folder that is not there: half a tile was committed so."""
    staged = store.staged("tiles/8", "commit.json", hold=hold)
    staging = staged.__enter__()
    with (staging.path / "scores").open("wb"):
        store.sweep("tiles", "commit.json")
        (staging.path / "cutouts.zarr").mkdir(parents=True)
    (staging.path / "commit.json").write_text("names the cutouts only")
    with pytest.raises(UnavailableError, match="another worker"):
        staged.__exit__(None, None, None)
    assert list((store.path / "tiles").iterdir()) == []


def test_a_folder_that_is_a_file_cannot_be_written_into(store):
    store.write("a", b"x")
    for call in (
        lambda: store.write("a/b", b""),
        lambda: store.create("a/b", b""),
        lambda: LocalStore(store.path / "a").held().__enter__(),
    ):
        with pytest.raises(OutputError, match="cannot be written"):
            call()
