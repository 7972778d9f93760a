"""One tile before anything is painted: its optics, and the places where something can be painted.

In: a tile. Out: :class:`TileSummary` and :class:`Places`. Refused (:class:`~scanner.errors.TileError`): what
:func:`~scanner.sky.tile_images.open_tile` and :func:`~scanner.sky.targets.list_targets` refuse, and a mosaic without
MAGZERO.

Deflectors are bright objects that look like the simulated deflectors in magnitude and colour, larger than the PSF and not too
flat. Galaxies are all other catalogued or detected objects that a scan would score.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.config import CutoutsConfig, TargetsConfig
from scanner.errors import TileError
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band, Tile
from scanner.simulation.injection import tile_psf
from scanner.simulation.injection.deflector_choice import FEWEST_LIKES, explained
from scanner.simulation.injection.measured_objects import MeasuredObjects, measure_objects, stars_among
from scanner.simulation.injection.places import DEFLECTOR, GALAXY, Places, empty_places, joined, places_of
from scanner.simulation.injection.request import BandOptics, PsfSource, SlopeSource, TileSummary
from scanner.simulation.injection.variance_slope import variance_slope
from scanner.simulation.population.options import Options
from scanner.simulation.telescope.noise import VARIANCE_SLOPE
from scanner.simulation.telescope.photometry import ZERO_POINT
from scanner.sky.alignment import map_pixels
from scanner.sky.local_files import ScratchFolder
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import TileImages, open_tile

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


def survey_tile(
    tile: Tile, options: Options, most_empty: int, seed: list[int], scratch: Path | None
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
        Folder for decompressed mosaics; None: a passing one.

    Raises
    ------
    TileError
        See the module.
    """
    with open_tile(tile, CutoutsConfig(), scratch) as images:
        for band, zero_point in images.zero_points.items():
            if not math.isfinite(zero_point):
                raise TileError(f"{tile.bands[band].image}: has no MAGZERO; add the AB zero point to its header.")
        targets = list_targets(tile, images.vis, TargetsConfig(magnitude_limit=None, min_area_pixels=0)).targets
        bright = targets.take(~(targets.magnitude > max(GALAXY_LIMIT, DEFLECTOR_MAGNITUDES[1]) + 0.5))
        objects = measure_objects(images, bright)
        stars = stars_among(objects)
        optics = {band: _optics(tile, images, band, objects, stars, scratch) for band in BANDS}
        host = _deflectors(objects, optics["VIS"].psf_width, options)
        galaxy = objects.good & ~host & (objects.magnitude <= GALAXY_LIMIT)
        empty = empty_places(images, targets, most_empty, seed)
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
    width = tile_psf.measured_width(objects.concentration[channel][stars], scale, band)
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
    star = tile_psf.stellar_concentration("VIS", vis_width, VIS_PIXEL_SCALE_ARCSEC)
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
