"""A simulated field: its objects, the same for every tile that sees them; where tiles lie on it, what telescope sees each."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.random import Generator

from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64, Record
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population import classes
from scanner.simulation.population.classes import NON_LENS_MIX
from scanner.simulation.population.galaxies import LabelledObject, System, power_law_magnitude
from scanner.simulation.population.neighbours import (
    FIELD_DENSITY,
    FIELD_MAGNITUDES,
    STAR_DENSITY,
    UNSEEN_DENSITY,
    UNSEEN_MAGNITUDES,
    draw_field_galaxy,
    draw_stars,
)
from scanner.simulation.population.truth import ArcMeasurement, Label, labels, measure_system
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.artefacts import ONE_SIGMA, Artefact, draw_artefacts
from scanner.simulation.telescope.noise import VIS_TAILS
from scanner.simulation.telescope.psf import Psf, convolve, draw_psf, mean_psf

CELL_ARCSEC = 50.0
#: Bright galaxies of the non-lens classes (spirals, mergers ...) beside the plain field, per square arcsec.
CLASS_DENSITY = 1.5 / 3600.0
#: Artefacts and plain stars come of themselves.
FIELD_CLASSES = tuple(name for name in NON_LENS_MIX if name not in ("empty", "star", "artefact"))
#: Share of each class among the lenses.
LENS_MIX = {"lens": 0.85, "quasar_lens": 0.05, "compound_arc": 0.05, "double_ring": 0.05}
_ARC_CANVAS_PIXELS = 160
_ATTEMPTS = 30


class FieldParameters(Record):
    """What fills a field. Densities per square arcsec."""

    seed: int
    lens_density: float
    galaxy_density: float = FIELD_DENSITY
    unseen_density: float = UNSEEN_DENSITY
    star_density: float = STAR_DENSITY
    class_density: float = CLASS_DENSITY


@dataclass(frozen=True)
class SkyObject:
    """One object of the field: unlensed light relative to its own position ``(x, y)`` in the plane, and what it is.

    ``magnitude``: VIS, of the unlensed light; infinite for galaxies too faint to be anybody's object, all of a cell in one.
    ``arcs``, ``labels``: of each of the systems.
    """

    object_id: int
    class_name: str
    x: float
    y: float
    components: list[Component]
    magnitude: float
    systems: tuple[System, ...] = ()
    arcs: tuple[ArcMeasurement, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def light(self) -> list[Component]:
        """Everything that shines: unlensed light, sources, images of quasars."""
        lensed = [component for system in self.systems for component in (*system.source, *system.point_images)]
        return [*self.components, *lensed]

    @property
    def is_star(self) -> bool:
        """Whether the object is a star."""
        return self.components[0].kind is Kind.POINT

    @property
    def is_lens(self) -> bool:
        """Whether one of its systems is a lens by the definition."""
        return any(label.is_lens for label in self.labels)

    @property
    def visible(self) -> bool:
        """Whether a person could see the arcs of one of its systems."""
        return any(label.visible for label in self.labels)


def draw_rectangle(field: FieldParameters, x0: float, x1: float, y0: float, y1: float) -> Iterator[SkyObject]:
    """All objects of the cells that touch ``[x0, x1] × [y0, y1]``, cell by cell; some lie outside the rectangle.

    In: a seed, the mean number of lenses per area, and a rectangle of the plane. Out: the :class:`SkyObject` list of the cells
    that the rectangle touches. The plane is cut into square cells whose objects come from the cell's own random numbers, so
    that any part of a field, however large, can be drawn alone and neighbouring tiles agree.

    Plane coordinates in arcsec: x grows to the west, y to the north, so that unrotated tiles see the plane as it is.
    """
    for row in range(math.floor(y0 / CELL_ARCSEC), math.floor(y1 / CELL_ARCSEC) + 1):
        for column in range(math.floor(x0 / CELL_ARCSEC), math.floor(x1 / CELL_ARCSEC) + 1):
            yield from draw_cell(field, column, row)


@lru_cache(maxsize=400)
def draw_cell(field: FieldParameters, column: int, row: int) -> tuple[SkyObject, ...]:
    """Objects of one cell, in a fixed order. Kept for a while: a tile's next strip asks again, and so do its neighbours."""
    # SeedSequence takes no negative numbers, so the cell's are folded: 0, -1, 1, -2 ... -> 0, 1, 2, 3 ...
    folded = [2 * k if k >= 0 else -2 * k - 1 for k in (column, row)]
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(b"field"), field.seed, *folded])))
    area = CELL_ARCSEC**2
    cell_id = ((folded[0] << 15) + folded[1]) << 12
    middle = (column + 0.5) * CELL_ARCSEC, (row + 0.5) * CELL_ARCSEC
    objects: list[SkyObject] = []

    def place() -> tuple[float, float]:
        x, y = rng.uniform(0.0, CELL_ARCSEC, 2)
        return column * CELL_ARCSEC + float(x), row * CELL_ARCSEC + float(y)

    def keep(class_name: str, components: list[Component]) -> None:
        objects.append(SkyObject(cell_id + len(objects), class_name, *place(), components, _magnitude(components)))

    for _ in range(_stratified_count(field, column, row)):
        objects.append(_visible_lens(rng, cell_id + len(objects), *place()))
    for _ in range(rng.poisson(field.class_density * area)):
        drawn = classes.draw_object(rng, classes.draw_class(rng, {name: NON_LENS_MIX[name] for name in FIELD_CLASSES}))
        objects.append(_placed(cell_id + len(objects), drawn, *place()))
    for _ in range(rng.poisson(field.galaxy_density * area)):
        magnitude = power_law_magnitude(rng, *FIELD_MAGNITUDES)
        keep("galaxy", draw_field_galaxy(rng, 0.0, 0.0, magnitude))
    for _ in range(rng.poisson(field.star_density * area)):
        # Star counts rise slowly; every tenth is bright enough for spikes or saturation.
        bright = rng.random() < 0.1
        keep("star", draw_stars(rng, rng.uniform(14.5, 18.0) if bright else rng.uniform(18.0, 24.5)))
    unseen: list[Component] = []
    for _ in range(rng.poisson(field.unseen_density * area)):
        x, y = place()
        unseen += draw_field_galaxy(rng, x - middle[0], y - middle[1], power_law_magnitude(rng, *UNSEEN_MAGNITUDES))
    if unseen:
        objects.append(SkyObject(cell_id + len(objects), "unseen", *middle, unseen, math.inf))
    return tuple(objects)


