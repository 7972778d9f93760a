"""Light of old, massive galaxies: ellipticals with their variety of isophotes, lenticulars, brightest cluster galaxies.

In: a random generator, a redshift and an absolute magnitude. Out: :class:`EarlyType`, components about the origin. Colours and
sizes follow the redshift and the magnitude by eye, not by a fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import fluxes, scaled

#: Absolute r magnitude at a velocity dispersion of 220 km/s, and the scatter of the Faber-Jackson relation.
ABSOLUTE_MAGNITUDE_220, FABER_JACKSON_SCATTER = -22.3, 0.35
RADIUS_RANGE = (0.12, 3.5)  #: arcsec
SHELL_FRACTION = 0.04  #: of galaxies, where nobody asks for another


@dataclass(frozen=True)
class EarlyType:
    """One galaxy; ``magnitude``: VIS; ``radius``: half-light radius, arcsec; ``q``, ``angle``: shape of most of its light."""

    components: list[Component]
    z: float
    magnitude: float
    absolute_magnitude: float
    radius: float
    q: float
    angle: float


def faber_jackson(sigma_v_kms: float) -> float:
    """Mean absolute r magnitude of a velocity dispersion, ``-22.3 - 10 log10(σ/220)``."""
    return ABSOLUTE_MAGNITUDE_220 - 10.0 * math.log10(sigma_v_kms / 220.0)


def velocity_dispersion(absolute_magnitude: float) -> float:
    """km/s of a galaxy on the mean relation: the inverse of :func:`faber_jackson`."""
    return 220.0 * math.pow(10.0, -0.1 * (absolute_magnitude - ABSOLUTE_MAGNITUDE_220))


@lru_cache(maxsize=256)
def _distances(z: float) -> tuple[float, float]:
    """Distance modulus and arcsec per kpc; kept, since the members of a group ask for the same."""
    return float(cosmology.distance_modulus(z)), float(cosmology.arcsec_per_kpc(z))


def apparent_magnitude(absolute_magnitude: float, z: float) -> float:
    """VIS magnitude, with the K-correction of an old stellar population from rest-frame r to 550-920 nm."""
    k_correction = 0.05 + 1.05 * z + 0.25 * min(z, 1.5) ** 2
    return absolute_magnitude + _distances(z)[0] + k_correction


def early_type(
    rng: Generator, z: float, absolute_magnitude: float, envelope: bool = False, shell_fraction: float = SHELL_FRACTION
) -> EarlyType:
    """Draw a galaxy of an absolute r magnitude at a redshift; with an ``envelope`` it is the brightest of a cluster."""
    magnitude = apparent_magnitude(absolute_magnitude, z)
    light = _colours(rng, z, magnitude)
    # Such galaxies were smaller in the past.
    logarithm = 0.64 - 0.24 * (absolute_magnitude - ABSOLUTE_MAGNITUDE_220) - 1.1 * math.log10((1.0 + z) / 1.3)
    radius_kpc = 10.0 ** (logarithm + 0.14 * rng.standard_normal())
    radius = min(max(radius_kpc * _distances(z)[1], RADIUS_RANGE[0]), RADIUS_RANGE[1])
    q, angle = rng.uniform(0.55, 0.98), rng.uniform(0.0, math.pi)
    # Brighter galaxies have higher indices.
    index = min(max(3.2 - 0.5 * (absolute_magnitude - ABSOLUTE_MAGNITUDE_220) + 0.8 * rng.standard_normal(), 1.5), 5.5)
    body = Component(Kind.SERSIC, 0.0, 0.0, light, radius=radius, index=index, q=q, angle=angle)
    components = _enveloped(rng, body) if envelope else _structured(rng, body, shell_fraction)
    return EarlyType(components, z, magnitude, absolute_magnitude, radius, q, angle)


def _colours(rng: Generator, z: float, magnitude: float) -> Flux:
    """The red sequence: the 4000 Å break leaves VIS by z = 1 and enters Y and J beyond."""
    a, b, c = rng.standard_normal(3)
    beyond = max(z - 1.0, 0.0)
    vis_y = 0.65 + 1.15 * min(z, 1.0) + 0.35 * beyond + 0.08 * a
    return fluxes(magnitude, vis_y, 0.24 + 0.2 * z + 0.35 * beyond + 0.05 * b, 0.28 + 0.2 * z + 0.05 * c)


def _structured(rng: Generator, body: Component, shell_fraction: float) -> list[Component]:
    """One profile, a lenticular's bulge and disc, an envelope that is rounder and twisted, discy, or boxy; seldom shells."""
    light, radius, q, angle = body.flux, body.radius, body.q, body.angle
    kind = rng.random()
    if kind < 0.35:
        parts = [body]
    elif kind < 0.60:  # lenticular
        share = rng.uniform(0.15, 0.55)
        disc_q = min(max(q * rng.uniform(0.45, 1.0), 0.25), 0.98)
        disc = replace(body, flux=scaled(light, share), radius=radius * rng.uniform(1.1, 1.9), index=1.0, q=disc_q)
        parts = [replace(body, flux=scaled(light, 1.0 - share), radius=0.7 * radius, index=min(body.index, 3.0)), disc]
    elif kind < 0.80:  # envelope
        share = rng.uniform(0.25, 0.5)
        outer = replace(
            body,
            flux=scaled(light, share),
            radius=radius * rng.uniform(1.5, 2.2),
            index=rng.uniform(1.0, 2.0),
            q=min(max(q + rng.normal(0.0, 0.12), 0.5), 0.98),
            angle=angle + 0.35 * rng.standard_normal(),
        )
        parts = [replace(body, flux=scaled(light, 1.0 - share), radius=0.65 * radius), outer]
    elif kind < 0.90:  # discy isophotes: a thin disc within
        share = rng.uniform(0.06, 0.18)
        disc = replace(body, flux=scaled(light, share), radius=radius * rng.uniform(0.7, 1.3), index=1.0, q=max(0.35 * q, 0.2))
        parts = [replace(body, flux=scaled(light, 1.0 - share)), disc]
    else:  # boxy isophotes: two profiles, each turned a little
        turn = rng.uniform(0.15, 0.4)
        flat = max(q - 0.12, 0.4)
        parts = [replace(body, flux=scaled(light, 0.5), q=flat, angle=angle + side * turn) for side in (-1.0, 1.0)]
    if rng.random() < shell_fraction:
        parts += _shells(rng, body)
    return parts


