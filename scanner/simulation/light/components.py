"""What shines: Sérsic profiles and other components, as tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from operator import attrgetter
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy.special import erf, gamma

from scanner.records import BANDS, Float64
from scanner.simulation.lensing import Sightline


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

    ``flux``: VIS, Y, J, H in image units (zero points of :mod:`~scanner.simulation.telescope.noise`), *before* lensing.
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


def sersic_norm(n: Any) -> Any:
    """Total flux of a circular Sérsic profile with I(R_e) = 1 and R_e = 1 (Graham & Driver 2005, equation 4)."""
    b = sersic_b(n)
    return 2.0 * math.pi * n * np.exp(b - 2.0 * n * np.log(b)) * gamma(2.0 * n)


@dataclass(frozen=True)
class Table:
    """K components as float64 columns (K,), named as in :class:`Component`; ``flux``: (K, 4)."""

    kind: Any
    x: Float64
    y: Float64
    radius: Float64
    index: Float64
    q: Float64
    angle: Float64
    width: Float64
    phase: Float64
    extent: Float64
    arms: Float64
    contrast: Float64
    winding: Float64
    flux: Float64

    def take(self, index: Any) -> Table:
        """Some of the components."""
        return Table(*(column[index] for column in vars(self).values()))


_NUMBERS = tuple(name for name in Table.__dataclass_fields__ if name != "flux")
_COLUMNS = attrgetter(*_NUMBERS)


def tabulate(components: Sequence[Component]) -> Table:
    """The components' numbers, without their sightlines."""
    rows = np.array([_COLUMNS(component) for component in components], dtype=np.float64).reshape(len(components), len(_NUMBERS))
    flux = np.array([component.flux for component in components], dtype=np.float64).reshape(len(components), len(BANDS))
    return Table(**dict(zip(_NUMBERS, rows.T, strict=True)), flux=flux)


def norms(table: Table) -> Float64:
    """Integral of the unnormalised profile of each component over the plane, arcsec²; 1 for points."""
    norm = table.q * table.radius**2 * sersic_norm(table.index)
    # ∫ R exp(-(R-R0)²/2w²) dR over R > 0, exactly; the segment's window is a wrapped Gaussian of negligible wrap.
    t = table.radius / table.width / math.sqrt(2.0)
    radial = table.width**2 * np.exp(-(t**2)) + table.radius * table.width * math.sqrt(math.pi / 2.0) * (1.0 + erf(t))
    with np.errstate(invalid="ignore"):
        window = table.extent * math.sqrt(2.0 * math.pi) * erf(math.pi / table.extent / math.sqrt(2.0))
    annulus = table.q * radial * np.where(np.isfinite(table.extent), window, 2.0 * math.pi)
    shapes = [table.kind == Kind.ANNULUS, table.kind == Kind.POINT]
    return np.asarray(np.select(shapes, [annulus, np.ones_like(norm)], norm), dtype=np.float64)


def extent_radii(table: Table, thresholds: Any) -> Float64:
    """Radii in arcsec beyond which the unlensed components are fainter than ``thresholds`` (share of flux per arcsec²)."""
    peak = 1.0 / norms(table)
    annulus = table.radius + table.width * np.sqrt(2.0 * np.log(np.maximum(peak / thresholds, 1.0)))
    contrast = np.log((1.0 + table.contrast) * peak / thresholds)
    sersic = table.radius * np.maximum(1.0 + contrast / sersic_b(table.index), 0.0) ** table.index
    return np.asarray(np.where(table.kind == Kind.ANNULUS, annulus, sersic), dtype=np.float64)


def norm(component: Component) -> float:
    """:func:`norms` of one component."""
    return float(norms(tabulate([component]))[0])


def extent_radius(component: Component, threshold: float) -> float:
    """:func:`extent_radii` of one component."""
    return float(extent_radii(tabulate([component]), threshold)[0])


#: Smallest squared radius in units of the component's own: the arms' logarithm is never asked for zero.
_INNERMOST = 1.0e-12
_FRAME = 5  # columns that every kind begins with


