"""Drawn PSFs against the PSF stamps of two real Euclid images."""

import math

import numpy as np
import pytest
from astropy.io import fits

from scanner.records import BANDS
from scanner.simulation.telescope.psf import draw_psf

STAMPS = ("euclid-q1-102018665/102018665_NEG570040238507752998.fits", "euclid-group/group.fits")


def measured(stamp):
    """Peak, flux within 0.2, 0.3, 0.5 and 0.8 arcsec, and weighted moments of order two and three, all as shares."""
    stamp = np.asarray(stamp, dtype=np.float64) / np.sum(stamp, dtype=np.float64)
    y, x = np.indices(stamp.shape) - stamp.shape[0] // 2
    weight = stamp * np.exp(-0.125 * np.hypot(x, y) ** 2)
    x, y = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    moments = []
    for order in (2, 3):
        heavy = stamp * radius**order * np.exp(-0.5 * (radius / 4.0) ** 2)
        moments.append(abs((heavy * np.exp(1j * order * angle)).sum()) / heavy.sum())
    return np.array([stamp.max(), *(stamp[radius < reach].sum() for reach in (2, 3, 5, 8)), *moments])


@pytest.mark.parametrize("band", BANDS)
def test_real_psfs_lie_among_the_drawn_ones(real, band):
    rng = np.random.default_rng(0)
    half = 10 if band == "VIS" else 16
    at = np.arange(-half, half + 1)
    drawn = np.array(
        [
            measured(draw_psf(rng, band, rng.uniform(0, 2 * math.pi), rng.uniform(0.96, 1.04)).values(at[None, :], at[:, None]))
            for _ in range(200)
        ]
    )
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    for name in STAMPS:
        with fits.open(real / name) as file:
            found = measured(file[f"{'' if band == 'VIS' else 'NIR_'}{band}_PSF"].data)
        # Shares of the flux agree to 4% of the whole, asymmetries to 0.04.
        slack = np.array([0.03 * found[0], 0.04, 0.04, 0.04, 0.04, 0.04, 0.04])
        assert (found > low - slack).all(), (name, found, low)
        assert (found < high + slack).all(), (name, found, high)
