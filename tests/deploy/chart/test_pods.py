"""What holds of every pod that the chart can make: who it runs as, what it may write, what it may take, who it is."""

import pytest
from manifests.cases import CASES
from manifests.pods import at, of_kind, pods
from manifests.quantities import number
from manifests.rendering import RELEASE

COMPONENTS = {"scan", "worker", "scheduler", "service", "train", "export", "promote", "test"}
#: All that a process may write to; the rest of its file system is read-only.
WRITABLE = ("/tmp", "/data", "/scratch", "/cache", "/grades", "/dev/shm")
STANDARD = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
    "helm.sh/chart",
}


def test_pods_run_as_nobody_in_particular(manifests):
    for pod in pods(manifests):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.name
        assert context["runAsUser"] >= 10000, pod.name
        assert context["runAsGroup"] >= 10000, pod.name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name
        for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            assert not pod.spec.get(field), (pod.name, field)


def test_containers_can_become_nothing_more(manifests):
    for pod in pods(manifests):
        for container in pod.containers:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, pod.name
            assert context["readOnlyRootFilesystem"] is True, pod.name
            assert context["capabilities"] == {"drop": ["ALL"]}, pod.name
            assert not context.get("privileged"), pod.name
            assert context.get("runAsUser", 10001) != 0, pod.name


def test_volumes_are_no_hole_in_the_wall(manifests, named_in_values):
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            # Unless whoever wrote the values wanted just that.
            assert "hostPath" not in volume or volume["name"] in named_in_values, (pod.name, volume["name"])
            # Without a limit, one pod fills the node's disk and takes its neighbours along.
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], (pod.name, volume["name"])


def test_every_process_can_write_where_it_must_and_nowhere_else(manifests):
    for pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for container in pod.containers:
            mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
            assert "/tmp" in mounts or "command" in container, f"{pod.name}: HOME is /tmp"
            for path, mount in mounts.items():
                volume = volumes[mount["name"]]
                if volume.keys() & {"configMap", "secret", "projected"}:
                    assert mount.get("readOnly") is True, (pod.name, path)
                elif not mount.get("readOnly"):
                    assert path.startswith(WRITABLE), (pod.name, path)


def test_nothing_runs_without_resources(manifests):
    for pod in pods(manifests):
        for container in pod.containers:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert number(requests["cpu"]) > 0, pod.name
            # Memory that is promised to two is had by neither: the kernel ends one of them in the middle of a tile.
            assert number(requests["memory"]) == number(limits["memory"]), pod.name
            for resource in limits:
                if "/" in resource:
                    assert requests.get(resource, limits[resource]) == limits[resource], pod.name


def test_only_a_driver_that_scales_its_workers_has_a_token(manifests):
    may = {subject["name"] for binding in of_kind(manifests, "RoleBinding").values() for subject in binding["subjects"]}
    for account in of_kind(manifests, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]
    for pod in pods(manifests):
        if pod.spec.get("automountServiceAccountToken") is not False:
            assert pod.component == "scan", pod.name
            assert pod.spec["serviceAccountName"] in may, pod.name
        else:
            assert pod.spec.get("serviceAccountName") not in may, f"{pod.name} has rights and no token to use them"


def test_pods_do_not_learn_of_all_services_by_their_environment(manifests):
    for pod in pods(manifests):
        assert pod.spec["enableServiceLinks"] is False, pod.name


def test_everything_says_what_it_is(manifests):
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels.keys() >= STANDARD, (manifest["kind"], manifest["metadata"]["name"])
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "scanner"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
    for pod in pods(manifests):
        if pod.kind != "DaskCluster":
            assert pod.labels["app.kubernetes.io/name"] == "scanner", pod.name
            assert pod.labels["app.kubernetes.io/instance"] == RELEASE, pod.name
            assert pod.component in COMPONENTS, pod.name
        if pod.component in {"scan", "worker"}:
            assert pod.labels.get("scanner.lensing/survey") or pod.kind == "DaskCluster", pod.name


def test_standing_processes_are_probed(manifests):
    for pod in pods(manifests):
        if pod.kind == "Deployment":
            (container,) = pod.spec["containers"]
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in {"service": ("startupProbe", "livenessProbe", "readinessProbe")}.get(
                pod.component, ("livenessProbe",)
            ):
                assert probe in container, (pod.name, probe)
                where = at(container[probe], ("httpGet", "port")) or at(container[probe], ("tcpSocket", "port"))
                assert where in ports, (pod.name, probe)


def test_everything_has_time_to_put_its_things_in_order(manifests):
    for pod in pods(manifests):
        least = {"worker": 120, "scan": 120, "train": 60, "service": 30, "scheduler": 30}.get(pod.component, 0)
        assert pod.spec.get("terminationGracePeriodSeconds", 30) >= least, pod.name


def test_no_secret_is_in_the_manifests(manifests):
    assert of_kind(manifests, "Secret") == {}
    for pod in pods(manifests):
        for container in pod.containers:
            for variable in container.get("env", []):
                secret = any(word in variable["name"] for word in ("SECRET", "PASSWORD", "ACCESS_KEY"))
                assert not (secret and "value" in variable), (pod.name, variable["name"])


def test_images_are_the_releases_own_and_of_one_version(manifests):
    for pod in pods(manifests):
        for container in pod.containers:
            _, _, tag = container["image"].partition(":")
            assert tag, (pod.name, container["image"])
            assert not tag.endswith("latest"), (pod.name, container["image"])
            assert container["imagePullPolicy"] in {"IfNotPresent", "Always"}, pod.name


#: Component → images that have what it needs; a promotion scores, which needs no torch.
IMAGES = {
    "scan": {"scan"},
    "worker": {"scan"},
    "scheduler": {"scan"},
    "promote": {"scan"},
    "train": {"train"},
    "export": {"train"},
    "service": {"api"},
    "test": {"scan", "api"},
}
DIGESTS = {image: f"sha256:{count:064x}" for count, image in enumerate(("scan", "scan-gpu", "train", "train-gpu", "api"))}


@pytest.fixture(scope="session")
def by_digest(helm):
    """Renders a case with every image named by digest."""
    images = {
        "scan": {"cpu": {"digest": DIGESTS["scan"]}, "gpu": {"digest": DIGESTS["scan-gpu"]}},
        "train": {"cpu": {"digest": DIGESTS["train"]}, "gpu": {"digest": DIGESTS["train-gpu"]}},
        "api": {"digest": DIGESTS["api"]},
    }
    settings = {"images": images, "image": {"repository": "registry.example/scanner"}}
    return lambda *files: helm.template(*files, settings=settings)


def test_a_digest_wins_over_a_tag(by_digest, case):
    for pod in pods(by_digest(*CASES[case])):
        on_gpu = any("gpu" in resource for container in pod.containers for resource in container["resources"]["limits"])
        for container in pod.containers:
            repository, _, digest = container["image"].partition("@")
            assert repository == "registry.example/scanner", pod.name
            image = next(image for image, known in DIGESTS.items() if known == digest)
            assert image.removesuffix("-gpu") in IMAGES[pod.component], pod.name
            assert image.endswith("-gpu") == on_gpu, pod.name
