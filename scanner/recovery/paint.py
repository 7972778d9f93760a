"""What is painted into a tile: lenses, in waves so sparse that none disturbs another; and the tile with a wave in it."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from scanner.config import CutoutsConfig
from scanner.errors import ContentError, TileError
from scanner.records import BANDS, Band, Float64, ImageRef, Int64, Record, Tile
from scanner.simulation import Ground
from scanner.simulation.datasets.cutouts import measured_arcs
from scanner.simulation.datasets.presets import CutoutScene
from scanner.simulation.datasets.truth import truth_table, truths_of
from scanner.simulation.injection.inject import Stamp, mosaic_scene, paint_stamps, stamp_reach_pixels
from scanner.simulation.injection.painting import (
    SKY_SHARE,
    Brush,
    Plan,
    brush_of,
    object_generator,
    painted_scene,
    tile_exposure,
    tile_psfs,
    with_host_magnitudes,
)
from scanner.simulation.injection.places import (
    DEFLECTOR,
    EMPTY,
    InjectionRequest,
    Places,
    TileSummary,
    choose_deflector,
    survey_tile,
)
from scanner.simulation.light.components import Flux
from scanner.simulation.population.deflectors import MAX_OFFSET, Deflector, draw_source
from scanner.simulation.population.galaxies import LabelledObject, Options, System, scaled
from scanner.simulation.population.lenses import massive_galaxy
from scanner.simulation.telescope.noise import magnitude
from scanner.simulation.telescope.psf import draw_psf, stack
from scanner.sky.alignment import map_pixels
from scanner.sky.fits_image import FitsImage
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import Mosaic
from scanner.sky.source_catalogue import read_columns
from scanner.sky.targets import BackgroundCells, measure_cells
from scanner.sky.tile_images import TileImages, open_tile

#: Painted lenses of one wave are at least this far from one another, VIS pixels (30"): no cutout shows two, and no stamp (20.4"
#: a side) reaches into the cutout of another.
APART_PIXELS = 300.0
#: Most lenses of a wave: what is held in memory.
WAVE_LENSES = 128
#: Of lenses painted whole into the sky, the share of each class: compound ones are as many as their ratio to single ones takes.
SKY_CLASSES = {"lens": 2 / 3, "compound_arc": 2 / 9, "double_ring": 1 / 9}
_PRESET = "survey"
#: Places in the sky that a tile is surveyed for, for each lens, and at least.
_SKY_PLACES_A_LENS, _LEAST_SKY_PLACES = 2, 1000
_WAVES, _POPULATION_ROWS = 0x77617665, 0x726F7773


class RecoveryRequest(Record):
    """Which lenses to paint into a run's tiles."""

    n_lenses: int = Field(ge=1, le=10_000_000, description="Lenses in all; each tile gets its share of the sky.")
    seed: int = Field(ge=0, lt=2**63)
    ground: Ground = Field("both", description="Paint onto real galaxies, whole lenses into the sky, or both.")
    n_models: int = Field(500, ge=0, description="Lens models at most, where the run has some.")
    population_sha256: str | None = Field(None, description="Of the table that lenses are drawn from; none: the preset survey.")

    def injection(self, tile: Tile) -> InjectionRequest:
        """The same as a request to paint mosaics, which they are painted as."""
        return InjectionRequest(
            preset=_PRESET, n_objects=self.n_lenses, seed=self.seed, tiles=(tile,), ground=self.ground, mosaics=True
        )


#: Columns of a user's population: unit, meaning, smallest and largest value. Only the first has to be there.
POPULATION_COLUMNS: dict[str, tuple[str, str, float, float]] = {
    "theta_e_arcsec": ("arcsec", "Einstein radius", 0.1, 10.0),
    "source_magnitude_vis": ("mag(AB)", "VIS magnitude of the source, unlensed", 15.0, 30.0),
    "source_vis_minus_h": ("mag(AB)", "VIS - H of the source", -3.0, 6.0),
    "source_radius_arcsec": ("arcsec", "half-light radius of the source", 0.02, 2.0),
    "source_offset": ("", "distance of the source from the deflector, in units of its Einstein radius", 0.0, 0.98),
    "deflector_magnitude_vis": ("mag(AB)", "VIS magnitude of deflectors that are painted too", 12.0, 30.0),
    "weight": ("", "how often the row is drawn, against the others", 0.0, math.inf),
}


