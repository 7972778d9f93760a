"""The table of tiles, ``tiles.parquet``, and the sky they cover, ``footprint.fits``.

Neither names a folder or a date: both may be shown to anybody, and the same tiles give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from scanner.catalogue.columns import TILE_SCHEMA
from scanner.errors import ContentError
from scanner.records import Float64
from scanner.sphere import unit_vectors

if TYPE_CHECKING:
    from mocpy import MOC


#: Cells of 13", which a tile of half a degree fills with 0.4% to spare on all sides.
FOOTPRINT_ORDER = 14

_FOLDERS = re.compile(r"(?<![\w./])(?:[a-z0-9]+:/)?/(?:[^\s/:;,\"'\[\]]+/)*")


@dataclass(frozen=True)
class TileRow:
    """One tile: the columns of ``tiles.parquet`` without the centre, ``files`` as a mapping."""

    tile_id: str
    run: str
    bundle: str
    state: Literal["done", "failed"]
    files: Mapping[str, str]
    reason: str = ""
    s_region: str = ""
    sky_area_deg2: float = 0.0
    n_targets: int = 0
    n_scored: int = 0
    n_candidates: int = 0


def tile_table(rows: Iterable[TileRow]) -> pa.Table:
    """The table of tiles, by run and tile id.

    Raises
    ------
    ContentError
        An outline is no polygon.
    """
    ordered = sorted(rows, key=lambda row: (row.run, row.tile_id))
    return pa.Table.from_pylist([_cells(row) for row in ordered], schema=TILE_SCHEMA)


@dataclass(frozen=True)
class CoveredSky:
    """What the tiles that are done cover: ``footprint``; ``area_deg2`` of good VIS pixels, overlaps counted once."""

    footprint: MOC
    area_deg2: float


def covered_sky(tiles: pa.Table) -> CoveredSky:
    """The sky that the tiles of a table cover, to :data:`FOOTPRINT_ORDER`; empty outlines count for nothing.

    Parameters
    ----------
    tiles
        Of :data:`~scanner.catalogue.columns.TILE_SCHEMA`.

    Raises
    ------
    ContentError
        An outline is no polygon.
    """
    import astropy.units as u
    from mocpy import MOC

    done = [row for row in tiles.select(["state", "s_region", "sky_area_deg2"]).to_pylist() if row["state"] == "done"]
    parts: dict[str, MOC] = {}
    for region in sorted({row["s_region"] for row in done if row["s_region"]}):
        ra, dec = vertices(region)
        parts[region] = MOC.from_polygon(ra * u.deg, dec * u.deg, max_depth=FOOTPRINT_ORDER)
    covered = MOC.new_empty(FOOTPRINT_ORDER)
    area = sum(row["sky_area_deg2"] for row in done)
    if not parts:
        return CoveredSky(covered, area)
    covered = covered.union(*parts.values())
    # Cells at the edges are counted whole in both, and cancel.
    together = sum(parts[row["s_region"]].sky_fraction for row in done if row["s_region"])
    return CoveredSky(covered, round(area * covered.sky_fraction / together, 10))


def vertices(region: str) -> tuple[Float64, Float64]:
    """Right ascension and declination of the corners of ``POLYGON ICRS ra dec …``, each (N,) in degrees.

    Raises
    ------
    ContentError
        It is no such polygon.
    """
    words = region.split()
    try:
        numbers = np.asarray(words[2:], dtype=np.float64)
    except ValueError:
        numbers = np.empty(0)
    if words[:2] != ["POLYGON", "ICRS"] or len(numbers) < 6 or len(numbers) % 2:
        raise ContentError(f"{region!r} is no outline of a tile; it should be 'POLYGON ICRS ra dec ra dec ra dec …'.")
    return numbers[0::2], numbers[1::2]


def _cells(row: TileRow) -> dict[str, Any]:
    ra, dec = _centre(row.s_region)
    names = {role: re.split(r"[/\\]", file)[-1] for role, file in sorted(row.files.items())}
    known = {"ra": ra, "dec": dec, "files": json.dumps(names, ensure_ascii=False), "reason": without_folders(row.reason)}
    # The last digits of an area depend on where in memory its numbers lie.
    return asdict(row) | known | {"sky_area_deg2": round(row.sky_area_deg2, 10)}


def without_folders(text: str) -> str:
    """A message in which only the last names of paths and URLs are left."""
    return _FOLDERS.sub("", text)


def _centre(region: str) -> tuple[float, float]:
    if not region:
        return np.nan, np.nan
    x, y, z = unit_vectors(*vertices(region)).sum(axis=0)
    ra, dec = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return round(float(ra) % 360.0, 8) % 360.0, round(float(dec), 8)
