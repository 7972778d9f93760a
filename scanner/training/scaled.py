"""Images scaled as the bundle's graph scales them, float16, VIS at both sizes: what the trainers of all members share.

In: cutouts with their sky and σ, and the name of the preprocessing. Out: :class:`ScaledImages`. Refused: nothing.

Float16 resolves 0.0005 near 1, a hundredth of the sky's σ in either scaling's typical range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.preprocessing import Preprocessing, from_minimum, resize, scale_asinh_mad, scale_minmax
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Float32

Float16 = NDArray[np.float16]
#: Shape of one object in each array.
SHAPES = {
    "vis": (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
    "nisp": (3, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
    "vis66": (NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
}


@dataclass(frozen=True)
class ScaledImages:
    """Scaled images, float16: ``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66; Y, J, H) and ``vis66`` (N, 66, 66).

    Arrays of numpy, memory-mapped or not, or tensors of torch on any device.
    """

    vis: Any
    nisp: Any
    vis66: Any
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.vis)


def scale_batch(vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, preprocessing: Preprocessing) -> ScaledImages:
    """Scale cutouts without NaN as the bundle's graph does, VIS at both sizes.

    Parameters
    ----------
    vis, nisp
        (n, 200, 200) and (n, 3, 66, 66), any unit.
    sky, sigma
        (n, 4), VIS, Y, J, H.
    preprocessing
        ``minmax`` or ``asinh_mad``.
    """
    if preprocessing == "minmax":
        scaled_vis, scaled_nisp = scale_minmax(vis), scale_minmax(nisp)
        small = scale_minmax(resize(from_minimum(vis), NISP_CUTOUT_PIXELS))
    else:
        scaled_vis = scale_asinh_mad(vis, sky[:, 0], sigma[:, 0])
        scaled_nisp = scale_asinh_mad(nisp, sky[:, 1:], sigma[:, 1:])
        small = resize(scaled_vis, NISP_CUTOUT_PIXELS)
    return ScaledImages(scaled_vis.astype(np.float16), scaled_nisp.astype(np.float16), small.astype(np.float16), preprocessing)


def joined_images(parts: Sequence[ScaledImages]) -> ScaledImages:
    """Images of several batches, one after the other, in memory."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in SHAPES}
    return ScaledImages(**arrays, preprocessing=parts[0].preprocessing)