def read_population(path: Path) -> bytes:
    """A user's table of lenses as Parquet, with the columns of :data:`POPULATION_COLUMNS` that it has.

    Parameters
    ----------
    path
        FITS, Parquet, VOTable, ECSV or CSV.

    Raises
    ------
    ContentError
        It cannot be read, has no Einstein radii, no row, or a value that no lens has.
    """
    try:
        found = read_columns(ImageRef(str(path)), lambda names: [name for name in POPULATION_COLUMNS if name in names])
    except TileError as error:
        raise ContentError(str(error)) from None
    if "theta_e_arcsec" not in found:
        raise ContentError(f"{path}: has no column theta_e_arcsec; give each lens its Einstein radius.")
    arrays = {}
    for name, column in found.items():
        _, meaning, low, high = POPULATION_COLUMNS[name]
        values = np.asarray(column.values, dtype=np.float64) if column.values.dtype.kind in "fiu" else np.full(1, np.nan)
        wrong = column.missing | ~((values >= low) & (values <= high) & np.isfinite(values))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ContentError(
                f"{path}: row {row + 1} of {name} is no {meaning} (a number from {low:g} to {high:g}); correct or remove it."
            )
        arrays[name] = values
    n_rows = len(arrays["theta_e_arcsec"])
    if not n_rows or not arrays.get("weight", np.ones(1)).sum() > 0.0:
        raise ContentError(f"{path}: holds no lens to draw (no row, or no weight above 0); add some.")
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()


def population_of(content: bytes) -> dict[str, Float64]:
    """The columns of a table that :func:`read_population` made."""
    table = pq.read_table(pa.BufferReader(content))
    return {name: table[name].to_numpy() for name in table.column_names}


def draw_from(
    population: dict[str, Float64], rng: Generator, host: tuple[float, float, float, float] | None, options: Options
) -> LabelledObject:
    """A single lens about the origin, as a row of a user's table says; what it does not say is the preset's.

    Parameters
    ----------
    population
        The table; a row is drawn by ``weight``.
    rng
        Random numbers of the lens.
    host
        VIS magnitude, VIS - H, axis ratio and position angle of the real galaxy; None: the deflector is painted too.
    options
        Of the preset.
    """
    weight = np.cumsum(population.get("weight", np.ones(len(population["theta_e_arcsec"]))))
    row = min(int(np.searchsorted(weight, rng.random() * weight[-1], side="right")), len(weight) - 1)
    given = {name: float(values[row]) for name, values in population.items()}
    light, deflector = ([], choose_deflector(rng, *host, options)) if host is not None else massive_galaxy(rng, options)
    if host is None and "deflector_magnitude_vis" in given:
        share = 10.0 ** (-0.4 * (given["deflector_magnitude_vis"] - deflector.magnitude))
        light = [replace(part, flux=scaled(part.flux, share)) for part in light]
        deflector = replace(deflector, magnitude=given["deflector_magnitude_vis"])
    deflector = _with_theta_e(deflector, given["theta_e_arcsec"])
    offset = given.get("source_offset")
    system = draw_source(
        rng,
        deflector,
        (0.0, MAX_OFFSET) if offset is None else (offset, offset),
        options,
        magnitude=given.get("source_magnitude_vis"),
    )
    return LabelledObject("lens", light, (_with_source(system, given),))


def _with_theta_e(deflector: Deflector, theta_e: float) -> Deflector:
    """The same galaxy with another mass: θ_E goes with the square of the velocity dispersion."""
    sigma = deflector.sigma_v_kms * math.sqrt(theta_e / deflector.lens.theta_e)
    return replace(deflector, lens=replace(deflector.lens, theta_e=theta_e), sigma_v_kms=sigma)


def _with_source(system: System, given: dict[str, float]) -> System:
    """A system whose source has the colour and the size that are given, where they are."""
    size, redder = 1.0, 0.0
    if "source_radius_arcsec" in given:
        size = given["source_radius_arcsec"] / system.source[0].radius
    if "source_vis_minus_h" in given:
        vis, _, _, h = system.unlensed_flux
        redder = given["source_vis_minus_h"] - (magnitude(vis, "VIS") - magnitude(h, "H"))

    def changed(light: Flux) -> Flux:
        # Half of the colour's change lies between VIS and Y, the rest is shared by Y - J and J - H.
        vis, *nisp = light
        y, j, h = (value * 10.0 ** (0.4 * share * redder) for value, share in zip(nisp, (0.5, 0.75, 1.0), strict=True))
        return vis, y, j, h

    source = tuple(
        replace(
            part,
            x=system.source_x + size * (part.x - system.source_x),
            y=system.source_y + size * (part.y - system.source_y),
            radius=size * part.radius,
            flux=changed(part.flux),
        )
        for part in system.source
    )
    return replace(system, source=source)


