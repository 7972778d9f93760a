"""How long a cone search takes: through scanner, through a plain scan of the files, through LSDB, over one catalogue.

``python benchmarks/query.py FOLDER --lsdb PYTHON``: FOLDER gets a synthetic survey (--rows, 10 million by default) unless it
has one. PYTHON is the interpreter of an environment with LSDB (``python3.11 -m venv E; E/bin/pip install lsdb``), which weighs
1 GB; without it that line is left out. All ways are asked for the same cones, in turn, all columns; they have to find the same
numbers of rows. Prints median and 99th percentile of the wall time, the median of the CPU time, and the ratios to scanner's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
from synthetic_survey import TARGETS_PER_SQUARE_DEGREE, write_survey

from scanner.atomic_file import tree_sha256
from scanner.query.catalogue import Catalogue, Search, search
from scanner.query.region import Cone
from scanner.storage.disk import LocalStore
from scanner.storage.verified import VerifiedFiles

#: Name → radius in degrees, and how many of the cones the slow ways are asked for.
RADII = {"10″": (10 / 3600, 1.0), "5′": (5 / 60, 0.6), "1°": (1.0, 0.2)}
NAIVE = """SELECT * FROM read_parquet(?, hive_partitioning = false) WHERE 2 * asin(sqrt(pow(sin(radians(dec - ?) / 2), 2)
    + cos(radians(dec)) * cos(radians(?)) * pow(sin(radians(ra - ?) / 2), 2))) <= radians(?)"""

Asking = Callable[[Cone], tuple[int, float, float]]


@dataclass
class Timings:
    """Seconds of wall and CPU of each cone."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def line(self) -> str:
        """Milliseconds."""
        median, worst = np.median(self.wall) * 1e3, np.quantile(self.wall, 0.99) * 1e3
        return f"{median:8.1f} {worst:8.1f} {np.median(self.cpu) * 1e3:8.1f}  ({len(self.wall)} cones)"


def timed(ask: Callable[[Cone], int]) -> Asking:
    def _timed(cone: Cone) -> tuple[int, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        n = ask(cone)
        return n, time.perf_counter() - wall, time.process_time() - cpu

    return _timed


def naive(catalogue: Catalogue) -> Callable[[Cone], int]:
    connection = duckdb.connect(config={"threads": catalogue.limits.threads})
    files = [str(path) for path in catalogue.files()]

    def _ask(cone: Cone) -> int:
        parameters = [files, cone.dec, cone.dec, cone.ra, cone.radius_deg]
        return int(connection.sql(NAIVE, params=parameters).to_arrow_table().num_rows)

    return _ask


@contextmanager
def lsdb(python: str, folder: Path, threads: int) -> Iterator[Asking]:
    """LSDB in its own environment: a process that is told cones and says what they took."""
    script = str(Path(__file__).with_name("lsdb_cones.py"))
    command = [python, script, str(folder), str(threads)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        writing, reading = process.stdin, process.stdout

        def _ask(cone: Cone) -> tuple[int, float, float]:
            writing.write(json.dumps([cone.ra % 360, cone.dec, cone.radius_deg * 3600]) + "\n")
            writing.flush()
            n, wall, cpu = json.loads(reading.readline())
            return n, wall, cpu

        print("LSDB", json.loads(reading.readline()))
        yield _ask
        writing.close()


def compare(catalogue: Catalogue, ways: dict[str, Asking], n: int, slow: set[str]) -> None:
    generator = np.random.default_rng(0)
    half = np.sqrt(catalogue.n_rows / TARGETS_PER_SQUARE_DEGREE) / 2 - 1.2
    for name, (radius, share) in RADII.items():
        timings = {way: Timings() for way in ways}
        for number in range(round(n * share)):
            dec = -30 + generator.uniform(-half, half)
            cone = Cone(float(generator.uniform(-half, half) / np.cos(np.radians(dec)) % 360), float(dec), radius)
            found = {}
            for way, ask in ways.items():
                if way in slow and number % 10:
                    continue
                found[way], wall, cpu = ask(cone)
                timings[way].wall.append(wall)
                timings[way].cpu.append(cpu)
            assert len(set(found.values())) == 1, found
        for way, taken in timings.items():
            ratio = (
                np.median(taken.wall) / np.median(timings["scanner"].wall),
                np.median(taken.cpu) / np.median(timings["scanner"].cpu),
            )
            print(f"{name:4} {way:14} {taken.line()}  {ratio[0]:5.1f} x, of CPU {ratio[1]:5.1f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--cones", type=int, default=200)
    parser.add_argument("--lsdb", help="interpreter of an environment with LSDB")
    arguments = parser.parse_args()
    if not (arguments.folder / "catalogue").exists():
        write_survey(arguments.rows, arguments.folder / "catalogue")
    sha256 = tree_sha256(arguments.folder / "catalogue")
    catalogue = Catalogue.open(VerifiedFiles(LocalStore(arguments.folder), "catalogue", sha256, "write it again"))
    ways = {"scanner": timed(lambda cone: len(search(catalogue, Search(cone)))), "naive scan": timed(naive(catalogue))}
    print(f"{catalogue.n_rows:,} rows, {len(catalogue.partitions)} files; ms: median, p99, median of CPU")
    # Everyone's first question is not counted: it opens files.
    warm = Cone(0.0, -30.0, 0.01)
    if arguments.lsdb is None:
        for ask in ways.values():
            ask(warm)
        compare(catalogue, ways, arguments.cones, {"naive scan"})
        return
    with lsdb(arguments.lsdb, arguments.folder / "catalogue", catalogue.limits.threads) as ask_lsdb:
        ways["LSDB"] = ask_lsdb
        for ask in ways.values():
            ask(warm)
        compare(catalogue, ways, arguments.cones, {"naive scan"})


if __name__ == "__main__":
    main()
