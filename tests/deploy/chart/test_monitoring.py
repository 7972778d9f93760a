"""What the Prometheus operator and Grafana are given: names of jobs, rules, dashboard."""

import json
import re

import pytest
import yaml
from manifests.pods import of_kind, pods
from manifests.rendering import NAMESPACE, ROOT, RefusedError

RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
SURVEY = {"tileList": {"url": "s3://surveys/list.txt"}, "out": "s3://surveys/out"}
SERVICE = {"enabled": True, "folders": ["s3://surveys/out"], "tokens": {"existingSecret": "readers"}}
TRAINING = {"enabled": True, "data": ["s3://sets/train"], "mirror": "s3://sets/runs"}


def monitored(helm, monitoring, **others):
    return helm.template(settings={"monitoring": monitoring} | others)


def target_labels(endpoint, pod):
    """Labels of a target after the endpoint's relabelings, as Prometheus does them (action replace)."""
    labels = {"__meta_kubernetes_namespace": NAMESPACE, "__meta_kubernetes_pod_name": pod.name, "job": "the operator's own"}
    labels |= {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": value for key, value in pod.labels.items()}
    for rule in endpoint["relabelings"]:
        assert rule.keys() <= {"sourceLabels", "separator", "regex", "targetLabel"}
        joined = rule.get("separator", ";").join(labels.get(label, "") for label in rule["sourceLabels"])
        found = re.fullmatch(rule.get("regex", "(.*)"), joined)
        if found:
            labels[rule["targetLabel"]] = found[1]
    return {name: value for name, value in labels.items() if not name.startswith("__")}


def test_each_survey_is_a_job_and_each_pod_an_instance(helm):
    others = {
        "surveys": {"north": SURVEY, "south": SURVEY | {"out": "s3://surveys/south"}},
        "service": SERVICE,
        "training": TRAINING,
    }
    manifests = monitored(helm, {"podMonitor": {"enabled": True}}, **others)
    (monitor,) = of_kind(manifests, "PodMonitor").values()
    told = {}
    for pod in pods(manifests):
        names = {port["name"] for container in pod.containers for port in container.get("ports", [])}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] in names:
                told[pod.component, pod.labels.get("scanner.lensing/survey")] = target_labels(endpoint, pod)
                assert told[pod.component, pod.labels.get("scanner.lensing/survey")]["instance"] == pod.name
    assert {who: labels["job"] for who, labels in told.items()} == {
        ("scan", "north"): "lenses/north", ("worker", "north"): "lenses/north",
        ("scan", "south"): "lenses/south", ("worker", "south"): "lenses/south",
        ("service", None): "lenses/service", ("train", None): "lenses/train",
    }  # fmt: skip


@pytest.mark.parametrize("secret", ["", "prometheus-token"])
def test_metrics_of_the_service_are_asked_for_with_a_token_where_there_is_one(helm, secret):
    settings = {"podMonitor": {"enabled": True, "serviceToken": {"existingSecret": secret}}}
    (monitor,) = of_kind(monitored(helm, settings, service=SERVICE), "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    expected = {"type": "Bearer", "credentials": {"name": secret, "key": "token"}} if secret else None
    assert (endpoint["port"], endpoint.get("authorization")) == ("http", expected)


def test_rules_are_those_of_deploy(helm, promtool, tmp_path):
    (rule,) = of_kind(monitored(helm, {"prometheusRule": {"enabled": True}}), "PrometheusRule").values()
    assert rule["spec"]["groups"] == RULES
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    code, said = promtool("check", "rules", file)
    assert code == 0, said


def test_alerts_can_be_replaced_and_lead_to_ones_own_guide(helm):
    own = {"name": "own", "rules": [{"alert": "ScannerRunOverdue", "expr": "vector(1)"}]}
    settings = {
        "enabled": True, "disabledAlerts": ["ScannerRunOverdue"], "additionalGroups": [own],
        "runbookUrl": "https://wiki.example/scanner",
    }  # fmt: skip
    (rule,) = of_kind(monitored(helm, {"prometheusRule": settings}), "PrometheusRule").values()
    *groups, last = rule["spec"]["groups"]
    assert last == own
    alerts = {one["alert"]: one for group in groups for one in group["rules"] if "alert" in one}
    assert alerts.keys() == {one["alert"] for group in RULES for one in group["rules"] if "alert" in one} - {
        "ScannerRunOverdue"
    }
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/scanner#{name.lower()}"


def test_an_alert_that_there_is_not_cannot_be_disabled(helm):
    with pytest.raises(RefusedError, match="disabledAlerts: there is no alert ScannerRunOverdu; the names are in"):
        monitored(helm, {"prometheusRule": {"enabled": True, "disabledAlerts": ["ScannerSlow", "ScannerRunOverdu"]}})


def test_the_dashboards_are_those_of_deploy(helm):
    settings = {"dashboard": {"enabled": True, "labels": {"found_by": "sidecar"}, "annotations": {"grafana_folder": "surveys"}}}
    maps = of_kind(monitored(helm, settings), "ConfigMap").values()
    (dashboard,) = (one for one in maps if "scanner.json" in one["data"])
    deployed = {path.name: path.read_text() for path in (ROOT / "deploy" / "grafana").glob("*.json")}
    assert {name: json.loads(text) for name, text in dashboard["data"].items()} == {
        name: json.loads(text) for name, text in deployed.items()
    }
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "surveys"}
    assert dashboard["metadata"]["labels"]["found_by"] == "sidecar"


def test_nothing_is_asked_of_a_cluster_without_their_operators(helm):
    kinds = {manifest["kind"] for manifest in helm.template(settings={"surveys": {"q1": SURVEY}, "service": SERVICE})}
    assert not kinds & {"PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute", "Certificate", "DaskCluster"}
