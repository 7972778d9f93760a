"""Positions on a square grid over a mosaic: for sky without a catalogue, and for searches that must not depend on detection.

In: the mosaic's shape and scale, and the step. Out: pixel positions, centred on the mosaic. Nothing is refused; a mosaic
smaller than the step gets one position in its middle.
"""

from __future__ import annotations

import numpy as np

from scanner.records import Float64


def grid_positions(shape: tuple[int, int], pixel_scale_arcsec: float, step_arcsec: float) -> tuple[Float64, Float64]:
    """Positions in row order.

    Parameters
    ----------
    shape
        (ny, nx) of the mosaic.
    pixel_scale_arcsec
        Its pixel scale.
    step_arcsec
        Distance of neighbours in a row and in a column.

    Returns
    -------
    x, y
        (N,) float64, pixels.
    """
    step = step_arcsec / pixel_scale_arcsec
    rows, columns = (_along_axis(length, step) for length in shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x.ravel(), y.ravel()


def _along_axis(length: int, step: float) -> Float64:
    n = max(1, int(length / step))
    return np.asarray((np.arange(n) - (n - 1) / 2) * step + (length - 1) / 2, dtype=np.float64)
