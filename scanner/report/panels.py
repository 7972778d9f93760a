"""VIS, VIS coloured by NISP, and NISP beside one another at one scale.

In: a cutout. Out: one 8-bit image, y upwards. Refused: nothing.
"""

from __future__ import annotations

import numpy as np

from scanner.records import NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, CutoutBatch
from scanner.report import colour
from scanner.report.colour import UInt8
from scanner.report.stretch import Stretch

_NISP_STEP = round(NISP_PIXEL_SCALE_ARCSEC / VIS_PIXEL_SCALE_ARCSEC)


def side_by_side(cutout: CutoutBatch, zoom: int, stretch: Stretch = Stretch(), saturation: float = 1.0) -> UInt8:
    """Draw the three pictures of a batch of one.

    Parameters
    ----------
    cutout
        A batch of one.
    zoom
        Pixels of the picture along each side of a VIS pixel; a NISP pixel takes three times as many.
    stretch, saturation
        How; see :mod:`scanner.report.colour`.

    Returns
    -------
    (200 zoom, 600 zoom, 3) uint8.
    """
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    vis = colour.vis_image(cutout.vis[0], sky, sigma, stretch)
    drawn = [
        enlarged(np.repeat(vis[..., None], 3, axis=-1), zoom),
        enlarged(colour.colour_image(cutout.vis[0], cutout.nisp[0], sky, sigma, stretch, saturation), zoom),
        enlarged(colour.nisp_image(cutout.nisp[0], sky, sigma, stretch, saturation), zoom * _NISP_STEP),
    ]
    margin = (drawn[0].shape[0] - drawn[2].shape[0]) // 2
    drawn[2] = np.pad(drawn[2], ((margin, margin), (margin, margin), (0, 0)))
    return np.concatenate(drawn, axis=1)


def enlarged(image: UInt8, zoom: int) -> UInt8:
    """Every pixel of an image (y, x) or (y, x, 3) as ``zoom`` × ``zoom`` pixels."""
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)
