"""The job of a worker: some lenses of a tile are painted, scanned by the run's own code, and matched with what it lists."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scanner.config import RunConfig, TargetsConfig
from scanner.cutouts.extract import cut
from scanner.ensemble.session import Scorer
from scanner.ensemble.threshold import DecisionRule
from scanner.errors import TileError
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, CutoutBatch, Flag, Float32, Int64, Scores, Tile
from scanner.recovery.lenses import SCHEMA, Fate
from scanner.recovery.paint import (
    PaintedWave,
    RecoveryRequest,
    Surveyed,
    lay_waves,
    population_of,
    separations,
    survey_places,
    tile_brush,
    vis_fwhm_arcsec,
)
from scanner.simulation.injection.places import Places
from scanner.sky.local_files import fetch_tile
from scanner.sky.mosaic import Mosaic
from scanner.sky.targets import BackgroundMap, Near, list_targets
from scanner.sky.tile_images import open_tile
from scanner.storage import open_store
from scanner.survey.candidate_stage import CandidatesJob, CandidatesOutcome, outcome_of
from scanner.survey.folder import fingerprint
from scanner.survey.messages import TileJob
from scanner.survey.scan.scratch import sweep_scratch, worker_scratch
from scanner.survey.scan.tile import batch_size, forget_scorer, load_scorer, score_batch
from scanner.survey.workers.steps import OnProgress, Steps

#: An object this near to a painted lens is that lens.
MATCH_RADIUS_ARCSEC = 1.0
POPULATION = "population.parquet"


class RecoveryJob(CandidatesJob):
    """Lenses of one tile, by number: ``target_ids``. Its other fields are those of the tile's scan, and what is painted.

    ``recovery``: location of the recovery's folder. ``first``, ``n_lenses``: of all lenses of the tile.
    ``input_fingerprint``: of the tile's files when the run scanned them.
    """

    recovery: str
    request: RecoveryRequest
    first: int
    n_lenses: int
    input_fingerprint: str
    provider: str
    bundle: str
    config_fingerprint: str
    decision: DecisionRule

    @property
    def scanning(self) -> TileJob:
        """The tile's scan."""
        return TileJob(
            tile=self.tile,
            run_folder=self.run_folder,
            config=self.config,
            provider=self.provider,
            bundle=self.bundle,
            config_fingerprint=self.config_fingerprint,
            bundle_fingerprint=self.bundle_fingerprint,
        )


def part_key(first: int) -> str:
    """Key of the lenses of a job, the first of which has this number."""
    return f"parts/{first:08d}.parquet"


def survey_key(tile_id: str) -> str:
    """Key of what was measured of a tile."""
    return f"tiles/{tile_id}.npz"


def recover_lenses(job: RecoveryJob, on_progress: OnProgress) -> CandidatesOutcome:
    """Do a job on a worker."""
    return outcome_of(job, _recover(job), on_progress)


