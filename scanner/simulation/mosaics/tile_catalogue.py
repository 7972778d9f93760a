"""The catalogue that a survey would have of a simulated tile.

In: the objects of a tile and its geometry. Out: a MER-like FITS catalogue: bright objects, positions with a small scatter,
fluxes with errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from scanner.atomic_file import replacement
from scanner.records import MICROJANSKY_ZERO_POINT
from scanner.simulation.light.components import Component, Kind, extent_radius, total_flux
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.tile_geometry import PLANE, TileGeometry, to_fine_pixels
from scanner.simulation.mosaics.tile_telescope import tile_generator
from scanner.simulation.telescope.noise import SKY_SIGMA

CATALOGUE_LIMIT = 25.0
CENTROID_SCATTER_ARCSEC = 0.02
_DETECTION_SIGMA = 1.5
_PSF_RADIUS_ARCSEC = 0.1


def in_tile(tile: TileGeometry, objects: Sequence[SkyObject]) -> NDArray[np.bool_]:
    """Which objects have their position on the tile's VIS pixels."""
    columns, rows = to_fine_pixels(tile.vis, [item.x for item in objects], [item.y for item in objects])
    ny, nx = tile.vis.shape
    return (columns > -0.5) & (columns < nx - 0.5) & (rows > -0.5) & (rows < ny - 0.5)


def write_catalogue(path: Path, tile: TileGeometry, objects: Sequence[SkyObject], seed: int) -> None:
    """Write the objects of a tile that are brighter than VIS 25 as a MER-like catalogue in FITS, in order of declination.

    ``OBJECT_ID`` is made of the catalogued position as MER's is, so that the same object has another in another tile.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    rng = tile_generator(seed, tile.number, "catalogue")
    kept = [item for item in objects if item.magnitude < CATALOGUE_LIMIT]
    scatter = CENTROID_SCATTER_ARCSEC * rng.standard_normal((2, len(kept)))
    x = np.array([item.x for item in kept]) + scatter[0]
    y = np.array([item.y for item in kept]) + scatter[1]
    ra, dec = PLANE.wcs.wcs_pix2world(x, y, 0)
    flux = 10.0 ** (0.4 * (MICROJANSKY_ZERO_POINT - np.array([item.magnitude for item in kept])))
    error = 0.02 + 0.03 * flux
    flux = np.maximum(flux + error * rng.standard_normal(len(kept)), 0.1 * flux)
    main = [max(item.components, key=lambda component: component.flux[0]) for item in kept]
    order = np.argsort(dec, kind="stable")
    digits = np.round(ra * 1e7).astype(np.int64) * 1_000_000_000 + np.round(np.abs(dec) * 1e7).astype(np.int64)
    columns = [
        ("OBJECT_ID", "K", None, np.where(dec < 0.0, -digits, digits)),
        ("RIGHT_ASCENSION", "D", "deg", ra),
        ("DECLINATION", "D", "deg", dec),
        ("VIS_DET", "I", None, np.ones(len(kept), dtype=np.int16)),
        ("DET_QUALITY_FLAG", "J", None, np.zeros(len(kept), dtype=np.int32)),
        ("SPURIOUS_FLAG", "I", None, np.zeros(len(kept), dtype=np.int16)),
        ("POINT_LIKE_PROB", "E", None, np.array([0.98 if item.is_star else 0.02 for item in kept])),
        ("FLUX_DETECTION_TOTAL", "E", "uJy", flux),
        ("FLUXERR_DETECTION_TOTAL", "E", "uJy", error),
        ("SEGMENTATION_AREA", "J", "pix", np.array([_area(item.components) for item in kept], dtype=np.int32)),
        ("SEMIMAJOR_AXIS", "E", "pix", np.array([10.0 * _size(component) for component in main])),
        ("KRON_RADIUS", "E", "pix", np.array([25.0 * _size(component) for component in main])),
        ("ELLIPTICITY", "E", None, np.array([1.0 - component.q for component in main])),
        ("POSITION_ANGLE", "E", "deg", np.array([_position_angle(component) for component in main])),
    ]
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name=name, format=form, unit=unit, array=values[order]) for name, form, unit, values in columns]
    )
    table.header["EXTNAME"] = "CATALOGUE"
    table.header["TILEID"] = tile.tile_id
    with replacement(path) as partial, partial.open("wb") as file:
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)


def _size(component: Component) -> float:
    """Half-light radius after the PSF, arcsec."""
    radius = 0.0 if component.kind is Kind.POINT else component.radius
    return math.hypot(radius, _PSF_RADIUS_ARCSEC)


def _position_angle(component: Component) -> float:
    """East of north, degrees in [-90, 90): the plane's x points west, and the angle counts from x towards north."""
    return (math.degrees(component.angle) - 90.0 + 90.0) % 180.0 - 90.0


def _area(components: Sequence[Component]) -> int:
    """VIS pixels brighter than 1.5 σ of the sky, as the profile widened by the PSF has them."""
    main = max(components, key=lambda component: component.flux[0])
    light = total_flux(components)[0]
    index = 0.7 if main.kind is Kind.POINT else main.index
    wide = Component(Kind.SERSIC, 0.0, 0.0, main.flux, radius=_size(main), index=index, q=main.q)
    threshold = _DETECTION_SIGMA * SKY_SIGMA["VIS"] * 100.0 / light
    return max(1, round(100.0 * math.pi * wide.q * extent_radius(wide, threshold) ** 2))
