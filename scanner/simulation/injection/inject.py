"""Paint lenses and look-alikes into real tiles: a labelled set of cutouts, or copies of the mosaics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.random import Generator

from scanner.atomic_file import replacement
from scanner.config import CutoutsConfig
from scanner.errors import InputMissingError, OutputError, TileError
from scanner.labelled_set import DESCRIPTION
from scanner.processes import run_all
from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, ImageRef, Tile
from scanner.simulation.datasets.cutouts import measured_arcs
from scanner.simulation.datasets.dataset import (
    PART_OBJECTS,
    attributes_of,
    begin_parts,
    claimed,
    completed,
    count_lenses,
    count_parts,
    finish_parts,
    missing_parts,
    part_rows,
    write_dataset_part,
)
from scanner.simulation.datasets.presets import CutoutScene
from scanner.simulation.datasets.truth import truths_of
from scanner.simulation.injection.painting import (
    Brush,
    OpenTiles,
    Plan,
    brush_of,
    make_plan,
    object_generator,
    paint_object,
    paint_rows,
    painted_scene,
    tile_exposure,
    tile_psfs,
    truth_with_places,
    vis_grain,
    with_host_magnitudes,
)
from scanner.simulation.injection.places import (
    InjectionRecord,
    InjectionRequest,
    Places,
    TileSummary,
    flux_scale,
    scratch_of,
    survey_tile,
    within,
)
from scanner.simulation.light import scene as light
from scanner.simulation.mosaics.strips import StripWriter
from scanner.simulation.parts import PARTS, Progress, join_parts, write_part
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.artefacts import add_star
from scanner.simulation.telescope.exposure import CANVAS_PIXELS
from scanner.simulation.telescope.psf import Psf, convolve, stack
from scanner.sky.alignment import map_pixels
from scanner.sky.fits_image import open_image
from scanner.sky.local_files import ScratchFolder, local_path
from scanner.sky.mosaic import Mosaic
from scanner.sky.tile_images import TileImages, open_tile

LIST, TRUTH, RECORD = "tile-list.txt", "truth.parquet", "injection.json"
#: Parts that one call of a worker draws, so that a tile is opened (and resampled) once for all of them.
_PARTS_A_CALL = 4
_STRIP_ROWS = 256
#: Cards that describe the file and not the sky.
_STRUCTURAL = ("SIMPLE", "XTENSION", "BITPIX", "EXTEND", "PCOUNT", "GCOUNT", "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM")
#: Fine pixels of a stamp that are kept: the rest is where the periodic convolution wraps.
_KEPT = 204
_STEP_PIXELS = 20.0
_NOISE = 0x6E6F6973


def inject(request: InjectionRequest, out: Path, workers: int = 1, progress: Progress | None = None) -> InjectionRecord:
    """Paint what is missing of a labelled set, or of a folder of mosaics.

    Parameters
    ----------
    request, out
        What, and where to; the folder is made if need be.
    workers
        Processes; of mosaics, one tile is one process's work.
    progress
        Called with (objects done, objects in all); of mosaics, with tiles.

    Raises
    ------
    OutputError
        The folder holds something else, or cannot be written.
    ContentError
        Its record cannot be read.
    InputMissingError
        A tile cannot be used.
    UsageError
        The tiles hold too few places.
    """
    name = RECORD if request.mosaics else DESCRIPTION
    try:
        record = claimed(out, name, InjectionRecord(request=request, preset=request.drawn_as), "injection")
        if record.complete:
            return record
        surveys = _survey_tiles(request, out, workers)
        plan = make_plan(request, [within(places, request.region) for _, places in surveys])
        summaries = tuple(summary for summary, _ in surveys)
        paint = paint_mosaics if request.mosaics else _paint_cutouts
        return completed(out, name, record, *paint(request, out, plan, summaries, workers, progress), tiles=summaries)
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _paint_cutouts(
    request: InjectionRequest,
    out: Path,
    plan: Plan,
    summaries: Sequence[TileSummary],
    workers: int,
    progress: Progress | None,
) -> tuple[int, int]:
    """Paint the missing parts of a labelled set; returns the numbers of lenses and of visible ones."""
    begin_parts(out, attributes_of(request.preset, request.seed, request.n_objects, request.codec))
    missing = missing_parts(out, request.n_objects)
    calls = [missing[first : first + _PARTS_A_CALL] for first in range(0, len(missing), _PARTS_A_CALL)]
    done = count_parts(request.n_objects) - len(missing)
    for finished in run_all(_paint_parts, [(request, out, plan, summaries, numbers) for numbers in calls], workers):
        if progress is not None:
            progress(min((done + finished * _PARTS_A_CALL) * PART_OBJECTS, request.n_objects), request.n_objects)
    return finish_parts(out, request.n_objects)


def _paint_parts(
    request: InjectionRequest, out: Path, plan: Plan, summaries: Sequence[TileSummary], numbers: Sequence[int]
) -> None:
    tiles = OpenTiles(request.tiles, summaries, scratch_of(out))
    try:
        for number in numbers:
            rows = part_rows(request.n_objects, number)
            batch, truth = paint_rows(request, plan, tiles, rows)
            write_dataset_part(out, number, batch, truth_with_places(truth, plan.take(rows), request.tiles, request.region))
    finally:
        tiles.close()


def _survey_tiles(request: InjectionRequest, out: Path, workers: int) -> list[tuple[TileSummary, Places]]:
    """Survey the tiles that were not surveyed before; all of them, in their order.

    Raises
    ------
    InputMissingError
        A tile cannot be used.
    """
    (out / PARTS).mkdir(exist_ok=True)
    missing = [number for number in range(len(request.tiles)) if not _places_file(out, number).exists()]
    for _ in run_all(_survey, [(request, out, number) for number in missing], workers):
        pass
    return [_read(out, number) for number in range(len(request.tiles))]


def _survey(request: InjectionRequest, out: Path, number: int) -> None:
    tile = request.tiles[number]
    seed = [request.seed, number]
    try:
        summary, places = survey_tile(tile, request.drawn_as.options, request.n_objects, seed, scratch_of(out), request.region)
    except TileError as error:
        raise InputMissingError(f"tile {tile.tile_id}: {error}") from None
    (out / PARTS / f"tile-{number:05d}.json").write_text(summary.model_dump_json() + "\n", encoding="utf-8")
    path = _places_file(out, number)
    with replacement(path) as partial, partial.open("wb") as file:
        np.savez(file, **vars(places))


def _read(out: Path, number: int) -> tuple[TileSummary, Places]:
    summary = TileSummary.model_validate_json((out / PARTS / f"tile-{number:05d}.json").read_text(encoding="utf-8"))
    with np.load(_places_file(out, number)) as arrays:
        return summary, Places(**{name: arrays[name] for name in arrays.files})


def _places_file(out: Path, number: int) -> Path:
    return out / PARTS / f"tile-{number:05d}.npz"


@dataclass(frozen=True)
class Stamp:
    """``pixels`` (n, n) to add to a mosaic from ``row`` and ``column`` on; may reach outside."""

    row: int
    column: int
    pixels: Float32


@dataclass(frozen=True)
class _Frame:
    """An object in a band: its pixel, the band's turn against VIS (radians), its pixel in arcsec."""

    x: float
    y: float
    turn: float
    scale: float


