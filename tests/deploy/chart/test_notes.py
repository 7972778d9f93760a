"""What helm says after an installation: every command in it is about something that is there."""

import re

from manifests.cases import CASES
from manifests.pods import of_kind, pods
from manifests.rendering import CHART, NAMESPACE, RELEASE


def notes(helm, *files):
    values = [word for file in files for word in ("--values", file)]
    said = helm.call("install", RELEASE, CHART, "--namespace", NAMESPACE, "--dry-run=client", *values)
    return said.partition("\nNOTES:\n")[2]


def test_commands_name_what_there_is(helm, rendered):
    said, manifests = notes(helm, *CASES["every-feature"]), rendered("every-feature")
    scans = re.findall(r"--from=cronjob/(\S+) (\S+)", said)
    assert {cron for cron, _ in scans} == of_kind(manifests, "CronJob").keys()
    assert all(len(job) <= 63 for _, job in scans)
    assert len({job for _, job in scans}) == len(scans)
    selectors = [dict(term.split("=") for term in one.split(",")) for one in re.findall(r"--selector (\S+)", said)]
    assert len(selectors) == len(scans) + 3
    for selector in selectors:
        assert any(selector.items() <= pod.labels.items() for pod in pods(manifests)), selector
    ((front, port),) = re.findall(r"service/(\S+) 8420:(\d+)", said)
    assert [one["port"] for one in of_kind(manifests, "Service")[front]["spec"]["ports"]] == [int(port)]
    assert all(f"--namespace {NAMESPACE}" in line for line in said.splitlines() if re.match(r"  (kubectl|helm) ", line))


def test_they_say_what_is_missing_or_open(helm):
    nothing = notes(helm)
    assert "Nothing runs yet" in nothing
    assert "Nobody is told when a scan fails" in nothing
    assert "No NetworkPolicies were made" not in nothing
    bare = notes(helm, *CASES["bare"])
    assert "Set `networkPolicy.enabled` or `dask.tls.enabled`." in bare
    assert "helm test" not in bare
    assert "Everybody who reaches it may read" in notes(helm, *CASES["many-replicas"])
