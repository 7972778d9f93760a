"""Lensed quasars: a point behind a galaxy, seen twice or four times, in a host galaxy that is drawn into arcs.

In: a random generator and options. Out: a :class:`LabelledObject` of one system, whose ``source`` is the host galaxy and whose
``point_images`` are the quasar's images: each with the magnification of its place, but for microlensing by the lens galaxy's
stars, which changes the colour too, and for the quasar's variability over the time delay.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing.images import Images, find_images
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import fluxes, scaled
from scanner.simulation.population.massive_galaxies import massive_galaxy
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, draw_source
from scanner.simulation.population.system import LabelledObject, System
from scanner.simulation.telescope.photometry import flux, magnitude

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
