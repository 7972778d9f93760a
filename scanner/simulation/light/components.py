"""What shines: components of a scene, and the surface brightness of each kind.

A :class:`Component` is one piece of light (a bulge, a disc with arms, a ring, a tail, a star); a galaxy is a few of them.
:func:`surface_brightness` evaluates many components of one kind on many grids at once, for any array-API library, as the
share of the component's flux per square arcsec. Angles in radians from +x to +y, lengths in arcsec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import BANDS
from scanner.simulation.lensing.sightline import Sightline


class Kind(IntEnum):
    """Shapes that can be drawn."""

    SERSIC = 0  #: Sérsic profile
    SPIRAL = 1  #: Sérsic profile whose azimuthal distribution is gathered into logarithmic arms
    ANNULUS = 2  #: Gaussian ring, whole or a segment of it (rings, tidal tails)
    POINT = 3  #: star


Flux = tuple[float, float, float, float]


@dataclass(frozen=True)
class Component:
    """One piece of light.

    ``flux``: VIS, Y, J, H in image units (zero points of :mod:`~scanner.simulation.telescope.photometry`), *before* lensing.
    ``radius``: half-light radius of a Sérsic profile along its major axis, or the radius of an annulus.
    ``index``: Sérsic index. ``width``: Gaussian width of an annulus. ``extent``: Gaussian half-length of a segment in
    radians about ``phase``; infinite for a whole ring. Arms: ``arms`` of them with ``contrast`` (von Mises κ; 0 none),
    winding ``ln R`` times ``winding`` and turned by ``phase``. ``seen_through``: the deflectors in front of the light, if any;
    position and shape are then those of the source plane.
    """

    kind: Kind
    x: float
    y: float
    flux: Flux
    radius: float = 0.1
    index: float = 1.0
    q: float = 1.0
    angle: float = 0.0
    width: float = 0.1
    phase: float = 0.0
    extent: float = math.inf
    arms: int = 0
    contrast: float = 0.0
    winding: float = 0.0
    seen_through: Sightline | None = None

    def moved(self, dx: float, dy: float) -> Component:
        """The same component elsewhere, its sightline moving along."""
        sightline = None if self.seen_through is None else self.seen_through.moved(dx, dy)
        return replace(self, x=self.x + dx, y=self.y + dy, seen_through=sightline)

    def rotated(self, angle: float) -> Component:
        """The same component turned about the origin by ``angle``, its sightline turning along."""
        c, s = math.cos(angle), math.sin(angle)
        sightline = None if self.seen_through is None else self.seen_through.rotated(angle)
        x, y = c * self.x - s * self.y, s * self.x + c * self.y
        return replace(self, x=x, y=y, angle=self.angle + angle, seen_through=sightline)


def total_flux(components: Sequence[Component]) -> Flux:
    """Sum of the components' fluxes per band, before lensing."""
    vis, y, j, h = (sum(component.flux[band] for component in components) for band in range(len(BANDS)))
    return vis, y, j, h


def sersic_b(n: Any) -> Any:
    """b(n), which makes R_e the half-light radius (Ciotti & Bertin 1999, equation 18; 1e-3 at n = 0.6, 1e-4 at 1)."""
    return 2.0 * n - 1.0 / 3.0 + 4.0 / (405.0 * n) + 46.0 / (25515.0 * n**2) + 131.0 / (1148175.0 * n**3)


def sersic_norm(n: float) -> float:
    """Total flux of a circular Sérsic profile with I(R_e) = 1 and R_e = 1 (Graham & Driver 2005, equation 4)."""
    b = sersic_b(n)
    return 2.0 * math.pi * n * math.exp(b - 2.0 * n * math.log(b)) * math.gamma(2.0 * n)