def _stratified_count(field: FieldParameters, column: int, row: int) -> int:
    """How many lenses a cell holds: random-looking, but spread evenly, so that equal tiles hold nearly equal numbers."""
    mean = field.lens_density * CELL_ARCSEC**2
    # A lattice of the plastic number: any compact group of cells samples the unit interval evenly.
    phase = (0.754877666 * column + 0.569840291 * row + 0.618033989 * field.seed) % 1.0
    return math.floor(mean) + int(phase < mean % 1.0)


def _visible_lens(rng: Generator, object_id: int, x: float, y: float) -> SkyObject:
    """A lens whose arcs can be seen: invisible ones tell a demonstration nothing."""
    for _ in range(_ATTEMPTS):
        item = _placed(object_id, classes.draw_object(rng, classes.draw_class(rng, LENS_MIX)), x, y)
        if item.visible:
            break
    return item


def _placed(object_id: int, drawn: LabelledObject, x: float, y: float) -> SkyObject:
    """A drawn object, its arcs measured through the average VIS PSF and labelled."""
    arcs = tuple(_measured(system) for system in drawn.systems)
    verdicts = tuple(labels(drawn.systems, arcs))
    magnitude = _magnitude(drawn.components)
    return SkyObject(object_id, drawn.class_name, x, y, drawn.components, magnitude, drawn.systems, arcs, verdicts)


