"""A request to paint lenses into real tiles, and where they can be: onto which of a survey's galaxies, onto what empty sky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.wcs.utils import pixel_to_skycoord
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from scanner.config import CutoutsConfig, TargetsConfig
from scanner.errors import TileError
from scanner.records import (
    BANDS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CodecName,
    Float64,
    Record,
    Targets,
    Tile,
)
from scanner.simulation import Ground
from scanner.simulation.datasets.dataset import DrawnRecord, DrawRequest
from scanner.simulation.injection import measured
from scanner.simulation.injection.measured import MeasuredObjects, measure_objects, stars_among, variance_slope
from scanner.simulation.light.components import total_flux
from scanner.simulation.parts import PARTS
from scanner.simulation.population.deflectors import Deflector, draw_deflector, mass_of
from scanner.simulation.population.galaxies import EarlyType, Options
from scanner.simulation.telescope.noise import VARIANCE_SLOPE, ZERO_POINT, magnitude
from scanner.sky.alignment import map_pixels
from scanner.sky.local_files import ScratchFolder
from scanner.sky.targets import grid_positions, list_targets
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import cell_numbers, chord, healpix_29, unit_vectors

PsfSource = Literal["image", "stars", "default"]
SlopeSource = Literal["rms map", "default"]


class Region(Record):
    """Part of the sky that objects are painted in: HEALPix cells of one order with nested numbers in a row, less a margin.

    A cell is the field of its objects. ``avoided``: right ascension and declination, degrees, of objects that are not used.
    """

    order: int = Field(ge=0, le=29)
    first: int = Field(ge=0, description="Number of the first cell.")
    stop: int = Field(description="One more than the number of the last cell.")
    margin_arcsec: float = Field(ge=0, description="Of other cells objects are at least so far away.")
    avoided: tuple[tuple[float, float], ...] = ()


class InjectionRequest(DrawRequest):
    """What to paint, and into what."""

    tiles: tuple[Tile, ...] = Field(description="The tiles of the list, with the files of each.")
    ground: Ground = Field("both", description="Paint beside real galaxies, whole objects into empty sky, or both.")
    mosaics: bool = Field(False, description="Paint into copies of the mosaics instead of cutouts.")
    codec: CodecName = Field("compact", description="Codec of the cutout store.")
    region: Region | None = Field(None, description="Only there; none: wherever the tiles are.")
    own_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of the non-lenses on real galaxies, the share whose middle is left as it is, any galaxy as likely as any "
        "other; none: half, half of them early-type galaxies.",
    )
    uses: int = Field(1, ge=1, description="Most objects that one place is used for.")

    def described(self) -> str:
        """In a few words, to tell one from another."""
        kind = "mosaics" if self.mosaics else self.codec
        return f"{super().described()}, {len(self.tiles)} tiles, ground {self.ground}, {kind}"


class BandOptics(Record):
    """How light is painted into one band of one tile."""

    zero_point: float = Field(description="MAGZERO of the mosaic.")
    psf: PsfSource = Field(
        description="Where the PSF comes from: an image, our own at the width of the tile's stars, or our own."
    )
    psf_width: float = Field(gt=0, description="Factor on the widths of our own PSF.")
    variance_slope: float = Field(
        gt=0, description="Variance that one unit of flux adds, per pixel of 0.1 arcsec, mosaic units."
    )
    slope: SlopeSource = Field(description="Where the slope comes from.")


class TileSummary(Record):
    """What was found in one tile."""

    tile_id: str
    alignment: str
    bands: dict[Band, BandOptics]
    n_stars: int = Field(description="Stars that the PSF's width was measured on.")
    n_deflectors: int = Field(description="Bright early-type galaxies with good pixels around.")
    n_galaxies: int = Field(description="Other objects with good pixels around.")
    n_empty: int = Field(description="Empty places with good pixels around.")


class InjectionRecord(DrawnRecord):
    """``dataset.json`` of painted cutouts, ``injection.json`` of painted mosaics."""

    request: InjectionRequest
    tiles: tuple[TileSummary, ...] = ()


DEFLECTOR, GALAXY, EMPTY = 0, 1, 2
_EMPTY_STEP_ARCSEC, _EMPTY_RADIUS_ARCSEC = 4.0, 2.5
#: What lies nearer to an object that is to be avoided is that object.
AVOIDED_ARCSEC = 2.0
#: Points of the lattice that are looked at together.
_AT_ONCE = 256


@dataclass(frozen=True)
class Places:
    """Places of one tile, (P,) each: ``kind`` (DEFLECTOR, GALAXY, EMPTY), position; of objects magnitude, VIS - H, shape."""

    kind: NDArray[np.int8]
    target_id: NDArray[np.int64]
    ra: Float64
    dec: Float64
    x: Float64
    y: Float64
    magnitude: Float64
    colour: Float64
    q: Float64
    angle: Float64

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: NDArray[Any]) -> Places:
        """Select by an index array."""
        return Places(**{name: values[index] for name, values in vars(self).items()})


def places_of(objects: MeasuredObjects, chosen: NDArray[np.bool_], kind: int) -> Places:
    """The chosen objects as places of a kind."""
    targets = objects.targets.take(chosen)
    return Places(
        np.full(len(targets), kind, dtype=np.int8),
        targets.target_id,
        targets.ra,
        targets.dec,
        targets.x,
        targets.y,
        objects.magnitude[chosen],
        objects.colour[chosen],
        objects.q[chosen],
        objects.angle[chosen],
    )


def empty_places(
    images: TileImages,
    targets: Targets,
    most: int,
    seed: list[int],
    region: Region | None = None,
    good_around: bool = True,
) -> Places:
    """Points of a lattice far from every object, in a random order, at most ``most`` of them; with a region, in it alone.

    ``good_around``: the pixels of a cutout there are good; otherwise only that of the point itself, in VIS.
    """
    x, y = grid_positions(images.vis.shape, images.vis.pixel_scale_arcsec, _EMPTY_STEP_ARCSEC)
    if len(targets):
        distance, _ = cKDTree(np.stack([targets.x, targets.y], axis=1)).query(np.stack([x, y], axis=1))
        far = distance * VIS_PIXEL_SCALE_ARCSEC > _EMPTY_RADIUS_ARCSEC
        x, y = x[far], y[far]
    order = np.random.default_rng(seed).permutation(len(x))
    found: list[Places] = [places_of(measure_objects(images, targets.take(np.arange(0))), np.zeros(0, dtype=bool), EMPTY)]
    for start in range(0, len(order), _AT_ONCE):
        if sum(map(len, found)) >= most:
            break
        some = order[start : start + _AT_ONCE]
        sky = pixel_to_skycoord(x[some], y[some], images.vis.wcs).icrs
        ra, dec = np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)
        here = Targets(healpix_29(ra, dec), ra, dec, x[some], y[some], np.full(len(some), np.nan, dtype=np.float32))
        if region is not None:
            here = here.take(np.flatnonzero(is_inside(ra, dec, region)))
        if good_around:
            objects = measure_objects(images, here)
            found.append(places_of(objects, objects.good, EMPTY))
        else:
            pixels = zip(np.rint(here.x).astype(int).tolist(), np.rint(here.y).astype(int).tolist(), strict=True)
            good = [bool(np.isfinite(images.vis.read(row, row + 1, column, column + 1))[0, 0]) for column, row in pixels]
            here = here.take(np.flatnonzero(good))
            kind, unknown = np.full(len(here), EMPTY, dtype=np.int8), np.full(len(here), np.nan)
            found.append(Places(kind, here.target_id, here.ra, here.dec, here.x, here.y, *[unknown] * 4))
    return joined(found).take(np.arange(min(most, sum(map(len, found)))))


def is_inside(ra: Float64, dec: Float64, region: Region) -> NDArray[np.bool_]:
    """Which positions, degrees, lie in a region with their surroundings and are none of the objects to avoid, (N,) bool."""
    inside = np.ones(len(ra), dtype=bool)
    for angle in np.arange(8) * (math.pi / 4):
        north, east = (region.margin_arcsec / 3600.0 * part for part in (math.cos(angle), math.sin(angle)))
        there = np.clip(dec + north, -90.0, 90.0)
        cells = cell_numbers(ra + east / np.maximum(np.cos(np.radians(there)), 1e-6), there, region.order)
        inside &= (cells >= region.first) & (cells < region.stop)
    if region.avoided and len(ra):
        avoided = unit_vectors(*np.array(region.avoided).T)
        distance, _ = cKDTree(avoided).query(unit_vectors(ra, dec))
        inside &= distance > chord(AVOIDED_ARCSEC)
    return inside


def within(places: Places, region: Region | None) -> Places:
    """The places that lie in a region; None: all of them."""
    return places if region is None else places.take(np.flatnonzero(is_inside(places.ra, places.dec, region)))


def joined(parts: Sequence[Places]) -> Places:
    """Places of several kinds or tiles as one."""
    return Places(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))


_POPULATION = 2000
#: How far from a galaxy's magnitude and colour its likes may lie: what an aperture of a real galaxy is known to.
MAGNITUDE_SIGMA, COLOUR_SIGMA = 0.15, 0.2
#: A galaxy is taken for a deflector if at least this many of the population look like it (weights of at most one, added up).
FEWEST_LIKES = 3.0


@dataclass(frozen=True)
class Population:
    """Simulated deflectors with what a survey would see of them: VIS magnitude and VIS - H, (K,)."""

    galaxies: tuple[EarlyType, ...]
    deflectors: tuple[Deflector, ...]
    magnitude: Float64
    colour: Float64

    def likes(self, magnitude: float, colour: float) -> Float64:
        """Weight of each member as a likeness of a galaxy, (K,), at most one."""
        miss = ((self.magnitude - magnitude) / MAGNITUDE_SIGMA) ** 2 + ((self.colour - colour) / COLOUR_SIGMA) ** 2
        return np.asarray(np.exp(-0.5 * miss))


@lru_cache(maxsize=2)
def population(options: Options) -> Population:
    """The population to choose from; always the same."""
    rng = np.random.default_rng(20260101)
    drawn = [draw_deflector(rng, options) for _ in range(_POPULATION)]
    light = [total_flux(galaxy.components) for galaxy, _ in drawn]
    vis = np.array([magnitude(item[0], "VIS") for item in light])
    colour = vis - np.array([magnitude(item[3], "H") for item in light])
    return Population(tuple(galaxy for galaxy, _ in drawn), tuple(deflector for _, deflector in drawn), vis, colour)


def explained(magnitudes: Float64, colours: Float64, options: Options) -> Float64:
    """How many of the population look like each of N galaxies, (N,); 0 where a magnitude or colour is not known."""
    everyone = population(options)
    known = np.isfinite(magnitudes) & np.isfinite(colours)
    out = np.zeros(len(magnitudes))
    out[known] = [everyone.likes(*pair).sum() for pair in zip(magnitudes[known], colours[known], strict=True)]
    return out


def choose_deflector(rng: Generator, magnitude: float, colour: float, q: float, angle: float, options: Options) -> Deflector:
    """A mass about the origin for a galaxy of this magnitude, colour and shape (axis ratio; radians from +x to +y)."""
    everyone = population(options)
    weight = everyone.likes(magnitude, colour)
    pick = int(np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), side="right"))
    pick = min(pick, len(weight) - 1)
    twin, like = everyone.galaxies[pick], everyone.deflectors[pick]
    seen = replace(twin, q=q, angle=angle if math.isfinite(angle) else 0.0)
    return replace(like, lens=mass_of(rng, seen, like.lens.theta_e))


GALAXY_LIMIT = 23.0
DEFLECTOR_MAGNITUDES = (16.5, 22.8)
FLATTEST_DEFLECTOR = 0.45
_SLOPE_MAGNITUDES = (17.0, 20.5)
_LARGEST_STELLAR_SHARE = 0.85
#: A slope this many times ours, or less than its inverse, is the map's and not the light's.
_LARGEST_SLOPE_RATIO = 4.0


def flux_scale(zero_point: float, band: Band) -> float:
    """Mosaic units in one of the simulation's."""
    return float(10.0 ** (0.4 * (zero_point - ZERO_POINT[band])))