@dataclass(frozen=True)
class Surveyed:
    """What is known of a tile before anything is painted: optics, places, and its VIS background as detection measures it."""

    summary: TileSummary
    places: Places
    cells: BackgroundCells

    def to_bytes(self) -> bytes:
        """As a file's content; equal ones give equal bytes."""
        buffer = io.BytesIO()
        summary = np.frombuffer(self.summary.model_dump_json().encode(), dtype=np.uint8)
        np.savez(buffer, summary=summary, level=self.cells.level, noise=self.cells.noise, **vars(self.places))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Surveyed:
        """What :meth:`to_bytes` wrote."""
        with np.load(io.BytesIO(content)) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        summary = TileSummary.model_validate_json(values.pop("summary").tobytes())
        cells = BackgroundCells(values.pop("level"), values.pop("noise"))
        return cls(summary, Places(**values), cells)


def survey_places(tile: Tile, config: CutoutsConfig, request: RecoveryRequest, n_lenses: int, scratch: Path) -> Surveyed:
    """Measure a tile that ``n_lenses`` are to be painted into.

    Galaxies are deflectors only where they can be measured, with good pixels around. Places in the sky lie anywhere on good
    pixels, so that masks and edges take their share.

    Raises
    ------
    TileError
        It lacks VIS or a zero point, or cannot be opened.
    """
    injection, seed = request.injection(tile), [request.seed, zlib.crc32(tile.tile_id.encode())]
    most = max(_SKY_PLACES_A_LENS * n_lenses, _LEAST_SKY_PLACES)
    options = injection.drawn_as.options
    summary, places = survey_tile(tile, options, most, seed, scratch, good_around=False, all_bands=False)
    with open_tile(tile, config, scratch) as images:
        return Surveyed(summary, places, measure_cells(images.vis))


@dataclass(frozen=True)
class Waves:
    """The lenses of one tile, wave after wave, in the order of their numbers, which begin with ``first``.

    ``plan``: places and classes of N lenses. ``wave`` (N,) int32.
    """

    plan: Plan
    wave: NDArray[np.int32]
    first: int

    def take(self, number: int) -> Wave:
        """The lenses of one wave."""
        rows = np.flatnonzero(self.wave == number)
        return Wave(self.plan.take(range(int(rows[0]), int(rows[-1]) + 1)), self.first + rows)


@dataclass(frozen=True)
class Wave:
    """M lenses that are painted together: their ``plan``, and their ``numbers`` (M,) int64 in the recovery."""

    plan: Plan
    numbers: Int64

    def inside(self, vis: Mosaic) -> Wave:
        """Those that lie inside another tile's VIS mosaic, at its pixels."""
        places = self.plan.places
        x, y = (np.asarray(at, dtype=np.float64) for at in vis.wcs.all_world2pix(places.ra, places.dec, 0))
        ny, nx = vis.shape
        rows = np.flatnonzero((x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5))
        plan = _some(self.plan, rows.tolist())
        return Wave(replace(plan, places=replace(plan.places, x=x[rows], y=y[rows])), self.numbers[rows])


