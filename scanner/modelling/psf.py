"""Point spread functions of a tile's bands: the tile list's images of them, else as wide as the tile's stars, else the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scanner.config import RunConfig
from scanner.modelling.lens_model import PsfSource
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band, Tile
from scanner.simulation.injection.measured import measure_objects, measured_width, read_psf, stars_among
from scanner.simulation.telescope.psf import Psf, mean_psf
from scanner.sky.local_files import ScratchFolder, fetched_file, remote_files, temporary_folder
from scanner.sky.tile_images import open_tile
from scanner.survey.objects import targets_of

#: Side of the window that is fitted, in 0.1" pixels: transfer functions are on the grid of its ``rfft2``.
SIDE = 90
#: VIS magnitudes of objects that may be stars neither saturated nor faint, and how many of these are looked at.
_STAR_MAGNITUDES, _MOST_OBJECTS = (18.0, 21.5), 200


@dataclass(frozen=True)
class BandPsf:
    """A band's PSF: ``transfer``, in Fourier space, (90, 46) complex64, without the pixel; ``source``: where it is from."""

    transfer: Any
    source: PsfSource


@cache
def mean_of_euclid(band: Band, width: float = 1.0, source: PsfSource = "mean") -> BandPsf:
    """The mean PSF of a Euclid band, ``width`` times as wide, at all orientations of the telescope, which no cutout tells."""
    psf = mean_psf(band)
    turned = []
    for angle in np.arange(12) * (2.0 * np.pi / 36.0):
        c, s = np.cos(angle), np.sin(angle)
        one = Psf(
            psf.weight,
            width * psf.sigma_major,
            width * psf.sigma_minor,
            psf.angle + angle,
            width * (c * psf.dx - s * psf.dy),
            width * (s * psf.dx + c * psf.dy),
        )
        turned.append(one.transfer(SIDE, SIDE))
    return BandPsf(np.mean(turned, axis=0).astype(np.complex64), source)


def tile_psfs(tile: Tile, rows: pa.Table, config: RunConfig) -> Mapping[Band, BandPsf]:
    """What is known of the PSFs of a tile.

    Stars are only looked for where the mosaics are on this machine: to fetch gigabytes is not worth it.

    Parameters
    ----------
    tile
        As the tile list has it.
    rows
        Its objects, with the columns of :mod:`scanner.catalogue.columns`.
    config
        As the tile was scanned with.

    Returns
    -------
    Mapping
        PSFs by band; those that are missing are Euclid's mean ones.

    Raises
    ------
    TileError
        An image of a PSF cannot be read, or holds something else.
    UnavailableError
        A store does not answer.
    """
    named = {band: files.psf for band, files in tile.bands.items() if files.psf is not None}
    found: dict[Band, BandPsf] = {}
    with temporary_folder(config.engine.scratch) as folder:
        scratch = ScratchFolder(folder)
        try:
            for band, reference in named.items():
                psf = read_psf(fetched_file(reference, folder, config.storage), band, scratch)
                found[band] = BandPsf(psf.transfer(SIDE, SIDE), "image")
        finally:
            scratch.close()
        if len(named) < len(tile.bands) and not remote_files(tile):
            widths = _stellar_widths(tile, rows, config, folder)
            found |= {band: mean_of_euclid(band, width, "stars") for band, width in widths.items() if band not in named}
    return found


def _stellar_widths(tile: Tile, rows: pa.Table, config: RunConfig, scratch: Path) -> dict[Band, float]:
    """How many times as wide as Euclid's mean PSF the tile's stars are, by band; none where there are too few stars."""
    magnitude = rows["magnitude_vis"].to_numpy()
    bright, faint = _STAR_MAGNITUDES
    place = np.flatnonzero((magnitude > bright) & (magnitude < faint))
    place = place[np.argsort(magnitude[place], kind="stable")][:_MOST_OBJECTS]
    if not len(place):
        return {}
    with open_tile(tile, config.cutouts, scratch) as images:
        objects = measure_objects(images, targets_of(rows.take(place)))
    stars = stars_among(objects)
    widths = {}
    for number, band in enumerate(BANDS):
        scale = NISP_PIXEL_SCALE_ARCSEC if number else VIS_PIXEL_SCALE_ARCSEC
        width = measured_width(objects.concentration[number][stars], scale, band)
        if width is not None:
            widths[band] = width
    return widths
