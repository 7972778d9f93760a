"""Lenses of one plane: galaxies, groups, quasars; and near-lenses, which miss being multiply imaged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing.images import Images, find_images
from scanner.simulation.lensing.lens import Lens, Sightline
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.deflectors import (
    MAX_OFFSET,
    NEAR_LENS_OFFSET,
    RING_OFFSET,
    RING_SOURCES,
    Deflector,
    draw_deflector,
    draw_source,
)
from scanner.simulation.population.galaxies import (
    EarlyType,
    LabelledObject,
    Options,
    System,
    fluxes,
    moved,
    power_law_magnitude,
    scaled,
)
from scanner.simulation.population.neighbours import arc_like, companions, draw_field_galaxy, satellites, surroundings
from scanner.simulation.telescope.noise import flux, magnitude

#: A near-lens's source keeps this many of its half-light radii away from where it would be imaged twice.
NEAR_LENS_CLEARANCE = 0.7
#: Distances of somebody else's lens, arcsec, and by how much they exceed its θ_E at least; VIS magnitudes of who is beside it.
BESIDE_DISTANCES, BESIDE_GAP, BESIDE_MAGNITUDES = (3.0, 6.0), 1.2, (20.0, 25.0)


def massive_galaxy(rng: Generator, options: Options) -> tuple[list[Component], Deflector]:
    """A deflector as :func:`with_neighbours` gives it."""
    return with_neighbours(rng, *draw_deflector(rng, options), options)


def with_neighbours(
    rng: Generator, galaxy: EarlyType, deflector: Deflector, options: Options
) -> tuple[list[Component], Deflector]:
    """A deflector with its satellites and, for some, its group, whose masses act on what is behind."""
    around = surroundings(rng, galaxy, deflector, options)
    single_lens = deflector.lens
    sheared = replace(single_lens, gamma1=single_lens.gamma1 + around.gamma1, gamma2=single_lens.gamma2 + around.gamma2)
    light = galaxy.components + satellites(rng, galaxy, options) + around.components
    return light, replace(deflector, lens=sheared, others=around.masses)


def single_lens(rng: Generator, options: Options) -> LabelledObject:
    """A lens; whether its arcs can be seen is another matter."""
    light, deflector = massive_galaxy(rng, options)
    if options.ring_share and rng.random() < options.ring_share:
        ring = draw_source(rng, deflector, (0.0, RING_OFFSET), options, magnitude=rng.uniform(*RING_SOURCES))
        return LabelledObject("lens", light, (ring,))
    return LabelledObject("lens", light, (draw_source(rng, deflector, (0.0, MAX_OFFSET), options),))


def near_lens(rng: Generator, options: Options) -> LabelledObject:
    """A source of the same kind outside the caustics: one image on the side, hardly stretched."""
    light, deflector = massive_galaxy(rng, options)
    # No member of a group may image it twice either.
    alone = replace(deflector, others=())
    system = draw_source(rng, alone, NEAR_LENS_OFFSET, options, clearance=NEAR_LENS_CLEARANCE)
    return LabelledObject("near_lens", light, (system,))


def elliptical(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy with no more than what any of them has around."""
    return LabelledObject("elliptical", massive_galaxy(rng, options)[0])


