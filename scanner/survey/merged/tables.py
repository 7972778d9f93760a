"""The tables that a run and a survey both end in.

In: merged tables of tiles, and the tiles themselves. Out: ``catalogue/``, ``candidates.{fits,ecsv,vot}``, ``tiles.parquet`` and
``footprint.fits``. The same rows give the same bytes. Refused: a folder that cannot be written (OutputError, or OSError as it
is).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scanner.catalogue import export
from scanner.catalogue.merging import Merging
from scanner.catalogue.tiles import TileRow, footprint
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.report.plots import ScoreCounts
from scanner.survey.folder.ledger import RunRecord
from scanner.survey.merged.opening import CANDIDATES, CATALOGUE, FOOTPRINT, TILES_TABLE


@dataclass(frozen=True)
class MergedTables:
    """What was written: the candidate list, and how many objects have which score."""

    candidates: pa.Table
    counts: ScoreCounts


def write_tables(
    folder: Path, merging: Merging, tiles: pa.Table, *, name: str, max_candidates: int, provenance: export.Provenance
) -> MergedTables:
    """Write the tables.

    Parameters
    ----------
    folder
        Where they are written.
    merging
        The rows, merged.
    tiles
        All tiles, of :data:`~scanner.catalogue.tiles.TILE_SCHEMA`, by run and tile id.
    name
        The catalogue's name.
    max_candidates
        Most rows of the candidate list.
    provenance
        Goes into the headers of the candidate list.
    """
    counts = ScoreCounts()

    def count(rows: pa.Table) -> None:
        counts.add(*(rows[column].to_numpy() for column in ("grid_value", "p_calibrated", "is_candidate")))

    merging.write(folder / CATALOGUE, name, count)
    candidates = merging.candidates(max_candidates)
    export.write_candidates(candidates, folder / CANDIDATES, provenance=provenance)
    pq.write_table(tiles, folder / TILES_TABLE, compression="zstd")
    done = tiles.filter(pc.equal(tiles["state"], "done"))
    footprint(done["s_region"].to_pylist()).save(folder / FOOTPRINT, format="fits")
    return MergedTables(candidates, counts)


def done_tile(commit: CommitRecord, record: RunRecord, tile: Tile) -> TileRow:
    """The row of a tile that was committed."""
    return TileRow(
        tile_id=commit.tile_id,
        run=record.run_id,
        bundle=record.bundle,
        state="done",
        files={role: str(file) for role, file in tile.files.items()},
        s_region=commit.s_region,
        sky_area_deg2=commit.sky_area_deg2,
        n_targets=commit.n_targets,
        n_scored=commit.n_scored,
        n_candidates=commit.n_decided,
    )


def failed_tile(failure: FailedTile, record: RunRecord, tile: Tile | None) -> TileRow:
    """The row of a tile that failed; ``tile`` is None where not even its files are known."""
    files = {} if tile is None else {role: str(file) for role, file in tile.files.items()}
    return TileRow(failure.tile_id, record.run_id, record.bundle, "failed", files, failure.reason)
