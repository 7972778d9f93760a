"""The rendered chart, played: what it asks for runs as pods of podman, with its rules of traffic, rights and Jobs in force."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from disturbed.processes import wait_for
from disturbed.results import n_committed
from manifests.rendering import NAMESPACE, PLACES, RELEASE, ROOT, find_helm
from podman_cluster import jobs
from podman_cluster.cluster import Cluster
from podman_cluster.kubelet import await_ready
from podman_cluster.podman import Podman
from podman_cluster.prometheus import Prometheus

from scanner.config import StorageConfig

VALUES = Path(__file__).with_name("values.yaml")
#: Names of the chart's objects begin with it.
FULL_NAME = f"{RELEASE}-scanner"
N_TILES, N_WORKERS = 6, 2
NEEDED = ("podman", "crun", "nft", "nsenter", "unshare")
#: Of the survey's label on pods.
SURVEY = "scanner.lensing/survey"
LOCAL = StorageConfig()


def rendered(**settings):
    """Manifests of the chart with the values of this folder: (those that are installed, those of ``helm test``)."""
    helm = find_helm()
    if helm is None:
        pytest.skip("helm is not there ('make helm' fetches it): the chart is not played")
    installed, tests = [], []
    for manifest in helm.template(VALUES, settings=settings):
        is_test = manifest["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
        (tests if is_test else installed).append(manifest)
    return installed, tests


def certificate():
    """Secret for the traffic of Dask, as cert-manager writes one."""
    authority = trustme.CA()
    issued = authority.issue_cert("scanner")
    content = {
        "ca.crt": authority.cert_pem.bytes().decode(),
        "tls.crt": issued.cert_chain_pems[0].bytes().decode(),
        "tls.key": issued.private_key_pem.bytes().decode(),
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dask-certificate"}, "stringData": content}


class Release:
    """The installed chart."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.data = cluster.volume(f"{FULL_NAME}-data")

    def folder(self, survey):
        """Run folder of a survey, as the node sees it."""
        return str(self.data / survey)

    def begin(self, survey):
        """The Job that the survey's schedule would begin now."""
        spec = self.cluster.of_kind("CronJob")[f"{FULL_NAME}-{survey}-scan"]["spec"]["jobTemplate"]["spec"]
        return jobs.begin(self.cluster, f"{FULL_NAME}-{survey}-scan", spec)

    def workers(self, survey):
        """Pods of a survey's workers."""
        return self.cluster.running("worker", **{SURVEY: survey})

    def await_tiles(self, survey, number):
        """Until so many tiles are committed; how many are."""
        wait_for(f"{number} tiles of {survey}", lambda: n_committed(self.folder(survey), LOCAL) >= number, 300)
        return n_committed(self.folder(survey), LOCAL)


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    images = os.environ.get("SCANNER_IMAGE_STORE")
    if images is None:
        pytest.skip(
            "SCANNER_IMAGE_STORE names no storage with images ('make verify-play' builds them): the chart is not played"
        )
    missing = [program for program in NEEDED if shutil.which(program) is None] + ["root"] * (os.geteuid() != 0)
    if missing:
        pytest.skip(f"{', '.join(missing)} is not there: the chart is not played")
    podman = Podman(tmp_path_factory.mktemp("podman"), images)
    yield podman
    podman.close()


@pytest.fixture(scope="session")
def release(podman):
    """The chart installed, with tiles on its volume; no scan has begun and the service is not there yet."""
    cluster = Cluster(podman, NAMESPACE)
    try:
        cluster.apply([certificate(), *rendered()[0]])
        release = Release(cluster)
        words = ["simulate", "tiles", "--n", str(N_TILES), "--size", "640", "--seed", "3", "--no-companions", "--workers", "1"]
        subprocess.run(
            [sys.executable, "-m", "scanner", *words, "--out", release.data / "sky"], check=True, capture_output=True
        )
        yield release
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def cluster(release):
    return release.cluster


@pytest.fixture(scope="session")
def prometheus(release, tmp_path_factory):
    program = shutil.which("prometheus", path=os.pathsep.join([PLACES, str(ROOT / ".venv" / "prometheus" / "usr" / "bin")]))
    if program is None:
        pytest.skip("prometheus is not there ('make prometheus' fetches it): the chart is not played")
    [worker, *_] = release.cluster.of_kind("Deployment").values()
    image = worker["spec"]["template"]["spec"]["containers"][0]["image"]
    found = Prometheus(release.cluster, program, image, tmp_path_factory.mktemp("prometheus"))
    await_ready(found.pod)
    return found


@pytest.fixture(scope="session")
def calm(release, prometheus):
    """The scan that nobody disturbs, at its end."""
    return release.begin("calm").wait(400)


@pytest.fixture(scope="session")
def stormy(release, prometheus, calm):
    """The scan that loses a worker and then its driver, at its end; and the worker."""
    job = release.begin("stormy")
    release.await_tiles("stormy", 1)
    lost = release.workers("stormy")[0]
    release.cluster.delete(lost, grace=0)
    done = release.await_tiles("stormy", 3)
    assert done < N_TILES, "the driver is killed too late for this test"
    job.tries[0].pod.kill()
    return job.wait(400), lost


@pytest.fixture(scope="session")
def broken(release, prometheus):
    """The scan that cannot succeed, at its end."""
    return release.begin("broken").wait(200)


@pytest.fixture(scope="session")
def service(release, calm):
    """The pod of the catalogue service, after an upgrade that adds it."""
    release.cluster.apply(rendered(service={"enabled": True})[0])
    [pod] = wait_for("a pod of the service", lambda: release.cluster.running("service"), 60)
    await_ready(pod)
    return pod


@pytest.fixture(scope="session")
def rendered_tests():
    """Pods of ``helm test`` by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in rendered(service={"enabled": True})[1]}
