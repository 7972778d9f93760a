import json
import shutil

import pytest

from scanner.config import StorageConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundles import PublishedBundles, followed
from scanner.errors import ContentError, InputMissingError, ScannerError, UsageError
from scanner.storage import open_store


@pytest.fixture(scope="module")
def pair(tmp_path_factory, write_bundle):
    """Two small bundles without a grid."""
    folder = tmp_path_factory.mktemp("pair")
    return [write_bundle(folder / name, name=name, version="1", labelled=False) for name in ("first", "second")]


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path, monkeypatch):
    """Location of a store that is not there yet, and how it is reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "folder":
        return str(tmp_path / "store"), StorageConfig()
    s3 = request.getfixturevalue("s3")
    return s3.fresh(), s3.config


def test_a_published_bundle_is_found_by_its_fingerprint_and_by_the_pointers(pair, place):
    location, storage = place
    store = PublishedBundles(location, storage)
    first, second = pair
    assert store.pointer("latest") is None
    with pytest.raises((InputMissingError), match="no such"):
        bundles.load(f"{location}/current", storage)
    assert store.publish(first) == f"{location}/{first.fingerprint}"
    store.publish(second)
    assert set(store.fingerprints()) == {first.fingerprint, second.fingerprint}
    assert store.pointer("latest").before == first.fingerprint
    assert store.pointer("current") is None
    store.move("current", first.fingerprint)

    loaded = bundles.load(f"{location}/current", storage)
    assert (loaded.fingerprint, loaded.location) == (first.fingerprint, f"{location}/{first.fingerprint}")
    assert bundles.load(f"{location}/latest", storage).fingerprint == second.fingerprint
    assert bundles.load(f"{location}/{second.fingerprint}", storage).manifest.name == "second"
    assert [store.find(name) for name in ("latest", "current", first.fingerprint[:7])] == [
        second.fingerprint,
        first.fingerprint,
        first.fingerprint,
    ]
    with pytest.raises(UsageError, match="7 characters"):
        store.find(first.fingerprint[:6])
    with pytest.raises(InputMissingError, match="models list --published"):
        store.find("0123456789")


def test_a_pointer_moves_only_from_where_it_was_seen(pair, place):
    store = PublishedBundles(*place)
    first, second = pair
    for bundle in pair:
        store.publish(bundle)
    seen = store.move("current", first.fingerprint)
    moved = PublishedBundles(*place).move("current", second.fingerprint, only_from=seen)
    assert (moved.bundle, moved.before, moved.name) == (second.fingerprint, first.fingerprint, "second")
    with pytest.raises(UsageError, match=r"current\.json: was moved by somebody else"):
        store.move("current", first.fingerprint, only_from=seen)
    assert store.pointer("current") == moved
    # What is current already keeps its history.
    assert store.move("current", second.fingerprint) == moved


def test_only_what_is_there_is_pointed_to(pair, place):
    store = PublishedBundles(*place)
    store.publish(pair[0])
    with pytest.raises(InputMissingError, match="no such bundle"):
        store.move("current", pair[1].fingerprint)
    assert store.pointer("current") is None


def test_a_damaged_pointer_is_named_and_can_be_set_again(pair, place):
    location, storage = place
    store = PublishedBundles(location, storage)
    store.publish(pair[0])
    store.move("current", pair[0].fingerprint)
    for content in (b"{", b'{"bundle": "../../etc"}', json.dumps({"bundle": "0" * 64}).encode()):
        open_store(location, storage).write("current.json", content)
        with pytest.raises(ContentError, match=r"current\.json: does not name a bundle"):
            bundles.load(f"{location}/current", storage)
    store.move("current", pair[0].fingerprint)
    assert bundles.load(f"{location}/current", storage).fingerprint == pair[0].fingerprint


def test_publishing_again_mends_a_damaged_copy(pair, place):
    location, storage = place
    store = PublishedBundles(location, storage)
    store.publish(pair[0])
    open_store(location, storage).write(f"{pair[0].fingerprint}/ensemble.onnx", b"half")
    with pytest.raises(ContentError, match="altered"):
        bundles.load(f"{location}/latest", storage)
    store.publish(pair[0])
    assert bundles.load(f"{location}/latest", storage).fingerprint == pair[0].fingerprint


def test_a_folder_of_a_pointers_name_is_itself(pair, tmp_path):
    folder = shutil.copytree(pair[0].path, tmp_path / "current")
    assert bundles.load(str(folder)).fingerprint == pair[0].fingerprint
    assert followed(str(tmp_path / "latest"), StorageConfig()) == str(tmp_path / "latest")


def test_whatever_request_fails_readers_see_the_old_bundle_or_the_new_one(pair, s3, faulty_s3, tmp_path, monkeypatch):
    """The connection is cut at each request in turn, and for good: what a process that dies there leaves."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = pair
    broken = StorageConfig(endpoint=faulty_s3.endpoint, retries=0)
    seen = []
    for last in range(40):
        location = s3.fresh()
        sound = PublishedBundles(location, s3.config)
        sound.publish(first)
        begun = len(faulty_s3.requests)
        faulty_s3.fault = lambda number, method, path, end=begun + last: "drop" if number >= end else None
        try:
            PublishedBundles(location, broken).publish(second)
            finished = True
        except ScannerError:
            finished = False
        named = bundles.load(f"{location}/latest", s3.config).fingerprint
        seen.append((named == second.fingerprint, finished))
        for fingerprint in sound.fingerprints():
            assert bundles.load(sound.where(fingerprint), s3.config).fingerprint == fingerprint
        if finished:
            break
    assert seen[0] == (False, False)
    assert seen[-1] == (True, True)
    # All of the bundle's files, the manifest, the lock, the pointer: none of them was enough by itself.
    assert len(seen) > len(second.manifest.sha256) + 3
    assert [new for new, _ in seen] == sorted(new for new, _ in seen)
