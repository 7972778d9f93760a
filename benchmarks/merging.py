"""How fast tables of tiles become one catalogue: deduplicate, rank, write HATS, export.

``python benchmarks/merging.py [rows]``: draws a survey of 17,000 targets per square degree in which 15% of the rows repeat an
object of another tile, and prints CPU seconds, rows per CPU second and the peak memory after each step.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns, deduplicate, export, rank, write
from scanner.catalogue.complete import complete, listed

TARGETS_PER_SQUARE_DEGREE = 17_000
REPEATED = 0.15
TILE_DEGREES = 0.5
T = TypeVar("T")


def survey(n: int) -> pa.Table:
    generator = np.random.default_rng(0)
    n_objects = round(n * (1 - REPEATED))
    side = np.sqrt(n_objects / TARGETS_PER_SQUARE_DEGREE)
    ra, dec = generator.uniform(0, side, n_objects), generator.uniform(-side / 2, side / 2, n_objects)
    tile = (ra // TILE_DEGREES).astype(int) * 1000 + ((dec + side / 2) // TILE_DEGREES).astype(int)
    again = generator.permutation(n_objects)[: n - n_objects]
    ra = np.concatenate([ra, ra[again] + generator.normal(0, 0.05 / 3600, len(again))])
    dec = np.concatenate([dec, dec[again] + generator.normal(0, 0.05 / 3600, len(again))])
    grid = generator.random(n).astype(np.float32).round(2)
    given = {
        "target_id": np.arange(n),
        "tile_id": np.concatenate([tile, tile[again] + 500]).astype(str),
        "ra": ra,
        "dec": dec,
        "grid_value": grid,
        "is_candidate": grid >= 0.99,
    }
    fields = columns.SCORE_SCHEMA
    plain = generator.random(n).astype(np.float32)
    arrays = [
        pa.array(given[field.name]) if field.name in given else pa.array(plain).cast(field.type, False) for field in fields
    ]
    return pa.Table.from_arrays(arrays, schema=fields)


def timed(name: str, n: int, step: Callable[[], T]) -> T:
    start = time.process_time()
    result = step()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name:<12} {seconds:7.2f} s  {n / seconds:12,.0f} rows/s  peak {peak:.2f} GB")
    return result


def main(n: int) -> None:
    rows = columns.with_source(survey(n), "made-00000000", "made 1")
    unique = timed("deduplicate", n, lambda: deduplicate.deduplicate(rows, 0.5))
    ranked = timed("rank", len(unique), lambda: rank.rank(unique))
    merged = timed("complete", len(ranked), lambda: complete(ranked))
    chosen = listed(merged, 10_000)
    provenance = export.Provenance(software="scanner", config_fingerprint="0" * 32, bundle="none", bundle_fingerprint="0" * 64)
    with tempfile.TemporaryDirectory() as folder:
        timed("write HATS", len(ranked), lambda: write.write_hats(merged, Path(folder, "catalogue"), "benchmark"))
        timed("export", len(chosen), lambda: export.write_candidates(chosen, Path(folder, "candidates"), provenance))
    print(f"{n:,} rows, {len(unique):,} objects, {len(chosen):,} candidates")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
