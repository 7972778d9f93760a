"""From pixels in units of the sky σ to brightness between 0 and 1.

In: significances. Out: brightness, monotonic in them; NaN stays NaN. Refused (:class:`UsageError`): black that is not below
white, a softening that is not positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from scanner.errors import UsageError
from scanner.records import Float64

Curve = Literal["asinh", "linear", "sqrt", "log"]
CURVES: tuple[Curve, ...] = get_args(Curve)

#: The asinh turns from linear to logarithmic here: below the surface brightness of most arcs (3 to 15 sigma).
SOFTENING_SIGMA = 2.0
#: Drawn black: the sky. The upper half of its noise is seen, so that an arc can be judged against it; the lower half would
#: only cost bytes (a third of the page).
BLACK_SIGMA = 0.0
#: White is the 99.7th percentile of the central 12", but never outside this range: noise never fills the scale, and a
#: saturated star beside the object does not push its arcs into the dark.
WHITE_SIGMA = (40.0, 400.0)
WHITE_PERCENTILE = 99.7
WHITE_REGION_ARCSEC = 12.0
#: Contrast of the logarithmic curve, as in SAOImage DS9.
LOG_EXPONENT = 1000.0


@dataclass(frozen=True)
class Stretch:
    """How brightness follows significance.

    ``curve``: its shape between ``black_sigma`` and ``white_sigma``; ``white_sigma`` None: from each image, see
    :func:`white_level`. ``softening_sigma``: where the asinh turns from linear to logarithmic; of no use to other curves.

    Raises
    ------
    UsageError
        See the module.
    """

    curve: Curve = "asinh"
    black_sigma: float = BLACK_SIGMA
    white_sigma: float | None = None
    softening_sigma: float = SOFTENING_SIGMA

    def __post_init__(self) -> None:
        highest = WHITE_SIGMA[0] if self.white_sigma is None else self.white_sigma
        if not self.black_sigma < highest:
            raise UsageError(f"black at {self.black_sigma:g} sigma is not below white at {highest:g}; lower it or raise white.")
        if not self.softening_sigma > 0:
            raise UsageError(f"a softening of {self.softening_sigma:g} sigma makes no curve; give one above 0.")

    def brightness(self, significance: Float64, pixel_scale_arcsec: float) -> Float64:
        """Brightness of one square image (y, x) between black (0) and white (1)."""
        white = white_level(significance, pixel_scale_arcsec) if self.white_sigma is None else self.white_sigma
        if self.curve == "asinh":
            bottom, top = (np.arcsinh(level / self.softening_sigma) for level in (self.black_sigma, white))
            scaled = (np.arcsinh(significance / self.softening_sigma) - bottom) / (top - bottom)
            return np.asarray(np.clip(scaled, 0.0, 1.0))
        linear = np.clip((significance - self.black_sigma) / (white - self.black_sigma), 0.0, 1.0)
        if self.curve == "sqrt":
            return np.asarray(np.sqrt(linear))
        return np.asarray(np.log1p(LOG_EXPONENT * linear) / np.log1p(LOG_EXPONENT) if self.curve == "log" else linear)


def white_level(significance: Float64, pixel_scale_arcsec: float) -> float:
    """Significance to be drawn white for one square image (y, x), from its centre; see :data:`WHITE_SIGMA`."""
    margin = max(0, round((significance.shape[0] - WHITE_REGION_ARCSEC / pixel_scale_arcsec) / 2))
    inner = significance[margin : significance.shape[0] - margin, margin : significance.shape[1] - margin]
    good = inner[np.isfinite(inner)]
    return float(np.clip(np.percentile(good, WHITE_PERCENTILE), *WHITE_SIGMA)) if good.size else WHITE_SIGMA[0]