def _enveloped(rng: Generator, body: Component) -> list[Component]:
    """A galaxy whose light goes on into the cluster: Sérsic index above 4 by an inner profile and a wide one."""
    share = rng.uniform(0.35, 0.6)
    outer = replace(
        body,
        flux=scaled(body.flux, share),
        radius=min(body.radius * rng.uniform(2.5, 4.0), 9.0),
        index=rng.uniform(1.0, 2.5),
        q=rng.uniform(0.5, 0.9),
        angle=body.angle + 0.15 * rng.standard_normal(),
    )
    return [replace(body, flux=scaled(body.flux, 1.0 - share), index=max(body.index, 3.5), q=max(body.q, 0.7)), outer]


def _shells(rng: Generator, body: Component) -> list[Component]:
    """Faint arcs of the galaxy's own colour along its major axis, on alternating sides."""
    first, count = rng.random() < 0.5, int(rng.integers(1, 4))
    share = rng.uniform(0.005, 0.025)
    return [
        Component(
            Kind.ANNULUS,
            0.0,
            0.0,
            scaled(body.flux, share),
            radius=body.radius * (1.0 + 0.6 * number + rng.uniform(0.0, 0.4)),
            width=rng.uniform(0.06, 0.15) * (1.0 + 0.5 * number),
            q=max(body.q, 0.8),
            angle=body.angle,
            phase=math.pi * ((number + first) % 2),
            extent=rng.uniform(0.2, 0.4),
        )
        for number in range(count)
    ]
