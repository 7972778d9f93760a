"""From committed tiles to the run's results: merged, deduplicated, ranked, written, exported, drawn.

In: the committed tiles of a run folder. Out: ``catalogue/``, ``candidates.{fits,ecsv,vot}``, ``candidates.html``,
``scores.png``, ``tsne.png``, ``failed-tiles.ecsv`` and a :class:`RunReport`. Depends on nothing but the tiles' tables in the
order of their ids, so the bytes do not depend on how the run went.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns, deduplicate, export, rank, write
from scanner.ensemble.bundle import Bundle
from scanner.records import FailedTile, Tile
from scanner.report import contact_sheet, plots
from scanner.report.summary import RunSummary
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.ledger import RunFolder, RunRecord

RESULTS = (
    "catalogue",
    "candidates.fits",
    "candidates.ecsv",
    "candidates.vot",
    "candidates.html",
    "scores.png",
    "tsne.png",
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


def finish(
    folder: RunFolder, record: RunRecord, bundle: Bundle, tiles: tuple[Tile, ...], failed: tuple[FailedTile, ...]
) -> RunReport:
    """Merge the committed tiles of a run and write its results, each replaced as a whole.

    Parameters
    ----------
    folder, record, bundle
        The run and what it was made with.
    tiles
        The tiles of the list; those without a commit are in ``failed``.
    failed
        The tiles that could not be scanned, with reasons.
    """
    commits = {tile.tile_id: commit for tile in tiles if (commit := folder.commit_of(tile.tile_id)) is not None}
    tables = [folder.scores(commits[tile_id]) for tile_id in sorted(commits)]
    scored = pa.concat_tables(tables) if tables else columns.empty_table()
    unique = rank.rank(deduplicate.deduplicate(scored, record.config.catalogue.duplicate_radius_arcsec))
    candidates = rank.candidates(unique, record.config.catalogue.max_candidates)
    report = RunReport(
        n_tiles=len(tiles) + sum(failure.tile_id not in {tile.tile_id for tile in tiles} for failure in failed),
        failed=tuple(sorted(failed, key=lambda failure: failure.tile_id)),
        n_targets=len(scored),
        n_scored=sum(commit.n_scored for commit in commits.values()),
        n_unique=len(unique),
        sky_area_deg2=sum(commit.sky_area_deg2 for commit in commits.values()),
        notes=tuple(sorted({note for commit in commits.values() for note in commit.notes})),
        candidates=candidates,
    )
    scratch = Path(record.config.engine.scratch) if record.config.engine.scratch else None
    with folder.staged_results(scratch) as staging:
        write.write_hats(unique, staging / "catalogue", name="scanner")
        export.write_candidates(candidates, staging / "candidates", provenance=_provenance(record))
        export.write_failed(report.failed, staging / "failed-tiles.ecsv")
        _draw(staging, folder, record, bundle, tiles, report, unique)
    return report


def _provenance(record: RunRecord) -> export.Provenance:
    return export.Provenance(
        software=f"scanner {record.scanner_version}",
        config_fingerprint=record.config_fingerprint,
        bundle=f"{record.bundle_name} {record.bundle_version}",
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
    beta = config.scoring.beta or bundle.default_beta
    threshold = bundle.threshold(config.scoring.beta)
    shown = report.candidates.slice(0, config.catalogue.sheet_candidates)
    scratch = Path(config.engine.scratch) if config.engine.scratch else None
    contact_sheet.write(
        staging / "candidates.html",
        shown,
        candidate_cutouts(shown, folder, tiles, config.cutouts, scratch),
        RunSummary(
            title=Path(record.tile_list).name,
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
            command=f"scanner run {shlex.quote(record.tile_list)}",
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
