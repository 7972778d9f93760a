"""One tile, from its mosaics to its committed table: the work of one Dask task, or of two."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import scanner
from scanner.atomic_file import file_sha256
from scanner.catalogue import columns
from scanner.config import CutoutsConfig, RunConfig, StorageConfig
from scanner.cutouts.extract import BATCH_SIZE, cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.errors import ScannerError, ScratchFullError, TileError, UnavailableError
from scanner.processes import cores
from scanner.records import Band, CommitRecord, CutoutBatch, FailedTile, Flag, Rescored, Scores, ScreenChoice, Targets
from scanner.sky.local_files import fetch_tile, remote_files
from scanner.sky.mosaic import outline
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import TileImages, open_tile
from scanner.storage import Staging, open_store
from scanner.survey import metrics
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import machine_fingerprint
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, SCORES, RunFolder
from scanner.survey.messages import CutOutcome, FatalError, TileJob, TileOutcome, TileProgress
from scanner.survey.scan import output
from scanner.survey.scan.output import CutTile, ScoreTableWriter, TileOutput, cutout_writer
from scanner.survey.scan.pipeline import Stopwatch, pipeline
from scanner.survey.scan.scratch import worker_scratch

OnProgress = Callable[[TileProgress], None]
GPU_PROVIDERS = ("cuda", "tensorrt")
#: Objects cut and scored together on a GPU: so many that those which pass the screen fill its calls.
GPU_BATCH_SIZE = 1024
#: Threads that score as fast as one thread cuts, with a screen.
SCORERS_PER_CUTTER = 8

_log = logging.getLogger(__name__)


def scan_tile(job: TileJob, on_progress: OnProgress = lambda _: None) -> TileOutcome:
    """Cut and score one tile, and commit it.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    on_progress
        Called after each batch.
    """
    try:
        with metrics.tile_in_progress():
            return TileOutcome(commit=_scan(job, on_progress))
    except Exception as error:
        return TileOutcome(**_failure_of(job, error))


def cut_tile(job: TileJob, on_progress: OnProgress = lambda _: None) -> CutOutcome:
    """Cut one tile and hand its cutouts over to be scored, wherever that is.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    on_progress
        Called after each batch; none is done before it is scored.
    """
    try:
        with metrics.tile_in_progress():
            return CutOutcome(tile_id=job.tile.tile_id, input_fingerprint=_cut_and_hand_over(job, on_progress))
    except Exception as error:
        return CutOutcome(tile_id=job.tile.tile_id, **_failure_of(job, error))


def score_tile(job: TileJob, cut_outcome: CutOutcome, on_progress: OnProgress = lambda _: None) -> TileOutcome:
    """Score the cutouts that were handed over, and commit the tile.

    Parameters
    ----------
    job
        The tile, the settings and the run folder.
    cut_outcome
        What :func:`cut_tile` returned; where that is a failure, it is the outcome here too.
    on_progress
        Called after each batch.
    """
    if cut_outcome.failed or cut_outcome.temporary or cut_outcome.fatal:
        return TileOutcome(failed=cut_outcome.failed, temporary=cut_outcome.temporary, fatal=cut_outcome.fatal)
    try:
        with metrics.tile_in_progress():
            return TileOutcome(commit=_score(job, cut_outcome.input_fingerprint, on_progress))
    except Exception as error:
        return TileOutcome(**_failure_of(job, error))


def rescore_tile(job: TileJob, on_progress: OnProgress = lambda _: None) -> TileOutcome:
    """Score the stored cutouts of a committed tile with another bundle; the scan's own scores stay.

    Parameters
    ----------
    job
        The tile, the run folder, and settings, bundle and provider to score with.
    on_progress
        Called after each batch.
    """
    try:
        with metrics.tile_in_progress():
            return TileOutcome(commit=_rescore(job, on_progress))
    except Exception as error:
        return TileOutcome(**_failure_of(job, error))


def prefetch_tile(job: TileJob) -> None:
    """Bring the remote files of a tile to this process's scratch folder; what fails is left for the scan to report."""
    try:
        _fetch_ahead(job)
    except Exception as error:
        _log.info("not fetched ahead: %s", error, extra={"tile": job.tile.tile_id})


