"""From committed tiles to results: merged, deduplicated, ranked, written, exported, drawn.

The bytes depend on the tiles' tables only, not on how the run went.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from scanner.catalogue import columns, export
from scanner.catalogue.export import CoveredSky, TileRow, covered_sky, tile_table
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule
from scanner.catalogue.rank import leaders
from scanner.config import RunConfig
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError, InputMissingError
from scanner.query.catalogue import MODELS_TABLE
from scanner.records import CommitRecord, FailedTile, Flag, Tile
from scanner.report import plots
from scanner.report.contact_sheet import RunSummary, write_contact_sheet
from scanner.report.plots import ScoreCounts
from scanner.storage import split
from scanner.storage.contract import in_order
from scanner.survey.folder.cost import CostLedger
from scanner.survey.folder.ledger import AGAIN, DamagedTileError, RunFolder, RunRecord, temporary_beside
from scanner.survey.folder.resume import refuse_other_settings
from scanner.survey.objects import candidate_cutouts
from scanner.survey.published import CANDIDATES, CATALOGUE, FOOTPRINT, TILES_TABLE, read_models
from scanner.survey.status import NAMED_FAILURES, RunReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergedTables:
    """What was written: the best objects, and how many have which score."""

    listed: pa.Table
    counts: ScoreCounts


def write_tables(
    folder: Path,
    merging: Merging,
    tiles: pa.Table,
    sky: CoveredSky,
    *,
    name: str,
    max_candidates: int,
    provenance: export.Provenance,
    models: pa.Table | None = None,
) -> MergedTables:
    """Write the tables.

    Parameters
    ----------
    folder
        Where they are written.
    merging
        The rows, merged.
    tiles
        All tiles, of :data:`~scanner.catalogue.columns.TILE_SCHEMA`, by run and tile id.
    sky
        What they cover.
    name
        The catalogue's name.
    max_candidates
        Most rows of the tables of the best objects.
    provenance
        Goes into their headers.
    models
        The lens models that there are.
    """
    counts = ScoreCounts()

    def count(rows: pa.Table) -> None:
        counts.add(*(rows[column].to_numpy() for column in ("grid_value", "p_calibrated", "is_candidate")))

    merging.write(folder / CATALOGUE, name, count)
    listed = merging.listed(max_candidates)
    write_lists(folder, listed, provenance, models)
    pq.write_table(tiles, folder / TILES_TABLE, compression="zstd", write_page_checksum=True)
    sky.footprint.save(folder / FOOTPRINT, format="fits")
    return MergedTables(listed, counts)


def write_lists(folder: Path, listed: pa.Table, provenance: export.Provenance, models: pa.Table | None) -> None:
    """Write the candidate list, with the lens models that there are, and the table of these.

    Parameters
    ----------
    folder, provenance, models
        See :func:`write_tables`.
    listed
        The best objects, of :data:`~scanner.catalogue.columns.CANDIDATE_SCHEMA`.
    """
    if models is not None:
        pq.write_table(models, folder / MODELS_TABLE, compression="zstd", write_page_checksum=True)
        listed = columns.with_models(listed, models)
    export.write_candidates(listed, folder / CANDIDATES, provenance=provenance)


def done_tile(commit: CommitRecord, record: RunRecord, tile: Tile, n_candidates: int) -> TileRow:
    """The row of a tile that was committed, with ``n_candidates`` in it."""
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
        n_candidates=n_candidates,
    )


def failed_tile(failure: FailedTile, record: RunRecord, tile: Tile | None) -> TileRow:
    """The row of a tile that failed; ``tile`` is None where not even its files are known."""
    files = {} if tile is None else {role: str(file) for role, file in tile.files.items()}
    return TileRow(failure.tile_id, record.run_id, record.bundle, "failed", files, failure.reason)


def write_sheet(
    path: Path,
    folder: RunFolder,
    tiles: Mapping[str, Tile],
    config: RunConfig,
    shown: pa.Table,
    summary: RunSummary,
    strips: Sequence[bytes | None] | None = None,
) -> None:
    """Write the contact sheet.

    Parameters
    ----------
    path
        The HTML file.
    folder, tiles, config
        The run.
    shown
        The rows to show, ranked.
    summary
        The facts of the run.
    strips
        A PNG for each row, or None, which a later stage (explaining) has made of the object.
    """
    write_contact_sheet(path, shown, candidate_cutouts(shown, folder, tiles, config), summary, strips)


RESULTS = (
    "catalogue",
    "catalogue_10arcs",
    "collection.properties",
    "candidates.fits",
    "candidates.ecsv",
    "candidates.vot",
    "candidates.reg",
    "candidates.html",
    "scores.png",
    "tsne.png",
    "tiles.parquet",
    "footprint.fits",
    "failed-tiles.ecsv",
)


def finish(
    folder: RunFolder,
    record: RunRecord,
    bundle: Bundle,
    tiles: Mapping[str, Tile],
    failed: tuple[FailedTile, ...],
    known: KnownLenses | None = None,
) -> RunReport:
    """Merge the committed tiles of a run and write its results, each replaced as a whole, and the cost into ``run.json``.

    Parameters
    ----------
    folder, record, bundle
        The run and what it was made with.
    tiles
        The tiles of the list, by id; those that are not in ``failed`` are committed.
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
    models, inputs = _models(folder), dict[str, str]()
    failed = tuple(sorted(failed, key=lambda failure: failure.tile_id))
    without = {failure.tile_id for failure in failed}
    done = sorted(tiles.keys() - without)
    ledger = CostLedger()
    notes: set[str] = set()
    rows = [failed_tile(failure, record, tiles.get(failure.tile_id)) for failure in failed]
    rule, matcher = (
        Rule(config.duplicate_radius_arcsec, ranked_by=config.rank),
        KnownLensMatcher(known, config.known_radius_arcsec),
    )
    with (
        temporary_beside(folder.store, scratch) as temporary,
        Merging(
            temporary / "merging",
            rule,
            matcher,
            config.system_radius_arcsec,
            prefixes={record.run_id: record.config.targets.survey.prefix},
        ) as merging,
    ):
        for commit, table in in_order(partial(_read, folder, record), done):
            merging.add(columns.with_source(table, record.run_id, record.bundle))
            ledger.add(commit)
            inputs[commit.tile_id] = commit.input_fingerprint
            notes.update(commit.notes)
            n_candidates = int(np.count_nonzero(table["is_candidate"].to_numpy()))
            rows.append(done_tile(commit, record, tiles[commit.tile_id], n_candidates))
        merging.merge()
        cost = ledger.cost()
        tile_rows = tile_table(rows)
        sky = covered_sky(tile_rows)
        if models is not None:
            fitted = zip(models["tile_id"].to_pylist(), models["input_fingerprint"].to_pylist(), strict=True)
            # Who scored has changed where the run was scored again, and the run's id with it.
            models = columns.with_column(
                models, columns.RUN_COLUMN, [record.run_id] * len(models), models.column_names.index("run")
            )
            models = models.filter(pa.array([inputs.get(tile_id) == files for tile_id, files in fitted], pa.bool_()))
        results_of = record.model_copy(update={"cost": cost, "sky_area_deg2": sky.area_deg2})
        with folder.staged_results(results_of, scratch) as staging:
            tables = write_tables(
                staging,
                merging,
                tile_rows,
                sky,
                name="scanner",
                max_candidates=config.max_candidates,
                provenance=provenance_of(record),
                models=models,
            )
            report = RunReport(
                n_tiles=len(done) + len(without),
                failed=failed,
                n_targets=merging.n_rows,
                n_scored=cost.n_objects,
                n_unique=merging.n_unique,
                n_candidates=merging.n_candidates,
                last_candidate_rank=merging.last_candidate_rank,
                sky_prevalence=record.decision.sky_prevalence,
                sky_area_deg2=sky.area_deg2,
                notes=tuple(sorted(notes)),
                listed=tables.listed,
                cost=cost,
            )
            export.write_failed(failed, staging / "failed-tiles.ecsv")
            # Pictures are small: threads of BLAS would spin beside them, for a third of the processor time.
            with threadpool_limits(1, "blas"):
                _draw(staging, folder, record, bundle, tiles, report, tables.counts)
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
        n_objects=report.n_unique,
        n_candidates=report.n_candidates,
        last_candidate_rank=report.last_candidate_rank,
        area_deg2=report.sky_area_deg2,
        bundle_name=record.bundle_name,
        bundle_version=record.bundle_version,
        bundle_licence=bundle.manifest.licence,
        threshold=record.decision.threshold,
        beta=None if scoring.threshold is not None else scoring.beta or bundle.default_beta,
        decides_on=record.decision.decides_on,
        sky_prevalence=report.sky_prevalence,
        scanner_version=record.scanner_version,
        command=f"scanner run {shlex.quote(name)}",
        failed_tiles=report.failed[:NAMED_FAILURES],
    )