def with_companions(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and small ones at the distances of arcs."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("companion", light + companions(rng, options, deflector.lens.theta_e))


def tangential(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and light that looks like arcs."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("tangential", light + arc_like(rng, deflector.lens.theta_e, options))


def beside_lens(rng: Generator, options: Options) -> LabelledObject:
    """A galaxy beside somebody else's lens: what a person would say of the centre is "no lens"."""
    other = single_lens(rng, options)
    nearest = max(BESIDE_DISTANCES[0], other.systems[0].lens.theta_e + BESIDE_GAP)
    distance = rng.uniform(nearest, max(BESIDE_DISTANCES[1], nearest + BESIDE_GAP))
    turn = rng.uniform(0.0, 2.0 * math.pi)
    x, y = distance * math.cos(turn), distance * math.sin(turn)
    galaxy = draw_field_galaxy(rng, 0.0, 0.0, power_law_magnitude(rng, *BESIDE_MAGNITUDES))
    systems = tuple(system.moved(x, y) for system in other.systems)
    return LabelledObject("beside_lens", galaxy + moved(other.components, x, y), systems, off_centre=True)


#: VIS magnitudes by which a quasar outshines its host: mean and scatter.
CONTRAST = (1.5, 1.0)
#: Share of quasars with four images, as among known ones; by area alone it would be less than a tenth.
QUADS = 0.25
QUAD_OFFSET = 0.35  #: largest source position at which four images are sought, in units of θ_E
#: VIS magnitude of the second-brightest image at which a pair is still seen as one, and in a survey.
FAINTEST_SECOND, SURVEY_FAINTEST_SECOND = 24.0, 25.0
#: Magnification at which the size of what shines ends the growth towards a critical curve.
LARGEST_MAGNIFICATION = 60.0
#: Scatter in VIS magnitudes: microlensing of images at minima and at saddle points of the time delay, and variability.
MICROLENSING, SADDLE_MICROLENSING, VARIABILITY = 0.2, 0.35, 0.1
#: What is left of microlensing in VIS, Y, J, H: the cooler disc that shines there is larger.
_LARGER_DISC = (1.0, 0.8, 0.7, 0.6)
_TRIED_AT_ONCE = 6


def quasar_lens(rng: Generator, options: Options) -> LabelledObject:
    """A galaxy and a quasar behind it with at least two images bright enough to be told apart from it."""
    # Only single galaxies: a group's images of a point lie too far apart to be told for one source's.
    options = options.model_copy(update={"wide": False, "survey": options.survey or options.wide})
    faintest = flux(SURVEY_FAINTEST_SECOND if options.survey else FAINTEST_SECOND, "VIS")
    quad = bool(rng.random() < QUADS)
    offsets = (0.0, QUAD_OFFSET if quad else MAX_OFFSET)
    while True:
        galaxies, hosts, points = [], [], []
        for _ in range(_TRIED_AT_ONCE):
            galaxy, deflector = massive_galaxy(rng, options)
            host = draw_source(rng, deflector, offsets, options)
            galaxies.append(galaxy)
            hosts.append(host)
            points.append(quasar_flux(rng, host.source_magnitude - rng.normal(*CONTRAST), host.z_source))
        lens = Lens(*np.transpose([list(vars(host.lens).values()) for host in hosts]))
        found = find_images([host.source_x for host in hosts], [host.source_y for host in hosts], Sightline((lens,)))
        for k, (galaxy, host, point) in enumerate(zip(galaxies, hosts, points, strict=True)):
            images = Images(*(column[k : k + 1] for column in vars(found).values()))
            brightest = np.sort(np.abs(images.magnification[0, : images.count[0]]))
            if len(brightest) > 1 and (len(brightest) > 3) == quad and brightest[-2] * point[0] > faintest:
                return LabelledObject("quasar_lens", galaxy, (with_quasar(rng, host, point, images),))


def quasar_flux(rng: Generator, vis_magnitude: float, z: float) -> Flux:
    """Image units of an unobscured quasar: a power law, ``f_ν ∝ ν^-0.5``; beyond z = 3.5 the Lyman-α forest dims VIS."""
    a, b, c = rng.standard_normal(3)
    forest = 0.35 * max(z - 3.5, 0.0)
    return fluxes(vis_magnitude, 0.2 + forest + 0.15 * a, 0.14 + 0.08 * b, 0.14 + 0.08 * c)


def with_quasar(rng: Generator, host: System, point: Flux, images: Images) -> System:
    """Put a point into the centre of a lensed galaxy.

    Parameters
    ----------
    rng
        For the scatter of the images' fluxes.
    host
        The galaxy and what it is seen through.
    point
        Unlensed flux of the quasar, image units.
    images
        Where its centre is seen: the first row counts.

    Returns
    -------
    System
        One star an image; ``source_magnitude`` is that of host and quasar together.
    """
    stars = []
    for x, y, signed in zip(images.x[0], images.y[0], images.magnification[0], strict=True):
        if math.isnan(x):
            continue
        microlensing = (MICROLENSING if signed > 0.0 else SADDLE_MICROLENSING) * rng.standard_normal()
        variability = VARIABILITY * rng.standard_normal()
        vis, y_band, j, h = (
            value * 10.0 ** (-0.4 * (share * microlensing + variability))
            for value, share in zip(scaled(point, min(abs(signed), LARGEST_MAGNIFICATION)), _LARGER_DISC, strict=True)
        )
        stars.append(Component(Kind.POINT, float(x), float(y), (vis, y_band, j, h)))
    together = flux(host.source_magnitude, "VIS") + point[0]
    return replace(host, source_magnitude=magnitude(together, "VIS"), point_images=tuple(stars), point_flux=point)
