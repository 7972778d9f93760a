"""What an S3 server refuses, and how a server that fails is told."""

import errno
import os
import socket
import ssl
import threading

import pytest
import trustme

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, InputMissingError, OutputError, UnavailableError, UsageError
from scanner.storage import open_store
from scanner.storage.object_store import FENCE_BYTES
from scanner.storage.requests import PIECE_BYTES


def reads(store, folder):
    return [lambda: store.read("a"), lambda: store.fetch("a", folder / "a"), store.entries, lambda: store.exists("a")]


def writes(store, folder):
    (folder / "source").write_bytes(b"x")

    def stage():
        with store.staged("tile", "commit.json") as staging:
            (staging.path / "commit.json").write_text(staging.place)

    return [
        lambda: store.write("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.publish(folder / "source", "b"),
        lambda: store.held().__enter__(),
        stage,
    ]


def refusals(calls, kind, words):
    """Each call fails in one sentence of the store's own, and of this very class."""
    for call in calls:
        with pytest.raises(kind, match=words) as caught:
            call()
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("s3://")


@pytest.mark.parametrize(("name", "value", "code"), [
    ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
    ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
])  # fmt: skip
def test_bad_credentials(s3, monkeypatch, tmp_path, name, value, code):
    monkeypatch.setenv(name, value)
    store = open_store(s3.fresh(), s3.config)
    refusals(reads(store, tmp_path), InputMissingError, f"does not accept the credentials .*{code}")
    refusals(writes(store, tmp_path)[:4], OutputError, f"does not accept the credentials .*{code}")


def test_a_clock_that_is_hours_off(s3, faulty_s3, tmp_path):
    """No fault of the credentials, and gone once the clock is set: what was not done is tried again."""
    faulty_s3.fault = lambda *_: "clock"
    store = open_store(s3.fresh(), faulty_s3.config(retries=0))
    words = rf"refuses the clock of {socket.gethostname()}, which says 2.* UTC .*RequestTimeTooSkewed"
    refusals(reads(store, tmp_path) + writes(store, tmp_path)[:4], UnavailableError, words)


def test_no_credentials(s3, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # The service that machines of a cloud ask: nobody is there.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        store = open_store(s3.fresh(), s3.config.model_copy(update={"retries": 0}))
        refusals(reads(store, tmp_path), InputMissingError, "no credentials .* were found; set AWS_ACCESS_KEY_ID")


def test_a_bucket_that_is_not_there(s3, tmp_path):
    store = open_store("s3://nowhere-at-all/run", s3.config)
    refusals(reads(store, tmp_path)[1:], InputMissingError, "s3://nowhere-at-all/.* no such bucket")
    with pytest.raises(InputMissingError, match="no such bucket"):
        store.read("a")
    refusals(writes(store, tmp_path)[:4], OutputError, "no such bucket")


def test_a_public_bucket_is_read_without_credentials(s3, monkeypatch, tmp_path):
    location = s3.fresh(public=True)
    owner = open_store(location, s3.config)
    owner.write("VIS/a.fits", b"SIMPLE")
    private = open_store(s3.fresh(), s3.config)
    private.write("a", b"secret")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = s3.config.model_copy(update={"anonymous": True})
    anyone = open_store(location, config)
    assert [entry.name for entry in anyone.entries("VIS")] == ["a.fits"]
    anyone.fetch("VIS/a.fits", tmp_path / "a.fits")
    assert (tmp_path / "a.fits").read_bytes() == b"SIMPLE"
    with pytest.raises(FileNotFoundError):
        anyone.read("VIS/b.fits")
    refusals(writes(anyone, tmp_path)[:4], OutputError, "writing is not allowed")
    # One object that may not be read says nothing of others.
    refusals(reads(open_store(private.root, config), tmp_path), ForbiddenError, "reading is not allowed")


def test_a_name_that_no_object_has(s3):
    store = open_store(s3.fresh(), s3.config)
    with pytest.raises(UsageError, match="cannot hold this name"):
        store.write("a/../b", b"")


def test_an_endpoint_of_the_environment(s3, monkeypatch):
    location = s3.fresh()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    open_store(location, StorageConfig()).write("a", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert open_store(location, s3.config).read("a") == b"x"


def test_a_server_that_is_busy_for_a_while_is_asked_again(s3, faulty_s3, tmp_path):
    faulty_s3.fault = lambda number, method, path: "busy" if number % 3 else None
    store = open_store(s3.fresh(), faulty_s3.config(retries=5))
    for call in writes(store, tmp_path):
        call()
    assert store.read("a") == b"x"
    assert [entry.name for entry in store.entries()] == ["a", "b", "tile"]
    assert len(faulty_s3.requests) > 10


@pytest.mark.parametrize(("fault", "words"), [("busy", "503( SlowDown)?"), ("drop", "connection lost")])
def test_a_server_that_fails_for_long(s3, faulty_s3, tmp_path, fault, words):
    faulty_s3.fault = lambda number, method, path: fault
    store = open_store(s3.fresh(), faulty_s3.config(retries=1))
    calls = reads(store, tmp_path) + writes(store, tmp_path)
    refusals(calls, UnavailableError, f"does not answer or is too busy \\({words}\\)")
    assert len(faulty_s3.requests) >= 2 * len(calls)


def test_a_server_that_never_answers(s3, faulty_s3):
    faulty_s3.fault = lambda number, method, path: "silent"
    store = open_store(s3.fresh(), faulty_s3.config(retries=1, timeout_s=0.4))
    refusals([lambda: store.read("a"), lambda: store.write("a", b"")], UnavailableError, "time-out")


@pytest.mark.parametrize(("endpoint", "words"), [
    ("http://127.0.0.1:1", "connection refused"),
    ("http://nowhere.invalid", "unknown host"),
])  # fmt: skip
def test_a_server_that_is_not_there(s3, tmp_path, endpoint, words):
    store = open_store(s3.fresh(), StorageConfig(endpoint=endpoint, retries=0))
    refusals(reads(store, tmp_path) + writes(store, tmp_path), UnavailableError, words)


def test_a_server_s_certificate_is_trusted_where_its_authority_is(s3, faulty_s3, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    faulty_s3.socket = context.wrap_socket(faulty_s3.socket, server_side=True)
    config = StorageConfig(endpoint=faulty_s3.endpoint.replace("http:", "https:"), retries=0)
    location = s3.fresh()
    store = open_store(location, config)
    refusals(reads(store, tmp_path), InputMissingError, "certificate is not trusted; .* SSL_CERT_FILE")
    refusals([lambda: store.write("a", b"x")], OutputError, "certificate is not trusted")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    trusting = open_store(location, config.model_copy(update={"retries": 1}))
    trusting.write("a", b"x")
    assert trusting.read("a") == b"x"


def test_an_answer_that_breaks_off_is_asked_for_again(s3, faulty_s3, tmp_path):
    content = bytes(range(256)) * 40_000
    location = s3.fresh()
    open_store(location, s3.config).write("a", content)
    faulty_s3.fault = lambda number, method, path: "half" if method == "GET" and number % 2 else None
    store = open_store(location, faulty_s3.config())
    store.fetch("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert store.read("a") == content


def test_an_answer_that_always_breaks_off(s3, faulty_s3, tmp_path):
    location = s3.fresh()
    open_store(location, s3.config).write("a", b"0123456789" * 100)
    faulty_s3.fault = lambda number, method, path: "half" if method == "GET" else None
    store = open_store(location, faulty_s3.config(retries=2))
    refusals([lambda: store.fetch("a", tmp_path / "a"), lambda: store.read("a")], UnavailableError, "does not answer")
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_replaced_while_it_is_fetched(s3, faulty_s3, tmp_path):
    location = s3.fresh()
    owner = open_store(location, s3.config)
    (tmp_path / "old").write_bytes(b"old!" * PIECE_BYTES)
    (tmp_path / "new").write_bytes(b"new!" * PIECE_BYTES)
    owner.publish(tmp_path / "old", "a")
    once = threading.Lock()

    def replace(number, method, path):
        if method == "GET" and once.acquire(blocking=False):
            owner.publish(tmp_path / "new", "a")

    faulty_s3.fault = replace
    with pytest.raises(UnavailableError, match="was replaced while it was read"):
        open_store(location, faulty_s3.config()).fetch("a", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_server_that_dies_during_fetch_and_upload(mortal_s3, faulty_s3, tmp_path):
    location = mortal_s3.storage.fresh()
    safe = open_store(location, mortal_s3.storage.config)
    faulty_s3.upstream = mortal_s3.storage.endpoint.removeprefix("http://")
    store = open_store(location, faulty_s3.config(retries=1))
    (tmp_path / "big").write_bytes(b"z" * 5 * PIECE_BYTES)
    safe.publish(tmp_path / "big", "big")

    def dies_at(wanted):
        countdown = iter(range(wanted))

        def fault(number, method, path):
            if next(countdown, None) is None:
                mortal_s3.kill()

        return fault

    # The third request is for the second of five pieces.
    faulty_s3.fault = dies_at(2)
    with pytest.raises(UnavailableError, match="does not answer"):
        store.fetch("big", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    mortal_s3.start()

    # The fourth is for one of five files, the record not among them.
    faulty_s3.fault = lambda *_: None
    with pytest.raises(UnavailableError, match="does not answer"), store.staged("tiles/7", "commit.json", tmp_path) as staging:  # noqa: PT012
        for name in ("a", "b", "c", "d", "e"):
            (staging.path / name).write_bytes(b"x")
        (staging.path / "commit.json").write_text(staging.place)
        faulty_s3.fault = dies_at(3)
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    mortal_s3.start()
    assert not safe.exists("tiles/7/commit.json")
    safe.sweep("tiles", "commit.json")
    left = {meta["path"].rpartition("/")[2]: meta["size"] == FENCE_BYTES for meta in safe.below("") if meta["size"]}
    # A fence stands where the record would, and the attempt cannot commit any more; unless the server, killed so soon, kept
    # nothing of it.
    assert left.pop("commit.json", True)
    assert left == {"big": False}
    safe.fetch("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()


def test_disk_full_while_fetching_is_an_output_error(s3, tmp_path, monkeypatch):
    store = open_store(s3.fresh(), s3.config)
    store.write("a", b"x")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="disk is full"):
        store.fetch("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