def norm(component: Component) -> float:
    """Integral of the unnormalised profile of a component over the plane, arcsec²."""
    if component.kind is Kind.ANNULUS:
        # ∫ R exp(-(R-R0)²/2w²) dR over R > 0, exactly; the segment's window is a wrapped Gaussian of negligible wrap.
        t = component.radius / component.width / math.sqrt(2.0)
        radial = component.width**2 * math.exp(-(t**2))
        radial += component.radius * component.width * math.sqrt(math.pi / 2.0) * (1.0 + math.erf(t))
        window = 2.0 * math.pi
        if math.isfinite(component.extent):
            window = component.extent * math.sqrt(2.0 * math.pi) * math.erf(math.pi / component.extent / math.sqrt(2.0))
        return component.q * radial * window
    return component.q * component.radius**2 * sersic_norm(component.index)


def extent_radius(component: Component, threshold: float) -> float:
    """Radius in arcsec beyond which the unlensed component is fainter than ``threshold`` (share of flux per arcsec²)."""
    peak = 1.0 / norm(component)
    if component.kind is Kind.ANNULUS:
        return component.radius + component.width * math.sqrt(2.0 * max(math.log(max(peak / threshold, 1.0)), 0.0))
    peak *= 1.0 + component.contrast
    b = sersic_b(component.index)
    return float(component.radius * max(1.0 + math.log(peak / threshold) / b, 0.0) ** component.index)


@dataclass(frozen=True)
class Profiles:
    """The shapes of K components of one kind as arrays (K, 1, 1), ready to broadcast against grids."""

    kind: Kind
    norm: Any
    radius: Any
    index: Any
    b: Any
    q: Any
    angle: Any
    width: Any
    phase: Any
    per_extent: Any
    arms: Any
    contrast: Any
    winding: Any
    bessel: Any

    def take(self, index: Any) -> Profiles:
        """Rows of the batch."""
        return replace(self, **{name: values[index] for name, values in vars(self).items() if name != "kind"})


def profiles(components: Sequence[Component], asarray: Callable[[Any], Any]) -> Profiles:
    """Gather components of one kind; ``asarray`` turns a nested list into the floating array to compute with."""
    rows = [
        (
            norm(c),
            c.radius,
            c.index,
            sersic_b(c.index),
            c.q,
            c.angle,
            c.width,
            c.phase,
            1.0 / c.extent,
            float(c.arms),
            c.contrast,
            c.winding,
            float(np.i0(c.contrast)) if c.contrast else 1.0,
        )
        for c in components
    ]
    return Profiles(components[0].kind, *(asarray([[[value]] for value in column]) for column in zip(*rows, strict=True)))


def surface_brightness(dx: Any, dy: Any, p: Profiles, softening: float) -> Any:
    """Share of the flux per arcsec² at offsets ``(dx, dy)`` from the components' centres.

    Parameters
    ----------
    dx, dy
        Offsets, arcsec; leading axis the component.
    p
        Shapes of the components.
    softening
        Length added in quadrature to the radius, arcsec, above 0: keeps cusps finite where a sample falls on the centre.
    """
    xp = array_namespace(dx, dy)
    cosine, sine = xp.cos(p.angle), xp.sin(p.angle)
    along, across = cosine * dx + sine * dy, (cosine * dy - sine * dx) / p.q
    r2 = along * along + across * across + softening * softening
    if p.kind is Kind.ANNULUS:
        delta = (xp.sqrt(r2) - p.radius) / p.width
        turn = xp.atan2(across, along) - p.phase
        turn = (turn - 2.0 * math.pi * xp.round(turn / (2.0 * math.pi))) * p.per_extent
        return xp.exp(-0.5 * (delta * delta + turn * turn)) / p.norm
    light = xp.exp(p.b - p.b * (r2 / (p.radius * p.radius)) ** (0.5 / p.index)) / p.norm
    if p.kind is Kind.SPIRAL:
        phase = p.arms * (xp.atan2(across, along) - p.phase - 0.5 * p.winding * xp.log(r2))
        # von Mises in azimuth has mean one at every radius, so arms move light and make none; none in the centre.
        arms = xp.exp(p.contrast * xp.cos(phase)) / p.bessel
        light = light * (1.0 + r2 / (r2 + 0.25 * p.radius * p.radius) * (arms - 1.0))
    return light
