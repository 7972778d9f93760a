"""Who may speak to whom: every pair of pods, and every pod and what is outside, at every port that anything listens at."""

import pytest
from manifests.pods import of_kind, pods
from manifests.reach import Host, Pod, may_reach

SURVEY = {"tileList": {"url": "s3://surveys/list.txt"}, "out": "s3://surveys/out"}
KEDA = {"workers": {"scaling": "keda", "keda": {"serverAddress": "http://prometheus:9090"}}}
SERVICE = {"enabled": True, "folders": ["s3://surveys/out"], "public": True}
TRAINING = {"enabled": True, "data": ["s3://sets/train"], "mirror": "s3://sets/runs"}
EVERYTHING = {
    "surveys": {"driven": SURVEY, "watched": SURVEY | KEDA | {"out": "s3://surveys/watched"}},
    "service": SERVICE,
    "training": TRAINING,
}

PORTS = (22, 53, 80, 443, 5000, 6443, 8420, 8786, 8787, 9000, 9464)
PROMETHEUS = Pod({"app.kubernetes.io/name": "prometheus"}, "monitoring")
STRANGER = Pod({"app": "stranger"}, "elsewhere")
NEIGHBOUR = Pod({"app.kubernetes.io/name": "scanner", "app.kubernetes.io/instance": "another"})
NAME_SERVER = Pod({"k8s-app": "kube-dns"}, "kube-system")
INTERNET = Host("203.0.113.7")


class Network:
    """The release's pods by component and survey, and its policies."""

    def __init__(self, manifests):
        self.policies = list(of_kind(manifests, "NetworkPolicy").values())
        found = {(pod.component, pod.labels.get("scanner.lensing/survey")): Pod(pod.labels) for pod in pods(manifests)}
        self.pods = {"-".join(filter(None, key)): pod for key, pod in found.items()}

    def within(self):
        """All that the release's pods may do with one another."""
        return {
            (source, target, port)
            for source, a in self.pods.items()
            for target, b in self.pods.items()
            for port in PORTS
            if may_reach(self.policies, a, b, port)
        }

    def into(self, source):
        """What somebody else may reach."""
        return {
            (name, port) for name, pod in self.pods.items() for port in PORTS if may_reach(self.policies, source, pod, port)
        }

    def out_of(self, target, protocol="TCP"):
        """Who may reach something else."""
        return {
            (name, port)
            for name, pod in self.pods.items()
            for port in PORTS
            if may_reach(self.policies, pod, target, port, protocol)
        }


@pytest.fixture(scope="module")
def network(helm):
    return Network(helm.template(settings=EVERYTHING))


def test_pods_speak_to_one_another_where_dask_does_and_nowhere_else(network):
    scans, workers = {"scan-driven", "scan-watched"}, {"worker-driven", "worker-watched"}
    assert network.pods.keys() == scans | workers | {"service", "train", "test"}
    expected = {(worker, scan, 8786) for worker in workers for scan in scans}
    expected |= {(one, worker, 9000) for worker in workers for one in scans | workers}
    assert network.within() == expected | {("test", "service", 8420)}


def test_with_a_standing_scheduler_drivers_and_workers_meet_there(helm):
    fixed = SURVEY | {"workers": {"scaling": "fixed"}}
    network = Network(helm.template(settings={"surveys": {"q1": fixed}, "scheduler": {"standing": {"enabled": True}}}))
    assert {
        ("scan-q1", "scheduler", 8786),
        ("worker-q1", "scheduler", 8786),
        ("scheduler", "worker-q1", 9000),
    } <= network.within()


def test_prometheus_reads_metrics_and_strangers_see_the_service_only(network):
    watched = {"scan-driven", "scan-watched", "worker-driven", "worker-watched", "train"}
    assert network.into(PROMETHEUS) == {(name, 9464) for name in watched} | {("service", 8420)}
    assert network.into(STRANGER) == network.into(NEIGHBOUR) == {("service", 8420)}
    assert network.into(INTERNET) == set()


def test_the_service_can_be_kept_for_the_ingress(helm):
    ingress = {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]}
    network = Network(helm.template(settings={"service": SERVICE, "networkPolicy": {"service": ingress}}))
    assert network.into(STRANGER) == set()
    assert network.into(Pod({"app": "nginx"}, "ingress")) == {("service", 8420)}
    # Still the test, which is the release's own.
    assert network.within() == {("test", "service", 8420)}


def test_everybody_finds_names_and_those_who_need_it_the_store_and_the_api(network):
    everybody = set(network.pods)
    assert network.out_of(NAME_SERVER, "UDP") == {(name, 53) for name in everybody}
    # The API of Kubernetes is at 6443; at 443 object stores are reached, wherever they are.
    assert network.out_of(INTERNET) == {(name, 443) for name in everybody - {"test"}} | {("scan-driven", 6443)}
    assert network.out_of(STRANGER) == set()


@pytest.mark.parametrize(
    ("endpoint", "ports", "reached"),
    [
        ("", [], 443), ("https://s3.example.org", [], 443), ("http://s3.example.org/", [], 80),
        ("https://s3.example.org:9000", [], 9000), ("http://minio.store:80", [5000], 5000),
    ],
)  # fmt: skip
def test_the_port_of_the_object_store_is_that_of_its_address(helm, endpoint, ports, reached):
    policy = {"networkPolicy": {"objectStorage": {"ports": ports}}, "objectStorage": {"endpoint": endpoint}}
    network = Network(helm.template(settings=policy | {"service": SERVICE}))
    assert network.out_of(INTERNET) == {("service", reached)}


def test_without_object_stores_nothing_leaves_the_cluster(helm):
    settings = {"service": SERVICE, "networkPolicy": {"objectStorage": {"enabled": False}}}
    assert Network(helm.template(settings=settings)).out_of(INTERNET) == set()
