"""Lenses: singular isothermal ellipsoids with external shear, in one plane or two on a sight line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

#: Smallest ellipticity √(1 - q²) of the closed form: it is 0/0 at q = 1, and this close to it the sphere's to 1e-9 of θ_E.
_ROUNDEST = 1.0e-4
_FLATTEST_Q = 0.05
_CENTRE = 1.0e-12  # arcsec: a sample on the singular centre is deflected by nothing, and no 0/0


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
    dx, dy, cosine, sine, along, across, q, radius = _frame(x, y, lens)
    xp = array_namespace(x, y)
    e = xp.sqrt(xp.maximum(1.0 - q * q, 0.0 * q + _ROUNDEST**2))
    scale = _like(lens.theta_e, dx) * xp.sqrt(q) / e
    stretch = e / radius
    alpha_along = scale * xp.atan(stretch * along)
    alpha_across = scale * xp.atanh(stretch * across)
    gamma1, gamma2 = _like(lens.gamma1, dx), _like(lens.gamma2, dx)
    return (
        cosine * alpha_along - sine * alpha_across + gamma1 * dx + gamma2 * dy,
        sine * alpha_along + cosine * alpha_across + gamma2 * dx - gamma1 * dy,
    )


def hessian(x: Any, y: Any, lens: Lens) -> tuple[Any, Any, Any]:
    """Derivatives ``(∂α_x/∂x, ∂α_x/∂y = ∂α_y/∂x, ∂α_y/∂y)`` of :func:`deflection`.

    The potential of an isothermal lens is linear in the radius, so that its Hessian is ``2κ`` times the projection across the
    direction φ to the lens: ``ψ_xx = 2κ sin²φ``, ``ψ_xy = -2κ sinφ cosφ``, ``ψ_yy = 2κ cos²φ``.

    Parameters
    ----------
    x, y, lens
        As for :func:`deflection`. On the lens' centre itself the derivatives diverge, and what comes out means nothing.
    """
    dx, dy, _, _, _, _, q, radius = _frame(x, y, lens)
    xp = array_namespace(x, y)
    slope = _like(lens.theta_e, dx) * xp.sqrt(q) / radius / (dx * dx + dy * dy + _CENTRE)
    gamma1, gamma2 = _like(lens.gamma1, dx), _like(lens.gamma2, dx)
    return slope * dy * dy + gamma1, gamma2 - slope * dx * dy, slope * dx * dx - gamma1


def _like(value: Any, x: Any) -> Any:
    """A parameter as an array of the library, type and device of ``x``, in its own shape."""
    return array_namespace(x).asarray(value, dtype=x.dtype, device=device(x))


def _frame(x: Any, y: Any, lens: Lens) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:
    """Offsets from the lens on the sky, the turn to its axes, offsets along them, axis ratio and elliptical radius."""
    xp = array_namespace(x, y)
    dx, dy = x - _like(lens.x, x), y - _like(lens.y, x)
    angle = _like(lens.angle, x)
    cosine, sine = xp.cos(angle), xp.sin(angle)
    q = xp.clip(_like(lens.q, x), _FLATTEST_Q, 1.0)
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    return dx, dy, cosine, sine, along, across, q, xp.sqrt(q * q * along * along + across * across) + _CENTRE


@dataclass(frozen=True)
class Sightline:
    """Deflectors in front of one source, nearest first.

    ``lenses``: the θ_E of each is for *this* source. ``couplings``: β_ij, the share of lens i's deflection that is felt at
    plane j, as the rows of a lower triangle: ``(β12, β13, β23, ...)``; empty for one lens. See
    :func:`scanner.simulation.lensing.cosmology.coupling`.

    Raises
    ------
    ValueError
        No lens, or another number of couplings than pairs of planes.
    """

    lenses: tuple[Lens, ...]
    couplings: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        planes = len(self.lenses)
        if not planes or len(self.couplings) != planes * (planes - 1) // 2:
            raise ValueError(
                f"a sightline of {planes} lenses needs {planes * (planes - 1) // 2} couplings, not {len(self.couplings)}"
            )

    def coupling(self, front: int, behind: int) -> Any:
        """β of two planes by number, the nearest being 0."""
        return self.couplings[behind * (behind - 1) // 2 + front]

    @property
    def front(self) -> tuple[Lens, ...]:
        """Deflectors nearer than the last plane."""
        return self.lenses[: len(self.lenses) - len(self.last_plane)]

    @property
    def last_plane(self) -> tuple[Lens, ...]:
        """Deflectors of the plane next to the source: nothing bends light between those of one plane, β = 0."""
        last = len(self.lenses) - 1
        return tuple(lens for i, lens in enumerate(self.lenses) if i == last or self.coupling(i, last) == 0.0)

    @property
    def middle(self) -> tuple[float, float]:
        """Where a source has no offset: behind the first lens, moved as the other masses of its plane bend the light there.

        Isothermal masses bend light by as much at any distance, so that a group's members move all of what is behind.
        """
        first, *others = self.last_plane
        x, y = np.array(first.x, dtype=np.float64), np.array(first.y, dtype=np.float64)
        for alpha_x, alpha_y in [deflection(x, y, lens) for lens in others]:
            x, y = x - alpha_x, y - alpha_y
        return float(x), float(y)

    def moved(self, dx: Any, dy: Any) -> Sightline:
        """The same deflectors elsewhere, shifted by arcsec."""
        return replace(self, lenses=tuple(replace(lens, x=lens.x + dx, y=lens.y + dy) for lens in self.lenses))

    def rotated(self, angle: float) -> Sightline:
        """The same deflectors turned about the origin by ``angle`` radians, their shears turning along."""
        c, s = math.cos(angle), math.sin(angle)
        c2, s2 = math.cos(2.0 * angle), math.sin(2.0 * angle)
        return replace(
            self,
            lenses=tuple(
                Lens(
                    lens.theta_e,
                    lens.q,
                    lens.angle + angle,
                    c * lens.x - s * lens.y,
                    s * lens.x + c * lens.y,
                    c2 * lens.gamma1 - s2 * lens.gamma2,
                    s2 * lens.gamma1 + c2 * lens.gamma2,
                )
                for lens in self.lenses
            ),
        )

    def take(self, index: Any) -> Sightline:
        """Rows of a batch."""
        return Sightline(tuple(lens.take(index) for lens in self.lenses), tuple(values[index] for values in self.couplings))


def trace(x: Any, y: Any, sightline: Sightline) -> tuple[Any, Any]:
    """Follow light rays back from the image plane to the source plane.

    Parameters
    ----------
    x, y
        Image-plane positions, arcsec, floating arrays.
    sightline
        Parameters that broadcast against them.

    Returns
    -------
    tuple
        ``(beta_x, beta_y)``, arcsec, the shape of the broadcast.
    """
    deflections: list[tuple[Any, Any]] = []
    for plane, lens in enumerate(sightline.lenses):
        here_x, here_y = x, y
        for front, (alpha_x, alpha_y) in enumerate(deflections):
            share = sightline.coupling(front, plane)
            here_x, here_y = here_x - share * alpha_x, here_y - share * alpha_y
        deflections.append(deflection(here_x, here_y, lens))
    for alpha_x, alpha_y in deflections:
        x, y = x - alpha_x, y - alpha_y
    return x, y


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of source-plane with respect to image-plane positions: ``xy`` is ∂β_x/∂θ_y. Asymmetric behind two planes."""

    xx: Any
    xy: Any
    yx: Any
    yy: Any

    @property
    def determinant(self) -> Any:
        """Its inverse is the signed magnification of a point."""
        return self.xx * self.yy - self.xy * self.yx