def parallel_scores(config: RunConfig, n_workers: int) -> int:
    """Objects that a worker process scores at a time: what the configuration says, else its share of this process's cores.

    Parameters
    ----------
    config
        Of the run.
    n_workers
        Worker processes on this machine that have the same cores.
    """
    share = cores() // (n_workers * config.scoring.threads)
    return config.engine.parallel_scores or max(share, 1)


def parallel_cuts(config: RunConfig, provider: str) -> int:
    """Batches that a worker process cuts at a time: beside a GPU its cores have nothing else to do."""
    scores = parallel_scores(config, 1)
    return scores if provider in GPU_PROVIDERS else -(-scores // SCORERS_PER_CUTTER)


def batch_size(config: CutoutsConfig, provider: str) -> int:
    """Objects that are cut and scored together."""
    return config.batch_size or (GPU_BATCH_SIZE if provider in GPU_PROVIDERS else BATCH_SIZE)


def load_scorer(job: TileJob) -> Scorer:
    """The scorer of a run's tiles; it is opened when the first one comes.

    Raises
    ------
    ScannerError
        The bundle cannot be loaded, or the provider is not here.
    """
    config = job.config
    settings = (
        config.scoring.threads,
        config.scoring.beta,
        config.cutouts.max_bad_fraction,
        parallel_scores(config, 1),
        config.cutouts.require_all_bands,
        config.scoring.threshold,
        config.scoring.screen,
    )
    return _scorer(job.bundle, job.provider, *settings, config.storage)


@lru_cache(maxsize=1)
def _scorer(
    bundle: str,
    provider: str,
    threads: int,
    beta: float | None,
    max_bad_fraction: float,
    parallel: int,
    require_all_bands: bool,
    threshold: float | None,
    screen: ScreenChoice,
    storage: StorageConfig,
) -> Scorer:
    settings = (threads, beta, max_bad_fraction, parallel, require_all_bands, threshold, screen)
    return Scorer(bundles.load(bundle, storage), provider, *settings)


def forget_scorer() -> None:
    """Let go of the scorer: its memory, its threads, its GPU."""
    _scorer.cache_clear()


def score_batch(scorer: Scorer, batch: CutoutBatch) -> Scores:
    """Score the cutouts of a batch, their missing pixels filled with noise."""
    vis, nisp = fill_bad_pixels(batch)
    return scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)


def _fetch_ahead(job: TileJob) -> None:
    """Bring the remote files of a tile to this process's scratch folder."""
    scratch, tile_id, storage = worker_scratch(job.config.engine), job.tile.tile_id, job.config.storage
    with scratch.fetching(tile_id) as temporary, scratch.watch(tile_id).stage("fetch"):
        fetch_tile(job.tile, _fetched(temporary, fingerprint.of_tile(job.tile, storage)), storage)


def _scan(job: TileJob, on_progress: OnProgress) -> CommitRecord:
    """Cut and score a tile, and commit it."""
    scorer, folder, tile_id = load_scorer(job), _run_folder(job), job.tile.tile_id
    scratch = worker_scratch(job.config.engine)
    watch = scratch.watch(tile_id)
    watch.begin()
    with scratch.scanning(tile_id) as temporary:
        files = fingerprint.of_files(job.tile, job.config.storage)
        if commit := _committed(folder, job, fingerprint.combined(files)):
            return commit
        with (
            folder.staged_tile(tile_id, temporary) as staging,
            _opened(job, files, temporary, watch, on_progress) as (images, targets, cut_tile),
        ):
            batches = _cutouts(images, targets, job, watch)
            commit = _scored(job, scorer, cut_tile, batches, staging, watch, on_progress)
    metrics.tile_done(commit)
    return commit


