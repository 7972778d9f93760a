"""Several deflectors one behind the other: the multi-plane lens equation.

In: positions in the image plane as arrays of any array-API library, and a :class:`Sightline`, whose parameters are floats or
arrays that broadcast against them. Out: positions in the source plane and their Jacobian, arrays of the same library. A
sightline whose couplings do not fit its number of planes is refused.

With ``α_i`` the deflection of plane i scaled to the source, the light ray seen at θ crosses plane j at

    θ_j = θ - Σ_{i<j} β_ij α_i(θ_i),     β_ij = D_ij D_s / (D_j D_is),

and leaves the source plane at the same expression with all couplings one (Schneider, Ehlers & Falco 1992, equation 9.7).
Every lens lies where it would be seen without deflection, and so does the source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scanner.simulation.lensing.lens import Lens, deflection, hessian


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