def scratch_of(out: Path) -> Path:
    """Where decompressed mosaics lie until the end."""
    return out / PARTS / "scratch"


def survey_tile(
    tile: Tile,
    options: Options,
    most_empty: int,
    seed: list[int],
    scratch: Path | None,
    region: Region | None = None,
    good_around: bool = True,
    all_bands: bool = True,
) -> tuple[TileSummary, Places]:
    """Measure a tile.

    Parameters
    ----------
    tile
        Its files.
    options
        Of the deflectors that galaxies are compared with.
    most_empty
        Empty places to look for at most.
    seed
        Which of the empty places, where there are more.
    scratch
        Folder for decompressed mosaics; None: a temporary one.
    region
        Where places are wanted; None: anywhere. What is measured of the tile is measured on all of it.
    good_around
        See :func:`empty_places`.
    all_bands
        Refuse a tile that lacks a band; without H it has no deflectors, whose colour must be known.

    Raises
    ------
    TileError
        See the module.
    """
    with open_tile(tile, CutoutsConfig(require_all_bands=all_bands), scratch) as images:
        bands = [band for band in BANDS if band not in images.absent]
        for band in bands:
            if not math.isfinite(images.zero_points[band]):
                raise TileError(f"{tile.bands[band].image}: has no MAGZERO; add the AB zero point to its header.")
        if images.vis_resampled:
            # Light is painted into the files as they are.
            raise TileError(f'{tile.bands["VIS"].image}: its pixels are not 0.1" in ICRS; make tiles with "scanner prepare".')
        targets = list_targets(tile, images.vis, TargetsConfig(magnitude_limit=None, min_area_pixels=0)).targets
        bright = targets.take(~(targets.magnitude > max(GALAXY_LIMIT, DEFLECTOR_MAGNITUDES[1]) + 0.5))
        objects = measure_objects(images, bright)
        stars = stars_among(objects)
        optics = {band: _optics(tile, images, band, objects, stars, scratch) for band in bands}
        host = _deflectors(objects, optics["VIS"].psf_width, options)
        galaxy = objects.good & ~host & (objects.magnitude <= GALAXY_LIMIT)
        empty = empty_places(images, targets, most_empty, seed, region, good_around)
    places = joined([places_of(objects, host, DEFLECTOR), places_of(objects, galaxy, GALAXY), empty])
    summary = TileSummary(
        tile_id=tile.tile_id,
        alignment=images.alignment.case,
        bands=optics,
        n_stars=int(stars.sum()),
        n_deflectors=int(host.sum()),
        n_galaxies=int(galaxy.sum()),
        n_empty=len(empty),
    )
    return summary, places


