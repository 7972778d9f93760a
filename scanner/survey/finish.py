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

from scanner.catalogue import columns, export
from scanner.catalogue.deduplicate import Rule
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher
from scanner.catalogue.merging import Merging
from scanner.catalogue.tiles import table as table_of_tiles
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.report import plots
from scanner.report.summary import RunSummary
from scanner.storage import split
from scanner.storage.in_order import in_order
from scanner.survey.folder.cost import CostLedger, RunCost
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.folder.passing import passing_beside
from scanner.survey.folder.resume import refuse_other_settings
from scanner.survey.merged.tables import done_tile, failed_tile, write_tables
from scanner.survey.sheet import write_sheet

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
    """What came of a run.

    ``n_unique``, ``n_candidates``: objects, counted once whatever tiles they are in. ``candidates``: the table of the best of
    the latter, as many as the settings let it hold.
    """

    n_tiles: int
    failed: tuple[FailedTile, ...]
    n_targets: int
    n_scored: int
    n_unique: int
    n_candidates: int
    sky_area_deg2: float
    notes: tuple[str, ...]
    candidates: pa.Table
    cost: RunCost


def finish(
    folder: RunFolder,
    record: RunRecord,
    bundle: Bundle,
    tiles: tuple[Tile, ...],
    failed: tuple[FailedTile, ...],
    known: KnownLenses | None = None,
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
    known
        Lenses that were known before.

    Raises
    ------
    ContentError
        A committed tile is gone or damaged, or was committed with other settings.
    """
    config, scratch = record.config.catalogue, record.config.engine.scratch
    named = {tile.tile_id: tile for tile in tiles}
    failed = tuple(sorted(failed, key=lambda failure: failure.tile_id))
    without = {failure.tile_id for failure in failed}
    done = sorted(named.keys() - without)
    ledger = CostLedger()
    notes: set[str] = set()
    rows = [failed_tile(failure, record, named.get(failure.tile_id)) for failure in failed]
    rule, matcher = Rule(config.duplicate_radius_arcsec), KnownLensMatcher(known, config.known_radius_arcsec)
    with passing_beside(folder.store, scratch) as passing, Merging(passing / "merging", rule, matcher) as merging:
        for commit, table in in_order(partial(_read, folder, record), done):
            merging.add(columns.with_source(table, record.run_id, record.bundle))
            ledger.add(commit)
            notes.update(commit.notes)
            rows.append(done_tile(commit, record, named[commit.tile_id]))
        merging.merge()
        cost = ledger.cost()
        with folder.staged_results(scratch) as staging:
            tables = write_tables(
                staging,
                merging,
                table_of_tiles(rows),
                name="scanner",
                max_candidates=config.max_candidates,
                provenance=_provenance(record),
            )
            report = RunReport(
                n_tiles=len(done) + len(without),
                failed=failed,
                n_targets=merging.n_rows,
                n_scored=cost.n_objects,
                n_unique=merging.n_unique,
                n_candidates=merging.n_candidates,
                sky_area_deg2=cost.sky_area_deg2,
                notes=tuple(sorted(notes)),
                candidates=tables.candidates,
                cost=cost,
            )
            export.write_failed(failed, staging / "failed-tiles.ecsv")
            _draw(staging, folder, record, bundle, tiles, report, tables.counts)
    folder.write_record(record.model_copy(update={"cost": cost}))
    return report


def summary_of(record: RunRecord, bundle: Bundle, report: RunReport) -> RunSummary:
    """What the contact sheet says of a run."""
    scoring = record.config.scoring
    _, name = split(record.tile_list)
    return RunSummary(
        title=name,
        n_tiles=report.n_tiles,
        n_failed=len(report.failed),
        n_targets=report.n_targets,
        n_scored=report.n_scored,
        n_candidates=report.n_candidates,
        area_deg2=report.sky_area_deg2,
        bundle_name=record.bundle_name,
        bundle_version=record.bundle_version,
        threshold=bundle.threshold(scoring.beta),
        beta=scoring.beta or bundle.default_beta,
        decides_on=bundle.manifest.decides_on,
        scanner_version=record.scanner_version,
        command=f"scanner run {shlex.quote(name)}",
        failed_tiles=report.failed,
    )


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
    counts: plots.ScoreCounts,
) -> None:
    summary = summary_of(record, bundle, report)
    shown = report.candidates.slice(0, record.config.catalogue.sheet_candidates)
    write_sheet(staging / "candidates.html", folder, tiles, record.config, record.bundle_fingerprint, shown, summary)
    plots.score_distribution(
        staging / "scores.png",
        counts,
        threshold=summary.threshold,
        beta=summary.beta,
        decides_on=bundle.manifest.decides_on,
    )
    if bundle.grid is not None:
        plots.embedding_map(
            staging / "tsne.png",
            bundle.grid.x_edges,
            bundle.grid.y_edges,
            bundle.grid.lens_fraction,
            np.stack([report.candidates["tsne_x"].to_numpy(), report.candidates["tsne_y"].to_numpy()], axis=1),
            threshold=summary.threshold,
        )
