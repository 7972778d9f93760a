"""The classes of labelled objects: lenses, and everything that has been mistaken for one.

In: a class name and a random generator. Out: a :class:`LabelledObject` about the origin. A class says what was *drawn*; the
label says whether the drawn object is a lens by the paper's definition (:mod:`scanner.simulation.dataset`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.simulation import populations
from scanner.simulation.galaxies import Component, Kind
from scanner.simulation.populations import System, scaled

#: Share of each class among the non-lenses.
NON_LENS_MIX: dict[str, float] = {
    "elliptical": 0.19,
    "companion": 0.14,
    "tangential": 0.13,
    "near_lens": 0.10,
    "spiral": 0.17,
    "merger": 0.08,
    "edge_on": 0.07,
    "ring": 0.06,
    "empty": 0.03,
    "star": 0.03,
}
LENS = "lens"
CLASSES = (LENS, *NON_LENS_MIX)


@dataclass(frozen=True)
class LabelledObject:
    """What stands in the middle of a cutout; ``system`` where there is a source behind a deflector."""

    class_name: str
    components: list[Component]
    system: System | None = None


def draw_object(rng: Generator, class_name: str) -> LabelledObject:
    """Draw one object of a class.

    Raises
    ------
    KeyError
        No such class.
    """
    return _DRAW[class_name](rng)


def draw_class(rng: Generator, lens_fraction: float) -> str:
    """Class of one object: a lens with probability ``lens_fraction``, else from :data:`NON_LENS_MIX`."""
    u, v = rng.random(2)
    if u < lens_fraction:
        return LENS
    edges = np.cumsum(list(NON_LENS_MIX.values()))
    return list(NON_LENS_MIX)[min(int(np.searchsorted(edges, v * edges[-1], side="right")), len(edges) - 1)]


def _lens(rng: Generator) -> LabelledObject:
    galaxy, system = populations.draw_deflector(rng)
    arcs, system = populations.draw_source(rng, system, (0.0, populations.MAX_OFFSET))
    return LabelledObject(LENS, galaxy + _satellites(rng) + arcs, system)


def _near_lens(rng: Generator) -> LabelledObject:
    # One image, hardly stretched, on the side: what a source outside the caustic leaves.
    galaxy, system = populations.draw_deflector(rng)
    arcs, system = populations.draw_source(rng, system, populations.NEAR_LENS_OFFSET, max_radius=0.3 * system.lens.theta_e)
    return LabelledObject("near_lens", galaxy + _satellites(rng) + arcs, system)


def _elliptical(rng: Generator) -> LabelledObject:
    galaxy, _ = populations.draw_deflector(rng)
    return LabelledObject("elliptical", galaxy + _satellites(rng))


def _satellites(rng: Generator) -> list[Component]:
    """Neighbours that any massive galaxy has, lens or not."""
    return [part for _ in range(rng.poisson(0.35)) for part in _companion(rng, rng.uniform(0.8, 3.5), tangential=False)]


def _companion(rng: Generator, distance: float, tangential: bool) -> list[Component]:
    """A small galaxy beside the main one, coloured as sources are; if tangential, stretched as an arc would be."""
    magnitude = populations.power_law_magnitude(rng, 21.6, 25.2)
    red = bool(rng.random() < 0.35)
    light = populations.source_flux(rng, magnitude, red)
    direction = rng.uniform(0.0, 2.0 * math.pi)
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    if tangential:
        q, angle = rng.uniform(0.15, 0.45), direction + math.pi / 2.0 + 0.25 * rng.standard_normal()
    galaxy = Component(
        Kind.SERSIC,
        distance * math.cos(direction),
        distance * math.sin(direction),
        light,
        radius=float(np.clip(0.3 * math.exp(0.45 * rng.standard_normal()), 0.08, 0.9)),
        index=rng.uniform(0.7, 2.2),
        q=q,
        angle=angle,
    )
    if rng.random() < 0.35:
        share = rng.uniform(0.2, 0.6)
        return [
            replace(galaxy, flux=scaled(light, 1.0 - share)),
            *populations.draw_clumps(rng, galaxy, scaled(light, share), int(rng.integers(1, 4))),
        ]
    return [galaxy]


def _with_companions(rng: Generator) -> LabelledObject:
    galaxy, _ = populations.draw_deflector(rng)
    for _ in range(int(rng.integers(1, 4))):
        galaxy += _companion(rng, rng.uniform(0.6, 2.5), tangential=False)
    return LabelledObject("companion", galaxy)


def _tangential(rng: Generator) -> LabelledObject:
    """Arc-like without lensing: stretched companions, curved segments, or a chain of knots on a circle."""
    galaxy, system = populations.draw_deflector(rng)
    radius = system.lens.theta_e * rng.uniform(0.8, 1.8)
    shape = rng.random()
    if shape < 0.6:
        for _ in range(1 + int(rng.random() < 0.4)):
            galaxy += _companion(rng, radius * rng.uniform(0.85, 1.3), tangential=True)
    elif shape < 0.8:  # a curved tail or a stretch of spiral arm: its centre of curvature is not the galaxy
        light = populations.source_flux(rng, populations.power_law_magnitude(rng, 21.6, 24.5), bool(rng.random() < 0.3))
        shift, turn = rng.normal(0.0, 0.5 * radius, 2), rng.uniform(0.0, 2.0 * math.pi)
        galaxy.append(
            Component(
                Kind.ANNULUS,
                float(shift[0]),
                float(shift[1]),
                light,
                radius=radius * rng.uniform(0.8, 2.0),
                width=rng.uniform(0.06, 0.2),
                q=rng.uniform(0.7, 1.0),
                phase=turn,
                extent=rng.uniform(0.12, 0.45),
            )
        )
    else:
        start, step = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.25, 0.6)
        light = populations.source_flux(rng, populations.power_law_magnitude(rng, 22.5, 25.5), False)
        for k in range(int(rng.integers(2, 5))):
            turn, distance = start + k * step * rng.uniform(0.7, 1.3), radius * rng.uniform(0.85, 1.2)
            galaxy.append(
                Component(
                    Kind.SERSIC,
                    distance * math.cos(turn),
                    distance * math.sin(turn),
                    scaled(light, rng.uniform(0.4, 1.0)),
                    radius=rng.uniform(0.06, 0.2),
                    index=1.0,
                    q=rng.uniform(0.5, 1.0),
                    angle=rng.uniform(0.0, math.pi),
                )
            )
    return LabelledObject("tangential", galaxy + _satellites(rng))


def _main_magnitude(rng: Generator) -> float:
    """Galaxies bright enough to be looked at, distributed much as the deflectors are."""
    return float(np.clip(rng.normal(21.2, 1.1), 18.3, 23.3))


def _spiral(rng: Generator) -> LabelledObject:
    magnitude = _main_magnitude(rng)
    disc_light = populations.galaxy_flux(rng, magnitude)
    radius = float(np.clip(1.05 * 10.0 ** (-0.13 * (magnitude - 21.0) + 0.15 * rng.standard_normal()), 0.4, 3.5))
    q, angle = rng.uniform(0.3, 1.0), rng.uniform(0.0, math.pi)
    bulge_share, clump_share = rng.uniform(0.05, 0.4), rng.uniform(0.0, 0.2)
    disc = Component(
        Kind.SPIRAL,
        0.0,
        0.0,
        scaled(disc_light, 1.0 - bulge_share - clump_share),
        radius=radius,
        q=q,
        angle=angle,
        index=rng.uniform(0.7, 1.2),
        arms=int(rng.choice([1, 2, 2, 2, 3, 4])),
        contrast=rng.uniform(0.4, 2.5),
        winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(1.2, 4.5),
        phase=rng.uniform(0.0, 2.0 * math.pi),
    )
    # The bulge is redder: same VIS share, more in the near infrared.
    redder = populations.galaxy_flux(rng, magnitude, redder=0.5)
    bulge = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(redder, bulge_share),
        radius=radius * rng.uniform(0.12, 0.3),
        index=rng.uniform(1.0, 3.0),
        q=max(q, 0.6),
        angle=angle,
    )
    parts = [disc, bulge]
    if rng.random() < 0.4:
        bar = Component(
            Kind.SERSIC,
            0.0,
            0.0,
            scaled(redder, 0.6 * bulge_share),
            radius=radius * rng.uniform(0.3, 0.55),
            index=0.6,
            q=rng.uniform(0.2, 0.4),
            angle=rng.uniform(0.0, math.pi),
        )
        parts = [disc, replace(bulge, flux=scaled(bulge.flux, 0.4)), bar]
    count = int(rng.integers(0, 9))
    if count:
        parts += populations.draw_clumps(rng, disc, scaled(disc_light, clump_share), count)
    return LabelledObject("spiral", parts)


def _merger(rng: Generator) -> LabelledObject:
    magnitude = _main_magnitude(rng)
    separation, turn = rng.uniform(0.4, 2.2), rng.uniform(0.0, 2.0 * math.pi)
    partner = magnitude + rng.uniform(0.0, 2.0)
    parts = populations.draw_field_galaxy(rng, 0.0, 0.0, magnitude)
    parts += populations.draw_field_galaxy(rng, separation * math.cos(turn), separation * math.sin(turn), partner)
    for _ in range(int(rng.integers(1, 4))):
        # A tail starts at the galaxies and curves away: a segment of a circle through a point near the centre.
        radius, away = rng.uniform(0.8, 3.5), rng.uniform(0.0, 2.0 * math.pi)
        light = populations.galaxy_flux(rng, magnitude + rng.uniform(1.2, 3.0))
        parts.append(
            Component(
                Kind.ANNULUS,
                radius * math.cos(away),
                radius * math.sin(away),
                light,
                radius=radius * rng.uniform(0.8, 1.2),
                width=rng.uniform(0.12, 0.45),
                q=rng.uniform(0.7, 1.0),
                phase=away + math.pi + rng.uniform(-0.8, 0.8),
                extent=rng.uniform(0.2, 0.7),
            )
        )
    if rng.random() < 0.5:
        disc = parts[0]
        knots = populations.galaxy_flux(rng, magnitude + rng.uniform(1.5, 3.0), redder=-0.3)
        parts += populations.draw_clumps(rng, replace(disc, radius=max(disc.radius, 0.6)), knots, int(rng.integers(1, 6)))
    return LabelledObject("merger", parts)


def _edge_on(rng: Generator) -> LabelledObject:
    magnitude = _main_magnitude(rng)
    light = populations.galaxy_flux(rng, magnitude, redder=0.2)
    radius = float(np.clip(1.1 * 10.0 ** (-0.1 * (magnitude - 21.0) + 0.15 * rng.standard_normal()), 0.5, 3.0))
    angle, share = rng.uniform(0.0, math.pi), rng.uniform(0.05, 0.35)
    disc = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(light, 1.0 - share),
        radius=radius,
        index=rng.uniform(0.8, 1.1),
        q=rng.uniform(0.1, 0.25),
        angle=angle,
    )
    bulge = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(light, share),
        radius=0.2 * radius,
        index=rng.uniform(1.0, 3.0),
        q=rng.uniform(0.5, 0.9),
        angle=angle,
    )
    parts = [disc, bulge]
    if rng.random() < 0.35:  # dust lane: light taken away along the plane, most in VIS
        vis, y, j, h = disc.flux
        depth = rng.uniform(0.08, 0.2)
        taken = (-depth * vis, -0.5 * depth * y, -0.35 * depth * j, -0.2 * depth * h)
        parts.append(replace(disc, flux=taken, q=0.6 * disc.q))
    return LabelledObject("edge_on", parts)


def _ring(rng: Generator) -> LabelledObject:
    magnitude = _main_magnitude(rng)
    radius, q, angle = rng.uniform(0.6, 2.2), rng.uniform(0.6, 1.0), rng.uniform(0.0, math.pi)
    share = rng.uniform(0.15, 0.5)
    ring_light = scaled(populations.galaxy_flux(rng, magnitude, redder=rng.uniform(-0.5, 0.3)), share)
    core = scaled(populations.galaxy_flux(rng, magnitude, redder=0.5), 1.0 - share)
    clump_share = rng.uniform(0.0, 0.5)
    ring = Component(
        Kind.ANNULUS,
        0.0,
        0.0,
        scaled(ring_light, 1.0 - clump_share),
        radius=radius,
        width=radius * rng.uniform(0.08, 0.25),
        q=q,
        angle=angle,
    )
    parts = [
        ring,
        Component(
            Kind.SERSIC,
            0.0,
            0.0,
            core,
            radius=radius * rng.uniform(0.25, 0.6),
            index=rng.uniform(1.0, 3.0),
            q=rng.uniform(0.6, 1.0),
            angle=angle,
        ),
    ]
    c, s = math.cos(angle), math.sin(angle)
    count = int(rng.integers(1, 9))
    for weight in rng.dirichlet(np.full(count, 1.5)):
        turn, r = rng.uniform(0.0, 2.0 * math.pi), radius * rng.normal(1.0, 0.06)
        along, across = r * math.cos(turn), q * r * math.sin(turn)
        parts.append(
            Component(
                Kind.SERSIC,
                c * along - s * across,
                s * along + c * across,
                scaled(ring_light, clump_share * weight),
                radius=rng.uniform(0.06, 0.2),
                index=1.0,
                q=rng.uniform(0.6, 1.0),
            )
        )
    return LabelledObject("ring", parts)


def _empty(rng: Generator) -> LabelledObject:
    return LabelledObject("empty", [])


def _star(rng: Generator) -> LabelledObject:
    return LabelledObject("star", [populations.draw_star(rng, 0.0, 0.0, rng.uniform(16.0, 22.5))])


_DRAW: dict[str, Callable[[Generator], LabelledObject]] = {
    LENS: _lens,
    "near_lens": _near_lens,
    "elliptical": _elliptical,
    "companion": _with_companions,
    "tangential": _tangential,
    "spiral": _spiral,
    "merger": _merger,
    "edge_on": _edge_on,
    "ring": _ring,
    "empty": _empty,
    "star": _star,
}
