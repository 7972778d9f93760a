"""All images of point sources behind a sightline, with their magnifications.

In: source positions and a :class:`~scanner.simulation.lensing.sightline.Sightline`, numpy. Out: :class:`Images`. It works on
batches and loops over no object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.records import Float64
from scanner.simulation.lensing.lens import Lens, deflection, magnification
from scanner.simulation.lensing.sightline import Sightline


@dataclass(frozen=True)
class Images:
    """Images of point sources: arrays (N, 8), rows padded with NaN; ``count`` (N,) says how many there are."""

    x: Float64
    y: Float64
    magnification: Float64
    count: Any


def find_images(beta_x: Any, beta_y: Any, sightline: Sightline, angles: int = 720) -> Images:
    """All images of N point sources behind N lenses.

    The deflection of an isothermal lens depends on the polar angle alone, so with e the unit vector towards the image the
    lens equation ``r (I - Γ) e = β + α(φ)`` leaves one equation for φ: the cross product of both sides vanishes while
    their dot product is positive. Its sign changes on a grid of ``angles`` are refined by bisection to 1e-12 rad.

    Parameters
    ----------
    beta_x, beta_y
        (N,) source positions, arcsec.
    sightline
        One lens, its fields of shape (N,).
    angles
        Grid of the search; pairs of images closer than 2π/angles (on a critical curve) can be missed.

    Returns
    -------
    Images
        Sorted by angle.
    """
    (lens,) = sightline.lenses
    lens = Lens(**{name: np.atleast_1d(np.asarray(value, dtype=np.float64))[:, None] for name, value in vars(lens).items()})
    source_x = np.atleast_1d(np.asarray(beta_x, dtype=np.float64))[:, None] - lens.x
    source_y = np.atleast_1d(np.asarray(beta_y, dtype=np.float64))[:, None] - lens.y
    isolated = Lens(lens.theta_e, lens.q, lens.angle, 0.0, 0.0, 0.0, 0.0)

    def sides(phi: Float64) -> tuple[Float64, Float64]:
        cosine, sine = np.cos(phi), np.sin(phi)
        alpha_x, alpha_y = deflection(cosine, sine, isolated)
        right_x, right_y = source_x + alpha_x, source_y + alpha_y
        left_x = (1.0 - lens.gamma1) * cosine - lens.gamma2 * sine
        left_y = (1.0 + lens.gamma1) * sine - lens.gamma2 * cosine
        cross = left_x * right_y - left_y * right_x
        radius = (left_x * right_x + left_y * right_y) / (left_x**2 + left_y**2)
        return cross, radius

    # Half a step off zero, so that symmetric sources do not fall on grid points.
    grid = (np.arange(angles + 1) + 0.5) * (2.0 * np.pi / angles)
    cross, radius = sides(np.broadcast_to(grid, (source_x.shape[0], angles + 1)))
    is_root = (cross[:, :-1] * cross[:, 1:] < 0.0) & (radius[:, :-1] + radius[:, 1:] > 0.0)
    # Eight slots: four images at most, and never more roots than four of each sign of the radius.
    order = np.argsort(~is_root, axis=1, kind="stable")[:, :8]
    found = np.take_along_axis(is_root, order, axis=1)
    low, high = grid[order], grid[order + 1]
    sign_low = np.sign(np.take_along_axis(cross, order, axis=1))
    for _ in range(40):
        middle = 0.5 * (low + high)
        same = np.sign(sides(middle)[0]) == sign_low
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    phi = 0.5 * (low + high)
    r = sides(phi)[1]
    found &= r > 0.0
    x, y = r * np.cos(phi) + lens.x, r * np.sin(phi) + lens.y
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = magnification(x, y, lens)
    rank = np.argsort(~found, axis=1, kind="stable")
    x, y, mu = (np.take_along_axis(np.where(found, value, np.nan), rank, axis=1) for value in (x, y, mu))
    return Images(x=x, y=y, magnification=mu, count=found.sum(axis=1))