@dataclass(frozen=True)
class Profiles:
    """Shapes of K components of one kind: ``values`` (columns, K, 1, 1), what :func:`_columns` lists for the kind."""

    kind: Kind
    values: Any

    def take(self, index: Any) -> Profiles:
        """Rows of the batch."""
        return Profiles(self.kind, self.values[:, index])


def profiles(table: Table, asarray: Callable[[Any], Any]) -> Profiles:
    """Shapes of components of one kind; ``asarray`` turns a float64 array into the floating array to compute with."""
    kind = Kind(int(table.kind[0]))
    return Profiles(kind, asarray(np.stack(_columns(kind, table))[:, :, None, None]))


def _columns(kind: Kind, table: Table) -> list[Any]:
    """The turn to the axes in units of the semi-axes, one over the squared radius, and what the kind's function unpacks.

    The level of a Sérsic profile is the logarithm of its central value, that of an annulus of the value at its crest.
    """
    cosine, sine = np.cos(table.angle) / table.radius, np.sin(table.angle) / table.radius
    frame, level = [cosine, sine, cosine / table.q, sine / table.q, table.radius**-2], -np.log(norms(table))
    if kind is Kind.ANNULUS:
        return [*frame, level, table.radius / table.width, table.phase, 1.0 / table.extent]
    b = sersic_b(table.index)
    sersic = [*frame, level + b, -b, 0.5 / table.index]
    if kind is Kind.SPIRAL:
        # The arms wind with the logarithm of the radius in arcsec.
        start = table.phase + table.winding * np.log(table.radius)
        return [*sersic, table.arms, start, 0.5 * table.winding, table.contrast, 1.0 / np.i0(table.contrast)]
    return sersic


def surface_brightness(dx: Any, dy: Any, p: Profiles, softening: float) -> Any:
    """Share of the flux per arcsec² at offsets ``(dx, dy)`` from the components' centres.

    Parameters
    ----------
    dx, dy
        Offsets, arcsec; leading axis the component.
    p
        Shapes of the components.
    softening
        Length added in quadrature to the radius, arcsec: keeps cusps finite where a sample falls on the centre.
    """
    cosine, sine, cosine_q, sine_q, per_radius2 = p.values[:_FRAME]
    along, across = cosine * dx + sine * dy, cosine_q * dy - sine_q * dx
    return BRIGHTNESS[p.kind](along, across, softening**2 * per_radius2 + _INNERMOST, p.values[_FRAME:])


def _sersic(along: Any, across: Any, softening2: Any, columns: Any) -> Any:
    level, minus_b, half_power = columns
    xp = array_namespace(along)
    r2 = along * along
    r2 += across * across
    r2 += softening2
    # x^y as exp(y log x): several times faster than a power where the library has no vector instruction for it.
    power = xp.log(r2)
    power *= half_power
    light = xp.exp(power)
    light *= minus_b
    light += level
    return xp.exp(light)


def _spiral(along: Any, across: Any, softening2: Any, columns: Any) -> Any:
    arms, start, half_winding, contrast, per_bessel = columns[3:]
    xp = array_namespace(along)
    r2 = along * along + across * across + softening2
    phase = arms * (xp.atan2(across, along) - start - half_winding * xp.log(r2))
    # von Mises in azimuth has mean one at every radius, so arms move light and make none; none in the centre.
    excess = xp.exp(contrast * xp.cos(phase)) * per_bessel - 1.0
    return _sersic(along, across, softening2, columns[:3]) * (1.0 + r2 / (r2 + 0.25) * excess)


def _annulus(along: Any, across: Any, softening2: Any, columns: Any) -> Any:
    level, per_width, phase, per_extent = columns
    xp = array_namespace(along)
    delta = (xp.sqrt(along * along + across * across + softening2) - 1.0) * per_width
    turn = xp.atan2(across, along) - phase
    turn = (turn - 2.0 * math.pi * xp.round(turn / (2.0 * math.pi))) * per_extent
    return xp.exp(level - 0.5 * (delta * delta + turn * turn))


#: Surface brightness by kind, from offsets along and across the major axis in units of the semi-axes.
BRIGHTNESS: dict[Kind, Callable[[Any, Any, Any, Any], Any]] = {
    Kind.SERSIC: _sersic,
    Kind.SPIRAL: _spiral,
    Kind.ANNULUS: _annulus,
}