def _optics(
    tile: Tile, images: TileImages, band: Band, objects: MeasuredObjects, stars: NDArray[np.bool_], scratch: Path | None
) -> BandOptics:
    channel, zero_point = BANDS.index(band), images.zero_points[band]
    mosaic = images.vis if band == "VIS" else images.nisp[band]
    source: PsfSource = "default"
    scale = VIS_PIXEL_SCALE_ARCSEC if band == "VIS" else NISP_PIXEL_SCALE_ARCSEC
    width = measured.measured_width(objects.concentration[channel][stars], scale, band)
    if tile.bands[band].psf is not None:
        source = "image"
    elif width is not None:
        source = "stars"
    order = np.argsort(objects.magnitude, kind="stable")
    bright, faint = _SLOPE_MAGNITUDES
    order = order[(objects.good & (objects.magnitude > bright) & (objects.magnitude < faint))[order]]
    x, y = objects.targets.x[order], objects.targets.y[order]
    if band != "VIS" and len(x):
        x, y = map_pixels(images.vis.wcs, mosaic.wcs, x, y)
    default = VARIANCE_SLOPE[band] * flux_scale(zero_point, band)
    folder = ScratchFolder(scratch)
    try:
        slope = variance_slope(mosaic, tile.bands[band], x, y, folder)
    finally:
        folder.close()
    usable = slope is not None and 1.0 / _LARGEST_SLOPE_RATIO < slope / default < _LARGEST_SLOPE_RATIO
    kind: SlopeSource = "rms map" if usable else "default"
    return BandOptics(
        zero_point=zero_point,
        psf=source,
        psf_width=1.0 if width is None else width,
        variance_slope=slope if usable and slope is not None else default,
        slope=kind,
    )


def _deflectors(objects: MeasuredObjects, vis_width: float, options: Options) -> NDArray[np.bool_]:
    star = measured.stellar_concentration("VIS", vis_width, VIS_PIXEL_SCALE_ARCSEC)
    likes = explained(objects.magnitude, objects.colour, options)
    bright, faint = DEFLECTOR_MAGNITUDES
    return np.asarray(
        objects.good
        & (likes >= FEWEST_LIKES)
        & (objects.concentration[0] < _LARGEST_STELLAR_SHARE * star)
        & (objects.q > FLATTEST_DEFLECTOR)
        & (objects.magnitude > bright)
        & (objects.magnitude < faint),
        dtype=bool,
    )