def _read(folder: RunFolder, record: RunRecord, tile_id: str) -> tuple[CommitRecord, pa.Table]:
    commit = folder.commit_of(tile_id)
    if commit is None:
        where = folder.store.where(folder.tile(tile_id))
        raise DamagedTileError(f"{where}: its commit record has gone; {AGAIN}.", tile_id)
    refuse_other_settings(folder, record, commit)
    return commit, record.decided(folder.scores(commit))


def _models(folder: RunFolder) -> pa.Table | None:
    """The lens models among the results that there are; a table that cannot be read is left out, which is logged."""
    try:
        return read_models(folder.results(folder.record()))
    except (ContentError, InputMissingError) as error:
        logger.warning("%s 'scanner model' writes it again.", error)
        return None


def provenance_of(record: RunRecord) -> export.Provenance:
    """What headers of a run's tables say of where they come from."""
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
    tiles: Mapping[str, Tile],
    report: RunReport,
    counts: plots.ScoreCounts,
) -> None:
    summary = summary_of(record, bundle, report)
    # Cutouts of the others may be nowhere.
    scored = report.listed.filter(pa.array((report.listed["flags"].to_numpy() & Flag.NOT_RESCORED) == 0))
    shown = leaders(scored).slice(0, record.config.catalogue.sheet_candidates)
    write_sheet(staging / "candidates.html", folder, tiles, record.config, shown, summary)
    plots.score_distribution(
        staging / "scores.png",
        counts,
        threshold=summary.threshold,
        beta=summary.beta,
        decides_on=summary.decides_on,
    )
    if bundle.grid is not None:
        candidates = report.listed.filter(report.listed["is_candidate"])
        plots.embedding_map(
            staging / "tsne.png",
            bundle.grid.x_edges,
            bundle.grid.y_edges,
            bundle.grid.lens_fraction,
            np.stack([candidates["tsne_x"].to_numpy(), candidates["tsne_y"].to_numpy()], axis=1),
            threshold=summary.threshold,
        )
