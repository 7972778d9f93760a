"""The singular isothermal ellipsoid with external shear: deflections, images and magnifications.

In: positions and parameters in arcsec and radians as arrays of any array-API library (numpy, torch ...), broadcast against
each other. Out: arrays of the same library. Image finding is numpy only and loops over nothing: it works on batches.

Convention: ``theta_e`` is the Einstein radius of the sphere that holds the same mass within the (elliptical) critical
curve, ``q`` the minor-to-major axis ratio of the isodensity contours, ``angle`` the position angle of the major axis from
+x towards +y. Shear: ``α = Γθ`` with Γ = [[γ1, γ2], [γ2, -γ1]] about the lens' centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import Float64

#: Rounder than this the closed form loses digits (0/0 at q = 1), and the difference from a sphere is below 1e-4 of θ_E.
ROUNDEST = 0.999


@dataclass(frozen=True)
class Lens:
    """Parameters of one lens, or of a batch: each a float or an array that broadcasts (arcsec, radians)."""

    theta_e: Any
    q: Any
    angle: Any
    x: Any
    y: Any
    gamma1: Any
    gamma2: Any

    def take(self, index: Any) -> Lens:
        """Rows of a batch."""
        return Lens(**{name: values[index] for name, values in vars(self).items()})


def deflection(x: Any, y: Any, lens: Lens) -> tuple[Any, Any]:
    """Deflection angle of SIE and shear at ``(x, y)``, arcsec (Kormann, Schneider & Bartelmann 1994, equation 27a).

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec, floating arrays.
    lens
        Parameters that broadcast against them.

    Returns
    -------
    tuple
        ``(alpha_x, alpha_y)``, the shape of the broadcast.
    """
    xp = array_namespace(x, y)
    dx, dy = x - lens.x, y - lens.y
    # Parameters may be plain floats: 0·x makes them arrays of the right library and type.
    zero = 0.0 * dx
    cosine, sine = xp.cos(lens.angle + zero), xp.sin(lens.angle + zero)
    q = xp.clip(lens.q + zero, 0.05, ROUNDEST)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    e = xp.sqrt(1.0 - q * q)
    radius = xp.sqrt(q * q * along * along + across * across) + 1e-12
    scale = lens.theta_e * xp.sqrt(q) / e
    alpha_along = scale * xp.atan(e * along / radius)
    alpha_across = scale * xp.atanh(e * across / radius)
    return (
        cosine * alpha_along - sine * alpha_across + lens.gamma1 * dx + lens.gamma2 * dy,
        sine * alpha_along + cosine * alpha_across + lens.gamma2 * dx - lens.gamma1 * dy,
    )


def magnification(x: Float64, y: Float64, lens: Lens) -> Float64:
    """Signed point magnification ``1/det(I - ∂α/∂θ)`` at ``(x, y)``.

    For an isothermal lens the Hessian is ``(b/2m)·[…]``; its determinant with shear follows from the closed form
    ``ψ_xx = 2κ sin²φ`` of a potential that is linear in the radius, with φ the polar angle about the lens.
    """
    dx, dy = np.asarray(x - lens.x), np.asarray(y - lens.y)
    cosine, sine = np.cos(lens.angle), np.sin(lens.angle)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    q = np.clip(lens.q, 0.05, ROUNDEST)
    twice_kappa = lens.theta_e * np.sqrt(q) / np.sqrt(q * q * along**2 + across**2)
    r2 = dx**2 + dy**2
    xx = 1.0 - twice_kappa * dy**2 / r2 - lens.gamma1
    yy = 1.0 - twice_kappa * dx**2 / r2 + lens.gamma1
    xy = twice_kappa * dx * dy / r2 - lens.gamma2
    return np.asarray(1.0 / (xx * yy - xy * xy), dtype=np.float64)


@dataclass(frozen=True)
class Images:
    """Images of point sources: arrays (N, 8), rows padded with NaN; ``count`` (N,) says how many there are."""

    x: Float64
    y: Float64
    magnification: Float64
    count: Any


def find_images(beta_x: Any, beta_y: Any, lens: Lens, angles: int = 720) -> Images:
    """All images of N point sources behind N lenses.

    The deflection of an isothermal lens depends on the polar angle alone, so with e the unit vector towards the image the
    lens equation ``r (I - Γ) e = β + α(φ)`` leaves one equation for φ: the cross product of both sides vanishes while
    their dot product is positive. Its sign changes on a grid of ``angles`` are refined by bisection to 1e-12 rad.

    Parameters
    ----------
    beta_x, beta_y
        (N,) source positions, arcsec.
    lens
        Fields of shape (N,).
    angles
        Grid of the search; pairs of images closer than 2π/angles (on a critical curve) can be missed.

    Returns
    -------
    Images
        Sorted by angle.
    """
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