def _cut_and_hand_over(job: TileJob, on_progress: OnProgress) -> str:
    """Cut a tile and hand its cutouts over; returns the fingerprint of its inputs."""
    folder, tile_id, scratch = _run_folder(job), job.tile.tile_id, worker_scratch(job.config.engine)
    watch = scratch.watch(tile_id)
    watch.begin()
    with scratch.scanning(tile_id) as temporary:
        files = fingerprint.of_files(job.tile, job.config.storage)
        inputs = fingerprint.combined(files)
        if _committed(folder, job, inputs) or output.find(folder, tile_id, inputs, job.config_fingerprint):
            return inputs
        with (
            folder.staged_handover(tile_id, temporary) as staging,
            _opened(job, files, temporary, watch, on_progress) as (images, targets, cut_tile),
        ):
            progress = TileProgress(tile_id=tile_id, n_done=0, n_targets=cut_tile.n_targets)
            with (
                cutout_writer(staging.path / CUTOUTS, cut_tile, "exact") as writer,
                pipeline(_cutouts(images, targets, job, watch)) as batches,
            ):
                on_progress(progress)
                for batch in batches:
                    with watch.stage("store"):
                        writer.append(batch)
                    on_progress(progress)
            output.write_record(staging, cut_tile, watch)
    return inputs


def _score(job: TileJob, inputs: str, on_progress: OnProgress) -> CommitRecord:
    """Score the cutouts that were handed over, and commit the tile; ``inputs`` is what :func:`_cut_and_hand_over` returned."""
    scorer, folder, tile_id = load_scorer(job), _run_folder(job), job.tile.tile_id
    scratch = worker_scratch(job.config.engine)
    watch = scratch.watch(tile_id)
    watch.begin()
    with scratch.scanning(tile_id) as temporary:
        commit = _committed(folder, job, inputs)
        if commit is None:
            handed = output.find(folder, tile_id, inputs, job.config_fingerprint)
            if handed is None:
                raise output.gone(folder, tile_id)
            watch.add(handed.seconds, handed.core_seconds)
            with folder.staged_tile(tile_id, temporary) as staging:
                size = batch_size(job.config.cutouts, job.provider)
                batches = watch.each("fetch", output.batches(folder, handed, temporary, size))
                commit = _scored(job, scorer, handed.tile, batches, staging, watch, on_progress)
            metrics.tile_done(commit)
        output.remove(folder, tile_id)
    return commit


def _rescore(job: TileJob, on_progress: OnProgress) -> CommitRecord:
    """Write a tile's table by another bundle, and the commit that would make it count; returns that commit."""
    scorer, folder, tile_id = load_scorer(job), _run_folder(job), job.tile.tile_id
    further = scorer.bundle.manifest.further_names
    with worker_scratch(job.config.engine).scanning(tile_id) as temporary:
        if commit := folder.rescored_commit(job.bundle_fingerprint, tile_id):
            return commit
        current = folder.commit_of(tile_id)
        stored = None if current is None else folder.cutouts(current, temporary)
        if current is None or stored is None:
            where = folder.store.where(folder.tile(tile_id))
            raise TileError(f"{where}: no cutouts are stored; scan it again with --keep all.")
        scan = current.model_copy(update={"rescored": None})
        tables = []
        done = 0
        for batch in stored.batches(batch_size(job.config.cutouts, job.provider)):
            tables.append(columns.score_table(batch, score_batch(scorer, batch), tile_id, further))
            metrics.objects_scored(len(batch))
            done += len(batch)
            on_progress(TileProgress(tile_id=tile_id, n_done=done, n_targets=len(stored)))
        table = columns.rescored(folder.scores(scan), tables, further)
        flags = table["flags"].to_numpy()
        n_kept = int(np.count_nonzero(flags & Flag.NOT_RESCORED))
        place = folder.rescored(job.bundle_fingerprint, tile_id)
        with folder.store.staged(place, COMMIT, temporary, job.hold) as staging:
            with ScoreTableWriter(staging.path / SCORES, further=further) as writer:
                writer.append(table)
            commit = scan.model_copy(
                update={
                    "bundle_fingerprint": job.bundle_fingerprint,
                    "machine": machine_fingerprint(scorer.provider),
                    "n_scored": int(np.isfinite(table["p_calibrated"].to_numpy()).sum()),
                    "n_screened": int(np.count_nonzero(flags & Flag.SCREENED)),
                    "n_flagged": int(np.count_nonzero(flags & ~np.uint32(Flag.SCREENED | Flag.NOT_RESCORED))),
                    "n_decided": int(np.count_nonzero(table["is_candidate"].to_numpy())),
                    "rescored": Rescored(
                        place="/".join(part for part in (place, staging.place) if part),
                        sha256=file_sha256(staging.path / SCORES),
                        n_kept=n_kept,
                    ),
                }
            )
            (staging.path / COMMIT).write_bytes(commit.to_bytes())
    return commit


