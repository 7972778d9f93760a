"""Hostile requests to the real service, as many as one likes, and what came of them.

    python benchmarks/fuzz_service.py OUT [--requests 10000] [--examples 100] [--seed 1]

OUT: folder of a finished run; it is copied first. Two sources: requests of ``tests/hostile.py`` (traversal, injection of SQL,
templates, headers and scripts, broken HTTP, in every place of the API's own description where a client can write something);
and schemathesis with so many examples an operation. Printed: answers by status, faults. A fault is a status of 5xx; an answer
that tells a path of the server or the content of a file outside the catalogue, or has a header or script of the client's; one
that is not as described; a file that was written to the run or the working folder. The exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import httpx

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import hostile  # noqa: E402

#: What every answer has to be; whether a text is a position or a query in ADQL, its description cannot tell.
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        run, work = here / "run", here / "work"
        shutil.copytree(arguments.out, run)
        work.mkdir()
        before = state(run)
        process, url = start(run, work, here)
        try:
            faults = attack(url, run, arguments.requests, arguments.seed)
            faults += describe(url, arguments.examples, arguments.seed, here)
            memory = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1e3
            print(f"peak memory of the server: {memory:.0f} MB")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        if state(run) != before:
            faults.append("the run was written to")
        if list(work.iterdir()):
            faults.append(f"files were written: {list(work.iterdir())}")
        lines = (here / "log").read_text().strip("\n").split("\n")
        faults += [f"in the log: {line[:300]}" for line in lines if '"exception"' in line or not is_json(line)]
        print(f"{len(lines)} lines in the log")
    for fault in faults[:20]:
        print("FAULT", fault)
    print(f"{len(faults)} faults")
    return bool(faults)


def start(run: Path, work: Path, here: Path) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own; its log goes to a file."""
    limits = {"SCANNER_SERVE_LIMITS__REQUESTS_PER_MINUTE": "0", "SCANNER_SERVE_LIMITS__SECONDS": "20"}
    words = ["serve", str(run), "--port", "0", "--grades", str(here / "grades.sqlite"), "--log-format", "json"]
    with (here / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scanner", *words],
            cwd=work,
            env=os.environ | limits,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]
    while httpx.get(f"{url}/readyz").status_code != 200:
        time.sleep(0.1)
    return process, url


def attack(url: str, run: Path, n: int, seed: int) -> list[str]:
    """Send hostile requests; return what was wrong with the answers."""
    described = httpx.get(f"{url}/openapi.json").json()
    slug = httpx.get(f"{url}/api/v1/collections").json()["collections"][0]["slug"]
    run_id, tile_id, target_id = httpx.get(f"{url}/api/v1/collections/{slug}/candidates").json()["items"][0]["id"].split("/")
    there = {"slug": slug, "run": run_id, "run_id": run_id, "tile_id": tile_id, "target_id": target_id}
    secrets = (str(run), str(TESTS.parent), "root:x:0", "Traceback", "site-packages")
    host, port = url.removeprefix("http://").split(":")
    statuses: Counter[str] = Counter()
    faults = []
    begin = time.perf_counter()
    for request in islice(hostile.requests(seed, described, there), n):
        answered = hostile.answer((host, int(port)), request)
        statuses[answered[9:12].decode("latin-1") or "hung up"] += 1
        faults += [f"{fault}: {request.sent[:300]!r}" for fault in hostile.faults(request, answered, secrets)]
    print(f"{n} hostile requests in {time.perf_counter() - begin:.0f} s: {dict(statuses.most_common())}")
    return faults


def describe(url: str, examples: int, seed: int, here: Path) -> list[str]:
    """Let schemathesis hold the description against the answers."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--phases", "coverage,fuzzing"]
    options = [
        "--max-examples",
        str(examples),
        "--seed",
        str(seed),
        "--checks",
        ",".join(CHECKS),
        "--continue-on-failure",
        "--workers",
        "1",
    ]
    done = subprocess.run([*command, *options], cwd=here, capture_output=True, text=True, check=False)
    cases = re.search(r"(\d+) generated", done.stdout)
    print(f"schemathesis: {cases[1] if cases else 0} requests, exit code {done.returncode}")
    return [] if done.returncode == 0 else [done.stdout[-3000:] + done.stderr[-1000:]]


def is_json(line: str) -> bool:
    """Whether a line of the log is what it should be."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Sizes and times of everything in a folder."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


if __name__ == "__main__":
    sys.exit(main())
