import threading
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import commit_record
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from scanner import __version__
from scanner.errors import UsageError
from scanner.records import FailedTile
from scanner.survey import metrics
from scanner.survey.messages import MergeStarted, RunStarted, TileFinished, TileProgress
from scanner.survey.metrics import RunMetrics
from scanner.survey.metrics_page import MetricsPage


def page(port):
    """Every sample of the page, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def commit(tile_id="T1"):
    return commit_record(tile_id=tile_id, n_flagged=3, n_decided=2, sky_area_deg2=0.25, seconds={"cut": 1.0, "tile": 4.0})


def test_a_worker_tells_what_it_did(tmp_path):
    with metrics.serve(0, "worker") as port:
        metrics.scores_with("cpu", "ou", "1.0")
        metrics.scores_with("cuda", "ou", "1.1")
        metrics.gpu_expected(True)
        metrics.memory_limit(3_000_000_000)
        metrics.disk("scratch", tmp_path)
        with metrics.tile_in_progress():
            metrics.objects_cut(64)
            metrics.batch_size(64)
            metrics.objects_scored(60)
            metrics.stage_seconds("cut", 0.2)
            metrics.stage_seconds("cut", 2.0)
            metrics.queue_depth("score", 3)
            metrics.bytes_read(1000)
            metrics.candidate_done("modelling", 2.5)
            busy = page(port)
        metrics.tile_done(commit())
        metrics.tile_failed()
        seen = page(port)
    assert busy["scanner_tiles_in_progress",] == 1
    expected = {
        ("scanner_bundle_info", "1.1", "ou"): 1,
        ("scanner_provider_info", "cuda"): 1,
        ("scanner_gpu_expected",): 1,
        ("scanner_memory_limit_bytes",): 3e9,
        ("scanner_objects_cut_total",): 64,
        ("scanner_objects_scored_total",): 60,
        ("scanner_objects_flagged_total",): 3,
        ("scanner_objects_decided_total",): 2,
        ("scanner_stage_seconds_sum", "cut"): 2.2,
        ("scanner_stage_seconds_bucket", "0.3", "cut"): 1,
        ("scanner_stage_seconds_count", "score"): 0,
        ("scanner_queue_depth_batches", "score"): 3,
        ("scanner_batch_size_objects_sum",): 64,
        ("scanner_read_bytes_total",): 1000,
        ("scanner_candidate_seconds_sum", "modelling"): 2.5,
        ("scanner_candidate_seconds_count", "explaining"): 0,
        ("scanner_tiles_done_total",): 1,
        ("scanner_tiles_failed_total",): 1,
        ("scanner_tiles_in_progress",): 0,
        ("scanner_tile_seconds_sum",): 4,
    }
    assert {key: seen.get(key) for key in expected} == pytest.approx(expected)
    assert ("scanner_provider_info", "cpu") not in seen
    assert seen["scanner_tile_last_success_timestamp_seconds",] > seen["process_start_time_seconds",]
    assert 0 < seen["scanner_disk_free_bytes", "scratch"] <= seen["scanner_disk_size_bytes", "scratch"]
    assert any(key[0] == "scanner_build_info" and __version__ in key for key in seen)
    assert not any(key[0].startswith("scanner_run_") for key in seen)


def test_the_driver_tells_of_the_run(tmp_path):
    with metrics.serve(0, "driver") as port:
        watch = RunMetrics()
        watch(
            RunStarted(
                n_tiles=6,
                n_done_before=1,
                n_workers=2,
                provider="cpu",
                bundle_name="ou",
                bundle_version="1",
                run_folder=str(tmp_path),
            )
        )
        watch(TileProgress(tile_id="a", n_done=0, n_targets=20))
        watch(TileProgress(tile_id="a", n_done=15, n_targets=20))
        watch(TileProgress(tile_id="b", n_done=5, n_targets=20))
        watch(TileFinished(tile_id="c", commit=None, failed=FailedTile(tile_id="c", reason="unreadable")))
        # Its worker died: the tile begins again, and what is done twice counts twice.
        watch(TileProgress(tile_id="a", n_done=0, n_targets=20))
        watch(TileProgress(tile_id="a", n_done=20, n_targets=20))
        watch(TileFinished(tile_id="a", commit=commit("a"), failed=None))
        metrics.tile_retried()
        metrics.workers(2)
        metrics.workers_wanted(3)
        metrics.worker_lost()
        metrics.run_candidates("explaining", 3, 10)
        scanning = page(port)
        watch(MergeStarted())
        merging = page(port)
        watch.ended(None)
        done = page(port)
    expected = {
        ("scanner_run_state", "scanning"): 1,
        ("scanner_run_state", "merging"): 0,
        ("scanner_run_workers_wanted",): 3,
        ("scanner_run_tiles", "waiting"): 2,
        ("scanner_run_tiles", "running"): 1,
        ("scanner_run_tiles", "done"): 2,
        ("scanner_run_tiles", "failed"): 1,
        ("scanner_run_tiles_done_total",): 1,
        ("scanner_run_tiles_failed_total",): 1,
        ("scanner_run_tile_retries_total",): 1,
        ("scanner_run_objects_total",): 40,
        ("scanner_run_area_square_degrees_total",): 0.25,
        ("scanner_run_candidates", "done", "explaining"): 3,
        ("scanner_run_candidates", "explaining", "waiting"): 7,
        ("scanner_run_workers",): 2,
        ("scanner_run_workers_lost_total",): 1,
        ("scanner_run_last_success_timestamp_seconds",): 0,
        ("scanner_provider_info", "cpu"): 1,
    }
    assert {key: scanning.get(key) for key in expected} == expected
    assert scanning["scanner_run_start_timestamp_seconds",] > 0
    assert 0 < scanning["scanner_disk_free_bytes", "run_folder"] <= scanning["scanner_disk_size_bytes", "run_folder"]
    assert (merging["scanner_run_state", "scanning"], merging["scanner_run_state", "merging"]) == (0, 1)
    assert done["scanner_run_state", "done"] == 1
    assert done["scanner_run_last_success_timestamp_seconds",] >= done["scanner_run_start_timestamp_seconds",]
    assert not any(key[0].startswith("scanner_objects") for key in done)


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "interrupted"), (UsageError("no"), "failed")])
def test_a_run_that_stops_is_no_success(error, state):
    with metrics.serve(0, "driver") as port:
        RunMetrics().ended(error)
        seen = page(port)
    assert seen["scanner_run_state", state] == 1
    assert seen["scanner_run_last_success_timestamp_seconds",] == 0


names = st.one_of(st.sampled_from(metrics.STAGES), st.text())
tile_ids = st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True)
events = st.one_of(
    st.builds(lambda name: lambda watch: metrics.stage_seconds(name, 1.0), names),
    st.builds(lambda name: lambda watch: metrics.queue_depth(name, 1), names),
    st.builds(lambda name: lambda watch: metrics.tiles(name, 1), names),
    st.builds(lambda name, version: lambda watch: metrics.scores_with("cpu", name, version), tile_ids, tile_ids),
    st.builds(lambda tile: lambda watch: metrics.tile_done(commit(tile)), tile_ids),
    st.builds(lambda tile: lambda watch: watch(TileProgress(tile_id=tile, n_done=1, n_targets=2)), tile_ids),
    st.builds(lambda tile: lambda watch: watch(TileFinished(tile_id=tile, commit=commit(tile), failed=None)), tile_ids),
    st.builds(lambda n: lambda watch: metrics.batch_size(n), st.integers(0, 10_000)),
)


@pytest.mark.parametrize("role", ["worker", "driver"])
def test_the_number_of_series_does_not_grow_with_tiles(role):
    with metrics.serve(0, role) as port:
        watch = RunMetrics()
        metrics.scores_with("cpu", "ou", "1")
        before = len(page(port))

        @settings(max_examples=50)
        @given(told=st.lists(events, max_size=30))
        def nothing_grows(told):
            for tell in told:
                tell(watch)
            assert len(page(port)) == before

        nothing_grows()
    assert before < 200


def test_nothing_is_kept_where_nobody_asked():
    metrics.objects_cut(5)
    metrics.tile_done(commit())
    metrics.run_state("done")
    with metrics.tile_in_progress(), metrics.serve(0, "worker") as port:
        assert page(port)["scanner_objects_cut_total",] == 0


def test_a_folder_that_goes_away_does_not_break_the_page(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    with metrics.serve(0, "worker") as port:
        metrics.disk("scratch", folder)
        folder.rmdir()
        seen = page(port)
    assert seen["scanner_disk_free_bytes", "scratch"] != seen["scanner_disk_free_bytes", "scratch"]


def test_a_port_that_is_taken_is_refused():
    with metrics.serve(0, "worker") as port:
        with pytest.raises(UsageError, match=f"{port}: cannot serve metrics there .*choose another port"):
            metrics.serve(port, "worker", "127.0.0.1").__enter__()
        metrics.objects_cut(1)
        assert page(port)["scanner_objects_cut_total",] == 1


def test_a_named_port_is_reached_at_every_address_another_at_the_loopback_only(monkeypatch):
    bound = []

    def start(registry, address, port):
        bound.append(address)
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("scanner.survey.metrics_page.MetricsPage", start)
    for port, address in ((9464, None), (0, None), (9464, "10.0.0.1")):
        with pytest.raises(UsageError):
            metrics.serve(port, "worker", address).__enter__()
    assert bound == ["0.0.0.0", "127.0.0.1", "10.0.0.1"]


def read_as(port, reader):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"User-Agent": reader})
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


def test_the_end_is_told_to_all_who_read_before():
    """A process that ends takes its last state with it; two Prometheus servers that watch it are both to have seen it."""
    registry = CollectorRegistry()
    page = MetricsPage(registry, "127.0.0.1", 0)
    read_as(page.port, "one")
    read_as(page.port, "other")
    ending = threading.Thread(target=page.await_readers, args=(300,))
    ending.start()
    while not page._read._waiters:
        ending.join(0.01)
    for _ in range(3):
        read_as(page.port, "one")
        read_as(page.port, "a third, who is not waited for")
    assert ending.is_alive()
    read_as(page.port, "other")
    ending.join()
    page.close()


def test_where_nobody_reads_nobody_is_waited_for():
    with metrics.serve(0, "driver", linger_s=300):
        metrics.run_state("done")


def test_in_a_pod_what_fails_at_once_is_seen(monkeypatch):
    """Prometheus has not been there yet; that Kubernetes asks whether the container is alive is no reading."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    page = MetricsPage(CollectorRegistry(), "127.0.0.1", 0)
    ending = threading.Thread(target=page.await_readers, args=(300,))
    ending.start()
    while not page._read._waiters:
        ending.join(0.01)
    read_as(page.port, "kube-probe/1.37")
    ending.join(0.05)
    assert ending.is_alive()
    read_as(page.port, "Prometheus/2.53")
    ending.join()
    page.close()


def test_in_a_pod_that_nobody_has_read_for_a_while_nobody_is_waited_for(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    page = MetricsPage(CollectorRegistry(), "127.0.0.1", 0)
    monkeypatch.setattr(page, "_begun", page._begun - 300)
    page.await_readers(300)
    page.close()


def test_the_page_is_served_on_ipv6_too():
    try:
        page = MetricsPage(CollectorRegistry(), "::1", 0)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 ({error})")
    with urllib.request.urlopen(f"http://[::1]:{page.port}/metrics") as answer:
        assert answer.status == 200
    page.close()


def test_an_interrupted_process_waits_for_nobody():
    def interrupted():
        with metrics.serve(0, "driver", linger_s=300) as port:
            page(port)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
