"""What an autoscaler hears from a standing scheduler; the Dask operator asks with these very requests."""

import json
import signal
import socket
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from disturbed.processes import Processes
from ports import free_ports
from waiting import LIMIT_S, wait_for

from scanner.survey.workers.cluster import report_wanted


@pytest.fixture
def processes(tmp_path):
    started = Processes(tmp_path, {})
    yield started
    started.end()


@contextmanager
def scheduler(processes):
    """Address of a scheduler, and that of its HTTP answers."""
    port, http_port = free_ports(2)
    words = ("scheduler", "--host", "127.0.0.1", "--port", str(port), "--http-port", str(http_port))
    process = processes.start("scheduler", *words)
    wait_for("the scheduler", lambda: process.poll() is not None or answers(f"http://127.0.0.1:{http_port}/health"))
    yield f"tcp://127.0.0.1:{port}", f"http://127.0.0.1:{http_port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 0


def asked(url, **content):
    request = urllib.request.Request(url, json.dumps(content).encode() if content else None)
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return answer.read().decode()


def answers(url):
    try:
        return asked(url)
    except urllib.error.URLError:
        return None


def wanted(http):
    return json.loads(asked(f"{http}/api/v1/adaptive_target"))


def test_an_autoscaler_hears_what_the_run_wants_until_it_is_gone(processes):
    from distributed import Client

    with scheduler(processes) as (address, http):
        with Client(address, set_as_default=False) as client:
            assert asked(f"{http}/health") == "ok"
            assert wanted(http) == {"workers": 0}
            for n in (40, 7, 0, 3):
                report_wanted(client, n)
                assert wanted(http) == {"workers": n}
            # The operator asks this way where HTTP does not answer.
            assert client.sync(client.scheduler.adaptive_target) == 3
        wait_for("the run is forgotten", lambda: wanted(http) == {"workers": 0})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            asked(f"{http}/info/main/workers.html")


def test_a_worker_that_is_retired_is_told_by_its_name(processes):
    """The operator deletes the Deployment whose name the retired worker has."""
    name = "q1-default-worker-0123456789"
    with scheduler(processes) as (address, http):
        worker = processes.start("worker", "worker", address, "--name", name)
        wait_for("a worker", lambda: json.loads(asked(f"{http}/api/v1/get_workers"))["num_workers"] == 1)
        answer = json.loads(asked(f"{http}/api/v1/retire_workers", n=1))
        worker.wait(LIMIT_S)
        assert [info["name"] for info in answer.values()] == [name]
        assert json.loads(asked(f"{http}/api/v1/get_workers"))["num_workers"] == 0


def test_a_port_that_is_taken(processes):
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = ("--host", "127.0.0.1", "--port", str(free_ports(1)[0]), "--http-port", str(other.getsockname()[1]))
        assert processes.start("taken", "scheduler", *words).wait(LIMIT_S) == 64
    said = processes.log("taken")
    assert said.count("\n") == 1, said
    assert f":{words[-1]}: cannot answer over HTTP there" in said
