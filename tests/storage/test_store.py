"""What every store promises, of a local folder, of a real S3 server and of one that speaks as Google's."""

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.config import StorageConfig
from scanner.errors import OutputError, UnavailableError
from scanner.storage import Entry, open_store, read_file
from scanner.storage.requests import PIECE_BYTES


@pytest.fixture(params=["local", "s3", "gs"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "store"), StorageConfig())
    place = request.getfixturevalue("s3" if request.param == "s3" else "gcs")
    return open_store(place.fresh(), place.config)


def names(store, key=""):
    return [entry.name for entry in store.entries(key)]


def files(store, key, folder):
    """All files below a key, as they are after a copy."""
    store.fetch(key, folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_not_found(store, key):
    with pytest.raises(FileNotFoundError, match=re.escape(store.where(key))):
        store.read(key)
    return True


def test_a_file_is_written_read_replaced_and_removed(store):
    assert not store.exists("a/b.json")
    assert store.entry("a/b.json") is None
    store.write("a/b.json", b"one")
    assert store.read("a/b.json") == b"one"
    first = store.entry("a/b.json")
    store.write("a/b.json", b"other")
    assert store.read("a/b.json") == b"other"
    assert store.exists("a/b.json")
    assert store.exists("a")
    assert store.entry("a") == Entry("a", 0, "", is_folder=True)
    second = store.entry("a/b.json")
    assert (second.name, second.size, second.is_folder) == ("b.json", 5, False)
    assert second.version != first.version
    store.delete("a/b.json")
    assert store.entry("a/b.json") is None
    store.delete("a/b.json")
    assert is_not_found(store, "a/b.json")


def test_what_is_not_there_is_not_found(store, tmp_path):
    store.write("a/b", b"")
    assert is_not_found(store, "a")
    assert is_not_found(store, "a/b/c")
    assert is_not_found(store, "c")
    assert store.entries("c") == ()
    assert store.entries("a/b") == ()
    with pytest.raises(FileNotFoundError):
        store.fetch("c", tmp_path / "c")
    assert not (tmp_path / "c").exists()


PART = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\\"), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..") and len(part.encode()) <= 60
)