def paint_stamps(
    item: CutoutScene, brush: Brush, vis: Mosaic, mosaics: Mapping[Band, Mosaic], x: float, y: float, seed: Sequence[int]
) -> dict[Band, Stamp]:
    """Paint an object into some bands; rays are traced once for all that share a grid of pixels.

    Parameters
    ----------
    item
        What is painted, in arcsec about the object's place, along the axes of the VIS pixels.
    brush
        Of the tile.
    vis, mosaics
        The tile's VIS mosaic, and those that are painted into.
    x, y
        The object's place in VIS pixels.
    seed
        Of the noise: the request's seed, and the object's number.

    Returns
    -------
    dict
        By band. What other bands are painted changes no bit.
    """
    traced: dict[tuple[light.Raster, float], Float32] = {}
    return {band: _stamp(item, brush, vis, mosaic, x, y, seed, traced) for band, mosaic in mosaics.items()}


def _stamp(
    item: CutoutScene,
    brush: Brush,
    vis: Mosaic,
    mosaic: Mosaic,
    x: float,
    y: float,
    seed: Sequence[int],
    traced: dict[tuple[light.Raster, float], Float32],
) -> Stamp:
    """An object in one band; ``traced``: its light (4, n, n) before the PSF, by pixel grid and the grid's turn."""
    frame, band = _frame(vis, mosaic, x, y), mosaic.band
    samples = _samples(frame.scale)
    fine = frame.scale / samples
    side = CANVAS_PIXELS // samples
    column, row = round(frame.x) - side // 2, round(frame.y) - side // 2
    # Far below a pixel, so that bands on one grid share it to the bit.
    x0, y0 = (
        round((first - 0.5 + 0.5 / samples - place) * frame.scale, 6) for first, place in ((column, frame.x), (row, frame.y))
    )
    raster, turn = light.Raster(CANVAS_PIXELS, CANVAS_PIXELS, x0, y0, round(fine, 9)), round(frame.turn, 9)
    if (raster, turn) not in traced:
        parts = [*item.components, *(part for system in item.systems for part in system.source)]
        traced[raster, turn] = light.render([[part.rotated(turn) for part in parts]], raster)[0]
    psf = _rescaled(item.exposure.psfs[BANDS.index(band)], VIS_PIXEL_SCALE_ARCSEC / fine)
    image = traced[raster, turn][BANDS.index(band)]
    canvas = np.asarray(convolve(image, psf.transfer(CANVAS_PIXELS, CANVAS_PIXELS)), dtype=np.float32)
    for point in item.points:
        star = point.rotated(turn)
        place = (star.x - x0) / fine, (star.y - y0) / fine
        magnitude = noise.magnitude(star.flux[0], "VIS")
        add_star(canvas[None], *place, (star.flux[BANDS.index(band)],), stack([psf]), magnitude, item.exposure.roll)
    cut = (CANVAS_PIXELS - _KEPT) // 2 // samples
    rng = np.random.default_rng([*seed, BANDS.index(band), _NOISE])
    pixels = _with_noise(canvas, band, samples, cut, brush, item, rng) * np.float32(flux_scale(mosaic.zero_point, band))
    return Stamp(row + cut, column + cut, pixels)


