"""How much memory and time it takes to make one catalogue of many tables: in parts, and with all rows at once.

``python benchmarks/merging.py [rows …]``: draws surveys of 17,000 targets per square degree in which 15% of the rows repeat an
object of another tile, tile by tile, and merges each in a process of its own, in parts (``scanner.catalogue.merge``) and at
once (every row in memory). Prints seconds on the clock and of processors, without those that drawing took, rows per second of
each, the peak of the memory, the bytes that were put on disk meanwhile, and whether both wrote the same catalogue.
``--parts-only`` leaves the second out. On a machine that others use, the rate per processor second is the one to rely on.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns, rank
from scanner.catalogue.hats import write_hats
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule, complete, deduplicate

TARGETS_PER_SQUARE_DEGREE = 17_000
TILE_DEGREES = 0.5
REPEATED = 0.15
RULE, NOTHING_KNOWN = Rule(0.5), KnownLensMatcher(None, 1.0)


@dataclass(frozen=True)
class Measured:
    """One merging: seconds, of processors too, peak bytes of memory, bytes on disk, objects, a hash of the catalogue."""

    seconds: float
    core_seconds: float
    peak: int
    spilled: int
    n_unique: int
    sha256: str


class Watch:
    """Time on the clock and of this process, without what ``drawing`` takes."""

    def __init__(self) -> None:
        self._since, self._drawn = self._now(), np.zeros(2)

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def drawing(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The tables, one by one; what it takes to draw them does not count."""
        while True:
            start = self._now()
            rows = next(tables, None)
            self._drawn += self._now() - start
            if rows is None:
                return
            yield rows

    @property
    def seconds(self) -> tuple[float, float]:
        """On the clock, and of this process."""
        clock, core = self._now() - self._since - self._drawn
        return float(clock), float(core)


def tiles(n: int) -> Iterator[pa.Table]:
    """A survey of about ``n`` rows, tile by tile; 15% of a tile's objects are in the next one too."""
    own = round(TARGETS_PER_SQUARE_DEGREE * TILE_DEGREES**2 * (1 - REPEATED))
    side = int(np.ceil(np.sqrt(n * (1 - REPEATED) / own)))
    repeated = round(own * REPEATED / (1 - REPEATED))
    before: tuple[np.ndarray, np.ndarray] | None = None
    for number in range(min(side**2, round(n / (own + repeated)))):
        generator = np.random.default_rng(number)
        ra = (number % side + generator.random(own)) * TILE_DEGREES
        dec = (number // side - side / 2 + generator.random(own)) * TILE_DEGREES
        again = generator.permutation(own)[:repeated]
        here = ra, dec
        if before is not None:
            ra = np.concatenate([ra, before[0][again] + generator.normal(0, 0.05 / 3600, repeated)])
            dec = np.concatenate([dec, before[1][again] + generator.normal(0, 0.05 / 3600, repeated)])
        before = here
        yield table(generator, number, ra, dec)


def table(generator: np.random.Generator, number: int, ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    n = len(ra)
    grid = generator.random(n).astype(np.float32).round(2)
    given = {
        "target_id": np.arange(n) + number * 1_000_000,
        "tile_id": np.full(n, str(102_000_000 + number)),
        "ra": ra,
        "dec": dec,
        "grid_value": grid,
        "is_candidate": grid >= 0.99,
    }
    arrays = []
    for field in columns.SCORE_SCHEMA:
        values = given.get(field.name)
        arrays.append(pa.array(generator.random(n)).cast(field.type, False) if values is None else pa.array(values, field.type))
    return columns.with_source(pa.Table.from_arrays(arrays, schema=columns.SCORE_SCHEMA), "made-00000000", "made 1")


def in_parts(tables: Iterator[pa.Table], folder: Path) -> tuple[int, int]:
    spill = folder / "merging"
    with Merging(spill, RULE, NOTHING_KNOWN) as merging:
        for rows in tables:
            merging.add(rows)
        merging.merge()
        spilled = sum(path.stat().st_size for path in spill.rglob("*")) if spill.exists() else 0
        merging.write(folder / "catalogue", "benchmark")
        return merging.n_unique, spilled


def at_once(tables: Iterator[pa.Table], folder: Path) -> tuple[int, int]:
    rows = pa.concat_tables(tables)
    extra = {rank.SCORED: columns.scored(rows), rank.BUNDLE_PLACE: rank.bundle_place(rows["bundle"], ())}
    for name, values in extra.items():
        rows = rows.append_column(name, pa.array(values))
    unique = rows.filter(pa.array(deduplicate(rows, RULE).kept))
    keys = (
        rank.text_order(unique["tile_id"]), unique["target_id"].to_numpy(), -unique["grid_value"].to_numpy(),
        -unique["p_calibrated"].to_numpy(), ~unique[rank.SCORED].to_numpy(),
    )  # fmt: skip
    ranked = unique.take(pa.array(np.lexsort(keys)))
    ranked = columns.with_column(ranked, columns.RANK_COLUMN, np.arange(1, len(ranked) + 1))
    write_hats(complete(ranked, NOTHING_KNOWN), folder / "catalogue", "benchmark")
    return len(ranked), 0


def measure(parts: bool, n: int) -> Measured:
    with tempfile.TemporaryDirectory() as name:
        watch = Watch()
        n_unique, spilled = (in_parts if parts else at_once)(watch.drawing(tiles(n)), Path(name))
        seconds, core_seconds = watch.seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        digest = hashlib.sha256()
        for path in sorted(Path(name, "catalogue").rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(name)}\n".encode() + path.read_bytes())
    return Measured(seconds, core_seconds, peak, spilled, n_unique, digest.hexdigest())


def main(sizes: list[int], parts_only: bool) -> None:
    header = ("seconds", "rows/s", "core-s", "rows/core-s", "peak GB", "disk GB")
    print(f"{'rows':>12}  {'how':8} " + " ".join(f"{word:>11}" for word in header) + "  objects")
    for n in sizes:
        found = {}
        for parts in (True,) if parts_only else (True, False):
            # Spawned: what this process holds in memory would count.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                one = found[parts] = pool.submit(measure, parts, n).result()
            print(
                f"{n:12,}  {'in parts' if parts else 'at once':8} {one.seconds:11.1f} {n / one.seconds:11,.0f} "
                f"{one.core_seconds:11.1f} {n / one.core_seconds:11,.0f} {one.peak / 1e9:11.2f} {one.spilled / 1e9:11.2f}  "
                f"{one.n_unique:,}",
                flush=True,
            )
        if len(found) == 2:
            print(f"{'':12}  the same bytes: {found[True].sha256 == found[False].sha256}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, default=[1_000_000])
    parser.add_argument("--parts-only", action="store_true", help="leave out what needs all rows in memory")
    given = parser.parse_args()
    main(given.rows, given.parts_only)