def trace_with_jacobian(x: Any, y: Any, sightline: Sightline) -> tuple[Any, Any, Jacobian]:
    """As :func:`trace`, with the exact Jacobian: the planes' Hessians chained, ``A_j = I - Σ_{i<j} β_ij H_i A_i``."""
    planes: list[tuple[Any, Any, Jacobian]] = []

    def arrive(shares: list[Any]) -> tuple[Any, Any, Jacobian]:
        """Where the ray crosses a plane that feels these shares of the deflections so far."""
        here_x, here_y, xx, xy, yx, yy = x, y, 1.0 + 0.0 * x, 0.0 * x, 0.0 * x, 1.0 + 0.0 * x
        for share, (alpha_x, alpha_y, bend) in zip(shares, planes, strict=True):
            here_x, here_y = here_x - share * alpha_x, here_y - share * alpha_y
            xx, xy, yx, yy = xx - share * bend.xx, xy - share * bend.xy, yx - share * bend.yx, yy - share * bend.yy
        return here_x, here_y, Jacobian(xx, xy, yx, yy)

    for plane, lens in enumerate(sightline.lenses):
        here_x, here_y, a = arrive([sightline.coupling(front, plane) for front in range(plane)])
        h_xx, h_xy, h_yy = hessian(here_x, here_y, lens)
        bend = Jacobian(
            h_xx * a.xx + h_xy * a.yx, h_xx * a.xy + h_xy * a.yy, h_xy * a.xx + h_yy * a.yx, h_xy * a.xy + h_yy * a.yy
        )
        planes.append((*deflection(here_x, here_y, lens), bend))
    return arrive([1.0] * len(planes))


def magnification(x: Any, y: Any, sightline: Sightline) -> Any:
    """Signed magnification of a point seen at ``(x, y)``."""
    return 1.0 / trace_with_jacobian(x, y, sightline)[2].determinant