def _samples(scale_arcsec: float) -> int:
    """Fine pixels along a side of a mosaic's pixel."""
    return 3 if scale_arcsec > 2.0 * VIS_PIXEL_SCALE_ARCSEC else 1


def stamp_reach_pixels(pixel_scale_arcsec: float) -> int:
    """How far from its object a stamp reaches at most, in pixels of this size."""
    return _KEPT // 2 // _samples(pixel_scale_arcsec) + 2


def _with_noise(
    canvas: Float32, band: Band, samples: int, cut: int, brush: Brush, item: CutoutScene, rng: Generator
) -> Float32:
    """The inner pixels of a stamp with the noise of their light."""
    grain = np.float32(brush.grain[band])
    if band == "VIS":
        wide = canvas[cut - 1 : 1 - cut, cut - 1 : 1 - cut]
        return np.asarray(wide[1:-1, 1:-1] + grain * vis_grain(rng, wide), dtype=np.float32)
    image = (noise.bin3(canvas) if samples == 3 else canvas)[cut:-cut, cut:-cut]
    if samples == 3:
        white = rng.standard_normal(image.shape, dtype=np.float32)
        return np.asarray(image + grain * white * noise.native_rms(image, band, 0.0), dtype=np.float32)
    n = len(image)
    rows, columns = (np.arange(n) / 3.0 + phase for phase in item.exposure.phases[BANDS.index(band) - 1])
    coarse = rng.standard_normal((n // 3 + 3, n // 3 + 3), dtype=np.float32)
    scatter = noise.resampled(coarse, rows, columns, rng.standard_normal((n, n), dtype=np.float32))
    return np.asarray(image + grain * scatter * noise.rms(image, band, 0.0), dtype=np.float32)


def _frame(vis: Mosaic, mosaic: Mosaic, x: float, y: float) -> _Frame:
    if mosaic.band == "VIS":
        return _Frame(x, y, 0.0, VIS_PIXEL_SCALE_ARCSEC)
    here_x, here_y = map_pixels(vis.wcs, mosaic.wcs, np.array([x, x + _STEP_PIXELS, x]), np.array([y, y, y + _STEP_PIXELS]))
    right = (here_x[1] - here_x[0]) / _STEP_PIXELS, (here_y[1] - here_y[0]) / _STEP_PIXELS
    up = (here_x[2] - here_x[0]) / _STEP_PIXELS, (here_y[2] - here_y[0]) / _STEP_PIXELS
    area = right[0] * up[1] - right[1] * up[0]
    if not area > 0.0:
        raise TileError(f"{mosaic.name}: its pixels are a mirror image of those of {vis.name}; flip one of them.")
    return _Frame(float(here_x[0]), float(here_y[0]), math.atan2(right[1], right[0]), VIS_PIXEL_SCALE_ARCSEC / math.sqrt(area))


def _rescaled(psf: Psf, factor: float) -> Psf:
    """A PSF on pixels of another size: lengths times ``factor``."""
    lengths = {name: factor * getattr(psf, name) for name in ("sigma_major", "sigma_minor", "dx", "dy")}
    return replace(psf, **lengths)


def paint_mosaics(
    request: InjectionRequest,
    out: Path,
    plan: Plan,
    summaries: Sequence[TileSummary],
    workers: int,
    progress: Progress | None,
) -> tuple[int, int]:
    """Paint the missing mosaics; returns the numbers of lenses and of visible ones."""
    numbers = range(len(request.tiles))
    missing = [number for number in numbers if not _truth(out, number).exists()]
    for done in run_all(_paint_tile, [(request, out, plan, summaries[number], number) for number in missing], workers):
        if progress is not None:
            progress(len(request.tiles) - len(missing) + done, len(request.tiles))
    join_parts(out / TRUTH, [_truth(out, number) for number in numbers])
    head = "# Painted tiles; truth.parquet beside this list says what was painted."
    lines = [head, *(_line(out, tile) for tile in request.tiles)]
    (out / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return count_lenses(out / TRUTH)


def _paint_tile(request: InjectionRequest, out: Path, plan: Plan, summary: TileSummary, number: int) -> None:
    """Paint one tile; its truth, written last, marks it complete."""
    tile, rows = request.tiles[number], np.flatnonzero(plan.tile == number)
    here = plan.take(range(int(rows[0]), int(rows[-1]) + 1)) if len(rows) else plan.take(range(0))
    first = int(rows[0]) if len(rows) else 0
    scratch = ScratchFolder(scratch_of(out))
    brush = brush_of(summary, tile_psfs(tile, scratch))
    scenes = [mosaic_scene(request, here, brush, k, first + k) for k in range(len(here))]
    with open_tile(tile, CutoutsConfig(require_all_bands=True), scratch_of(out)) as images:
        mosaics: dict[Band, Mosaic] = {"VIS": images.vis, **images.nisp}
        (out / tile.tile_id).mkdir(exist_ok=True)
        for band in BANDS:
            stamps = _Stamps(request, images, mosaics[band], brush, scenes, here, first)
            _copy(tile, band, _painted_file(out, tile, band), stamps, scratch)
    truth = truths_of(range(first, first + len(here)), scenes, measured_arcs(scenes))
    truth = with_host_magnitudes(truth, here)
    write_part(_truth(out, number), truth_with_places(truth, here, request.tiles))


def mosaic_scene(request: InjectionRequest, plan: Plan, brush: Brush, k: int, index: int) -> CutoutScene:
    """What is painted at row ``k`` of a plan, which is object ``index`` of the request."""
    rng = object_generator(request, index)
    painted = paint_object(rng, plan.class_name[k], bool(plan.into_sky[k]), plan.host(k), request.drawn_as.options)
    return painted_scene(rng, painted, [], 0.0, 0.0, tile_exposure(rng, brush))


class _Stamps:
    """The painted objects of one band, in the order of their rows; each is drawn when a strip needs it, and then forgotten."""

    def __init__(
        self,
        request: InjectionRequest,
        images: TileImages,
        mosaic: Mosaic,
        brush: Brush,
        scenes: Sequence[CutoutScene],
        plan: Plan,
        first: int,
    ) -> None:
        self._request, self._vis, self._mosaic, self._brush = request, images.vis, mosaic, brush
        self._scenes, self._places, self._first = scenes, plan.places, first
        x, y = plan.places.x, plan.places.y
        if mosaic.band != "VIS" and len(x):
            _, y = map_pixels(images.vis.wcs, mosaic.wcs, x, y)
        self._waiting = sorted(range(len(plan)), key=lambda k: (float(y[k]), k), reverse=True)
        self._row = y
        self._active: list[Stamp] = []

    def add(self, strip: Float32, row: int) -> None:
        """Add what is painted to the rows from ``row`` on; strips must come in order."""
        stop = row + len(strip)
        while self._waiting and self._row[self._waiting[-1]] - CANVAS_PIXELS < stop:
            self._active.append(self._draw(self._waiting.pop()))
        self._active = [stamp for stamp in self._active if stamp.row + len(stamp.pixels) > row]
        for stamp in self._active:
            n = len(stamp.pixels)
            top, bottom = min(stop, stamp.row + n), max(row, stamp.row)
            left, right = max(0, stamp.column), min(strip.shape[1], stamp.column + n)
            if top > bottom and right > left:
                pixels = stamp.pixels[bottom - stamp.row : top - stamp.row, left - stamp.column : right - stamp.column]
                strip[bottom - row : top - row, left:right] += pixels

    def _draw(self, k: int) -> Stamp:
        x, y, band = float(self._places.x[k]), float(self._places.y[k]), self._mosaic.band
        seed = [self._request.seed, self._first + k]
        return paint_stamps(self._scenes[k], self._brush, self._vis, {band: self._mosaic}, x, y, seed)[band]


def _copy(tile: Tile, band: Band, path: Path, stamps: _Stamps, scratch: ScratchFolder) -> None:
    """Copy one mosaic strip by strip, painted light added."""
    image, header = open_image(tile.bands[band].image, scratch)
    cards = fits.Header([card for card in header.cards if card.keyword not in _STRUCTURAL and card.keyword[:5] != "NAXIS"])
    cards["HISTORY"] = "scanner: lenses were painted into this copy"
    try:
        with StripWriter(path, image.shape, np.float32, cards) as writer:
            for row in range(0, image.shape[0], _STRIP_ROWS):
                strip = np.array(image.window(row, min(row + _STRIP_ROWS, image.shape[0]), 0, image.shape[1]), dtype=np.float32)
                stamps.add(strip, row)
                writer.write(strip)
    finally:
        image.close()


def _painted_file(out: Path, tile: Tile, band: Band) -> Path:
    return out / tile.tile_id / f"painted-{band if band == 'VIS' else f'NIR-{band}'}.fits"


def _line(out: Path, tile: Tile) -> str:
    """The tile in the list: painted mosaics, relative to it, with the tile's own companions."""
    words = [f"id={tile.tile_id}"]
    for band in BANDS:
        words.append(f"{band}={_quoted(str(_painted_file(out, tile, band).relative_to(out)))}")
        files = tile.bands[band]
        for name, reference in (("RMS", files.rms), ("FLAG", files.flag), ("PSF", files.psf)):
            if reference is not None:
                words.append(f"{band}_{name}={_quoted(_absolute(reference))}")
    if tile.catalogue is not None:
        words.append(f"catalogue={_quoted(_absolute(tile.catalogue))}")
    return " ".join(words)


def _absolute(reference: ImageRef) -> str:
    path = str(local_path(reference.path).absolute())
    return path if reference.extension is None else f"{path}[{reference.extension}]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _truth(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.parquet"