def _recover(job: RecoveryJob) -> Iterator[int]:
    """Paint and scan wave after wave; yields how many lenses are done. The part is written when all are."""
    scorer, store, tile_id = load_scorer(job.scanning), open_store(job.recovery, job.config.storage), job.tile.tile_id
    with worker_scratch(job.config.engine).scanning(tile_id) as scratch:
        if fingerprint.of_tile(job.tile, job.config.storage) != job.input_fingerprint:
            raise TileError(f"tile {tile_id}: its files have changed since the run scanned it; start a new run.")
        tile = fetch_tile(job.tile, scratch, job.config.storage)
        try:
            surveyed = Surveyed.from_bytes(store.read(survey_key(tile_id)))
        except FileNotFoundError:
            surveyed = survey_places(tile, job.config.cutouts, job.request, job.n_lenses, scratch)
            store.write(survey_key(tile_id), surveyed.to_bytes())
        population = None if job.request.population_sha256 is None else population_of(store.read(POPULATION))
        waves = lay_waves(tile_id, surveyed.places, job.request, job.n_lenses, job.first)
        brush = tile_brush(tile, surveyed.summary, scratch)
        wanted = np.isin(waves.first + np.arange(len(waves.wave)), job.target_ids)
        parts: list[pa.Table] = []
        with open_tile(tile, job.config.cutouts, scratch) as images:
            sky = surveyed.cells.smoothed(images.vis.shape)
            for number in np.unique(waves.wave[wanted]).tolist():
                wave = PaintedWave(images, brush, job.request.injection(tile), waves, number, population)
                here = np.flatnonzero(np.isin(wave.numbers, job.target_ids))
                found = scan_wave(wave, here, tile, surveyed, job.config, scorer)
                found["is_candidate"] = job.decision.decide(found["grid_value"], found["probability"])
                into_sky = waves.plan.into_sky[wave.numbers[here] - waves.first]
                places = wave.places.take(here)
                found |= {
                    "tile_id": np.full(len(here), tile_id),
                    "wave": np.full(len(here), number, dtype=np.int32),
                    "ra": places.ra,
                    "dec": places.dec,
                    "x": places.x,
                    "y": places.y,
                    "deflector_is_real": ~into_sky,
                    "host_id": np.where(into_sky, -1, places.target_id),
                    "host_vis_minus_h": np.where(into_sky, np.nan, places.colour),
                    "seen_sky_sigma": _sky_sigma(sky, places),
                    "vis_psf_fwhm_arcsec": np.full(len(here), vis_fwhm_arcsec(brush), dtype=np.float32),
                }
                truth = wave.truth(here.tolist())
                columns = [truth[name] if name in truth.column_names else pa.array(found[name]) for name in SCHEMA.names]
                parts.append(pa.table(dict(zip(SCHEMA.names, columns, strict=True))).cast(SCHEMA))
                yield sum(map(len, parts))
        buffer = io.BytesIO()
        pq.write_table(pa.concat_tables(parts).combine_chunks(), buffer, compression="zstd", write_page_checksum=True)
        store.write(part_key(job.target_ids[0]), buffer.getvalue())


def scan_wave(
    wave: PaintedWave, rows: Int64, tile: Tile, surveyed: Surveyed, config: RunConfig, scorer: Scorer
) -> dict[str, NDArray[np.generic]]:
    """Scan the neighbourhood of some painted lenses as the run scans a tile, and say what became of each.

    Objects come from where the run has them. A survey's catalogue knows real galaxies, but no lens that was painted into its
    sky: that is found if detection on the painted image finds it, with the run's settings.

    Parameters
    ----------
    wave, rows
        The painted tile, and N lenses of it.
    tile, surveyed
        What it was made of.
    config, scorer
        Of the run.

    Returns
    -------
    dict
        ``fate``, ``found_id``, ``separation_arcsec``, ``flags``, ``probability``, ``grid_value``, (N,) each.
    """
    n = len(rows)
    fate = np.full(n, "not detected", dtype=object)
    found_id, separation = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    flags, values = np.zeros(n, dtype=np.int32), np.full((2, n), np.nan, dtype=np.float32)
    places, vis = wave.places.take(rows), wave.images.vis
    for chosen, targets_config in _sources(config.targets, tile, np.isfinite(places.magnitude)):
        if not len(chosen):
            continue
        x, y = places.x[chosen], places.y[chosen]
        radius = _match_radius_arcsec(targets_config) / VIS_PIXEL_SCALE_ARCSEC
        near = Near(x, y, radius, _background(wave, surveyed, targets_config, tile))
        targets = list_targets(tile, vis, targets_config, near).targets
        index, distance = separations(x, y, targets.x, targets.y, radius)
        separation[chosen] = distance * VIS_PIXEL_SCALE_ARCSEC
        seen = index >= 0
        found_id[chosen[seen]] = targets.target_id[index[seen]]
        of_target = {int(targets.target_id[one]): row for one, row in zip(index[seen], chosen[seen], strict=True)}
        for batch in cut(wave.images, targets.take(np.unique(index[seen])), batch_size(config.cutouts, scorer.provider)):
            scores = score_batch(scorer, batch)
            at = np.array([of_target[int(one)] for one in batch.targets.target_id])
            flags[at], values[0, at], values[1, at] = scores.flags.astype(np.int32), scores.calibrated, scores.grid_value
            fate[at] = _fates(batch, scores)
        for row in chosen[~seen].tolist():
            fate[row] = _why_not_listed(vis, float(places.x[row]), float(places.y[row]), radius)
    return {
        "fate": fate,
        "found_id": found_id,
        "separation_arcsec": separation,
        "flags": flags,
        "probability": values[0],
        "grid_value": values[1],
        "ranking_score": np.full(n, np.nan),
        "rank": np.full(n, -1, dtype=np.int64),
    }


