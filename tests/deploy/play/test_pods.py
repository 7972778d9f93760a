"""What processes in the pods may do and whom they reach: less than a stranger who got hold of one would like."""

import json

import pytest

pytestmark = pytest.mark.timeout(1200)
RIGHTS = """
import json, os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
def writable(folder):
    try:
        (pathlib.Path(folder) / "probe").touch()
    except OSError:
        return False
    (pathlib.Path(folder) / "probe").unlink()
    return True
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(),
    "capabilities": sum(int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")),
    "no_new_privileges": int(status["NoNewPrivs"]), "seccomp": int(status["Seccomp"]),
    "token": os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    "writable": [folder for folder in ("/", "/etc", "/usr", "/home", "/data", "/scratch", "/tmp") if writable(folder)],
}))
"""
CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("open")
except TimeoutError:
    print("dropped")
except OSError as error:
    print(error.strerror)
"""
#: A pod of nobody's.
STRANGER = {
    "metadata": {"labels": {"app": "stranger"}},
    "spec": {"securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}},
}


def call(pod, address, port):
    """What becomes of a connection from a pod."""
    code, said = pod.run("python3", "-c", CALL, address, str(port))
    assert code == 0, said
    return said.strip()


@pytest.fixture(scope="module")
def worker(release, calm):
    return release.workers("calm")[0]


@pytest.fixture(scope="module")
def stranger(release, worker):
    image = worker.template["spec"]["containers"][0]["image"]
    container = {"name": "shell", "image": image, "command": ["sleep", "600"]}
    return release.cluster.start("stranger", STRANGER | {"spec": STRANGER["spec"] | {"containers": [container]}})


def test_a_worker_is_nobody_and_writes_only_where_it_must(worker):
    code, said = worker.run("python3", "-c", RIGHTS)
    assert code == 0, said
    assert json.loads(said) == {
        "user": 10001,
        "group": 10001,
        "capabilities": 0,
        "no_new_privileges": 1,
        "seccomp": 2,
        "token": False,
        "writable": ["/data", "/scratch", "/tmp"],
    }


def test_a_stranger_in_the_namespace_reaches_no_worker(worker, stranger):
    """Whoever reaches Dask's port can run anything; metrics are Prometheus'."""
    assert [call(stranger, worker.address, port) for port in (9000, 9464)] == ["dropped", "dropped"]


def test_a_worker_reaches_workers_and_nobody_else(worker, stranger, release, prometheus):
    other = next(pod for pod in release.workers("calm") if pod is not worker)
    node = release.cluster.podman.gateway
    # Let through; between two scans nobody listens there.
    assert call(worker, other.address, 9000) == "Connection refused"
    assert call(worker, prometheus.pod.address, 9090) == "dropped"
    assert call(worker, node, release.cluster.api.port) == "dropped"
    # A Service without pods refuses; its name is known.
    assert call(worker, "euclid-scanner-calm-scan", 8786) == "Connection refused"
    # The very same pods are open to each other without the chart's policies: it is these that drop.
    assert call(stranger, prometheus.pod.address, 9090) == "open"
