"""A scan whose scheduler and workers are the operator's: from no worker to as many as the scan wants, and back to none."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import programs
import pyarrow.parquet as pq
import pytest
from manifests.pods import of_kind
from manifests.rendering import NAMESPACE, Helm, read
from ports import free_ports
from waiting import LIMIT_S, wait_for

from dask_operator.api_server import ApiServer
from dask_operator.node import GONE, STARTED, Node
from dask_operator.objects import Objects

pytestmark = pytest.mark.timeout(900)
N_TILES, N_WORKERS = 6, 3
VALUES = {
    "surveys": {
        "wide": {
            "tileList": {"url": "s3://sky/tiles.txt"},
            "out": "s3://runs/wide",
            "workers": {"scaling": "operator", "replicas": N_WORKERS, "memoryGb": 2},
        }
    }
}
MADE_BY_OPERATOR = ("Deployment", "Service", "DaskWorkerGroup")


@dataclass
class Played:
    """``replicas``: of the worker group, as they changed; ``history``: of processes; ``left``: objects after the end."""

    cluster: str
    replicas: list[int]
    history: list[tuple[str, str]]
    scan: subprocess.CompletedProcess
    folder: object
    left: list[dict]


def manifests():
    """The chart's, with ports that are free on this machine."""
    helm = Helm(programs.needed("helm", target="helm"))
    text = helm.text(settings=VALUES)
    for port, free in zip(("8786", "8787"), free_ports(2), strict=True):
        text = re.sub(rf"\b{port}\b", str(free), text)
    return read(text)


def names_known_as(folder, *names):
    """Words before a command for which these host names are this machine."""
    hosts = folder / "hosts"
    shutil.copy("/etc/hosts", hosts)
    with hosts.open("a") as file:
        file.write(f"\n127.0.0.1 {' '.join(names)}\n")
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]


@pytest.fixture(scope="module")
def operator_program():
    program = os.environ.get("SCANNER_DASK_OPERATOR")
    if program is None or shutil.which(program) is None:
        pytest.skip("SCANNER_DASK_OPERATOR names no kopf with dask-kubernetes ('make verify-operator' installs them)")
    if os.geteuid() != 0:
        pytest.skip("this machine does not let the tests mount a hosts file in which Services have names")
    return program


@pytest.fixture(scope="module")
def played(operator_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("operator")
    rendered = manifests()
    (cluster,) = of_kind(rendered, "DaskCluster")
    (scan,) = of_kind(rendered, "CronJob").values()
    words = scan["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    (address,) = (word.partition("=")[2] for word in words if word.startswith("--scheduler="))
    drawn = ["simulate", "tiles", "--n", str(N_TILES), "--size", "700", "--no-companions", "--out", folder / "sky"]
    subprocess.run([sys.executable, "-m", "scanner", *drawn], check=True, capture_output=True)

    objects = Objects()
    objects.create("Namespace", None, {"metadata": {"name": NAMESPACE}})
    server = ApiServer(objects)
    here = names_known_as(folder, f"{cluster}-scheduler", f"{cluster}-scheduler.{NAMESPACE}")
    node = Node(objects, folder, here)
    operator = begin_operator(operator_program, here, server.url, folder)
    try:
        for manifest in rendered:
            if manifest["apiVersion"] == "kubernetes.dask.org/v1":
                objects.create(manifest["kind"], NAMESPACE, manifest)
        wait_for("the scheduler", lambda: any(ready(pod) for pod in objects.of_kind("Pod")))
        flags = [f"--scheduler={address}", f"--workers={N_WORKERS}", "--provider=cpu", "--targets=grid", "--log-format=json"]
        command = [
            *here,
            sys.executable,
            "-m",
            "scanner",
            "run",
            folder / "sky" / "tile-list.txt",
            "--out",
            folder / "run",
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        wait_for("all workers to be sent away", lambda: len(of(objects, "Deployment")) == 1)
        objects.delete("DaskCluster", NAMESPACE, cluster)
        wait_for("the operator to let go", lambda: not any(of(objects, kind) for kind in MADE_BY_OPERATOR))
        wait_for("all processes to end", lambda: not of(objects, "Pod"))
        replicas = [
            content["spec"]["worker"]["replicas"] for _, kind, _, content in objects.events if kind == "DaskWorkerGroup"
        ]
        changes = [number for i, number in enumerate(replicas) if i == 0 or replicas[i - 1] != number]
        left = [one for kind in (*MADE_BY_OPERATOR, "DaskAutoscaler") for one in of(objects, kind)]
        yield Played(cluster, changes, list(node.history), done, folder / "run", left)
    finally:
        operator.terminate()
        operator.wait(LIMIT_S)
        node.close()
        server.close()


def begin_operator(program, prefix, url, folder):
    """The real operator, as its own image starts it."""
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "played", "cluster": {"server": url}}],
        "users": [{"name": "operator", "user": {"token": "none"}}],
        "contexts": [{"name": "played", "context": {"cluster": "played", "user": "operator", "namespace": NAMESPACE}}],
        "current-context": "played",
    }
    (folder / "kubeconfig").write_text(json.dumps(configuration))
    words = ["run", "--standalone", "--namespace", NAMESPACE, "--module", "dask_kubernetes.operator.controller"]
    with (folder / "operator.log").open("wb") as log:
        environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig")}
        return subprocess.Popen([*prefix, program, *words], stdout=log, stderr=log, env=environment)


def of(objects, kind):
    return objects.of_kind(kind, NAMESPACE)


def ready(pod):
    return pod["status"]["conditions"][0] == {"type": "Ready", "status": "True"}


def test_the_scan_ends_with_a_catalogue(played):
    assert played.scan.returncode == 0, played.scan.stderr
    assert pq.read_table(played.folder / "catalogue" / "dataset", columns=["rank"]).num_rows > 100


def test_workers_come_at_once_and_go_one_after_the_other(played):
    """As many as the scan wants, from none; the operator takes away a quarter of them at a time, at least one."""
    assert played.replicas == [0, 3, 2, 1, 0]


def test_no_worker_left_before_the_last_tile_was_done(played):
    """The one whose Deployment goes is the one that the scheduler has retired: none of its tiles is begun again."""
    assert "begins it again" not in played.scan.stderr
    names = [name for what, name in played.history if what == STARTED and "worker" in name]
    assert len(names) == N_WORKERS
    assert sorted(names) == sorted(name for what, name in played.history if what == GONE and "worker" in name)
    assert all(name.startswith(f"{played.cluster}-default-worker-") for name in names)


def test_nothing_is_left_of_a_cluster_that_an_upgrade_replaces(played):
    assert played.left == []