def _measured(system: System) -> ArcMeasurement:
    raster = scene.centred_raster(_ARC_CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    light = scene.render([system.source], raster, ("VIS",))[0, 0]
    psf = mean_psf("VIS")
    seen = convolve(light, psf.transfer(_ARC_CANVAS_PIXELS, _ARC_CANVAS_PIXELS))
    return measure_system(system, float(light.sum(dtype=np.float64)), seen, psf, roll=0.0)


def _magnitude(components: list[Component]) -> float:
    """VIS magnitude of the light that is not lensed."""
    return noise.magnitude(total_flux(components)[0], "VIS")


FIELD_CENTRE_DEG = (52.9, -28.0)
NATIVE_ROTATION_DEG = 1.7
_NATIVE_OFFSET_PIXELS = (0.37, -0.21)
_FIRST_TILE_NUMBER = 900_000_001


@dataclass(frozen=True)
class Grid:
    """A mosaic's pixels, gnomonic: sky position ``centre`` (degrees) lies on the FITS pixel ``reference``.

    ``scale``: pixel side, arcsec. ``rotation_deg``: by which the sky's west direction is turned on the pixels, from +x to +y.
    ``shape``: (ny, nx).
    """

    centre: tuple[float, float]
    reference: tuple[float, float]
    scale: float
    rotation_deg: float
    shape: tuple[int, int]

    @property
    def samples(self) -> int:
        """How many 0.1" sub-pixels make a pixel's side: 1 or 3."""
        return round(self.scale / VIS_PIXEL_SCALE_ARCSEC)

    @property
    def cd(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The CD matrix, degrees per pixel."""
        step, turn = self.scale / 3600.0, math.radians(self.rotation_deg)
        return (-step * math.cos(turn), -step * math.sin(turn)), (-step * math.sin(turn), step * math.cos(turn))

    @cached_property
    def wcs(self) -> WCS:
        """The same as astropy's WCS."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = list(self.centre), list(self.reference), [list(row) for row in self.cd]
        wcs.wcs.set()
        return wcs


@dataclass(frozen=True)
class TileGeometry:
    """One tile. ``centre``: its middle in the field's plane, arcsec. ``native``: NISP is not resampled to 0.1"."""

    tile_id: str
    number: int
    centre: tuple[float, float]
    vis: Grid
    nisp: Grid
    native: bool


#: The field's tangent plane: "pixels" of 1 arcsec, x to the west, y to the north, (0, 0) at the field's centre.
PLANE = Grid(FIELD_CENTRE_DEG, (1.0, 1.0), 1.0, 0.0, (0, 0))


def lay_out(n_tiles: int, size: int, overlap: float, seed: int = 0) -> list[TileGeometry]:
    """Geometry of ``n_tiles`` tiles of ``size`` VIS pixels a side whose neighbours share ``overlap`` of a side."""
    step = size * VIS_PIXEL_SCALE_ARCSEC * (1.0 - overlap)
    tiles = []
    for number in range(n_tiles):
        x, y = -(number - 0.5 * (n_tiles - 1)) * step, 0.0
        ra, dec = (float(value) for value in PLANE.wcs.wcs_pix2world(x, y, 0))
        middle = 0.5 * (size + 1)
        vis = Grid((ra, dec), (middle, middle), VIS_PIXEL_SCALE_ARCSEC, 0.0, (size, size))
        native = number % 2 == 1
        tile_number = _FIRST_TILE_NUMBER + 1000 * (seed % 90_000) + number
        tiles.append(TileGeometry(str(tile_number), number, (x, y), vis, _native((ra, dec), size) if native else vis, native))
    return tiles


def _native(centre: tuple[float, float], size: int) -> Grid:
    turn = math.radians(NATIVE_ROTATION_DEG)
    side = size * VIS_PIXEL_SCALE_ARCSEC * (math.cos(turn) + math.sin(turn)) / NISP_PIXEL_SCALE_ARCSEC
    pixels = math.ceil(side) + 4
    middle = 0.5 * (pixels + 1)
    reference = (middle + _NATIVE_OFFSET_PIXELS[0], middle + _NATIVE_OFFSET_PIXELS[1])
    return Grid(centre, reference, NISP_PIXEL_SCALE_ARCSEC, NATIVE_ROTATION_DEG, (pixels, pixels))


def to_fine_pixels(grid: Grid, x: Any, y: Any) -> tuple[Float64, Float64]:
    """Plane positions (arcsec) as zero-based coordinates of the grid's 0.1" sub-pixels."""
    ra, dec = PLANE.wcs.wcs_pix2world(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), 0)
    column, row = grid.wcs.wcs_world2pix(ra, dec, 0)
    shift = 0.5 * (grid.samples - 1)
    return column * grid.samples + shift, row * grid.samples + shift


def to_plane(grid: Grid, column: Any, row: Any) -> tuple[Float64, Float64]:
    """Zero-based coordinates of the grid's 0.1" sub-pixels as plane positions (arcsec): undoes :func:`to_fine_pixels`."""
    shift, samples = 0.5 * (grid.samples - 1), grid.samples
    ra, dec = grid.wcs.wcs_pix2world((np.asarray(column) - shift) / samples, (np.asarray(row) - shift) / samples, 0)
    x, y = PLANE.wcs.wcs_world2pix(ra, dec, 0)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def rotation_to(grid: Grid, centre: tuple[float, float]) -> float:
    """Angle by which the plane's directions turn on the grid near ``centre``, radians."""
    x, y = centre
    columns, rows = to_fine_pixels(grid, [x, x + 1.0], [y, y])
    return math.atan2(rows[1] - rows[0], columns[1] - columns[0])


ARTEFACT_CELL_ARCSEC = 60.0
#: No artefact reaches further from its place, arcsec.
REACH_ARCSEC = 95.0
#: Gaps between detectors, as four dithered exposures leave them: one exposure is missing there.
_GAP_ARCSEC, _GAP_SPACING_ARCSEC = 12.0, {"VIS": 140.0, "NISP": 210.0}
_EXPOSURES = 4
#: Left-over background: waves of this length, and their amplitude in σ of the sky in a cutout's pixel.
_WAVE_ARCSEC = (40.0, 160.0)
_WAVE_SIGMA: dict[Band, float] = {"VIS": 0.04, "Y": 0.15, "J": 0.15, "H": 0.15}
_MEAN_SIGMA: dict[Band, float] = {"VIS": -0.07, "Y": 0.0, "J": 0.0, "H": 0.0}
#: Marks per square arcsec that lose exposures: tracks in VIS, clumps of bad pixels in each NISP band.
_TRACK_DENSITY, _CLUMP_DENSITY = 40.0 / 24.0**2, 3.0 / 24.0**2
#: Share of the marks that leave no exposure at all.
_LOST: dict[Band, float] = {"VIS": 0.001, "Y": 0.4, "J": 0.4, "H": 0.4}


@dataclass(frozen=True)
class Marks:
    """Pixels of one band in which exposures are lost, M lines with round ends: arrays (M,) in arcsec and radians.

    ``exposures``: how many of four are left; 0 where none is.
    """

    x: Float64
    y: Float64
    length: Float64
    half_width: Float64
    angle: Float64
    exposures: Float64


@dataclass(frozen=True)
class TileTelescope:
    """State of the telescope over one tile; ``camera``: VIS or NISP, whose pixels the artefacts are drawn on.

    ``roll``: of PSFs and detectors, radians, on the pixels. ``level``: factor on the sky's noise. ``tails``: of VIS noise.
    ``phases``: y, x of resampled NISP pixels, by band.
    """

    seed: int
    number: int
    psfs: dict[Band, Psf]
    roll: float
    level: float
    tails: float
    phases: dict[Band, tuple[float, float]]

    def depth(self, band: Band, x: Float64, y: Float64) -> Float32:
        """Exposures that cover the positions: (len(y), len(x)), 2 to 4."""
        camera = _camera(band)
        c, s = math.cos(self.roll), math.sin(self.roll)
        left = np.full((len(y), len(x)), _EXPOSURES, dtype=np.float32)
        spacing = _GAP_SPACING_ARCSEC[camera]
        first, second = tile_generator(self.seed, self.number, f"gaps {camera}").uniform(0.0, spacing, 2)
        for along_x, along_y, phase in ((c, s, first), (-s, c, second)):
            left -= (along_x * x[None, :] + along_y * y[:, None] + phase) % spacing < _GAP_ARCSEC
        return left

    def background(self, band: Band, x: Float64, y: Float64) -> Float32:
        """What background subtraction left, image units per 0.1" pixel, (len(y), len(x))."""
        rng = tile_generator(self.seed, self.number, f"background {band}")
        (kx, ky), phases = 2.0 * math.pi / rng.uniform(*_WAVE_ARCSEC, 2), rng.uniform(0.0, 2.0 * math.pi, 2)
        # The mean square of the product of two sines is a quarter.
        wave = 2.0 * _WAVE_SIGMA[band] * np.sin(ky * y + phases[0])[:, None] * np.sin(kx * x + phases[1])[None, :]
        return np.asarray((_MEAN_SIGMA[band] + wave) * ONE_SIGMA[BANDS.index(band)], dtype=np.float32)

    def artefacts(self, band: Band, x: tuple[float, float], y: tuple[float, float], reach: float) -> Iterator[Artefact]:
        """Artefacts left in the images of a band's camera within ``reach`` of a rectangle, arcsec; some lie outside."""
        for column, row in _cells(x, y, reach):
            yield from _artefacts(self.seed, self.number, _camera(band), self.roll, column, row)

    def marks(self, band: Band, x: tuple[float, float], y: tuple[float, float]) -> Iterator[Marks]:
        """Pixels of a band with lost exposures that reach into a rectangle, cell by cell; some lie outside."""
        for column, row in _cells(x, y, 6.0):
            yield _marks(self.seed, self.number, band, column, row)


def draw_telescope(seed: int, number: int) -> TileTelescope:
    """The telescope of tile ``number``; the same for every caller."""
    rng = tile_generator(seed, number, "telescope")
    roll, width = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(0.98, 1.02))
    return TileTelescope(
        seed=seed,
        number=number,
        psfs={band: draw_psf(rng, band, roll, width) for band in BANDS},
        roll=roll,
        level=math.sqrt(rng.uniform(0.9, 1.1)),
        tails=float(rng.uniform(*VIS_TAILS)),
        phases={band: (float(rng.uniform()), float(rng.uniform())) for band in BANDS},
    )