@pytest.mark.parametrize("kind", ["local", "s3"])
@settings(max_examples=60)
@given(parts=st.lists(PART, min_size=1, max_size=3), content=st.binary(max_size=200))
def test_any_name_holds_any_bytes(kind, parts, content, s3, tmp_path):
    location = s3.fresh() if kind == "s3" else str(tmp_path / uuid4().hex)
    store = open_store(location, s3.config)
    key = "/".join(parts)
    store.write(key, content)
    assert store.read(key) == content
    assert store.entry(key).size == len(content)
    shown = [] if parts[-1].startswith(".") else [parts[-1]]
    assert names(store, "/".join(parts[:-1])) == shown
    store.fetch(key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    store.delete(parts[0])
    assert not store.exists(key)


def test_entries_are_sorted_files_and_folders_of_one_level(store):
    for key in ("b/2", "b/1/x", "a", "c/3/4/5", ".hidden", "d"):
        store.write(key, b"12345")
    assert [(entry.name, entry.size, entry.is_folder) for entry in store.entries()] == [
        ("a", 5, False),
        ("b", 0, True),
        ("c", 0, True),
        ("d", 5, False),
    ]
    assert names(store, "b") == ["1", "2"]
    assert names(store, "c/3") == ["4"]


def test_more_entries_than_one_answer_of_the_server_holds(store):
    expected = [f"{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.write(f"many/{name}", b""), expected))
    assert names(store, "many") == expected
    store.delete("many")
    assert names(store, "many") == []


def test_a_file_is_made_once(store):
    assert store.create("lock", b"first")
    assert not store.create("lock", b"second")
    assert not store.create("lock", b"first")
    assert store.read("lock") == b"first"
    store.delete("lock")
    assert store.create("lock", b"third")


def test_of_many_threads_one_makes_a_file_and_all_may_replace_it(store):
    together = threading.Barrier(8)

    def make(number):
        together.wait()
        return store.create("one", b"%d" % number)

    def replace(number):
        together.wait()
        store.write("two", b"%d" % number * 1000)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
        list(pool.map(replace, range(8)))
    assert made.count(True) == 1
    assert store.read("one") == b"%d" % made.index(True)
    content = store.read("two")
    assert content in [b"%d" % number * 1000 for number in range(8)]
    assert names(store) == ["one", "two"]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_a_file_of_any_size_is_published_and_fetched(store, tmp_path, size):
    content = os.urandom(1000) * (size // 1000) + os.urandom(size % 1000)
    (tmp_path / "source").write_bytes(content)
    store.write("folder/big", b"old")
    store.publish(tmp_path / "source", "folder/big")
    assert store.entry("folder/big").size == size
    (tmp_path / "target").write_bytes(b"old")
    store.fetch("folder/big", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == content
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_is_published_in_place_of_an_older_one(store, tmp_path):
    for number in range(2):
        source = tmp_path / f"source-{number}"
        (source / "deep" / "er").mkdir(parents=True)
        (source / f"only-{number}").write_bytes(b"x")
        (source / "deep" / "er" / ".zattrs").write_bytes(b"%d" % number)
        store.publish(source, "catalogue")
    expected = {"only-1": b"x", "deep/er/.zattrs": b"1"}
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "stale").touch()
    assert files(store, "catalogue", tmp_path / "copy") == expected
    (tmp_path / "file").write_bytes(b"a file now")
    store.publish(tmp_path / "file", "catalogue")
    assert store.read("catalogue") == b"a file now"


def stage(store, content, hold=None):
    """Write one folder of three files; returns the place of its files."""
    with store.staged("tiles/7", "commit.json", hold=hold) as staging:
        (staging.path / "cutouts.zarr").mkdir()
        (staging.path / "cutouts.zarr" / "c").write_bytes(content * 2)
        (staging.path / "scores").write_bytes(content)
        (staging.path / "commit.json").write_text(f"{content.decode()} {staging.place}")
    return staging.place


def test_a_staged_folder_is_there_whole_and_replaces_an_older_one(store, tmp_path):
    for content in (b"first", b"second"):
        place = stage(store, content)
        prefix = f"{place}/" if place else ""
        assert files(store, "tiles/7", tmp_path / "copy") == {
            "commit.json": f"{content.decode()} {place}".encode(),
            f"{prefix}scores": content,
            f"{prefix}cutouts.zarr/c": content * 2,
        }
        assert names(store, "tiles") == ["7"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_what_was_there(store, tmp_path, failure):
    def fail():
        with store.staged("tiles/7", "commit.json") as staging:
            (staging.path / "scores").write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert not store.exists("tiles/7")
    stage(store, b"whole")
    before = files(store, "tiles/7", tmp_path / "before")
    with pytest.raises(type(failure)):
        fail()
    assert files(store, "tiles/7", tmp_path / "after") == before


@pytest.mark.parametrize("older", [False, True])
def test_of_two_attempts_that_overlap_the_first_published_stands(store, tmp_path, older):
    if older:
        stage(store, b"older")
    late = store.staged("tiles/7", "commit.json")
    staging = late.__enter__()
    (staging.path / "scores").write_bytes(b"late")
    (staging.path / "commit.json").write_text(f"late {staging.place}")
    stage(store, b"first")
    before = files(store, "tiles/7", tmp_path / "before")
    with pytest.raises(UnavailableError, match="another worker"):
        late.__exit__(None, None, None)
    assert files(store, "tiles/7", tmp_path / "after") == before
    assert before["commit.json"].startswith(b"first")
    assert names(store, "tiles") == ["7"]
    assert not staging.path.exists()


def test_a_sweep_leaves_what_is_whole(store, tmp_path):
    stage(store, b"whole")
    before = files(store, "tiles/7", tmp_path / "before")
    store.sweep("tiles", "commit.json")
    assert files(store, "tiles/7", tmp_path / "after") == before
    store.sweep("nothing", "commit.json")


def test_what_is_published_for_a_hold_stands_until_it_is_revoked(store, tmp_path):
    with store.held() as hold:
        assert store.holder() == hold
        stage(store, b"first", hold)
        before = files(store, "tiles/7", tmp_path / "before")
        with pytest.raises(UnavailableError, match="another worker"):
            stage(store, b"second", hold)
        store.sweep("tiles", "commit.json")
        assert files(store, "tiles/7", tmp_path / "after") == before
        store.revoke("tiles/7", "commit.json")
        with pytest.raises(FileNotFoundError):
            store.read("tiles/7/commit.json")
        stage(store, b"third", hold)
        assert store.read("tiles/7/commit.json").startswith(b"third")
    assert store.holder() == ""


def test_nothing_is_published_for_a_hold_that_was_followed_or_given_back(store):
    with store.held() as hold:
        pass
    with pytest.raises(UnavailableError, match="followed by another"):
        stage(store, b"late", hold)
    with store.held(), pytest.raises(UnavailableError, match="followed by another"):
        stage(store, b"late", hold)
    assert store.names("tiles") == set()


def test_an_attempt_at_a_folder_that_is_revoked_is_not_published(store):
    with store.held() as hold:
        late = store.staged("tiles/7", "commit.json", hold=hold)
        staging = late.__enter__()
        (staging.path / "commit.json").write_text(f"late {staging.place}")
        stage(store, b"first", hold)
        store.revoke("tiles/7", "commit.json")
        if store.local("") is None:
            with pytest.raises(UnavailableError, match="another worker"):
                late.__exit__(None, None, None)
            assert not any(place.startswith("attempt") for place in store.names("tiles/7"))
        else:
            # Whole, and for the holder: welcome.
            late.__exit__(None, None, None)
            assert store.read("tiles/7/commit.json") == b"late "


def test_a_store_is_held_once(store):
    with store.held():
        with pytest.raises(OutputError, match=rf"another scanner run \(process {os.getpid()} on .*\) is writing"), store.held():
            pass
        store.write("run.json", b"{}")
        assert names(store) == ["run.json"]
    with store.held():
        pass


def test_a_single_file_is_read_by_its_location(s3):
    location = s3.fresh()
    open_store(location, s3.config).write("tiles.csv", b"a,b")
    assert read_file(f"{location}/tiles.csv", s3.config) == b"a,b"
