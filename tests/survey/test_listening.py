"""A run that waits for workers from elsewhere: they outlive its driver, and come to the next one at the same address."""

import json
import os
import signal
import time
import urllib.request

import pytest
import trustme
from disturbed.processes import Processes
from disturbed.results import files_below, leftovers, n_committed, promised
from kubernetes_api import NAME, KubernetesApi
from ports import free_ports
from programs import start_scanner
from waiting import LIMIT_S, wait_for

from scanner.config import StorageConfig
from scanner.survey.folder.ledger import RUN_RECORD, RunRecord

INCOMPLETE, INTERRUPTED, USAGE = 3, 130, 64
LOCAL = StorageConfig()
#: ``scanner …`` in a pod; no setting says where the files of its service account lie.
IN_A_POD = (
    "import pathlib; from scanner.survey.workers import cluster; from scanner.cli.main import main;"
    "cluster.SERVICE_ACCOUNT = pathlib.Path({folder!r}); main()"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Flags of the certificates of two authorities."""
    folder = tmp_path_factory.mktemp("certificates")

    def flags(name):
        authority = trustme.CA()
        own = authority.issue_cert("scanner.example")
        paths = {part: folder / f"{name}-{part}.pem" for part in ("ca", "cert", "key")}
        authority.cert_pem.write_to_path(paths["ca"])
        own.cert_chain_pems[0].write_to_path(paths["cert"])
        own.private_key_pem.write_to_path(paths["key"])
        return tuple(word for part, path in paths.items() for word in (f"--tls-{part}", str(path)))

    return flags("ours"), flags("theirs")


@pytest.fixture
def elsewhere(tmp_path):
    """Where workers are started that the driver knows nothing of."""
    processes = Processes(tmp_path / "elsewhere", {})
    yield processes
    processes.end()


def test_workers_come_to_the_next_driver_after_one_that_was_killed(few_tiles, certificates, elsewhere, tmp_path, refusal):
    """Two workers wait for a driver, lose it in the middle of their tiles, work for its successor, and are told to stop."""
    ours, theirs = certificates
    port, *worker_ports = free_ports(3)
    address, out = f"tls://127.0.0.1:{port}", str(tmp_path / "out")
    workers = [
        elsewhere.start(
            f"w{n}",
            "worker",
            address,
            "--name",
            f"w{n}",
            "--worker-port",
            str(port),
            "--death-timeout",
            "never",
            "--log-format=json",
            *ours,
        )
        for n, port in enumerate(worker_ports)
    ]
    words = ("--listen", address, *ours)
    run = (tmp_path / "run", str(few_tiles.listed), out)
    for name in ("w0", "w1"):
        wait_for(name, lambda name=name: "looking for" in elsewhere.log(name))
    _, driver = few_tiles.run(*run, *words)
    wait_for("both", lambda: all("connected" in elsewhere.log(name) for name in ("w0", "w1")))
    wait_for("two tiles", lambda: n_committed(out, LOCAL) >= 2)
    driver.kill()
    driver.wait()
    foreign = elsewhere.start("foreign", "worker", address, "--death-timeout", "never", *theirs)
    processes, driver = few_tiles.run(*run, *words, name="again")
    assert driver.wait() == INCOMPLETE, processes.log("again")
    assert promised(out, LOCAL) == few_tiles.expected
    assert leftovers(out, LOCAL) == []
    assert foreign.wait(LIMIT_S) == USAGE
    assert "the TLS handshake fails" in refusal(elsewhere, "foreign")
    connections = 0
    for n, worker in enumerate(workers):
        assert worker.poll() is None, elsewhere.log(f"w{n}")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0, elsewhere.log(f"w{n}")
        said = [json.loads(line)["message"] for line in elsewhere.log(f"w{n}").splitlines()]
        connected = f"connected to {address} as w{n}, offering SCAN, FETCH"
        assert said[:2] == [f"looking for a scheduler at {address}", connected]
        assert set(said[2:-1]) <= {f"{address}: the scheduler is gone; looking for it again", connected}
        assert said[-1] == "told to stop (SIGTERM); there is no scheduler"
        connections += said.count(connected)
    # The last tiles may all have been one worker's before the other had found the driver.
    assert connections in (3, 4)
    assert files_below(processes.temporary) == files_below(elsewhere.temporary) == []


class Pods:
    """The Deployment's controller: as many workers as were asked for."""

    def __init__(self, processes, address):
        self._processes, self._address = processes, address
        self.running, self.ended = [], []

    def scale(self, replicas):
        while len(self.running) < replicas:
            self.running.append(self._processes.start("pod", "worker", self._address, "--death-timeout", "never"))
        for pod in self.running[replicas:]:
            pod.send_signal(signal.SIGTERM)
            self.ended.append(pod)
        del self.running[replicas:]


def test_a_deployment_has_pods_while_a_run_has_tiles(few_tiles, elsewhere, tmp_path):
    """Its driver is told to stop in the middle, twice, is started again, and each time takes its workers away at the end."""
    port, metrics_port = free_ports(2)
    address, out = f"tcp://127.0.0.1:{port}", str(tmp_path / "out")
    pods = Pods(elsewhere, address)
    api = KubernetesApi(tmp_path / "serviceaccount", pods.scale)
    api.faults = [(503, None)]
    words = ("run", str(few_tiles.listed), "--out", out, "--listen", address)
    words += ("--scale-deployment", NAME, "--workers", "1", "--log-format", "json")
    settings = {"SCANNER_TARGETS__MAGNITUDE_LIMIT": "none", "SCANNER_TARGETS__MIN_AREA_PIXELS": "0"}
    settings |= {
        "SCANNER_CUTOUTS__KEEP": "all",
        "SCANNER_CUTOUTS__CODEC": "exact",
        "SCANNER_SCORING__BUNDLE": str(few_tiles.bundle),
    }

    def start(log, *more):
        command = ["-c", IN_A_POD.format(folder=str(api.account)), *words, *more]
        environment = os.environ | api.environment | settings | {"OMP_NUM_THREADS": "1"}
        return start_scanner(command, log=tmp_path / log, environment=environment, folder=tmp_path)

    def wanted():
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as page:
            (line,) = [line for line in page.read().decode().splitlines() if line.startswith("scanner_run_workers_wanted ")]
        return float(line.split()[1])

    try:
        driver = start("first.log", "--metrics-port", str(metrics_port))
        wait_for("a tile", lambda: n_committed(out, LOCAL))
        assert api.replicas == [1]
        assert wanted() == 1
        driver.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(LIMIT_S) in (INTERRUPTED, -signal.SIGTERM), (tmp_path / "first.log").read_text()
        assert api.replicas == [1, 0]
        left = few_tiles.n_good - n_committed(out, LOCAL)
        assert left > 0
        driver = start("second.log")
        assert driver.wait(LIMIT_S) == INCOMPLETE, (tmp_path / "second.log").read_text()
        assert api.replicas == [1, 0, 1, 0]
        assert pods.running == []
        # One that is asked while it still starts has nothing to lose, and dies of the signal.
        assert {pod.wait(LIMIT_S) for pod in pods.ended} - {-signal.SIGTERM} == {0}, elsewhere.log("pod")
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        api.end()
    assert "503" in (tmp_path / "first.log").read_text()
    assert promised(out, LOCAL) == few_tiles.expected
    record = RunRecord.from_bytes((tmp_path / "out" / RUN_RECORD).read_bytes(), tmp_path, "")
    assert (record.config.engine.listen, record.config.engine.scale_deployment) == (address, NAME)
