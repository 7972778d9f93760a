"""Object stores that are not S3: what differs is their conditions, errors and settings."""

import time

import pytest
from obstore.store import AzureStore

from scanner.config import StorageConfig
from scanner.errors import HeldError, InputMissingError, OutputError, UnavailableError
from scanner.storage import is_remote, join, open_store, split


@pytest.fixture
def store(gcs):
    return open_store(gcs.fresh(), gcs.config)


def stage(store, content, meanwhile=lambda: None):
    with store.staged("tiles/1", "commit.json") as staging:
        (staging.path / "file").write_bytes(content)
        (staging.path / "commit.json").write_text(staging.place)
        meanwhile()


def staged_content(store):
    return store.read(f"tiles/1/{store.read('tiles/1/commit.json').decode()}/file")


def test_of_attempts_that_overlap_the_first_stands(store):
    with pytest.raises(UnavailableError, match="another worker"):
        stage(store, b"late", meanwhile=lambda: stage(store, b"first"))
    assert staged_content(store) == b"first"
    stage(store, b"next")
    assert staged_content(store) == b"next"
    assert len([entry for entry in store.entries("tiles/1") if entry.is_folder]) == 1


def test_one_process_holds_a_store_until_it_leaves(gcs, store):
    other = open_store(store.root, gcs.config)
    with store.held(), pytest.raises(HeldError), other.held():
        pass
    with open_store(store.root, gcs.config).held():
        store.write("a", b"x")


def test_a_lease_is_renewed_and_its_loss_noticed(gcs, store, monkeypatch):
    monkeypatch.setattr("scanner.storage.lease.RENEW_S", 0.05)

    def hold_until_it_is_lost():
        with store.held():
            first = store.versioned(".lock")
            end = time.monotonic() + 60
            while store.versioned(".lock") == first and time.monotonic() < end:
                time.sleep(0.01)
            assert store.versioned(".lock") != first
            open_store(store.root, gcs.config).write(".lock", b"of another")
            while not store._lease._lost and time.monotonic() < end:
                time.sleep(0.01)

    with pytest.raises(OutputError, match="took this folder over"):
        hold_until_it_is_lost()


def test_what_is_refused_is_one_sentence(gcs, monkeypatch, store):
    with pytest.raises(OutputError, match=r"gs://nowhere/a: there is no such bucket"):
        open_store("gs://nowhere", gcs.config).write("a", b"x")
    with pytest.raises(InputMissingError, match=r"gs://nowhere/a: there is no such bucket"):
        open_store("gs://nowhere", gcs.config).read("a")
    with pytest.raises(OutputError, match=r"gs://nowhere/a: there is no such bucket"):
        open_store("gs://nowhere", gcs.config).delete("a")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "another")
    with pytest.raises(OutputError, match=r"does not accept the credentials .* check GOOGLE_APPLICATION_CREDENTIALS"):
        open_store(store.root, gcs.config).write("a", b"x")


def test_azure_is_reached_by_account_and_container(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InputMissingError, match=r"az://sky: cannot be reached .*; set AZURE_STORAGE_ACCOUNT_NAME and"):
        open_store("az://sky/q1", StorageConfig())
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "survey")
    store = open_store("az://sky/q1", StorageConfig(anonymous=True))
    assert isinstance(store.bucket, AzureStore)
    assert store.bucket.config["container_name"] == "sky"
    assert (store.where("a"), store.path("a")) == ("az://sky/q1/a", "q1/a")


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_locations_are_as_those_of_s3(scheme):
    assert is_remote(f"{scheme}://bucket")
    assert split(f"{scheme}://bucket/run/tiles.csv") == (f"{scheme}://bucket/run", "tiles.csv")
    assert join(f"{scheme}://bucket/q1/", "./VIS/a.fits") == f"{scheme}://bucket/q1/VIS/a.fits"
    assert not is_remote(f"{scheme}/bucket")