def lay_waves(tile_id: str, places: Places, request: RecoveryRequest, n_lenses: int, first: int) -> Waves:
    """Give each lens of a tile a class, a place and a wave; within a wave no two are nearer than :data:`APART_PIXELS`.

    Raises
    ------
    TileError
        The tile has no place of the kind that is asked for.
    """
    rng = np.random.default_rng([request.seed, zlib.crc32(tile_id.encode()), _WAVES])
    there = {kind: int((places.kind == kind).sum()) for kind in (DEFLECTOR, EMPTY)}
    share = {"sky": 1.0, "galaxies": 0.0, "both": SKY_SHARE}[request.ground]
    if request.ground == "both" and not all(there.values()):
        share = 1.0 if there[EMPTY] else 0.0
    n_sky = int(rng.binomial(n_lenses, share))
    left = {DEFLECTOR: n_lenses - n_sky, EMPTY: n_sky}
    for kind, what in ((DEFLECTOR, "bright early-type galaxy with good pixels around"), (EMPTY, "empty place")):
        if left[kind] and not there[kind]:
            raise TileError(f"tile {tile_id}: has no {what} to paint a lens at; paint on another --ground.")
    chosen: list[Int64] = []
    while sum(left.values()):
        wave = _next_wave(places, left, rng)
        for kind in left:
            left[kind] -= int((places.kind[wave] == kind).sum())
        chosen.append(wave)
    index = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    into_sky = places.kind[index] == EMPTY
    edges = np.cumsum(list(SKY_CLASSES.values()))
    drawn = np.minimum(np.searchsorted(edges, rng.random(n_lenses) * edges[-1], side="right"), len(edges) - 1)
    single = ~into_sky | (request.population_sha256 is not None)
    names = tuple("lens" if alone else list(SKY_CLASSES)[k] for alone, k in zip(single.tolist(), drawn.tolist(), strict=True))
    waves = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(wave) for wave in chosen])
    return Waves(Plan(np.zeros(n_lenses, dtype=np.int64), places.take(index), names, into_sky), waves, first)


