"""One tile, from its mosaics to its committed table: the work of one Dask task.

In: a :class:`TileJob`. Out: a :class:`TileOutcome`, small enough to travel; the arrays stay in the run folder
(``scores.parquet`` with one row a target, ``cutouts.zarr`` with what ``cutouts.keep`` says). Refused: nothing is raised; what
went wrong with the tile, its output or the bundle is told in the outcome.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns
from scanner.cutouts.extract import TileImages, cut, open_tile
from scanner.cutouts.quality import fill_bad_pixels
from scanner.cutouts.store import CutoutWriter
from scanner.ensemble import bundle as bundles
from scanner.ensemble.score import Scorer
from scanner.errors import ScannerError, TileError
from scanner.records import CommitRecord, CutoutBatch, FailedTile, Scores
from scanner.sky.targets import TargetSelection, list_targets
from scanner.storage import Staging, open_store
from scanner.survey import fingerprint, keep
from scanner.survey.ledger import COMMIT, CUTOUTS, SCORES, RunFolder
from scanner.survey.messages import FatalError, TileJob, TileOutcome, TileProgress


class Stopwatch:
    """Seconds spent in each stage of a tile."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def scan_tile(job: TileJob, on_progress: Callable[[TileProgress], None] = lambda _: None) -> TileOutcome:
    """Scan one tile and commit it.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    on_progress
        Called after each batch.
    """
    try:
        scoring = job.config.scoring
        scorer = _scorer(job.bundle, job.provider, scoring.threads, scoring.beta, job.config.cutouts.max_bad_fraction)
        return TileOutcome(commit=_scan(job, scorer, on_progress))
    except TileError as error:
        return TileOutcome(failed=FailedTile(tile_id=job.tile.tile_id, reason=str(error)))
    except ScannerError as error:
        return TileOutcome(fatal=FatalError(message=str(error), exit_code=error.exit_code))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = (
            f"internal error, please report it: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        )
        return TileOutcome(failed=FailedTile(tile_id=job.tile.tile_id, reason=reason))


@lru_cache(maxsize=1)
def _scorer(bundle: str, provider: str, threads: int, beta: float | None, max_bad_fraction: float) -> Scorer:
    return Scorer(bundles.load(bundle), provider=provider, threads=threads, beta=beta, max_bad_fraction=max_bad_fraction)


def _scan(job: TileJob, scorer: Scorer, on_progress: Callable[[TileProgress], None]) -> CommitRecord:
    config, watch = job.config, Stopwatch()
    folder = RunFolder(open_store(job.run_folder, config.storage))
    scratch = Path(config.engine.scratch) if config.engine.scratch else None
    tables: list[pa.Table] = []
    input_files = fingerprint.of_files(job.tile, config.storage)
    with folder.staged_tile(job.tile.tile_id, scratch) as staging:
        with watch.stage("open"):
            images = open_tile(job.tile, config.cutouts, scratch)
        with images, _writer(staging.path / CUTOUTS, job, images) as writer:
            with watch.stage("targets"):
                selection = list_targets(job.tile, images.vis, config.targets)
            targets = selection.targets
            on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=0, n_targets=len(targets)))
            batches = cut(images, targets, config.cutouts.batch_size)
            done = 0
            while True:
                with watch.stage("cut"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with watch.stage("score"):
                    scores = score_batch(scorer, batch)
                tables.append(columns.table(batch, scores, job.tile.tile_id))
                with watch.stage("store"):
                    kept = keep.select(config.cutouts.keep, batch.targets.target_id, scores.decision)
                    if writer is not None and kept.any():
                        writer.append(batch.take(kept))
                done += len(batch)
                on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=done, n_targets=len(targets)))
            area = images.sky_area_deg2
        table = pa.concat_tables(tables) if tables else columns.empty_table()
        pq.write_table(table, staging.path / SCORES, compression="zstd")
        commit = _record(job, input_files, selection, table, area, staging, watch)
        (staging.path / COMMIT).write_text(commit.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return commit


def score_batch(scorer: Scorer, batch: CutoutBatch) -> Scores:
    """Score the cutouts of a batch, their missing pixels filled with noise."""
    vis, nisp = fill_bad_pixels(batch)
    return scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)


@contextmanager
def _writer(path: Path, job: TileJob, images: TileImages) -> Iterator[CutoutWriter | None]:
    if job.config.cutouts.keep == "none":
        yield None
        return
    with CutoutWriter(
        path,
        tile_id=job.tile.tile_id,
        wcs_header=images.vis.wcs.to_header_string(relax=True),
        zero_points=images.zero_points,
        units=images.units,
        codec=job.config.cutouts.codec,
    ) as writer:
        yield writer


def _record(
    job: TileJob,
    input_files: dict[str, str],
    selection: TargetSelection,
    table: pa.Table,
    area_deg2: float,
    staging: Staging,
    watch: Stopwatch,
) -> CommitRecord:
    flags = table["flags"].to_numpy()
    return CommitRecord(
        tile_id=job.tile.tile_id,
        input_fingerprint=fingerprint.combined(input_files),
        input_files=input_files,
        config_fingerprint=job.config_fingerprint,
        bundle_fingerprint=job.bundle_fingerprint,
        target_source=selection.source,
        n_seen=selection.n_seen,
        n_outside=selection.n_outside,
        n_rejected=selection.n_rejected,
        notes=selection.notes,
        n_targets=len(table),
        n_scored=int(np.isfinite(table["p_calibrated"].to_numpy()).sum()),
        n_flagged=int((flags != 0).sum()),
        n_decided=int(np.asarray(table["is_candidate"]).sum()),
        sky_area_deg2=area_deg2,
        place=staging.place,
        sha256={
            file.relative_to(staging.path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(staging.path.rglob("*"))
            if file.is_file()
        },
        seconds={name: round(value, 3) for name, value in watch.seconds.items()},
    )
