import json
import os
import signal
import socket

import pytest
from ports import free_ports
from programs import start_scanner
from waiting import LIMIT_S, wait_for

from scanner.cli.main import main


def refused(capsys, *words):
    """Exit code and the one line of a command that does not start."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("scanner: ")
    return caught.value.code, err


def test_no_scheduler(capsys):
    code, err = refused(capsys, "worker", f"tcp://127.0.0.1:{free_ports(1)[0]}", "--death-timeout", "0.1s")
    assert code == 75
    assert "no Dask scheduler answers there" in err


def test_what_listens_is_no_scheduler(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        code, err = refused(capsys, "worker", address, "--death-timeout", "0.1s")
    assert code == 75
    assert "tcp:// or tls://" in err


def test_no_gpu(capsys):
    code, err = refused(capsys, "worker", f"tcp://127.0.0.1:{free_ports(1)[0]}", "--gpu")
    assert code == 64
    assert "cuda" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["worker", "127.0.0.1:8786"], "not a scheduler's address"),
        (["worker", "tcp://127.0.0.1:1", "--lifetime", "soon"], "--lifetime"),
        (["worker", "tcp://127.0.0.1:1", "--lifetime", ""], "--lifetime"),
        (["worker", "tcp://127.0.0.1:1", "--memory-gb", "0"], "--memory-gb"),
        (["worker", "tcp://127.0.0.1:1", "--tls-ca", "ca.pem"], "all three"),
        (["scheduler", "--port", "70000"], "--port"),
        (["scheduler"], "0.0.0.0: without TLS, whoever reaches this port runs code as you; give --tls-ca"),
        (["scheduler", "--host", "::"], "::: without TLS"),
        (["worker", "tcp://192.0.2.1:8786"], "192.0.2.1: without TLS"),
    ],
)
def test_bad_words(capsys, words, named):
    code, err = refused(capsys, *words)
    assert code == 64
    assert named in err


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = ("scheduler", "--host", "127.0.0.1", "--port", str(other.getsockname()[1]))
        log = tmp_path / "log"
        assert start_scanner(words, log=log, environment=os.environ, folder=tmp_path).wait() == 64
    said = log.read_text()
    assert said.count("\n") == 1, said
    assert "cannot listen there (Address already in use)" in said


def test_a_worker_says_three_things_and_leaves_nothing(tmp_path):
    """Its lifetime over, it goes; its scheduler is told to stop; nothing lies in the temporary folder."""
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"

    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def start(*words):
        environment = {"TMPDIR": str(temporary)}
        return start_scanner(words, log=tmp_path / f"{words[0]}.log", environment=environment, folder=tmp_path)

    def said(name):
        return (tmp_path / f"{name}.log").read_text().splitlines()

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    wait_for("the scheduler", lambda: said("scheduler"))
    worker = start("worker", address, "--name", "w0", "--lifetime", "8s", "--log-format", "json")
    assert worker.wait(LIMIT_S) == 0
    lines = [json.loads(line) for line in said("worker")]
    assert [line["message"] for line in lines] == [
        f"connected to {address} as w0, offering SCAN, FETCH",
        "told to stop (lifetime); no tile in hand",
        "closed",
    ]
    scheduler.send_signal(signal.SIGTERM)
    assert scheduler.wait(LIMIT_S) == 0
    first, last = said("scheduler")
    assert "listens" in first
    assert list(temporary.iterdir()) == [], last
