"""The Dask operator's part: who is found under which name, what the operator makes of ours, when a cluster is another one."""

import re

import pytest
from manifests.pods import at, of_kind, pods
from manifests.rendering import RefusedError

LONG = "a-survey-with-a-name-of-32-chars"
TLS = {"dask": {"tls": {"enabled": True, "existingSecret": "dask-tls"}}}


def survey(name="q1", workers=(), **others):
    """Values with one survey of the operator's."""
    workers = {"scaling": "operator", "replicas": 40} | dict(workers)
    return {
        "surveys": {name: {"tileList": {"url": "s3://sky/tiles.txt"}, "out": f"s3://runs/{name}", "workers": workers}}
    } | others


def only(manifests, kind):
    (manifest,) = of_kind(manifests, kind).values()
    return manifest


def args(manifests, component):
    (pod,) = (pod for pod in pods(manifests) if pod.component == component)
    return pod.containers[0]["args"]


@pytest.fixture
def render(helm):
    return lambda settings, **how: helm.template(settings=settings, **how)


@pytest.fixture(scope="module")
def before(helm):
    """What is rendered where nothing else is said; only to be read."""
    return helm.template(settings=survey())


@pytest.mark.parametrize(("tls", "scheme"), [({}, "tcp"), (TLS, "tls")])
def test_scan_and_workers_go_to_the_service_that_the_operator_makes(render, tls, scheme):
    manifests = render(survey(**tls))
    cluster = only(manifests, "DaskCluster")
    name = cluster["metadata"]["name"]
    address = f"{scheme}://{name}-scheduler:8786"
    assert f"--scheduler={address}" in args(manifests, "scan")
    assert args(manifests, "worker")[:2] == ["worker", address]
    assert "--workers=40" in args(manifests, "scan")
    service = at(cluster, ("spec", "scheduler", "service"))
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]}
    # By these names the operator looks for them.
    assert ports == {"tcp-comm": (8786, "dask"), "http-dashboard": (8787, "http-dashboard")}
    opened = {
        port["name"]: port["containerPort"] for port in at(cluster, ("spec", "scheduler", "spec", "containers", 0, "ports"))
    }
    assert opened == {"dask": 8786, "http-dashboard": 8787}
    assert {"--port=8786", "--http-port=8787"} <= set(args(manifests, "scheduler"))
    # The operator deletes the Deployment that is called as the retired worker.
    assert "--name=$(DASK_WORKER_NAME)" in args(manifests, "worker")
    assert "POD_NAME" not in str(at(cluster, ("spec", "worker")))


def test_the_chart_makes_no_workers_of_its_own(before):
    assert [kind for kind in ("Deployment", "Role", "Service", "DaskJob") if of_kind(before, kind)] == []


def test_the_autoscaler_knows_its_cluster_and_its_bounds(render):
    manifests = render(survey(daskOperator={"minimum": 3}))
    name = only(manifests, "DaskCluster")["metadata"]["name"]
    assert only(manifests, "DaskAutoscaler")["spec"] == {"cluster": name, "minimum": 3, "maximum": 40}
    assert at(only(manifests, "DaskCluster"), ("spec", "worker", "replicas")) == 3


@pytest.mark.parametrize("release", ["e", "a-release-with-a-name-of-40-characters--"[:38]])
@pytest.mark.parametrize("name", ["q", LONG])
def test_whatever_the_operator_makes_of_the_name_is_a_name(render, release, name):
    cluster = only(render(survey(name), release=release), "DaskCluster")["metadata"]["name"]
    for made in (f"{cluster}-scheduler", f"{cluster}-default", f"{cluster}-default-worker-0123456789"):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", made), made


def test_surveys_have_clusters_of_their_own(render):
    settings = survey(LONG)
    settings["surveys"] |= survey(LONG[:-1])["surveys"]
    manifests = render(settings, release="a-release-with-a-long-name")
    names = {pod.name.split("/")[1] for pod in pods(manifests) if pod.kind == "DaskCluster"}
    assert len(names) == 2
    assert {scaler["spec"]["cluster"] for scaler in of_kind(manifests, "DaskAutoscaler").values()} == names
    assert (
        len(
            {
                word
                for pod in pods(manifests)
                if pod.component == "scan"
                for word in pod.containers[0]["args"]
                if "--scheduler" in word
            }
        )
        == 2
    )


CHANGES = [
    {"image": {"tag": "9.9"}},
    {"objectStorage": {"existingSecret": "other"}},
    {"podLabels": {"team": "lenses"}},
    {"daskOperator": {"scheduler": {"nodeSelector": {"stays": "yes"}}}},
    TLS,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_other_pods_are_another_cluster(render, before, change):
    """The operator never changes a cluster's pods: under the old name they would stay what they are."""
    after = render(survey() | change)
    assert only(before, "DaskCluster")["metadata"]["name"] != only(after, "DaskCluster")["metadata"]["name"]


@pytest.mark.parametrize("settings", [survey(workers={"replicas": 80}), survey(daskOperator={"minimum": 1})])
def test_the_number_of_workers_is_no_reason_for_another_cluster(render, before, settings):
    before, after = only(before, "DaskCluster"), only(render(settings), "DaskCluster")
    assert before["metadata"]["name"] == after["metadata"]["name"]
    assert at(before, ("spec", "worker", "spec")) == at(after, ("spec", "worker", "spec"))


def test_a_new_hour_is_no_reason_either(render, before):
    later = survey()
    later["surveys"]["q1"]["schedule"] = "0 5 * * *"
    assert only(render(later), "DaskCluster") == only(before, "DaskCluster")


def test_quantities_are_strings_and_lists_are_not_null(render):
    """Otherwise the API server refuses the cluster, or the operator stumbles over it."""
    resources = {"requests": {"cpu": 4, "memory": "8Gi"}, "limits": {"cpu": 4.5, "memory": "8Gi"}}
    cluster = only(render(survey(workers={"gpu": True, "resources": resources})), "DaskCluster")
    container = at(cluster, ("spec", "worker", "spec", "containers", 0))
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "4.5", "memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    assert "env" not in container
    with_secret = only(render(survey(objectStorage={"existingSecret": "s3"})), "DaskCluster")
    names = [one["name"] for one in at(with_secret, ("spec", "worker", "spec", "containers", 0, "env"))]
    assert names == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_only_the_operator_reaches_the_port_where_workers_are_sent_away(render):
    manifests = render(survey(daskOperator={"namespace": "dask"}))
    letting = [
        (policy["metadata"]["name"], rule["from"])
        for policy in of_kind(manifests, "NetworkPolicy").values()
        for rule in policy["spec"].get("ingress", [])
        if any(port["port"] == 8787 for port in rule["ports"])
    ]
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dask"}}}
    assert letting == [("euclid-scanner-allow-dask-operator", [peer])]


def test_a_standing_scheduler_is_refused_beside_it(render):
    with pytest.raises(RefusedError, match=r"surveys\.q1\.workers\.scaling: operator brings a scheduler of its own"):
        render(survey(scheduler={"standing": {"enabled": True}}))


def test_workers_wait_in_kueues_queue(render):
    cluster = only(render(survey(kueue={"queue": "lenses"})), "DaskCluster")
    assert at(cluster, ("spec", "worker", "metadata", "labels", "kueue.x-k8s.io/queue-name")) == "lenses"
    assert "kueue.x-k8s.io/queue-name" not in at(cluster, ("spec", "scheduler", "metadata", "labels"))