def tile_generator(seed: int, number: int, purpose: str) -> Generator:
    """The random numbers of one tile for one purpose (its telescope, its noise in one band ...)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(purpose.encode()), seed, number])))


def _camera(band: Band) -> str:
    return "VIS" if band == "VIS" else "NISP"


def _cells(x: tuple[float, float], y: tuple[float, float], reach: float) -> Iterator[tuple[int, int]]:
    columns, rows = (
        range(math.floor((low - reach) / ARTEFACT_CELL_ARCSEC), math.floor((high + reach) / ARTEFACT_CELL_ARCSEC) + 1)
        for low, high in (x, y)
    )
    for row in rows:
        for column in columns:
            yield column, row


@lru_cache(maxsize=1024)
def _artefacts(seed: int, number: int, camera: str, roll: float, column: int, row: int) -> tuple[Artefact, ...]:
    """Of one cell, placed in the tile; those of the camera's bands."""
    rng = tile_generator(seed, number, f"artefacts {camera} {column} {row}")
    middle_x, middle_y = (column + 0.5) * ARTEFACT_CELL_ARCSEC, (row + 0.5) * ARTEFACT_CELL_ARCSEC
    kept = (0,) if camera == "VIS" else (1, 2, 3)
    return tuple(
        replace(item, x=item.x + middle_x, y=item.y + middle_y, channels=channels)
        for item in draw_artefacts(rng, roll, ARTEFACT_CELL_ARCSEC**2)
        if (channels := tuple(channel for channel in item.channels if channel in kept))
    )


@lru_cache(maxsize=256)
def _marks(seed: int, number: int, band: Band, column: int, row: int) -> Marks:
    rng = tile_generator(seed, number, f"marks {band} {column} {row}")
    vis = band == "VIS"
    count = int(rng.poisson((_TRACK_DENSITY if vis else _CLUMP_DENSITY) * ARTEFACT_CELL_ARCSEC**2))
    x, y = ARTEFACT_CELL_ARCSEC * (np.array([[column], [row]]) + rng.uniform(0.0, 1.0, (2, count)))
    lengths = 10.0 ** rng.uniform(*((-0.7, 0.6) if vis else (-1.5, -0.5)), count)
    widths = rng.uniform(*((0.05, 0.1) if vis else (0.12, 0.3)), count)
    lost = np.where(rng.random(count) < _LOST[band], 4.0, rng.choice([1.0, 1.0, 1.0, 2.0], count))
    return Marks(x, y, lengths, widths, rng.uniform(0.0, math.pi, count), _EXPOSURES - lost)
