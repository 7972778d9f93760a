"""What an API server refuses although the schemas allow it: names, labels, ports, schedules, failure policies, quantities."""

import re
from collections import Counter
from zoneinfo import ZoneInfo

import pytest
from manifests.pods import TEMPLATES, at, pods
from manifests.quantities import number

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUALIFIED_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
#: Kinds whose name becomes a label or a host.
LABELLED_BY_NAME = {"Service", "Deployment", "Job", "DaskCluster", "Pod", "StatefulSet"}


def cron_field(text, lowest, highest):
    """Whether a field of a cron schedule can be read."""
    for part in text.split(","):
        found = re.fullmatch(r"(\*|\d+(?:-(\d+))?)(?:/([1-9]\d*))?", part)
        if found is None:
            return False
        numbers = [int(word) for word in re.findall(r"\d+", found[1])]
        if any(not lowest <= value <= highest for value in numbers) or numbers != sorted(numbers):
            return False
    return True


def repeated(values):
    return [value for value, times in Counter(values).items() if times > 1]


def test_no_object_is_there_twice(manifests):
    assert (
        repeated((m["apiVersion"], m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests) == []
    )


def test_names_of_objects(manifests):
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        assert (DNS_LABEL if kind in LABELLED_BY_NAME else DNS_SUBDOMAIN).fullmatch(name), (kind, name)
        # A CronJob appends eleven characters, the Dask operator `-scheduler` and `-default-worker-…`.
        assert len(name) <= {"CronJob": 52, "DaskCluster": 41}.get(kind, 63), (kind, name)


def test_labels_and_annotations(manifests):
    for manifest in manifests:
        for metadata in [
            manifest["metadata"],
            *(at(manifest, (*path, "metadata"), {}) for path in TEMPLATES.get(manifest["kind"], [])),
        ]:
            labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
            for key, value in labels.items():
                assert QUALIFIED_NAME.fullmatch(key), (manifest["kind"], key)
                assert LABEL_VALUE.fullmatch(value), (manifest["kind"], key, value)
            for key, value in annotations.items():
                assert QUALIFIED_NAME.fullmatch(key), (manifest["kind"], key)
                assert isinstance(value, str), (manifest["kind"], key, value)


def test_pods_name_nothing_twice(manifests):
    for pod in pods(manifests):
        assert repeated(container["name"] for container in pod.containers) == [], pod.name
        assert repeated(volume["name"] for volume in pod.spec.get("volumes", [])) == [], pod.name
        assert repeated(port["name"] for container in pod.containers for port in container.get("ports", [])) == [], pod.name
        for container in pod.containers:
            assert DNS_LABEL.fullmatch(container["name"])
            assert repeated(variable["name"] for variable in container.get("env", [])) == [], pod.name
            assert repeated(mount["mountPath"] for mount in container.get("volumeMounts", [])) == [], pod.name
            assert repeated(port["containerPort"] for port in container.get("ports", [])) == [], pod.name
            assert all(PORT_NAME.fullmatch(port["name"]) for port in container.get("ports", [])), pod.name


def test_volumes_have_one_source(manifests):
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            assert len(volume.keys() - {"name"}) == 1, (pod.name, volume)
        for container in pod.containers:
            for variable in container.get("env", []):
                assert len(variable.keys() - {"name"}) == 1, (pod.name, variable)
                assert isinstance(variable.get("value", ""), str), (pod.name, variable)


def test_schedules_can_be_read(manifests):
    for job in (manifest for manifest in manifests if manifest["kind"] == "CronJob"):
        schedule = job["spec"]["schedule"]
        if not re.fullmatch(r"@(hourly|daily|midnight|weekly|monthly|yearly|annually)", schedule):
            fields = schedule.split()
            assert len(fields) == 5, schedule
            ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
            assert all(cron_field(field, *limits) for field, limits in zip(fields, ranges, strict=True)), schedule
        assert ZoneInfo(job["spec"]["timeZone"]).key == job["spec"]["timeZone"]


@pytest.mark.parametrize(
    ("field", "right"),
    [("*", True), ("*/15", True), ("1-5", True), ("0,30", True), ("61", False), ("5-1", False), ("*/0", False), ("x", False)],
)
def test_fields_of_schedules(field, right):
    assert cron_field(field, 0, 59) is right


def job_specs(manifests):
    """Every spec of a Job, by the name of what holds it."""
    for manifest in manifests:
        path = {"Job": ("spec",), "CronJob": ("spec", "jobTemplate", "spec")}.get(manifest["kind"])
        if path is not None:
            yield manifest["metadata"]["name"], at(manifest, path)


def test_jobs_have_a_failure_policy_that_is_allowed(manifests):
    for name, spec in job_specs(manifests):
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] in {"Never", "OnFailure"}, name
        policy = spec.get("podFailurePolicy")
        if policy is None:
            continue
        assert pod["restartPolicy"] == "Never", f"{name}: a failure policy needs it"
        assert spec.get("podReplacementPolicy", "Failed") == "Failed", name
        containers = {container["name"] for container in pod["containers"] + pod.get("initContainers", [])}
        for rule in policy["rules"]:
            assert len(rule.keys() & {"onExitCodes", "onPodConditions"}) == 1, (name, rule)
            codes = rule.get("onExitCodes")
            if codes is not None:
                assert codes.get("containerName", pod["containers"][0]["name"]) in containers, name
                assert codes["values"] == sorted(set(codes["values"])), f"{name}: not in order, or twice"
                assert all(0 < code < 256 for code in codes["values"]), name
            for condition in rule.get("onPodConditions", []):
                # Left out, older servers refuse it.
                assert condition["status"] == "True", name


def test_jobs_end(manifests):
    for name, spec in job_specs(manifests):
        assert spec["activeDeadlineSeconds"] > 0, name
        assert spec["backoffLimit"] >= 0, name


def test_quantities_are_quantities_and_requests_within_limits(manifests):
    for pod in pods(manifests):
        for container in pod.containers:
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for resource, wanted in requests.items():
                assert number(wanted) <= number(limits.get(resource, wanted)), (pod.name, resource)
            for resource, most in limits.items():
                assert number(most) > 0, (pod.name, resource)
                if "/" in resource:
                    # Extended resources cannot be shared out: a request is the limit or is not there.
                    assert requests.get(resource, most) == most, (pod.name, resource)
                    assert number(most) == int(number(most)), (pod.name, resource)
        for volume in pod.spec.get("volumes", []):
            size = at(volume, ("emptyDir", "sizeLimit"))
            assert size is None or number(size) > 0, (pod.name, volume)


def test_probes_are_what_kubelet_takes(manifests):
    for pod in pods(manifests):
        for container in pod.containers:
            for kind in ("livenessProbe", "startupProbe"):
                assert at(container, (kind, "successThreshold"), 1) == 1, (pod.name, kind)
            for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
                probe = container.get(kind)
                if probe is not None:
                    assert len(probe.keys() & {"httpGet", "tcpSocket", "exec", "grpc"}) == 1, (pod.name, kind)


def test_config_maps_hold_text(manifests):
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            data = manifest["data"]
            assert all(CONFIG_KEY.fullmatch(key) and isinstance(value, str) for key, value in data.items())
            assert sum(map(len, data.values())) < 2**20, manifest["metadata"]["name"]


def test_disruption_budgets_say_one_thing(manifests):
    for manifest in manifests:
        if manifest["kind"] == "PodDisruptionBudget":
            assert len(manifest["spec"].keys() & {"minAvailable", "maxUnavailable"}) == 1
