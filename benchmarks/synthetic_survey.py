"""A synthetic catalogue of any size, on which queries are timed.

It is ranked and has the density of Euclid's own search for lenses. One object in a hundred is a candidate, one in a thousand
known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns
from scanner.catalogue.hats import write_hats
from scanner.sphere import designations, healpix_29

TARGETS_PER_SQUARE_DEGREE = 17_000
TILE_DEGREES = 0.5
_PIECE = 1_000_000


def survey(n: int, seed: int = 0) -> pa.Table:
    """Rows of a square field around RA 0, Dec -30, in order of rank."""
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.beta(0.05, 2.0, n).astype(np.float32))[::-1]
    pieces = [_rows(generator, start, scores[start : start + _PIECE], n) for start in range(0, n, _PIECE)]
    return pa.concat_tables(pieces)


def write_survey(n: int, folder: Path) -> None:
    """Write such a catalogue as a run or a survey would."""
    write_hats(survey(n), folder, "synthetic survey")


def _rows(generator: np.random.Generator, start: int, scores: np.ndarray, total: int) -> pa.Table:
    n, side = len(scores), np.sqrt(total / TARGETS_PER_SQUARE_DEGREE)
    dec = -30 + generator.uniform(-side / 2, side / 2, n)
    ra = generator.uniform(-side / 2, side / 2, n) / np.cos(np.radians(dec)) % 360
    tile = (ra // TILE_DEGREES).astype(int) * 1000 + ((dec + 90) // TILE_DEGREES).astype(int)
    is_candidate, known = np.arange(start, start + n) < total // 100, generator.random(n) < 1e-3
    given = {
        "_healpix_29": healpix_29(ra, dec),
        "rank": np.arange(start + 1, start + n + 1),
        "name": designations(ra, dec),
        "target_id": generator.integers(1, 2**52, n),
        "tile_id": tile.astype(str),
        "ra": ra,
        "dec": dec,
        "magnitude_vis": generator.uniform(18, 23, n),
        "p_calibrated": scores,
        "grid_value": scores.round(2),
        "cell_count": generator.integers(0, 500, n),
        "is_candidate": is_candidate,
        "flags": generator.choice(np.array([0, 0, 0, 1, 2]), n),
        "run": np.full(n, "synthetic-0123abcd"),
        "bundle": np.full(n, "synthetic 1"),
        "known_name": np.where(known, "known lens", ""),
        "known_separation": np.where(known, generator.random(n), np.nan),
        "known_reference": np.where(known, "synthetic", ""),
    }
    arrays = [
        pa.array(given[field.name] if field.name in given else generator.random(n), from_pandas=False).cast(
            field.type, safe=False
        )
        for field in columns.CATALOGUE_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=columns.CATALOGUE_SCHEMA)