def _next_wave(places: Places, left: dict[int, int], rng: Generator) -> Int64:
    """Places of one wave by row, then column: of each kind its share of the lenses that are left, as far as there is room."""
    total = sum(left.values())
    room = min(WAVE_LENSES, total)
    taken: list[int] = []
    at = np.empty((room, 2))
    for kind, quota in ((DEFLECTOR, -(-room * left[DEFLECTOR] // total)), (EMPTY, room)):
        # A sky lens finds a place more easily: it takes what deflectors leave.
        quota = min(quota, left[kind], room - len(taken))
        for index in rng.permutation(np.flatnonzero(places.kind == kind)).tolist():
            if quota <= 0:
                break
            here = places.x[index], places.y[index]
            if (np.hypot(*(at[: len(taken)] - here).T) < APART_PIXELS).any():
                continue
            at[len(taken)] = here
            taken.append(index)
            quota -= 1
    found = np.array(taken, dtype=np.int64)
    return found[np.lexsort((places.x[found], places.y[found]))]


class _PaintedImage:
    """The pixels of a mosaic with the light of a wave added, as a painted file would hold them: float32."""

    def __init__(self, image: FitsImage, band: Band, stamps: PaintedWave, x: Float64, y: Float64, reach: float) -> None:
        self.shape = image.shape
        self._image, self._band, self._stamps, self._x, self._y, self._reach = image, band, stamps, x, y, reach

    def window(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        """See :class:`~scanner.sky.fits_image.FitsImage`."""
        pixels = self._image.window(y0, y1, x0, x1)
        near = (self._x > x0 - self._reach) & (self._x < x1 + self._reach)
        near &= (self._y > y0 - self._reach) & (self._y < y1 + self._reach)
        if not near.any() and pixels.dtype.kind == "f" and pixels.dtype.itemsize == np.dtype(np.float32).itemsize:
            return pixels
        painted = np.array(pixels, dtype=np.float32)
        for k in np.flatnonzero(near).tolist():
            stamp = self._stamps.stamp(self._band, k)
            n = len(stamp.pixels)
            top, bottom = max(y0, stamp.row), min(y1, stamp.row + n)
            left, right = max(x0, stamp.column), min(x1, stamp.column + n)
            if bottom > top and right > left:
                light = stamp.pixels[top - stamp.row : bottom - stamp.row, left - stamp.column : right - stamp.column]
                painted[top - y0 : bottom - y0, left - x0 : right - x0] += light
        return painted

    def close(self) -> None:
        """Do nothing: who opened the image closes it."""


class PaintedWave:
    """A tile with the lenses of one wave in it.

    Parameters
    ----------
    images, brush
        The tile, and how light is painted into it.
    request
        What is painted.
    wave
        The lenses.
    population
        A user's table, if any.

    Attributes
    ----------
    request
        What is painted.
    images
        The painted tile, as :func:`~scanner.cutouts.extract.cut` takes it; light is added where it is looked at.
    places
        Of the M lenses of the wave.
    numbers
        Their numbers, (M,) int64.
    reach_pixels
        How far from a lens its light reaches in VIS.
    """

    def __init__(
        self,
        images: TileImages,
        brush: Brush,
        request: InjectionRequest,
        wave: Wave,
        population: dict[str, Float64] | None = None,
    ) -> None:
        self._plan, self.numbers, self.places = wave.plan, wave.numbers, wave.plan.places
        self.request, self._brush, self._population, self._vis = request, brush, population, images.vis
        self._scenes: dict[int, CutoutScene] = {}
        self._mosaics: dict[Band, Mosaic] = {"VIS": images.vis, **images.nisp}
        for band in images.absent:
            del self._mosaics[band]
        self._stamps: dict[int, dict[Band, Stamp]] = {}
        self.reach_pixels = stamp_reach_pixels(images.vis.pixel_scale_arcsec)
        self.images = images.repainted(self._paint)

    def stamp(self, band: Band, k: int) -> Stamp:
        """The light of lens ``k`` in a band; drawn in all of them when it is first asked for."""
        if k not in self._stamps:
            x, y, seed = float(self.places.x[k]), float(self.places.y[k]), [self.request.seed, int(self.numbers[k])]
            self._stamps[k] = paint_stamps(self._scene(k), self._brush, self._vis, self._mosaics, x, y, seed)
        return self._stamps[k][band]

    def truth(self, rows: Sequence[int]) -> pa.Table:
        """What was painted as some lenses of the wave: the columns of a truth table."""
        scenes = [self._scene(k) for k in rows]
        found = truths_of([int(self.numbers[k]) for k in rows], scenes, measured_arcs(scenes))
        return truth_table(with_host_magnitudes(found, _some(self._plan, rows)))

    def _scene(self, k: int) -> CutoutScene:
        """Lens ``k``; drawn when it is first asked for."""
        if k not in self._scenes:
            self._scenes[k] = _scene(self.request, self._plan, self._brush, k, int(self.numbers[k]), self._population)
        return self._scenes[k]

    def _paint(self, mosaic: Mosaic, image: FitsImage) -> FitsImage:
        x, y = self.places.x, self.places.y
        if mosaic.band != "VIS":
            x, y = map_pixels(self._vis.wcs, mosaic.wcs, x, y)
        return _PaintedImage(image, mosaic.band, self, x, y, stamp_reach_pixels(mosaic.pixel_scale_arcsec))


def _some(plan: Plan, rows: Sequence[int]) -> Plan:
    index = np.array(rows, dtype=np.int64)
    names = tuple(plan.class_name[k] for k in rows)
    return Plan(plan.tile[index], plan.places.take(index), names, plan.into_sky[index])


def _scene(
    request: InjectionRequest, plan: Plan, brush: Brush, k: int, index: int, population: dict[str, Float64] | None
) -> CutoutScene:
    if population is None:
        return mosaic_scene(request, plan, brush, k, index)
    rng = object_generator(request, index)
    drawn = draw_from(population, rng, None if plan.into_sky[k] else plan.host(k), request.drawn_as.options)
    return painted_scene(rng, drawn, [], 0.0, 0.0, tile_exposure(rng, brush))


def tile_brush(tile: Tile, summary: TileSummary, scratch: Path) -> Brush:
    """How light is painted into a tile."""
    return brush_of(summary, tile_psfs(tile, ScratchFolder(scratch)))


def vis_fwhm_arcsec(brush: Brush) -> float:
    """FWHM of the Gaussian with the peak of the tile's VIS PSF: of its image, or of ours at the width of its stars."""
    psf = brush.psfs.get("VIS") or draw_psf(np.random.default_rng(0), "VIS", 0.0, brush.widths["VIS"])
    peak = float(stack((psf,) * len(BANDS)).values(0.0, 0.0)[0])
    return 0.1 * math.sqrt(4.0 * math.log(2.0) / (math.pi * peak))


def separations(x: Float64, y: Float64, at_x: Float64, at_y: Float64, radius_pixels: float) -> tuple[Int64, Float64]:
    """The nearest of M positions to each of N places, -1 and NaN where none lies within the radius; pixels."""
    if not len(at_x):
        return np.full(len(x), -1), np.full(len(x), np.nan)
    distance, index = cKDTree(np.stack([at_x, at_y], axis=1)).query(np.stack([x, y], axis=1))
    near = distance <= radius_pixels
    return np.where(near, index, -1).astype(np.int64), np.where(near, distance, np.nan)
