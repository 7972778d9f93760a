"""Galaxies that everything else is drawn from: early types, colours, and systems of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field

from scanner.records import BANDS, Float64, Record
from scanner.simulation import lensing
from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light.components import Component, Flux, Kind, total_flux
from scanner.simulation.telescope.noise import ZERO_POINT, flux

COUNT_SLOPE = 0.3


def fluxes(vis: float, vis_y: float, y_j: float, j_h: float) -> Flux:
    """Image units in the four bands from a VIS magnitude and colours."""
    y = vis - vis_y
    return flux(vis, "VIS"), flux(y, "Y"), flux(y - y_j, "J"), flux(y - y_j - j_h, "H")


def flux_rows(vis: Float64, vis_y: Float64, y_j: Float64, j_h: Float64) -> Float64:
    """(N, 4) image units from arrays (N,): :func:`fluxes` of many."""
    y = vis - vis_y
    magnitudes = np.stack([vis, y, y - y_j, y - y_j - j_h], axis=1)
    return np.asarray(np.power(10.0, 0.4 * (np.array([ZERO_POINT[band] for band in BANDS]) - magnitudes)))


def scaled(light: Flux, share: float) -> Flux:
    """A share of a flux."""
    vis, y, j, h = light
    return vis * share, y * share, j * share, h * share


def power_law_magnitudes(rng: Generator, bright: float, faint: float, count: int) -> Float64:
    """Magnitudes from counts ``∝ 10^(0.3 m)``."""
    low, high = 10.0 ** (COUNT_SLOPE * bright), 10.0 ** (COUNT_SLOPE * faint)
    return np.asarray(np.log10(low + rng.random(count) * (high - low)) / COUNT_SLOPE)


def power_law_magnitude(rng: Generator, bright: float, faint: float) -> float:
    """One of them."""
    return float(power_law_magnitudes(rng, bright, faint, 1)[0])


def galaxy_flux(rng: Generator, magnitude: float, redder: float = 0.0) -> Flux:
    """Colours of an ordinary field galaxy."""
    a, b, c = rng.standard_normal(3)
    return fluxes(magnitude, 0.6 + redder + 0.35 * a, 0.2 + 0.25 * redder + 0.12 * b, 0.2 + 0.4 * redder + 0.12 * c)


def source_colours(red: bool, z: float) -> tuple[float, float, float]:
    """Mean VIS-Y, Y-J and J-H of lensed sources at a redshift, AB.

    The break at 4000 Å reddens VIS-Y about z = 1.2, Y-J about 1.9 and J-H about 2.8: much in a galaxy without young stars,
    little in others. Beyond z = 4.5 the Lyman forest takes light from VIS.
    """
    vis_y, y_j, j_h = (math.exp(-(((z - centre) / width) ** 2)) for centre, width in ((1.2, 0.6), (1.9, 0.55), (2.8, 0.7)))
    # VIS reaches from 550 to 920 nm; 0.7: what the forest takes of what lies blueward of Lyman α.
    forest = -2.5 * math.log10(1.0 - 0.7 * min(max((0.1216 * (1.0 + z) - 0.55) / 0.37, 0.0), 0.95))
    if red:
        return 0.95 + 0.8 * vis_y + forest, 0.35 + 0.4 * y_j, 0.3 + 0.35 * j_h
    return 0.05 + 0.3 * vis_y + forest, 0.05 + 0.2 * y_j, 0.05 + 0.2 * j_h


def source_flux(rng: Generator, magnitude: float, red: bool, z: float) -> Flux:
    """Light of a lensed source (or of a companion that looks like one) at a redshift, scattered about the mean colours."""
    a, b, c = rng.standard_normal(3)
    vis_y, y_j, j_h = source_colours(red, z)
    if red:
        return fluxes(magnitude, vis_y + 0.3 * a, y_j + 0.15 * b, j_h + 0.15 * c)
    return fluxes(magnitude, vis_y + 0.22 * a, y_j + 0.1 * b, j_h + 0.1 * c)


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
    return float(lensing.distance_modulus(z)), float(lensing.arcsec_per_kpc(z))


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


class Options(Record):
    """How lenses and their look-alikes are drawn."""

    red_source_fraction: float = Field(0.18, ge=0, le=1, description="Share of background sources that are red.")
    shell_fraction: float = Field(
        SHELL_FRACTION, ge=0, le=1, description="Share of massive galaxies, lenses or not, that have shells."
    )
    survey: bool = Field(
        False, description='Lenses as a survey holds them: θ_E from 0.3" and sources to VIS 27 instead of 0.5" and 26.2.'
    )
    wide: bool = Field(
        False,
        description="Deflectors of every kind (nearby, invisible, discs, groups), sources from VIS 19.5, and satellites at the "
        "measured density, for lenses and non-lenses alike.",
    )
    flat_share: float = Field(
        0.0, ge=0, le=1, description='Wide: share of deflectors whose θ_E is flat from 0.3 to 6" with a tail to 10".'
    )
    deflectors: Literal["any", "invisible", "bright"] = Field(
        "any", description="Wide: all kinds, those fainter than VIS 25, or those of VIS 18 to 20."
    )
    ring_share: float = Field(
        0.0, ge=0, le=1, description="Share of lenses whose source is bright and right behind the deflector."
    )


#: Lenses that are worth learning from.
TRAINING = Options(red_source_fraction=0.18, survey=False)


@dataclass(frozen=True)
class System:
    """One source and what it is seen through.

    ``source``: its light, every component seen through ``sightline``. ``z_lens``, ``sigma_v_kms``: the last deflector.
    ``lens_magnitude``: VIS magnitude of its galaxy; NaN where nobody says.
    ``source_magnitude``: VIS, unlensed. ``source_x, source_y``: the source's centre, unlensed.

    A point in the source's centre (a quasar) comes as ``point_images``, stars in the image plane that are magnified already,
    and ``point_flux``, its flux before lensing; ``source`` is then its host galaxy, and ``source_magnitude`` both together.
    """

    source: tuple[Component, ...]
    sightline: Sightline
    z_lens: float
    z_source: float
    sigma_v_kms: float
    source_magnitude: float
    source_x: float
    source_y: float
    red_source: bool
    point_images: tuple[Component, ...] = ()
    point_flux: Flux = (0.0, 0.0, 0.0, 0.0)
    lens_magnitude: float = math.nan

    @property
    def unlensed_flux(self) -> Flux:
        """Everything of the source that is lensed, before lensing, per band."""
        vis, y, j, h = (sum(parts) for parts in zip(total_flux(self.source), self.point_flux, strict=True))
        return vis, y, j, h

    @property
    def lens(self) -> Lens:
        """The heaviest deflector of the last plane before the source; the only one of a single lens."""
        return max(self.sightline.last_plane, key=lambda lens: float(lens.theta_e))

    @property
    def source_offset(self) -> float:
        """Angle between source and lens, arcsec; in a group, from where the other masses move what is behind the lens."""
        x, y = self.sightline.middle
        return math.hypot(self.source_x - x, self.source_y - y)

    def moved(self, dx: float, dy: float) -> System:
        """The same system elsewhere."""
        return replace(
            self,
            source=tuple(moved(self.source, dx, dy)),
            sightline=self.sightline.moved(dx, dy),
            source_x=self.source_x + dx,
            source_y=self.source_y + dy,
            point_images=tuple(moved(self.point_images, dx, dy)),
        )


@dataclass(frozen=True)
class LabelledObject:
    """An object of a class about the origin.

    ``components``: everything that is not lensed. ``systems``: none for most non-lenses, one for a lens or a near-lens, one per
    source for a compound lens, nearest source first. ``off_centre``: the systems belong to a galaxy beside the object, which
    is no lens for them.
    """

    class_name: str
    components: list[Component]
    systems: tuple[System, ...] = ()
    off_centre: bool = False


def moved(components: Sequence[Component], dx: float, dy: float) -> list[Component]:
    """All components shifted."""
    return [component.moved(dx, dy) for component in components]
