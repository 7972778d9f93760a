"""The service under many clients at a time: latencies by kind of request, errors, memory.

    python benchmarks/service.py [--rows 10000000] [--candidates 1000000] [--clients 16] [--seconds 60] [--folder …]

Made first: a run folder with a synthetic catalogue (benchmarks/synthetic_survey.py), which takes about 1 kB of memory a row;
with --folder it is kept, and used again. A real server process serves it, without a limit to the rate. First one client asks
alone, then all at once, each in a process of its own, each asking for the next thing as soon as it has the last: pages of
candidates in several orders, further and further on; single candidates; cones of 10″ and 5′ as JSON and as VOTable; TAP; the
overviews that pages draw. Printed for both: n, median, p99 and worst in ms by kind; errors; answers a second; the processor
seconds for an answer, and the memory, of the server and its query processes. The exit code is 1 if any answer was not 200.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlencode

KINDS = {
    "first page": 3,
    "next page": 6,
    "page by a score": 3,
    "page from a rank": 2,
    "candidate": 5,
    "cone 10″, JSON": 4,
    "cone 10″, SCS": 4,
    "cone 5′, SCS": 1,
    "TAP, 10″": 2,
    "overview": 1,
}
SCORES = ("p_ou_j", "p_ou_vis", "p_ou_66", "grid_value", "p_calibrated")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "run.json").exists():
            write_run(folder, arguments.rows, arguments.candidates)
        process, port, seconds = start(folder)
        stack.callback(stop, process)
        print(f"ready after {seconds:.1f} s, {memory(process):.0f} MB")
        wrong = 0
        for n_clients in (1, arguments.clients):
            before = processor_seconds(process)
            answers, took = ask(port, n_clients, arguments.seconds)
            wrong += show(f"{n_clients} at a time", answers, took)
            print(f"  {(processor_seconds(process) - before) / len(answers) * 1e3:.1f} ms of a processor for an answer")
            print(f"  memory {memory(process):.0f} MB\n")
    return bool(wrong)


def write_run(folder: Path, n_rows: int, n_candidates: int) -> None:
    """A run folder as a finished run leaves it, as far as it is served."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from synthetic_survey import survey

    from scanner.atomic_file import tree_sha256
    from scanner.catalogue import columns, export
    from scanner.catalogue.hats import write_hats
    from scanner.config import RunConfig
    from scanner.survey.folder.ledger import RunRecord

    print(f"writing {n_rows:,} rows …", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    record = RunRecord(
        scanner_version="0", tile_list="synthetic.txt", tile_ids=("1",), bundle_name="synthetic", bundle_version="1",
        bundle_fingerprint="b", provider="cpu", config_fingerprint="c", config=RunConfig(),
    )  # fmt: skip
    table = survey(n_rows)
    for column, values in (
        (columns.column("is_candidate"), np.arange(n_rows) < n_candidates),
        (columns.RUN_COLUMN, pa.repeat(pa.scalar(record.run_id), n_rows)),
    ):
        table = columns.with_column(table, column, values, table.schema.get_field_index(column.name))
    write_hats(table, folder / "catalogue", "synthetic")
    outline = "POLYGON ICRS 359.5 -30.5 0.5 -30.5 0.5 -29.5 359.5 -29.5"
    tile = export.TileRow(tile_id="1", run=record.run_id, bundle=record.bundle, state="done", files={}, s_region=outline)
    pq.write_table(export.tile_table([tile]), folder / "tiles.parquet")
    export.footprint([outline]).save(folder / "footprint.fits", format="fits")
    record = record.model_copy(update={"sha256": tree_sha256(folder)})
    (folder / "run.json").write_bytes(record.to_bytes())


def start(folder: Path) -> tuple[subprocess.Popen[str], int, float]:
    """A server, its port, and how long it took until every collection was open."""
    begin = time.perf_counter()
    environment = os.environ | {"SCANNER_SERVE_LIMITS__REQUESTS_PER_MINUTE": "0"}
    words = ["serve", str(folder), "--port", "0", "--grades", str(folder / "grades.sqlite"), "--log-format", "json"]
    command = [sys.executable, "-m", "scanner", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = int(re.search(r":(\d+)/;", process.stdout.readline())[1])
    while get(http.client.HTTPConnection("127.0.0.1", port), "/readyz")[0] != 200:
        time.sleep(0.1)
    return process, port, time.perf_counter() - begin


def stop(process: subprocess.Popen[str]) -> None:
    """Stop the server."""
    process.send_signal(signal.SIGINT)
    process.wait(30)


def family(process: subprocess.Popen[str]) -> list[int]:
    """Identifiers of the server and of all processes below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [process.pid]
    for one in found:
        found += [pid for pid, parent in parents.items() if parent == one]
    return found


def memory(process: subprocess.Popen[str]) -> float:
    """Memory of the server and its processes in MB, what several share counted once (Pss)."""
    total = 0.0
    for pid in family(process):
        with contextlib.suppress(OSError):
            total += int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) / 1e3
    return total


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """Processor time of the server and its processes so far."""
    total = 0.0
    for pid in family(process):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def ask(port: int, n_clients: int, seconds: float) -> tuple[list[tuple[str, int, float]], float]:
    """Kind, status and seconds of every answer to so many clients, and how long that took."""
    with multiprocessing.get_context("spawn").Pool(n_clients) as pool:
        pool.starmap(client, [(port, 0, 1.0)] * n_clients)
        begin = time.perf_counter()
        answers = pool.starmap(client, [(port, seed, seconds) for seed in range(1, n_clients + 1)], chunksize=1)
        return [one for many in answers for one in many], time.perf_counter() - begin


def client(port: int, seed: int, seconds: float) -> list[tuple[str, int, float]]:
    """Ask for one thing after the other until the time is up."""
    chance = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    slug = json.loads(get(connection, "/api/v1/collections")[1])["collections"][0]["slug"]
    base = f"/api/v1/collections/{slug}"
    first = json.loads(get(connection, f"{base}/candidates?limit=200")[1])
    known, after, n_candidates = first["items"], first["next"], first["total"]
    done = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        path = address(kind, base, chance, known, after, n_candidates)
        begin = time.perf_counter()
        status, content = get(connection, path)
        done.append((kind, status, time.perf_counter() - begin))
        if kind == "next page" and status == 200:
            page = json.loads(content)
            known, after = page["items"], page["next"] or first["next"]
    return done


def address(kind: str, base: str, chance: random.Random, known: list[dict], after: str, n_candidates: int) -> str:
    """Path and query of a request."""
    one = chance.choice(known)
    near = {"ra": one["ra"] + chance.uniform(-1e-3, 1e-3), "dec": one["dec"] + chance.uniform(-1e-3, 1e-3)}
    match kind:
        case "first page":
            return f"{base}/candidates"
        case "next page":
            return f"{base}/candidates?{urlencode({'after': after})}"
        case "page by a score":
            return f"{base}/candidates?{urlencode({'sort': chance.choice(SCORES), 'min_score': round(chance.random() / 2, 3)})}"
        case "page from a rank":
            return f"{base}/candidates?{urlencode({'min_rank': chance.randint(1, n_candidates)})}"
        case "candidate":
            return f"{base}/candidates/{one['id']}"
        case "cone 10″, JSON":
            return f"{base}/candidates?{urlencode({'cone': '{ra} {dec} 10arcsec'.format(**near), 'objects': 'true'})}"
        case "cone 10″, SCS" | "cone 5′, SCS":
            return f"/scs?{urlencode({'RA': near['ra'] % 360, 'DEC': near['dec'], 'SR': (10 if '10' in kind else 300) / 3600})}"
        case "TAP, 10″":
            circle = f"CIRCLE({near['ra'] % 360}, {near['dec']}, 0.00278)"
            adql = f"SELECT TOP 20 * FROM objects WHERE CONTAINS(POINT(ra, dec), {circle}) = 1"
            return f"/tap/sync?{urlencode({'LANG': 'ADQL', 'REQUEST': 'doQuery', 'QUERY': adql})}"
        case _:
            return base + chance.choice(("/sky", "/tsne", "/histogram?scale=log", ""))


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    """Status and content of one answer."""
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def show(title: str, answers: list[tuple[str, int, float]], took: float) -> int:
    """Print what came of it; return how many answers were not 200."""
    times: dict[str, list[float]] = defaultdict(list)
    for kind, _, seconds in answers:
        times[kind].append(seconds * 1e3)
    print(f"{title}: {len(answers)} answers in {took:.0f} s, {len(answers) / took:.1f}/s")
    for kind in (*KINDS, "all"):
        values = sorted(times[kind] if kind != "all" else [value for many in times.values() for value in many])
        if values:
            median, p99 = (values[min(int(share * len(values)), len(values) - 1)] for share in (0.5, 0.99))
            print(f"  {kind:18s} n {len(values):6d}  median {median:7.1f}  p99 {p99:7.1f}  worst {values[-1]:7.1f} ms")
    wrong = Counter(f"{kind} {status}" for kind, status, _ in answers if status != 200)
    print(f"  errors: {dict(wrong) or 'none'}")
    return wrong.total()


if __name__ == "__main__":
    sys.exit(main())
