import signal
import socket
import ssl
from contextlib import suppress

import dask
import psutil
import pytest
import trustme
from distributed.nanny import _get_env_variables
from standing import Bodies, Standing, disturbed, jobs, run
from waiting import LIMIT_S, wait_for

from scanner.config import EngineConfig
from scanner.errors import InputMissingError, UnavailableError, UsageError
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import Versions
from scanner.survey.workers import transport
from scanner.survey.workers.cluster import connected

TLS_ALERT = b"\x15\x03"


def test_workers_keep_the_memory_that_they_will_need_again():
    given = "distributed.nanny.pre-spawn-environ"
    assert _get_env_variables(given).keys() - {"MALLOC_TRIM_THRESHOLD_"} < _get_env_variables(given).keys()
    with dask.config.set(transport.DASK_SETTINGS):
        assert _get_env_variables(given).keys() == {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


@pytest.fixture
def bodies(tmp_path):
    (tmp_path / "begun").mkdir()
    return Bodies(tmp_path / "begun")


@pytest.fixture
def standing(tmp_path):
    (tmp_path / "cluster").mkdir()
    made = Standing(tmp_path / "cluster")
    yield made
    made.end()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Folder with certificates of two authorities: ``ours`` and ``theirs``."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "theirs"):
        made = trustme.CA()
        made.cert_pem.write_to_path(folder / f"{name}-ca.pem")
        own = made.issue_cert("scanner.example")
        own.private_key_pem.write_to_path(folder / f"{name}-key.pem")
        own.cert_chain_pems[0].write_to_path(folder / f"{name}-cert.pem")
    return folder


def files(authority, name):
    return {part: str(authority / f"{name}-{part}.pem") for part in ("ca", "cert", "key")}


def settings(authority, name):
    return {f"engine__tls_{part}": path for part, path in files(authority, name).items()}


def holding(folder):
    """Tiles ``a…`` go on until there is a file ``go``, making progress meanwhile; they clear up what they had begun."""

    def behave(tile_id, number, step):
        import time

        if tile_id[0] == "a":
            half = folder / f"half-{tile_id}"
            half.touch()
            try:
                while not (folder / "go").exists():
                    step()
                    time.sleep(0.02)
            finally:
                half.unlink()

    return behave


def test_told_to_stop_a_worker_finishes_its_tile_and_nothing_is_done_twice(standing, bodies):
    """Two workers, each with one tile in hand and one waiting; one is told to stop."""
    leaving = standing.worker("w0")
    standing.worker("w1")
    standing.told("w0", "connected")
    standing.told("w1", "connected")
    given = jobs("a0", "a1", "a2", "a3", "b0", "b1", engine__scheduler=standing.address)

    def meanwhile():
        wait_for("a tile on each", lambda: {worker for _, worker in bodies.begun()} == {"w0", "w1"})
        leaving.send_signal(signal.SIGTERM)
        standing.told("w0", "told to stop (SIGTERM); finishing tile a")
        (bodies.folder / "go").touch()

    outcomes = disturbed(given, bodies.work(holding(bodies.folder)), meanwhile)
    assert all(outcome.commit for outcome in outcomes.values())
    assert leaving.wait(LIMIT_S) == 0
    assert [tile_id for tile_id, _ in bodies.begun()] == ["a0", "a1", "a2", "a3", "b0", "b1"]
    assert [worker for _, worker in bodies.begun()].count("w0") == 1
    lines = standing.processes.log("w0").splitlines()
    assert len(lines) == 3, lines
    assert "closed" in lines[-1]


def test_out_of_grace_a_tile_is_given_up_to_another_worker(standing, bodies):
    leaving = standing.worker("w0", "--grace", "0.1s")
    given = jobs("a0", engine__scheduler=standing.address, engine__attempts=1)

    def meanwhile():
        wait_for("its tile", lambda: bodies.begun() == [("a0", "w0")])
        standing.worker("w1")
        standing.told("w1", "connected")
        leaving.send_signal(signal.SIGTERM)
        wait_for("its tile on the other", lambda: ("a0", "w1") in bodies.begun())
        assert leaving.wait(LIMIT_S) == 0
        (bodies.folder / "go").touch()

    outcomes = disturbed(given, bodies.work(holding(bodies.folder)), meanwhile)
    assert outcomes["a0"].commit is not None
    assert not list(bodies.folder.glob("half-*"))
    assert "another worker begins it again" in standing.processes.log("w0")
    assert not list(standing.processes.temporary.glob(f"*{leaving.pid}*"))


def test_told_to_stop_it_does_not_wait_for_its_grace_once_the_scheduler_is_gone(standing, bodies):
    """As when a driver that is the scheduler is told to stop at the same time."""
    leaving = standing.worker("w0")
    given = jobs("a0", engine__scheduler=standing.address)

    def meanwhile():
        wait_for("its tile", lambda: bodies.begun() == [("a0", "w0")])
        leaving.send_signal(signal.SIGTERM)
        standing.told("w0", "told to stop (SIGTERM); finishing tile a0")
        standing.scheduler.kill()
        assert leaving.wait(LIMIT_S) == 0

    with pytest.raises(UnavailableError, match="went away"):
        disturbed(given, bodies.work(holding(bodies.folder)), meanwhile)
    assert not list(bodies.folder.glob("half-*"))


def test_a_scheduler_that_is_gone_is_looked_for_no_longer_than_told(standing):
    # The first connection has no longer than that either, on a machine that may be busy.
    worker = standing.worker("w0", "--death-timeout", "15s")
    standing.told("w0", "connected")
    standing.scheduler.kill()
    assert worker.wait(LIMIT_S) == 75
    *_, gone, refusal = standing.processes.log("w0").splitlines()
    assert "the scheduler is gone; looking for it again" in gone
    assert refusal.startswith(f"scanner: {standing.address}: no Dask scheduler answers there")


def test_a_worker_of_another_version_never_gets_a_tile(standing, bodies, caplog):
    """It is there before the run, comes again during the run, and is refused in one line each time."""
    before = standing.worker_of_other_version("old")
    standing.told("old", "connected")
    standing.worker("w1")
    standing.told("w1", "connected")
    given = jobs("a0", "b0", "b1", engine__scheduler=standing.address)

    def meanwhile():
        wait_for("a tile", lambda: bodies.begun("a0"))
        late = standing.worker_of_other_version("late")
        assert late.wait(LIMIT_S) == 78
        (bodies.folder / "go").touch()

    disturbed(given, bodies.work(holding(bodies.folder)), meanwhile)
    assert before.wait(LIMIT_S) == 78
    assert {worker for _, worker in bodies.begun()} == {"w1"}
    from scanner import __version__

    for name in ("old", "late"):
        said = f"worker {name} has scanner 0.0 where the driver has {__version__}; it gets no tile"
        assert sum(said in record.getMessage() for record in caplog.records) == 1
        assert standing.processes.log(name).splitlines()[-1].startswith(f"scanner: {said}")


def test_what_differs_is_named_with_both_versions():
    driver = Versions(scanner="1.0", python="3.11", bundle="b" * 64, libraries={"numpy": "2.4.0", "zarr": "3.1"})
    assert fingerprint.version_differences(driver, driver) == ()
    own = Versions(scanner="1.0", python="3.12", bundle="c" * 64, libraries={"numpy": "2.3.1", "zarr": "3.1"})
    assert fingerprint.version_differences(own, driver) == (
        "python 3.12 where the driver has 3.11",
        "numpy 2.3.1 where the driver has 2.4.0",
        "bundle cccccccccccc where the driver has bbbbbbbbbbbb",
    )
    assert fingerprint.current_versions("f").libraries.keys() == {"numpy", "onnxruntime", "pyarrow", "zarr"}


def test_encrypted(authority, tmp_path, bodies):
    """Scheduler, worker and driver of one authority work together; others are refused, each in one sentence."""
    (tmp_path / "cluster").mkdir()
    words = [word for part, path in files(authority, "ours").items() for word in (f"--tls-{part}", path)]
    standing = Standing(tmp_path / "cluster", *words, scheme="tls")
    try:
        standing.worker("w0")
        given = jobs("t0", engine__scheduler=standing.address, **settings(authority, "ours"))
        assert run(given, bodies.work())["t0"].commit is not None
        theirs = transport.Certificates(**files(authority, "theirs"))
        foreign = transport.Certificates(files(authority, "ours")["ca"], theirs.cert, theirs.key)
        for refused in (theirs, foreign):
            with pytest.raises(UsageError, match="the TLS handshake fails"):
                transport.await_scheduler(standing.address, refused, LIMIT_S)
        with pytest.raises(UsageError, match="needs --tls-ca, --tls-cert and --tls-key"):
            transport.await_scheduler(standing.address, None, LIMIT_S)
    finally:
        standing.end()


def greeting(context, host, port):
    """What a scheduler or worker says to who connects."""
    with socket.create_connection((host, port), LIMIT_S) as plain, context.wrap_socket(plain) as stream:
        if not (first := stream.recv(1)):
            raise ConnectionError("it hangs up")
        return first


def test_nobody_else_of_the_machine_connects_to_the_cluster_of_a_run():
    """Neither in plain words nor with a key of his own; before, any account could run code as the run's user."""
    ours = transport.own_security()
    with connected(EngineConfig(workers=1), 1) as cluster:
        info = cluster.client.scheduler_info(n_workers=-1)
        addresses = [info["address"], *info["workers"], *(one["nanny"] for one in info["workers"].values())]
        assert len(addresses) == 3
        transport.own_security.cache_clear()
        stranger = transport.own_security().get_connection_args("client")["ssl_context"]
        for address in addresses:
            host, port = address.removeprefix("tls://").rsplit(":", 1)
            assert host == "127.0.0.1"
            assert greeting(ours.get_connection_args("client")["ssl_context"], host, int(port))
            with socket.create_connection((host, int(port)), LIMIT_S) as plain:
                plain.sendall(bytes(80))
                answer = b""
                with suppress(ConnectionError):
                    answer = plain.recv(100)
                assert not answer or answer.startswith(TLS_ALERT)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                greeting(stranger, host, int(port))


def test_a_worker_of_a_scheduler_on_this_machine_listens_on_this_machine(tmp_path):
    (tmp_path / "cluster").mkdir()
    standing = Standing(tmp_path / "cluster")
    try:
        worker = standing.worker("w0")
        standing.told("w0", "connected to")
        listening = {one.laddr.ip for one in psutil.Process(worker.pid).net_connections() if one.status == psutil.CONN_LISTEN}
    finally:
        standing.end()
    assert listening == {"127.0.0.1"}


def test_certificates_that_are_none(authority, tmp_path):
    ours = files(authority, "ours")
    with pytest.raises(UsageError, match="all three"):
        transport.certificates(ours["ca"], ours["cert"], None)
    with pytest.raises(InputMissingError, match=r"nowhere\.pem"):
        transport.security(transport.Certificates(ours["ca"], str(tmp_path / "nowhere.pem"), ours["key"]))
    with pytest.raises(UsageError, match="not a certificate with its key"):
        transport.security(transport.Certificates(ours["ca"], ours["cert"], files(authority, "theirs")["key"]))
    for address in ("host:8786", "tcp://host", "http://host:8786"):
        with pytest.raises(UsageError, match="not a scheduler's address"):
            transport.await_scheduler(address, None, LIMIT_S)
