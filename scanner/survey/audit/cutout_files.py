"""One cutout as files: FITS with a WCS for every band, and a picture.

In: one cutout and the opened tile that it was cut from. Out: ``<stem>.fits`` (extensions VIS, Y, J, H in the mosaics' own
units, NaN where there is no pixel) and ``<stem>.png`` (VIS, VIS coloured by NISP, NISP; as on the contact sheet). Refused: a
folder that cannot be written (:class:`OutputError`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from PIL import Image

from scanner.atomic_file import write_atomically
from scanner.cutouts.cutout_wcs import band_wcs
from scanner.cutouts.tile_images import TileImages
from scanner.records import BANDS, CutoutBatch
from scanner.report import colour
from scanner.sky.alignment import STEP

#: A VIS pixel of the picture takes this many pixels of the screen along each side, a NISP pixel three times as many.
ZOOM = 2


def write_cutout(
    folder: Path, stem: str, cutout: CutoutBatch, images: TileImages, header: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write one cutout.

    Parameters
    ----------
    folder, stem
        Where; the folder is made if need be.
    cutout
        A batch of one.
    images
        The tile that it was cut from.
    header
        Cards of the primary header, text by keyword.

    Returns
    -------
    tuple of Path
        The two files.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    x0, y0 = int(cutout.x0[0]), int(cutout.y0[0])
    primary = fits.PrimaryHDU()
    for key, value in header.items():
        primary.header[key] = value
    primary.header["X0"] = (x0, "column of the tile's VIS mosaic, from 0")
    primary.header["Y0"] = (y0, "row of the tile's VIS mosaic, from 0")
    hdus = fits.HDUList([primary])
    for band, pixels in zip(BANDS, (cutout.vis[0], *cutout.nisp[0]), strict=True):
        hdu = fits.ImageHDU(pixels, band_wcs(images, band, x0, y0).to_header(relax=True), name=band)
        if images.units[band]:
            hdu.header["BUNIT"] = images.units[band]
        if np.isfinite(images.zero_points[band]):
            hdu.header["MAGZERO"] = images.zero_points[band]
        hdus.append(hdu)
    stream = io.BytesIO()
    hdus.writeto(stream)
    places = (folder / f"{stem}.fits", folder / f"{stem}.png")
    for place, content in zip(places, (stream.getvalue(), _picture(cutout)), strict=True):
        write_atomically(place, content)
    return places


def _picture(cutout: CutoutBatch) -> bytes:
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    vis = colour.vis_image(cutout.vis[0], sky, sigma)
    panels = [
        _enlarged(np.repeat(vis[..., None], 3, axis=-1), ZOOM),
        _enlarged(colour.colour_image(cutout.vis[0], cutout.nisp[0], sky, sigma), ZOOM),
        _enlarged(colour.nisp_image(cutout.nisp[0], sky, sigma), ZOOM * STEP),
    ]
    margin = (panels[0].shape[0] - panels[2].shape[0]) // 2
    panels[2] = np.pad(panels[2], ((margin, margin), (margin, margin), (0, 0)))
    stream = io.BytesIO()
    # Row 0 of an array is the lowest of the sky, and the highest of a screen.
    Image.fromarray(np.ascontiguousarray(np.concatenate(panels, axis=1)[::-1])).save(stream, "PNG")
    return stream.getvalue()


def _enlarged(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
