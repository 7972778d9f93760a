"""Surface brightness of each kind of component.

In: components of one kind as :class:`Profiles`, and offsets from their centres, as arrays of any array-API library. Out: the
share of each component's flux per square arcsec, arrays of the same library.

A new kind is a member of :class:`~scanner.simulation.light.components.Kind`, an entry in :data:`BRIGHTNESS`, its columns here
and, where it is no Sérsic profile underneath, a case in ``norms`` and ``extent_radii``
(:mod:`~scanner.simulation.light.components`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.simulation.light.components import Kind, Table, norms, sersic_b

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
