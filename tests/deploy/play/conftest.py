"""The rendered chart, played: what it asks for runs as pods of podman, with its rules of traffic, rights and Jobs in force."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from functools import cached_property
from pathlib import Path

import programs
import pytest
import trustme
from disturbed.results import leftovers, n_committed, promised
from manifests.pods import at, pods
from manifests.rendering import NAMESPACE, RELEASE, find_helm
from podman_cluster import jobs, keda, object_store
from podman_cluster.cluster import Cluster
from podman_cluster.kubelet import await_ready
from podman_cluster.podman import Podman
from podman_cluster.prometheus import Prometheus
from waiting import LIMIT_S, wait_for

from scanner.config import StorageConfig
from scanner.storage import open_store

VALUES = Path(__file__).with_name("values.yaml")
BUCKET = "play"
#: Names of the chart's objects begin with it.
FULL_NAME = f"{RELEASE}-scanner"
N_TILES, N_WORKERS = 6, 2
PROMETHEUS = programs.find("prometheus")
NEEDED = ("podman", "crun", "nft", "nsenter", "unshare")
#: Of the survey's label on pods.
SURVEY = "scanner.lensing/survey"


def rendered(**settings):
    """Manifests of the chart with the values of this folder: (those that are installed, those of ``helm test``)."""
    installed, tests = [], []
    for manifest in find_helm().template(VALUES, settings=settings):
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
    """The installed chart; ``image`` is the one that scans."""

    def __init__(self, cluster, image, endpoint):
        self.cluster, self.image = cluster, image
        self.storage = StorageConfig(endpoint=endpoint)
        self._secrets = [certificate(), object_store.SECRET]

    def upgrade(self, **settings):
        """Install the chart, or install it anew with other settings."""
        storage = {"endpoint": self.storage.endpoint, "existingSecret": object_store.SECRET["metadata"]["name"]}
        self.cluster.apply([*self._secrets, *rendered(objectStorage=storage, **settings)[0]])

    @cached_property
    def data(self):
        """The data volume, as the node sees it."""
        return self.cluster.volume(f"{FULL_NAME}-data")

    def upload(self, name):
        """Copy a folder of the data volume into the object store."""
        store = open_store(f"s3://{BUCKET}", self.storage)
        for path in sorted((self.data / name).rglob("*")):
            if path.is_file():
                store.write(str(path.relative_to(self.data)), path.read_bytes())

    def folder(self, survey):
        """Run folder of a survey, as the node sees it."""
        return f"s3://{BUCKET}/remote" if survey == "remote" else str(self.data / survey)

    def promised(self, survey):
        """Hash of each file that a survey's run folder must hold again."""
        return promised(self.folder(survey), self.storage)

    def leftovers(self, survey):
        """What lies in a survey's run folder and should not."""
        return leftovers(self.folder(survey), self.storage)

    def begin(self, survey):
        """The Job that the survey's schedule would begin now."""
        spec = self.cluster.of_kind("CronJob")[f"{FULL_NAME}-{survey}-scan"]["spec"]["jobTemplate"]["spec"]
        return jobs.begin(self.cluster, f"{FULL_NAME}-{survey}-scan", spec)

    def workers(self, survey):
        """Pods of a survey's workers."""
        return self.cluster.running("worker", **{SURVEY: survey})

    def await_tiles(self, survey, number):
        """Until so many tiles are committed; how many are."""
        wait_for(f"{number} tiles of {survey}", lambda: n_committed(self.folder(survey), self.storage) >= number)
        return n_committed(self.folder(survey), self.storage)


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    images = os.environ.get("SCANNER_IMAGE_STORE")
    if images is None:
        pytest.skip(
            "SCANNER_IMAGE_STORE names no storage with images ('make verify-play' builds them): the chart is not played"
        )
    missing = [program for program in NEEDED if shutil.which(program) is None] + ["root"] * (os.geteuid() != 0)
    missing += ["helm ('make helm')"] * (find_helm() is None) + ["prometheus ('make prometheus')"] * (PROMETHEUS is None)
    if missing:
        pytest.skip(f"'make verify-play' needs {', '.join(missing)}")
    podman = Podman(tmp_path_factory.mktemp("podman"), images)
    yield podman
    podman.close()


@pytest.fixture(scope="session")
def release(podman, tmp_path_factory):
    """The chart installed, with tiles on its volume; no scan has begun and the service is not there yet."""
    cluster = Cluster(podman, NAMESPACE)
    with closing(cluster), pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.KEYS.items():
            patch.setenv(name, value)
        image = at(pods(rendered()[0])[0].spec, ("containers", 0, "image"))
        weed = Path(sys.executable).with_name("weed")
        storage = object_store.start(cluster, weed, image, tmp_path_factory.mktemp("storage"), [BUCKET])
        release = Release(cluster, image, object_store.endpoint(storage))
        release.upgrade()
        words = ["simulate", "tiles", "--n", str(N_TILES), "--size", "640", "--seed", "3", "--no-companions", "--workers", "1"]
        subprocess.run(
            [sys.executable, "-m", "scanner", *words, "--out", release.data / "sky"], check=True, capture_output=True
        )
        release.upload("sky")
        yield release


@pytest.fixture(scope="session")
def cluster(release):
    return release.cluster


@pytest.fixture(scope="session")
def prometheus(release, tmp_path_factory):
    found = Prometheus(release.cluster, PROMETHEUS, release.image, tmp_path_factory.mktemp("prometheus"))
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
    return job.wait(LIMIT_S), lost


@pytest.fixture(scope="session")
def remote(release, prometheus):
    """The scan on the object store, whose driver is told to go, as where a node is drained, at its end."""
    job = release.begin("remote")
    done = release.await_tiles("remote", 2)
    assert done < N_TILES, "the driver is told too late for this test"
    job.tries[0].pod.stop()
    return job.wait(LIMIT_S)


@pytest.fixture(scope="session")
def counted(release, prometheus):
    """The scan whose workers come by KEDA, at its end, when these have gone."""
    with keda.keeping(release.cluster, prometheus):
        job = release.begin("counted")
        wait_for("the workers", lambda: len(release.workers("counted")) == N_WORKERS)
        job.wait(LIMIT_S)
        wait_for("the end of the workers", lambda: release.workers("counted") == [])
    return job


@pytest.fixture(scope="session")
def broken(release, prometheus):
    """The scan that cannot succeed, at its end."""
    return release.begin("broken").wait(200)


@pytest.fixture(scope="session")
def service(release, calm):
    """The pod of the catalogue service, after an upgrade that adds it."""
    release.upgrade(service={"enabled": True})
    [pod] = wait_for("a pod of the service", lambda: release.cluster.running("service"))
    await_ready(pod)
    return pod


@pytest.fixture(scope="session")
def standing(release, prometheus, stormy, remote, counted, broken, service):
    """A scan after an upgrade to a scheduler that outlives the scans, at its end."""
    survey = {"out": "/data/standing", "workers": {"scaling": "fixed"}}
    release.upgrade(service={"enabled": True}, scheduler={"standing": {"enabled": True}}, surveys={"standing": survey})
    [scheduler] = wait_for("the scheduler", lambda: release.cluster.running("scheduler"))
    await_ready(scheduler)
    return release.begin("standing").wait(400)


@pytest.fixture(scope="session")
def rendered_tests():
    """Pods of ``helm test`` by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in rendered(service={"enabled": True})[1]}
