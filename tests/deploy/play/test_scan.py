"""A scheduled scan: from the CronJob's template to a catalogue, whatever dies on the way."""

import json

import pyarrow.parquet as pq
import pytest
from disturbed.processes import wait_for
from disturbed.results import leftovers, promised
from podman_cluster.kubelet import probe

from scanner.config import StorageConfig

pytestmark = pytest.mark.timeout(1200)
LOCAL = StorageConfig()
N_TILES, N_WORKERS = 6, 2
INPUT_MISSING, KILLED = 66, 137


def test_a_scan_ends_with_a_catalogue(calm, release):
    [attempt] = calm.tries
    assert (calm.condition, attempt.exit_code) == ("Complete", 0), attempt.pod.logs()
    objects = pq.read_table(release.data / "calm" / "catalogue" / "dataset", columns=["rank", "p_calibrated"])
    assert objects.num_rows > 100
    assert sorted(objects["rank"].drop_null().to_pylist())[0] == 1
    assert leftovers(release.folder("calm"), LOCAL) == []


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
    assert promised(release.folder("stormy"), LOCAL) == promised(release.folder("calm"), LOCAL)
    assert leftovers(release.folder("stormy"), LOCAL) == []


def test_what_was_committed_before_the_driver_died_is_not_done_again(stormy):
    job, _ = stormy
    first, second = (attempt.pod.logs() for attempt in job.tries)
    done = [{json.loads(line)["tile"] for line in text.splitlines() if '"message": "[' in line} for text in (first, second)]
    assert len(done[0]) >= 3
    assert done[0] & done[1] == set()
    assert len(done[0] | done[1]) == N_TILES


def test_the_driver_has_workers_only_while_it_scans(stormy, release):
    """It asks the API for them with its own account, twice as it was started twice, and lets them go."""
    _, lost = stormy
    account = "euclid-scanner-stormy-scan"
    path = "/apis/apps/v1/namespaces/lenses/deployments/euclid-scanner-stormy-worker/scale"
    asked = [request for request in release.cluster.api.asked if request[0] == account]
    assert asked == [(account, path, replicas, 200) for replicas in (N_WORKERS, N_WORKERS, 0)]
    wait_for("the end of the workers", lambda: release.workers("stormy") == [], 150)
    assert lost.name not in release.cluster.pods


def test_a_scan_that_cannot_succeed_is_not_tried_again(broken):
    [attempt] = broken.tries
    assert (broken.condition, broken.reason, attempt.exit_code) == ("Failed", "PodFailurePolicy", INPUT_MISSING)
    assert attempt.pod.logs().splitlines()[-1].startswith("scanner: /data/nowhere.txt")
