"""``scanner serve`` and ``scanner tokens``: the processes that an operator starts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from damage import resealed
from waiting import LIMIT_S

from scanner.cli.main import main
from scanner.service.security import TokenBook


def told(capsys, *words):
    """Exit code, standard output and standard error of ``scanner …``."""
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return caught.value.code, captured.out, captured.err


@contextmanager
def serving(folder, *words, **how):
    """A process that serves a run, where its address is, and the line that says so."""
    command = [sys.executable, "-m", "scanner", "serve", *map(str, words), "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how) as process:
        try:
            line = process.stdout.readline()
            yield process, re.search(r"http://\S+/", line)[0], line
        finally:
            process.kill()


def until_ready(url):
    while httpx.get(f"{url}readyz").status_code == 503:
        time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_told_to_stop(served_run, tmp_path, how):
    with serving(tmp_path, served_run) as (process, url, line):
        # A machine that does other things too may be told that the catalogue is being opened still.
        assert re.match(r"(Serving \d+ .+ \d+ objects|Opening .+) at http://127\.0\.0\.1:\d+/; Ctrl-C stops\.\n", line)
        until_ready(url)
        answer = httpx.get(f"{url}api/v1/collections")
        assert answer.json()["collections"][0]["n_candidates"] > 0
        assert answer.headers["server"] == "scanner"
        with httpx.stream("GET", f"{url}readyz") as under_way:
            process.send_signal(how)
            assert under_way.status_code == 200
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, "Stopped.\n")
    log = [json.loads(line) for line in err.splitlines()]
    told = {entry["request_id"]: entry["message"] for entry in log}
    assert told[answer.headers["X-Request-ID"]] == "GET /api/v1/collections 200"
    assert log[-1]["message"] == "GET /readyz 200"


def test_ctrl_c_again_and_again_ends_it_and_its_processes(served_run, tmp_path):
    """A terminal sends Ctrl-C to all processes of a program; uvicorn left out what closes at the second."""
    with serving(tmp_path, served_run, start_new_session=True) as (process, url, _):
        until_ready(url)
        assert httpx.get(f"{url}scs?RA=1&DEC=2&SR=1").status_code == 200
        for _ in range(4):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)
        # The end of the pipe is that of all processes that had it.
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, "Stopped.\n")
    assert [json.loads(line)["message"] for line in err.splitlines()][-1] == "GET /scs 200"


def test_nothing_is_written_to_what_is_served(served_run, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(served_run, copy)
    before = {path: path.stat().st_mtime_ns for path in [copy, *copy.rglob("*")]}
    (tmp_path / "here").mkdir()
    with serving(tmp_path / "here", copy) as (process, url, _):
        until_ready(url)
        slug = httpx.get(f"{url}api/v1/collections").json()["collections"][0]["slug"]
        for path in ("candidates", "tiles", "sky", "histogram", "tsne"):
            assert httpx.get(f"{url}api/v1/collections/{slug}/{path}").status_code == 200
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
    assert {path: path.stat().st_mtime_ns for path in [copy, *copy.rglob("*")]} == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_let_in_on_purpose_only(served_run, tmp_path, capsys, monkeypatch, host):
    monkeypatch.chdir(tmp_path)
    code, out, err = told(capsys, "serve", served_run, "--host", host)
    assert (code, out) == (64, "")
    assert f"{host}: everybody who can reach this machine could read" in err
    assert "--public" in err
    assert list(tmp_path.iterdir()) == []


def test_a_reverse_proxy_lets_other_machines_in_too(served_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = told(capsys, "serve", served_run, "--base-url", "https://lenses.example.org/")
    assert code == 64
    assert "--tokens" in err


def test_what_cannot_be_served_is_refused_in_a_sentence(served_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(served_run / "run.json", unfinished)
    resealed(unfinished / "run.json", sha256={})
    for folder, code, sentence in (
        ("nowhere", 66, "nowhere: neither a run folder"),
        ("empty", 66, "empty: neither a run folder"),
        ("unfinished", 66, "unfinished: its tiles have not been merged yet"),
    ):
        assert told(capsys, "serve", served_run, folder)[0] == code
        _, _, err = told(capsys, "serve", folder)
        assert err.startswith(f"scanner: {sentence}")
        assert err.count("\n") == 1
    code, _, err = told(capsys, "serve", served_run, "--tokens", "nowhere.txt")
    assert code == 66
    assert "nowhere.txt: cannot read the tokens" in err
    assert told(capsys, "serve")[0] == 64


def test_a_port_that_is_taken(served_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = told(capsys, "serve", served_run, "--port", port)
    assert code == 64
    assert f"127.0.0.1:{port}: cannot listen there" in err


def test_tokens_are_printed_once_and_kept_as_hashes(tmp_path, capsys):
    file = tmp_path / "tokens.txt"
    tokens = {}
    for name, role in (("Ada Lovelace", "grade"), ("reader", "read")):
        code, out, err = told(capsys, "tokens", "add", name, "--role", role, "--file", file)
        assert code == 0
        tokens[name] = out.strip()
        assert str(file) in err
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(token in file.read_text() for token in tokens.values())
    book = TokenBook(str(file), {})
    assert {name: book.find(token).role for name, token in tokens.items()} == {"Ada Lovelace": "grade", "reader": "read"}


def test_tokens_of_nobody_and_in_other_files_are_refused(tmp_path, capsys):
    other = tmp_path / "paper.txt"
    other.write_text("Abstract\n")
    assert told(capsys, "tokens", "add", "ada", "--file", other)[0] == 78
    assert other.read_text() == "Abstract\n"
    for name in ("", "-x", "a\nb", "x" * 41, "ada;grade"):
        assert told(capsys, "tokens", "add", "--file", tmp_path / "t", "--", name)[0] == 64
    assert not (tmp_path / "t").exists()