@contextmanager
def _opened(
    job: TileJob, files: dict[str, str], scratch: Path, watch: Stopwatch, on_progress: OnProgress
) -> Iterator[tuple[TileImages, Targets, CutTile]]:
    config, tile = job.config, job.tile

    def say(doing: str) -> None:
        on_progress(TileProgress(tile_id=tile.tile_id, n_done=0, n_targets=0, doing=doing))

    if remote_files(tile):
        say("fetching")
        with watch.stage("fetch"):
            tile = fetch_tile(tile, _fetched(scratch, fingerprint.combined(files)), config.storage)
    say("opening")
    with watch.stage("open"):
        images = open_tile(tile, config.cutouts, scratch)
    with images:
        say("finding objects")
        with watch.stage("targets"):
            selection = list_targets(tile, images.vis, config.targets)
        if "warp" in images.alignment.case and len(selection.targets):
            say("resampling")
        bytes_read = fingerprint.bytes_of_tile(tile)
        metrics.bytes_read(bytes_read)
        yield (
            images,
            selection.targets,
            CutTile(
                tile_id=tile.tile_id,
                input_fingerprint=fingerprint.combined(files),
                input_files=files,
                config_fingerprint=job.config_fingerprint,
                target_source=selection.source,
                n_seen=selection.n_seen,
                n_outside=selection.n_outside,
                n_rejected=selection.n_rejected,
                notes=(
                    *selection.notes,
                    *_resampled(images.vis_resampled),
                    *(_without(band) for band in images.absent),
                ),
                n_targets=len(selection.targets),
                sky_area_deg2=images.sky_area_deg2,
                s_region=outline(images.vis.wcs, images.vis.shape),
                bytes_read=bytes_read,
                wcs=images.vis.wcs.to_header_string(relax=True),
                zero_points={band: float(value) if np.isfinite(value) else None for band, value in images.zero_points.items()},
                units=images.units,
            ),
        )


def _resampled(scale_arcsec: float | None) -> tuple[str, ...]:
    return () if scale_arcsec is None else (f'tiles whose VIS pixels are {scale_arcsec:.3g}" wide: resampled to 0.1"',)


def _without(band: Band) -> str:
    return f"tiles without a mosaic of {band}: scored by the members that do not need it (flag {int(Flag.BANDS_MISSING)})"


def _cutouts(images: TileImages, targets: Targets, job: TileJob, watch: Stopwatch) -> Iterator[CutoutBatch]:
    size, threads = batch_size(job.config.cutouts, job.provider), parallel_cuts(job.config, job.provider)
    spent = partial(watch.add_core_seconds, "cut")
    for batch in watch.each("cut", cut(images, targets, size, threads, spent)):
        metrics.objects_cut(len(batch))
        yield batch
        del batch


