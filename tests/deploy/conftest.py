"""A real run and a service that shows it, scraped by a real Prometheus that has the rules of ``deploy/``."""

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import programs
import pytest
from ports import free_ports

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
N_WORKERS = 2


@pytest.fixture(scope="session")
def promtool():
    """Runs ``promtool``; gives what it said and whether it was content."""
    path = programs.needed("promtool", target="prometheus")

    def run(*words, text=""):
        done = subprocess.run([path, *map(str, words)], input=text, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


@dataclass
class Scraped:
    """A Prometheus that has seen a run from ``start`` to ``end`` (Unix seconds)."""

    port: int
    start: float
    end: float
    pages: dict[str, str]

    def get(self, path, **query):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            content = json.loads(answer.read())
        assert content["status"] == "success", content
        return content["data"]

    def values(self, expression):
        """Every finite value that the expression had during the run."""
        numbers = [float(value) for series in self.series(expression) for _, value in series["values"]]
        return [number for number in numbers if abs(number) < float("inf")]

    def series(self, expression):
        return self.get("query_range", query=expression, start=self.start, end=self.end, step=0.5)["result"]


@pytest.fixture(scope="session")
def scraped(sky, tmp_path_factory):
    prometheus = programs.needed("prometheus", target="prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    first, *_ = free_ports(N_WORKERS + 3)
    server_port, service_port = first + N_WORKERS + 1, first + N_WORKERS + 2
    targets = [f"127.0.0.1:{first + number}" for number in range(N_WORKERS + 1)]
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": "scanner", "static_configs": [{"targets": [*targets, f"127.0.0.1:{service_port}"]}]}
                ],
            }
        )
    )
    (folder / "list.txt").write_text("\n".join([*(str(tile) for tile in sorted(sky.glob("9*"))), str(folder / "not-a-tile")]))
    server = subprocess.Popen(
        [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{server_port}",
            "--log.level=error",
        ]
    )
    found = Scraped(server_port, time.time(), 0.0, {})
    try:
        await_ready(found, server)
        words = ["run", folder / "list.txt", "--out", folder / "out", "--workers", str(N_WORKERS), "--scratch", folder]
        # Objects enough that several scrapes fall into the run.
        words += ["--metrics-port", str(first), "--targets", "grid"]
        environment, log = os.environ | {"SCANNER_TARGETS__GRID_STEP_ARCSEC": "6"}, folder / "run.log"
        run = programs.start_scanner([*map(str, words)], log=log, environment=environment, folder=folder)
        keep_pages(found, run, targets)
        assert run.wait() == 3, log.read_text()
        use_service(found, folder, service_port)
        await_rules(found)
        found.end = time.time()
        yield found
    finally:
        server.terminate()
        server.wait()


def use_service(found, folder, port):
    """Serve the run and ask until what was asked is seen in the rates."""
    words = ["serve", folder / "out", "--port", str(port), "--grades", folder / "grades.sqlite", "--cache", folder / "cache"]
    service = subprocess.Popen([sys.executable, "-m", "scanner", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The last panels to have something: answers that came between two scrapes, and the catalogue once it is open.
        seen = "sum(rate(scanner_service_request_seconds_count[1m])) > 0 and count(scanner_service_candidates)"
        while not found.get("query", query=seen)["result"]:
            assert service.poll() is None
            for path in ("readyz", "api/v1/collections", "nowhere"):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).close()
                except OSError:
                    time.sleep(0.1)
    finally:
        service.terminate()
        service.wait()


def await_ready(found, server):
    """Until Prometheus asks its targets, which it begins with seconds after it answers: a quick run would be over by then."""
    while server.poll() is None:
        try:
            if found.get("query", query="up")["result"]:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("Prometheus did not start")


def await_rules(found):
    """Until every rule has seen what was scraped last: they are evaluated at their own times."""
    now = datetime.now(UTC)
    while any(datetime.fromisoformat(group["lastEvaluation"]) <= now for group in found.get("rules")["groups"]):
        time.sleep(0.1)


def keep_pages(found, run, targets):
    """Keep each process's last page: the run takes them with it."""
    while run.poll() is None:
        for target in targets:
            try:
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
                    found.pages[target] = answer.read().decode()
            except OSError:
                continue
        time.sleep(0.1)
