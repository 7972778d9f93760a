"""The rendered chart, played: what it asks for runs as pods of podman, with its traffic rules, rights and schedules in force."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manifests.rendering import NAMESPACE, PLACES, find_helm
from podman_cluster import jobs
from podman_cluster.cluster import Cluster, wait_until
from podman_cluster.kubelet import await_ready
from podman_cluster.podman import Podman
from podman_cluster.prometheus import Prometheus

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
#: Names of the chart's objects begin with it.
RELEASE, FULL_NAME = "euclid", "euclid-scanner"
CLAIM = f"{FULL_NAME}-data"
N_TILES = 6
NEEDED = ("podman", "crun", "nft", "nsenter", "unshare")


def helm():
    """The program that renders, or a visible skip."""
    found = find_helm()
    if found is None:
        pytest.skip("helm is not there ('make helm' fetches it): the chart is not played")
    return found


def rendered(**settings):
    """Manifests of the chart with the values of this folder, those of the tests of helm apart."""
    found = helm().template(HERE / "values.yaml", settings=settings, release=RELEASE)
    return [manifest for manifest in found if "helm.sh/hook" not in manifest["metadata"].get("annotations", {})]


def scan_job(cluster, survey):
    """The Job that the survey's schedule would begin now."""
    spec = cluster.of_kind("CronJob")[f"{FULL_NAME}-{survey}-scan"]["spec"]["jobTemplate"]["spec"]
    return jobs.begin(cluster, f"{FULL_NAME}-{survey}-scan", spec)


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    images = os.environ.get("SCANNER_IMAGE_STORE")
    if images is None:
        pytest.skip(
            "SCANNER_IMAGE_STORE names no storage with the images ('make verify-play' builds them): the chart is not played"
        )
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"playing the chart needs root and {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}")
    podman = Podman(tmp_path_factory.mktemp("podman"), images)
    yield podman
    podman.close()


@pytest.fixture(scope="session")
def cluster(podman):
    """The chart installed, with tiles on its volume; no scan has begun and the service is not there yet."""
    manifests = rendered()
    cluster = Cluster(podman, NAMESPACE)
    try:
        cluster.apply(manifests)
        sky = cluster.volume(CLAIM) / "sky"
        words = ["simulate", "tiles", "--n", str(N_TILES), "--size", "640", "--seed", "3", "--no-companions", "--workers", "1"]
        subprocess.run([sys.executable, "-m", "scanner", *words, "--out", sky], check=True, capture_output=True)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def prometheus(cluster, tmp_path_factory):
    program = shutil.which("prometheus", path=PLACES + os.pathsep + str(ROOT / ".venv" / "prometheus" / "usr" / "bin"))
    if program is None:
        pytest.skip("prometheus is not there ('make prometheus' fetches it)")
    image = "localhost/scanner:scan-cpu"
    found = Prometheus(cluster, program, image, tmp_path_factory.mktemp("prometheus"))
    await_ready(found.pod)
    return found


@pytest.fixture(scope="session")
def calm(cluster, prometheus):
    """The scan of the survey that nobody disturbs, to its end."""
    return scan_job(cluster, "calm").wait(400)


@pytest.fixture(scope="session")
def service(cluster, calm, prometheus):
    """The pod of the catalogue service, after an upgrade that adds it."""
    cluster.apply(rendered(service={"enabled": True}))
    [pod] = wait_until(lambda: cluster.running("service"), 60, "a pod of the service")
    await_ready(pod)
    return pod
