"""The job of a worker: some lenses of a tile are painted, scanned by the run's own code, and matched with what it lists."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scanner.config import RankedBy, RunConfig, TargetsConfig
from scanner.cutouts.extract import cut
from scanner.ensemble.calibration import DecisionRule
from scanner.ensemble.session import Scorer
from scanner.errors import TileError
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, CutoutBatch, Flag, Float32, Float64, Int64, Record, Scores, Targets, Tile
from scanner.recovery.lenses import SCANNED_SCHEMA, Fate, parquet_bytes
from scanner.recovery.paint import (
    PaintedWave,
    RecoveryRequest,
    Surveyed,
    Wave,
    lay_waves,
    population_of,
    separations,
    survey_places,
    tile_brush,
    vis_fwhm_arcsec,
)
from scanner.simulation.injection.painting import Brush
from scanner.simulation.injection.places import Places, flux_scale
from scanner.simulation.telescope.noise import SKY_SIGMA
from scanner.sky.local_files import fetch_tile
from scanner.sky.mosaic import Mosaic
from scanner.sky.targets import BackgroundMap, Near, list_targets
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import unit_vectors
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


class Neighbour(Record):
    """A tile that overlaps another: its files, what they were when the run scanned it, and how many lenses are its own share.

    ``outline``: right ascension and declination of its corners, degrees.
    """

    tile: Tile
    input_fingerprint: str
    n_lenses: int
    outline: tuple[tuple[float, float], ...]

    def holds(self, ra: Float64, dec: Float64) -> NDArray[np.bool_]:
        """Which positions lie inside its outline, (N,)."""
        corners = unit_vectors(*np.array(self.outline).T)
        sides = unit_vectors(ra, dec) @ np.cross(corners, np.roll(corners, -1, axis=0)).T
        return np.asarray((sides > 0).all(axis=1) | (sides < 0).all(axis=1))


class RecoveryJob(CandidatesJob):
    """Lenses of one tile, by number: ``target_ids``. Its other fields are those of the tile's scan, and what is painted.

    ``recovery``: location of the recovery's folder. ``first``, ``n_lenses``: of all lenses of the tile.
    ``input_fingerprint``: of the tile's files when the run scanned them. ``neighbours``: tiles that overlap it.
    """

    recovery: str
    request: RecoveryRequest
    first: int
    n_lenses: int
    input_fingerprint: str
    neighbours: tuple[Neighbour, ...]
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


@dataclass(frozen=True)
class OpenTile:
    """A tile that is painted into: ``named`` as the tile list has it, ``tile`` with its files on this machine.

    ``surveyed``: what was measured of it. ``brush``: how light is painted. ``images``: its pixels.
    """

    named: Tile
    tile: Tile
    surveyed: Surveyed
    brush: Brush
    images: TileImages

    @cached_property
    def sky(self) -> BackgroundMap:
        """The sky before anything is painted."""
        return self.surveyed.cells.smoothed(self.images.vis.shape)


@dataclass(frozen=True)
class Seen:
    """Lenses of a wave in one of the tiles that cover them: ``rows`` of the ``wave`` that the job asks for."""

    place: OpenTile
    wave: PaintedWave
    rows: Int64


def _open(job: RecoveryJob, tile: Tile, input_fingerprint: str, n_lenses: int, scratch: Path, opened: ExitStack) -> OpenTile:
    """Fetch, survey and open a tile; what was measured of it before is used again.

    Raises
    ------
    TileError
        It cannot be used, or has changed since the run scanned it.
    """
    if fingerprint.of_tile(tile, job.config.storage) != input_fingerprint:
        raise TileError(f"tile {tile.tile_id}: its files have changed since the run scanned it; start a new run.")
    store, local = open_store(job.recovery, job.config.storage), fetch_tile(tile, scratch, job.config.storage)
    try:
        surveyed = Surveyed.from_bytes(store.read(survey_key(tile.tile_id)))
    except FileNotFoundError:
        surveyed = survey_places(local, job.config.cutouts, job.request, n_lenses, scratch)
        store.write(survey_key(tile.tile_id), surveyed.to_bytes())
    brush = tile_brush(local, surveyed.summary, scratch)
    return OpenTile(tile, local, surveyed, brush, opened.enter_context(open_tile(local, job.config.cutouts, scratch)))


def painted_waves(job: RecoveryJob) -> Generator[tuple[int, Wave, Int64, list[Seen]]]:
    """The waves that a job's lenses are in: number, wave, rows that are asked for, and each tile that they are painted into.

    A lens is painted into every tile that covers its place, as the sky would be, its own first. A neighbour that cannot be
    painted into is left out.
    """
    store, tile_id = open_store(job.recovery, job.config.storage), job.tile.tile_id
    with worker_scratch(job.config.engine).scanning(tile_id) as scratch, ExitStack() as opened:
        own = _open(job, job.tile, job.input_fingerprint, job.n_lenses, scratch, opened)
        waves = lay_waves(tile_id, own.surveyed.places, job.request, job.n_lenses, job.first)
        wanted = np.isin(waves.first + np.arange(len(waves.wave)), job.target_ids)
        tiles = [own]
        for beside in job.neighbours:
            if beside.holds(waves.plan.places.ra[wanted], waves.plan.places.dec[wanted]).any():
                with suppress(TileError):
                    folder = scratch / f"beside-{beside.tile.tile_id}"
                    tiles.append(_open(job, beside.tile, beside.input_fingerprint, beside.n_lenses, folder, opened))
        population = None if job.request.population_sha256 is None else population_of(store.read(POPULATION))
        for number in np.unique(waves.wave[wanted]).tolist():
            wave, seen = waves.take(number), []
            for place in tiles:
                there = wave if place is own else wave.inside(place.images.vis)
                rows = np.flatnonzero(np.isin(there.numbers, job.target_ids))
                if len(rows):
                    request = job.request.injection(place.tile)
                    seen.append(Seen(place, PaintedWave(place.images, place.brush, request, there, population), rows))
            yield number, wave, np.flatnonzero(np.isin(wave.numbers, job.target_ids)), seen


def _recover(job: RecoveryJob) -> Iterator[int]:
    """Paint and scan wave after wave; yields how many lenses are done. The part is written when all are.

    A lens has the best of its fates in the tiles that cover it: that is what the run keeps of an object that two tiles list.
    """
    scorer, tile_id = load_scorer(job.scanning), job.tile.tile_id
    parts: list[pa.Table] = []
    with closing(painted_waves(job)) as waves:
        for number, wave, here, (own, *others) in waves:
            found = _scan_seen(own, job.config, scorer)
            for seen in others:
                rows = np.searchsorted(wave.numbers[here], seen.wave.numbers[seen.rows])
                _take_better(found, _scan_seen(seen, job.config, scorer), rows, job.config)
            truth, vis = own.wave.truth(here.tolist()), own.place.surveyed.summary.bands["VIS"]
            found["is_candidate"] = job.decision.decide(found["grid_value"], found["probability"])
            into_sky, places = wave.plan.into_sky[here], wave.plan.places.take(here)
            sky_sigma = _sky_sigma(own.place.sky, places)
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
                "seen_sky_sigma": sky_sigma,
                "seen_arc_snr": truth["arc_snr"].to_numpy() * flux_scale(vis.zero_point, "VIS") * SKY_SIGMA["VIS"] / sky_sigma,
                "vis_psf_fwhm_arcsec": np.full(len(here), vis_fwhm_arcsec(own.place.brush), dtype=np.float32),
            }
            names = SCANNED_SCHEMA.names
            columns = [truth[name] if name in truth.column_names else pa.array(found[name]) for name in names]
            parts.append(pa.table(dict(zip(names, columns, strict=True))).cast(SCANNED_SCHEMA))
            yield sum(map(len, parts))
    content = parquet_bytes(pa.concat_tables(parts))
    open_store(job.recovery, job.config.storage).write(part_key(job.target_ids[0]), content)


def _scan_seen(seen: Seen, config: RunConfig, scorer: Scorer) -> dict[str, NDArray[Any]]:
    return scan_wave(seen.wave, seen.rows, seen.place.tile, seen.place.surveyed, config, scorer)


def _take_better(
    found: dict[str, NDArray[Any]], scanned: dict[str, NDArray[Any]], rows: NDArray[np.integer[Any]], config: RunConfig
) -> None:
    """Put what another tile makes of some lenses, which are ``rows`` of ``found``, where it ranks higher or has them whole."""
    ranked_by = config.catalogue.rank
    mine = ranking_keys(found["probability"][rows], found["grid_value"][rows], ranked_by)
    theirs = ranking_keys(scanned["probability"], scanned["grid_value"], ranked_by)
    better = (theirs > mine) | (
        (theirs == mine) & (found["fate"][rows] == "near an edge") & (scanned["fate"] != "near an edge")
    )
    for name, values in found.items():
        values[rows[better]] = scanned[name][better]


def ranking_keys(probability: Float32, grid_value: Float32, ranked_by: RankedBy) -> NDArray[np.uint64]:
    """Numbers that are in the order of rank, the best the highest, (N,) uint64; 0 where an object was not scored."""

    def placed(values: Float32) -> NDArray[np.uint64]:
        # The bits of floats that are not negative are in their order; what is not known comes last.
        bits = np.abs(np.nan_to_num(values.astype(np.float32))).view(np.uint32).astype(np.uint64)
        return np.where(np.isfinite(values), bits + np.uint64(1), np.uint64(0))

    first, second = (grid_value, probability) if ranked_by == "grid" else (probability, grid_value)
    keys = (placed(first) << np.uint64(32)) | placed(second)
    return np.where(np.isfinite(probability), keys, np.uint64(0))


def scan_wave(
    wave: PaintedWave, rows: Int64, tile: Tile, surveyed: Surveyed, config: RunConfig, scorer: Scorer
) -> dict[str, NDArray[Any]]:
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
        ``fate``, ``found_id``, ``found_tile_id``, ``separation_arcsec``, ``flags``, ``probability``, ``grid_value``, (N,) each;
        and what only the run's catalogue can tell, empty.
    """
    n = len(rows)
    fate = np.full(n, "not detected", dtype=object)
    found_id, separation = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    flags, values = np.zeros(n, dtype=np.int32), np.full((2, n), np.nan, dtype=np.float32)
    places, vis = wave.places.take(rows), wave.images.vis
    for chosen, targets, index, distance, radius in listed_near(wave, rows, tile, surveyed, config.targets):
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
        "found_tile_id": np.where(np.isfinite(separation), tile.tile_id, "").astype(object),
        "separation_arcsec": separation,
        "blended_id": np.full(n, -1, dtype=np.int64),
        "flags": flags,
        "probability": values[0],
        "grid_value": values[1],
        "ranking_score": np.full(n, np.nan),
        "rank": np.full(n, -1, dtype=np.int64),
    }


def listed_near(
    wave: PaintedWave, rows: Int64, tile: Tile, surveyed: Surveyed, config: TargetsConfig
) -> Iterator[tuple[Int64, Targets, Int64, Float64, float]]:
    """What the run lists near some painted lenses, those of one source of objects after the other.

    Parameters are those of :func:`scan_wave`.

    Yields
    ------
    chosen, targets, index, distance, radius
        Which of the ``rows``, (M,); objects; the nearest one to each lens, -1: none, and its distance, NaN; the radius, pixels.
    """
    places = wave.places.take(rows)
    for chosen, targets_config in _sources(config, tile, np.isfinite(places.magnitude)):
        if len(chosen):
            x, y = places.x[chosen], places.y[chosen]
            radius = _match_radius_arcsec(targets_config) / VIS_PIXEL_SCALE_ARCSEC
            near = Near(x, y, radius, _background(wave, surveyed, targets_config, tile))
            targets = list_targets(tile, wave.images.vis, targets_config, near).targets
            yield chosen, targets, *separations(x, y, targets.x, targets.y, radius), radius


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
