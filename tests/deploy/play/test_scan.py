"""A scheduled scan: from the CronJob's template to a catalogue, whatever dies on the way."""

import json
from itertools import groupby

import pyarrow.parquet as pq
import pytest
from podman_cluster.kubelet import probe
from waiting import wait_for

pytestmark = pytest.mark.timeout(1200)
N_TILES, N_WORKERS = 6, 2
INPUT_MISSING, INTERRUPTED, KILLED = 66, 130, 137


def test_a_scan_ends_with_a_catalogue(calm, release):
    [attempt] = calm.tries
    assert (calm.condition, attempt.exit_code) == ("Complete", 0), attempt.pod.logs()
    objects = pq.read_table(release.data / "calm" / "catalogue" / "dataset", columns=["rank", "p_calibrated"])
    assert objects.num_rows > 100
    assert sorted(objects["rank"].drop_null().to_pylist())[0] == 1
    assert release.leftovers("calm") == []


def test_each_worker_did_some_of_it(calm, release, prometheus):
    """They find the driver by its Service, with certificates, past the NetworkPolicies."""
    done = {
        labels["instance"]: value
        for labels, value in prometheus.now('max_over_time(scanner_tiles_done_total{job="lenses/calm"}[1h])')
    }
    assert done.keys() == {worker.name for worker in release.workers("calm")}
    assert len(done) == N_WORKERS
    assert min(done.values()) >= 1
    assert sum(done.values()) == N_TILES


def test_workers_wait_for_the_next_scan(calm, release):
    """Those that are always there: alive, and ready for the next driver at the same address."""
    for worker in release.workers("calm"):
        [container] = worker.template["spec"]["containers"]
        assert probe(worker, container, "livenessProbe")


def test_a_lost_worker_and_a_lost_driver_change_no_byte(stormy, calm, release):
    job, _ = stormy
    assert [attempt.exit_code for attempt in job.tries] == [KILLED, 0], job.tries[-1].pod.logs()
    assert job.condition == "Complete"
    assert release.promised("stormy") == release.promised("calm")
    assert release.leftovers("stormy") == []


def test_on_an_object_store_the_bytes_are_the_same(remote, calm, release):
    """Keys from a Secret, the store past the NetworkPolicies; and the second driver goes on where the first was told to go."""
    assert [attempt.exit_code for attempt in remote.tries] == [INTERRUPTED, 0], remote.tries[-1].pod.logs()
    assert remote.condition == "Complete"
    assert release.promised("remote") == release.promised("calm")
    assert release.leftovers("remote") == []


def test_what_was_committed_before_the_driver_died_is_not_done_again(stormy):
    job, _ = stormy
    first, second = (attempt.pod.logs() for attempt in job.tries)
    done = [{json.loads(line)["tile"] for line in text.splitlines() if '"message": "[' in line} for text in (first, second)]
    assert len(done[0]) >= 3
    assert done[0] & done[1] == set()
    assert len(done[0] | done[1]) == N_TILES


def asked(release, survey):
    """How many workers a survey's drivers asked the API for; that they say it again every minute does not count."""
    account = f"euclid-scanner-{survey}-scan"
    path = f"/apis/apps/v1/namespaces/lenses/deployments/euclid-scanner-{survey}-worker/scale"
    requests = [request for request in release.cluster.api.asked if request[0] == account]
    assert {(path, status) for _, path, _, status in requests} == {(path, 200)}
    return [replicas for replicas, _ in groupby(replicas for _, _, replicas, _ in requests)]


def test_the_driver_has_workers_only_while_it_scans(stormy, release):
    """It asks for them with its own account; one that is killed cannot let them go, so they are there for the next."""
    _, lost = stormy
    assert asked(release, "stormy") == [N_WORKERS, 0]
    wait_for("the end of the workers", lambda: release.workers("stormy") == [])
    assert lost.name not in release.cluster.pods


def test_a_driver_that_is_told_to_go_lets_its_workers_go(remote, release):
    assert asked(release, "remote") == [N_WORKERS, 0, N_WORKERS, 0]


def test_keda_gives_a_scan_its_workers_and_takes_them(counted, calm, release):
    """By the driver's metrics: it has no right in the cluster, and no token."""
    [attempt] = counted.tries
    assert (counted.condition, attempt.exit_code) == ("Complete", 0), attempt.pod.logs()
    assert release.promised("counted") == release.promised("calm")
    assert "euclid-scanner-counted-scan" not in release.cluster.tokens


def test_a_standing_scheduler_gives_the_same_bytes(standing, calm, release):
    [attempt] = standing.tries
    assert (standing.condition, attempt.exit_code) == ("Complete", 0), attempt.pod.logs()
    assert release.promised("standing") == release.promised("calm")
    [scheduler] = release.cluster.running("scheduler")
    assert scheduler.labels["app.kubernetes.io/component"] == "scheduler"


def test_a_scan_that_cannot_succeed_is_not_tried_again(broken):
    [attempt] = broken.tries
    assert (broken.condition, broken.reason, attempt.exit_code) == ("Failed", "PodFailurePolicy", INPUT_MISSING)
    assert attempt.pod.logs().splitlines()[-1].startswith("scanner: /data/nowhere.txt")