def _sources(config: TargetsConfig, tile: Tile, is_real: NDArray[np.bool_]) -> Iterator[tuple[Int64, TargetsConfig]]:
    """Which lenses are looked for how."""
    from_catalogue = config.source == "catalogue" or (config.source == "auto" and tile.catalogue is not None)
    if not from_catalogue:
        yield np.arange(len(is_real)), config
        return
    yield np.flatnonzero(is_real), config
    yield np.flatnonzero(~is_real), config.model_copy(update={"source": "detection"})


def _match_radius_arcsec(config: TargetsConfig) -> float:
    """How far from a lens its object may lie; a grid has one within half of its diagonal step."""
    return max(MATCH_RADIUS_ARCSEC, config.grid_step_arcsec / np.sqrt(2.0)) if config.source == "grid" else MATCH_RADIUS_ARCSEC


def _background(wave: PaintedWave, surveyed: Surveyed, config: TargetsConfig, tile: Tile) -> BackgroundMap:
    """The sky as detection measures it on the painted mosaic: painted light changes the cells that it touches."""
    detects = config.source == "detection" or (config.source == "auto" and tile.catalogue is None)
    cells, vis = surveyed.cells, wave.images.vis
    if detects:
        cells = cells.renewed(vis, wave.places.x, wave.places.y, wave.reach_pixels)
    return cells.smoothed(vis.shape)


def _fates(batch: CutoutBatch, scores: Scores) -> NDArray[np.object_]:
    """Fates of objects that the run lists."""
    fate = np.full(len(batch), "scored", dtype=object)
    fate[(scores.flags & np.uint32(Flag.SCREENED)) > 0] = "screened out"
    unscored = ~np.isfinite(scores.calibrated)
    fate[unscored] = "not scored"
    fate[unscored & ((scores.flags & np.uint32(Flag.MASKED_PIXELS)) > 0)] = "masked"
    fate[unscored & ((scores.flags & np.uint32(Flag.OUTSIDE_MOSAIC)) > 0)] = "near an edge"
    return fate


def _why_not_listed(vis: Mosaic, x: float, y: float, radius_pixels: float) -> Fate:
    """The fate of a lens without an object: the edge or bad pixels are where the object would lie, or nothing was detected."""
    ny, nx = vis.shape
    top, bottom = (int(np.floor(y - radius_pixels)), int(np.ceil(y + radius_pixels)) + 1)
    left, right = (int(np.floor(x - radius_pixels)), int(np.ceil(x + radius_pixels)) + 1)
    if top < 0 or left < 0 or bottom > ny or right > nx:
        return "near an edge"
    return "not detected" if np.isfinite(vis.read(top, bottom, left, right)).all() else "masked"


def _sky_sigma(sky: BackgroundMap, places: Places) -> Float32:
    """Noise of an unsmoothed VIS pixel at places inside a mosaic, (N,)."""
    pixels = zip(np.rint(places.x).astype(int).tolist(), np.rint(places.y).astype(int).tolist(), strict=True)
    noise = [sky.at(row, row + 1, column, column + 1)[1][0, 0] for column, row in pixels]
    return np.array(noise, dtype=np.float32)


def _prepare(job: RecoveryJob, scores: bool) -> str:
    """Load what a worker scores with; returns the bundle's fingerprint."""
    return load_scorer(job.scanning).bundle.fingerprint


def _close(config: RunConfig) -> None:
    """Release it."""
    worker_scratch(config.engine).forget_all()
    forget_scorer()


RECOVERING = Steps(
    outcome=CandidatesOutcome, doing="recovering", prepare=_prepare, whole=recover_lenses, close=_close, sweep=sweep_scratch
)