def _scored(
    job: TileJob,
    scorer: Scorer,
    cut_tile: CutTile,
    batches: Iterable[CutoutBatch],
    staging: Staging,
    watch: Stopwatch,
    on_progress: OnProgress,
) -> CommitRecord:
    """Score batches and write what comes of them, the commit record last."""

    def scored(batch: CutoutBatch) -> tuple[CutoutBatch, Scores]:
        with watch.stage("score"):
            before = scorer.core_seconds
            scores = score_batch(scorer, batch)
            watch.add_core_seconds("score", scorer.core_seconds - before)
        metrics.batch_size(len(batch))
        metrics.objects_scored(int(np.isfinite(scores.calibrated).sum()))
        return batch, scores

    done = 0
    with TileOutput(staging, cut_tile, job.config.cutouts, scorer.bundle.manifest.further_names) as output:
        on_progress(TileProgress(tile_id=cut_tile.tile_id, n_done=0, n_targets=cut_tile.n_targets))
        with pipeline(
            batches, scored, on_queue=lambda line, n: metrics.queue_depth("store" if line else "score", n)
        ) as results:
            for batch, scores in results:
                with watch.stage("store"):
                    output.append(batch, scores)
                done += len(batch)
                on_progress(TileProgress(tile_id=cut_tile.tile_id, n_done=done, n_targets=cut_tile.n_targets))
        with watch.stage("store"):
            output.close()
        with watch.stage("commit"):
            sha256 = output.checksums()
        return output.commit(
            sha256=sha256,
            bundle_fingerprint=job.bundle_fingerprint,
            machine=machine_fingerprint(scorer.provider),
            gpu_seconds=round(watch.elapsed, 3) if scorer.provider in GPU_PROVIDERS else 0.0,
            seconds=watch.seconds,
            core_seconds=watch.core_seconds,
        )


def _fetched(temporary: Path, inputs: str) -> Path:
    """Where a tile's files are fetched to: what was fetched before a file was replaced is not taken for the new one."""
    return temporary / f"fetched-{inputs}"


def _run_folder(job: TileJob) -> RunFolder:
    return RunFolder(open_store(job.run_folder, job.config.storage), job.hold)


def _committed(folder: RunFolder, job: TileJob, inputs: str) -> CommitRecord | None:
    """The tile's commit, where there is one of these inputs, settings and bundle: the work of a task that was given twice."""
    commit = folder.commit_of(job.tile.tile_id)
    if commit is None:
        return None
    made_with = (commit.input_fingerprint, commit.config_fingerprint, commit.bundle_fingerprint)
    return commit if made_with == (inputs, job.config_fingerprint, job.bundle_fingerprint) else None


def _failure_of(job: TileJob, error: Exception) -> dict[str, Any]:
    """The field of an outcome that tells an error."""
    metrics.tile_failed()
    tile_id = job.tile.tile_id
    # A scratch folder has room again when other tiles are done: one that needs too much stops no other.
    if isinstance(error, UnavailableError | ScratchFullError):
        return {"temporary": FailedTile(tile_id=tile_id, reason=str(error))}
    if isinstance(error, TileError):
        return {"failed": FailedTile(tile_id=tile_id, reason=str(error))}
    if isinstance(error, ScannerError):
        return {"fatal": FatalError(message=str(error), exit_code=error.exit_code)}
    _log.error("internal error", exc_info=error, extra={"tile": tile_id})
    package = str(Path(scanner.__file__).parent)
    steps = traceback.extract_tb(error.__traceback__)
    where = next((step for step in reversed(steps) if step.filename.startswith(package)), steps[-1])
    place = f"{Path(where.filename).name}:{where.lineno}"
    reason = f"tile {tile_id}: internal error, please report it: {type(error).__name__}: {error} ({place})"
    return {"failed": FailedTile(tile_id=tile_id, reason=reason)}
