"""From committed tiles to the run's results: merged, deduplicated, ranked, written, exported, drawn.

In: the committed tiles of a run folder. Out: ``catalogue/``, ``candidates.{fits,ecsv,vot}``, ``candidates.html``,
``scores.png``, ``tsne.png``, ``tiles.parquet``, ``footprint.fits``, ``failed-tiles.ecsv`` and a :class:`RunReport`. Depends on
nothing but the tiles' tables, so the bytes do not depend on how the run went.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns, deduplicate, export, rank, write
from scanner.catalogue.complete import complete, listed
from scanner.catalogue.tiles import TileRow, footprint
from scanner.catalogue.tiles import table as table_of_tiles
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.report import contact_sheet, plots
from scanner.report.summary import RunSummary
from scanner.storage import split
from scanner.storage.in_order import in_order
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.folder.cost import CostLedger, RunCost
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.folder.resume import refuse_other_settings

RESULTS = (
    "catalogue",
    "candidates.fits",
    "candidates.ecsv",
    "candidates.vot",
    "candidates.html",
    "scores.png",
    "tsne.png",
    "tiles.parquet",
    "footprint.fits",
    "failed-tiles.ecsv",
)


@dataclass(frozen=True)
class RunReport:
    """What came of a run: ``candidates`` is the ranked table, ``n_unique`` counts objects once whatever tiles they are in."""

    n_tiles: int
    failed: tuple[FailedTile, ...]
    n_targets: int
    n_scored: int
    n_unique: int
    sky_area_deg2: float
    notes: tuple[str, ...]
    candidates: pa.Table
    cost: RunCost


def finish(
    folder: RunFolder, record: RunRecord, bundle: Bundle, tiles: tuple[Tile, ...], failed: tuple[FailedTile, ...]
) -> RunReport:
    """Merge the committed tiles of a run and write its results, each replaced as a whole, and the cost into ``run.json``.

    Parameters
    ----------
    folder, record, bundle
        The run and what it was made with.
    tiles
        The tiles of the list; those that are not in ``failed`` are committed.
    failed
        The tiles that could not be scanned, or whose result cannot be trusted, with reasons.

    Raises
    ------
    ContentError
        A committed tile is gone or damaged, or was committed with other settings.
    """
    without = {failure.tile_id for failure in failed}
    done = sorted(tile.tile_id for tile in tiles if tile.tile_id not in without)
    tables: list[pa.Table] = []
    ledger = CostLedger()
    notes: set[str] = set()
    rows: list[TileRow] = []
    names = {tile.tile_id: {role: str(file) for role, file in tile.files.items()} for tile in tiles}
    for commit, table in in_order(partial(_read, folder, record), done):
        tables.append(table)
        ledger.add(commit)
        notes.update(commit.notes)
        rows.append(
            TileRow(
                tile_id=commit.tile_id,
                run=record.run_id,
                bundle=record.bundle,
                state="done",
                files=names[commit.tile_id],
                s_region=commit.s_region,
                sky_area_deg2=commit.sky_area_deg2,
                n_targets=commit.n_targets,
                n_scored=commit.n_scored,
                n_candidates=commit.n_decided,
            )
        )
    cost = ledger.cost()
    scored = pa.concat_tables(tables) if tables else columns.empty_table()
    tables.clear()
    scored = columns.with_source(scored, record.run_id, record.bundle)
    unique = complete(rank.rank(deduplicate.deduplicate(scored, record.config.catalogue.duplicate_radius_arcsec)))
    candidates = listed(unique, record.config.catalogue.max_candidates)
    report = RunReport(
        n_tiles=len(done) + len(without),
        failed=tuple(sorted(failed, key=lambda failure: failure.tile_id)),
        n_targets=len(scored),
        n_scored=cost.n_objects,
        n_unique=len(unique),
        sky_area_deg2=cost.sky_area_deg2,
        notes=tuple(sorted(notes)),
        candidates=candidates,
        cost=cost,
    )
    with folder.staged_results(record.config.engine.scratch) as staging:
        write.write_hats(unique, staging / "catalogue", name="scanner")
        export.write_candidates(candidates, staging / "candidates", provenance=_provenance(record))
        rows += [
            TileRow(failure.tile_id, record.run_id, record.bundle, "failed", names.get(failure.tile_id, {}), failure.reason)
            for failure in report.failed
        ]
        pq.write_table(table_of_tiles(rows), staging / "tiles.parquet", compression="zstd")
        footprint(row.s_region for row in rows).save(staging / "footprint.fits", format="fits")
        export.write_failed(report.failed, staging / "failed-tiles.ecsv")
        _draw(staging, folder, record, bundle, tiles, report, unique)
    folder.write_record(record.model_copy(update={"cost": cost}))
    return report


def _read(folder: RunFolder, record: RunRecord, tile_id: str) -> tuple[CommitRecord, pa.Table]:
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise ContentError(f"{folder.store.where(folder.tile(tile_id))}: its commit record has gone; run again.")
    refuse_other_settings(folder, record, commit)
    return commit, folder.scores(commit)


def _provenance(record: RunRecord) -> export.Provenance:
    return export.Provenance(
        software=f"scanner {record.scanner_version}",
        config_fingerprint=record.config_fingerprint,
        bundle=record.bundle,
        bundle_fingerprint=record.bundle_fingerprint,
    )


def _draw(
    staging: Path,
    folder: RunFolder,
    record: RunRecord,
    bundle: Bundle,
    tiles: tuple[Tile, ...],
    report: RunReport,
    unique: pa.Table,
) -> None:
    config = record.config
    _, name = split(record.tile_list)
    beta = config.scoring.beta or bundle.default_beta
    threshold = bundle.threshold(config.scoring.beta)
    shown = report.candidates.slice(0, config.catalogue.sheet_candidates)
    contact_sheet.write(
        staging / "candidates.html",
        shown,
        candidate_cutouts(shown, folder, tiles, config),
        RunSummary(
            title=name,
            n_tiles=report.n_tiles,
            n_failed=len(report.failed),
            n_targets=report.n_targets,
            n_scored=report.n_scored,
            n_candidates=len(report.candidates),
            area_deg2=report.sky_area_deg2,
            bundle_name=record.bundle_name,
            bundle_version=record.bundle_version,
            threshold=threshold,
            beta=beta,
            decides_on=bundle.manifest.decides_on,
            scanner_version=record.scanner_version,
            command=f"scanner run {shlex.quote(name)}",
            failed_tiles=report.failed,
        ),
    )
    plots.score_distribution(
        staging / "scores.png",
        unique["grid_value"].to_numpy(),
        unique["p_calibrated"].to_numpy(),
        unique["is_candidate"].to_numpy(),
        threshold=threshold,
        beta=beta,
        decides_on=bundle.manifest.decides_on,
    )
    if bundle.grid is not None:
        plots.embedding_map(
            staging / "tsne.png",
            bundle.grid.x_edges,
            bundle.grid.y_edges,
            bundle.grid.lens_fraction,
            np.stack([report.candidates["tsne_x"].to_numpy(), report.candidates["tsne_y"].to_numpy()], axis=1),
            threshold=threshold,
        )
