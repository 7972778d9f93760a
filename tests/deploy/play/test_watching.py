"""What Prometheus and its users see of scans on the cluster: the chart's PodMonitor, rules and dashboard."""

import json

import pytest
from waiting import wait_for

pytestmark = pytest.mark.timeout(1200)
#: What Grafana puts in for its variables, and its rate interval at a scrape a second.
VARIABLES = {"$__rate_interval": "5s", "$job": ".*", "$instance": ".*"}


def expressions(cluster):
    """Title and expression of everything that dashboards of runs and of the service show; no training is played."""
    boards = {file: text for found in cluster.of_kind("ConfigMap").values() for file, text in found["data"].items()}
    for board in (json.loads(boards["scanner.json"]), json.loads(boards["service.json"])):
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                assert "$" not in expression
                yield f"{panel['title']}: {target['legendFormat']}", expression


def test_prometheus_scrapes_every_pod(prometheus, release, calm, stormy, remote, counted, broken, service):
    """One job a survey, one for the service; each pod under its own name."""
    seen = {}
    for labels, value in prometheus.now("max_over_time(up[1h])"):
        if value == 1:
            seen.setdefault(labels["job"], set()).add(labels["instance"])
    storm, lost = stormy
    assert seen.keys() >= {"lenses/calm", "lenses/stormy", "lenses/remote", "lenses/counted", "lenses/broken", "lenses/service"}
    assert seen["lenses/calm"] >= {calm.tries[0].pod.name, *(worker.name for worker in release.workers("calm"))}
    assert seen["lenses/stormy"] >= {lost.name, *(attempt.pod.name for attempt in storm.tries)}
    assert len(seen["lenses/stormy"]) >= 5, "two drivers, and the three workers that there were at least"
    assert seen["lenses/broken"] == {broken.tries[0].pod.name}
    assert seen["lenses/service"] == {service.name}


def test_every_expression_of_the_dashboard_has_data(prometheus, cluster, calm, stormy, service):
    empty = [title for title, expression in expressions(cluster) if not prometheus.values(expression)]
    assert empty == []


def test_every_rule_is_evaluated(prometheus, cluster, calm, service):
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    [rendered] = cluster.of_kind("PrometheusRule").values()
    assert len(rules) == sum(len(group["rules"]) for group in rendered["spec"]["groups"])
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


def fired(prometheus, alert, job):
    """Whether an alert has fired for a job since the beginning."""
    return bool(prometheus.values(f'ALERTS{{alertname="{alert}", alertstate="firing", job="{job}"}}'))


def test_a_failed_scan_is_told_and_the_alert_goes_again(prometheus, broken):
    assert fired(prometheus, "ScannerRunFailed", "lenses/broken")
    wait_for("the end of the alert", lambda: "ScannerRunFailed" not in prometheus.firing(job="lenses/broken"))


def test_a_lost_driver_is_told_and_the_alert_goes_again(prometheus, stormy):
    driver = stormy[0].tries[0].pod.name
    gone = f'ALERTS{{alertname="ScannerDriverGone", alertstate="firing", job="lenses/stormy", instance="{driver}"}}'
    wait_for("the alert", lambda: prometheus.values(gone))
    wait_for("the end of the alert", lambda: "ScannerDriverGone" not in prometheus.firing(job="lenses/stormy"))
    assert not fired(prometheus, "ScannerRunFailed", "lenses/stormy"), "killed is not failed"


def test_a_scan_that_succeeds_raises_no_alarm(prometheus, calm):
    assert not fired(prometheus, "ScannerRunFailed", "lenses/calm")
    assert not fired(prometheus, "ScannerTilesFailing", "lenses/calm")
    assert prometheus.values('scanner_run_state{job="lenses/calm", state="done"}')[-1] == 1
    assert max(prometheus.values('scanner_run_tiles{job="lenses/calm", state="done"}')) == 6
