"""Small galaxies beside a massive one: what is taken for arcs most often.

Colours, structure and brightness are those of lensed sources and their arcs; the massive galaxy is at the origin.
"""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import power_law_magnitude, scaled, source_flux
from scanner.simulation.population.deflectors import LARGEST_THETA_E, source_redshift
from scanner.simulation.population.early_types import EarlyType, early_type
from scanner.simulation.population.field import FIELD_DENSITY, draw_field_galaxy
from scanner.simulation.population.options import TRAINING, Options
from scanner.simulation.population.sources import SOURCE_MAGNITUDES, background_galaxy, source_magnitude, source_radius
from scanner.simulation.population.spirals import spiral_light
from scanner.simulation.population.system import moved

COMPANION_DISTANCES = (0.5, 3.0)
ARC_RADII = (0.5, 2.5)
#: Mean number of satellites of any massive galaxy, lens or not, their distances, and the share that is as red as the galaxy.
SATELLITES, SATELLITE_DISTANCES, RED_SATELLITES = 0.35, (0.8, 3.5), 0.45
#: In the wide sky: satellites per unrelated galaxy of the field, whose density of these magnitudes holds at these distances.
#: COSMOS galaxies of F814W < 22 have 1.4 times as many neighbours at 1-3" as any place has, in all directions alike.
EXCESS, EXCESS_DISTANCES, EXCESS_MAGNITUDES = 0.4, (0.4, 4.0), (18.5, 27.0)
#: Magnification of arcs, as ln: median and scatter of what lenses of this population have.
_MAGNIFICATION = (1.25, 0.38)
_RADIUS_RANGE = (0.06, 0.9)


def isotropic(rng: Generator, magnitude: float, galaxy: EarlyType | None = None) -> list[Component]:
    """Satellites of a galaxy at the origin as COSMOS shows them: isotropic, fainter than it, in excess of the field.

    ``magnitude``: VIS, of the galaxy. ``galaxy``: where it is an early type, a share of its satellites is as red.
    """
    (near, far), (bright, faint) = EXCESS_DISTANCES, EXCESS_MAGNITUDES
    components: list[Component] = []
    for _ in range(rng.poisson(EXCESS * FIELD_DENSITY * math.pi * (far**2 - near**2))):
        distance, turn = math.sqrt(rng.uniform(near**2, far**2)), rng.uniform(0.0, 2.0 * math.pi)
        x, y, found = distance * math.cos(turn), distance * math.sin(turn), power_law_magnitude(rng, bright, faint)
        red = rng.random() < RED_SATELLITES
        if found < magnitude:
            continue
        if galaxy is not None and red:
            components += moved(early_type(rng, galaxy.z, galaxy.absolute_magnitude + found - magnitude).components, x, y)
        else:
            components += draw_field_galaxy(rng, x, y, found)
    return components


def satellites(rng: Generator, galaxy: EarlyType, options: Options = TRAINING) -> list[Component]:
    """Neighbours that any massive galaxy has."""
    if options.wide:
        return isotropic(rng, galaxy.magnitude, galaxy)
    components: list[Component] = []
    for _ in range(rng.poisson(SATELLITES)):
        distance, turn = rng.uniform(*SATELLITE_DISTANCES), rng.uniform(0.0, 2.0 * math.pi)
        if rng.random() < RED_SATELLITES:
            absolute = galaxy.absolute_magnitude + rng.uniform(1.5, 4.5)
            satellite = early_type(rng, galaxy.z, absolute).components
            components += moved(satellite, distance * math.cos(turn), distance * math.sin(turn))
        else:
            components += _small_galaxy(rng, distance, turn, power_law_magnitude(rng, 21.6, 25.2), False, galaxy.z)
    return components


def companions(rng: Generator, options: Options = TRAINING, theta_e: float = 0.0) -> list[Component]:
    """One to three small galaxies at the distances of arcs, turned at random."""
    near, far = COMPANION_DISTANCES[0], max(COMPANION_DISTANCES[1], 1.4 * theta_e if options.wide else 0.0)
    components: list[Component] = []
    for _ in range(int(rng.integers(1, 4))):
        red = bool(rng.random() < max(options.red_source_fraction, 0.3))
        distance, turn = rng.uniform(near, far), rng.uniform(0.0, 2.0 * math.pi)
        components += _small_galaxy(rng, distance, turn, arc_magnitude(rng, options), red, source_redshift(rng))
    return components


def arc_like(rng: Generator, theta_e: float, options: Options = TRAINING) -> list[Component]:
    """Light that looks like arcs and is not: stretched companions, curved segments, chains of knots, arms of a neighbour."""
    largest = LARGEST_THETA_E if options.wide else ARC_RADII[1]
    radius = min(max(theta_e * rng.uniform(0.7, 1.8), ARC_RADII[0]), largest)
    red, z = bool(rng.random() < options.red_source_fraction), source_redshift(rng)
    shape = rng.random()
    if shape < 0.42:
        return _stretched(rng, radius, red, z, options)
    if shape < 0.70:
        return _curved(rng, radius, red, z, options)
    if shape < 0.82:
        return _knots(rng, radius, red, z, options)
    if shape < 0.90:
        return _images(rng, radius, red, z, options)
    return _arm(rng, radius)


def arc_magnitude(rng: Generator, options: Options = TRAINING) -> float:
    """VIS magnitude of all images of a source together, as lenses have them."""
    magnification = max(math.exp(rng.normal(*_MAGNIFICATION)), 1.3)
    # A survey's arcs are as bright as those of the lenses that are worth learning from, which have always been drawn here.
    source = source_magnitude(rng, options) if options.wide else power_law_magnitude(rng, *SOURCE_MAGNITUDES)
    return source - 2.5 * math.log10(magnification)


def _small_galaxy(rng: Generator, distance: float, turn: float, magnitude: float, red: bool, z: float) -> list[Component]:
    """A companion in a direction, of any orientation."""
    light = source_flux(rng, magnitude, red, z)
    radius = min(max(source_radius(rng, magnitude), _RADIUS_RANGE[0]), _RADIUS_RANGE[1])
    main = _main(distance, turn, light=light, radius=radius, q=rng.uniform(0.3, 1.0), angle=rng.uniform(0.0, math.pi))
    return background_galaxy(rng, main, red)


def _main(distance: float, turn: float, *, light: tuple[float, ...], radius: float, q: float, angle: float) -> Component:
    vis, y, j, h = light
    return Component(
        Kind.SERSIC, distance * math.cos(turn), distance * math.sin(turn), (vis, y, j, h), radius=radius, q=q, angle=angle
    )


def _stretched(rng: Generator, radius: float, red: bool, z: float, options: Options) -> list[Component]:
    """One to three galaxies stretched about the centre; for some, a small one opposite, like a counter-image."""
    count, first = int(rng.choice([1, 1, 2, 3])), rng.uniform(0.0, 2.0 * math.pi)
    light = source_flux(rng, arc_magnitude(rng, options), red, z)
    components: list[Component] = []
    for number in range(count):
        turn = first if number == 0 else rng.uniform(0.0, 2.0 * math.pi)
        main = _main(
            radius * rng.uniform(0.85, 1.25),
            turn,
            light=scaled(light, rng.uniform(0.35, 0.9)),
            radius=min(max(0.55 * radius * math.exp(0.35 * rng.standard_normal()), 0.15), 2.5 if options.wide else 0.9),
            q=rng.uniform(0.12, 0.42),
            angle=turn + math.pi / 2.0 + 0.25 * rng.standard_normal(),
        )
        components += background_galaxy(rng, main, red)
    if rng.random() < 0.4:
        turn = first + math.pi + 0.4 * rng.standard_normal()
        counter = _main(
            radius * rng.uniform(0.4, 0.95),
            turn,
            light=scaled(light, rng.uniform(0.1, 0.4)),
            radius=rng.uniform(0.06, 0.22),
            q=rng.uniform(0.4, 1.0),
            angle=turn + math.pi / 2.0,
        )
        components.append(counter)
    return components


def _curved(rng: Generator, radius: float, red: bool, z: float, options: Options) -> list[Component]:
    """A segment of a circle whose middle is not quite the galaxy's: a stream, a warped disc, a stretch of a spiral arm."""
    light = scaled(source_flux(rng, arc_magnitude(rng, options), red, z), rng.uniform(0.5, 1.0))
    share = rng.uniform(0.1, 0.5) * float(rng.random() < 0.6)
    x, y = (float(value) for value in rng.normal(0.0, 0.4 * radius, 2))
    segment = Component(
        Kind.ANNULUS,
        x,
        y,
        scaled(light, 1.0 - share),
        radius=radius * rng.uniform(0.8, 1.6),
        width=rng.uniform(0.05, 0.18),
        q=rng.uniform(0.75, 1.0),
        angle=rng.uniform(0.0, math.pi),
        phase=rng.uniform(0.0, 2.0 * math.pi),
        extent=rng.uniform(0.15, 0.7),
    )
    return [segment, *(_along(rng, segment, scaled(light, share)) if share else [])]


def _along(rng: Generator, segment: Component, light: tuple[float, float, float, float]) -> list[Component]:
    """Knots along a segment."""
    c, s = math.cos(segment.angle), math.sin(segment.angle)
    knots, count = [], int(rng.integers(1, 5))
    for weight in rng.dirichlet([1.5] * count).tolist():
        turn = segment.phase + segment.extent * rng.normal(0.0, 0.8)
        along, across = segment.radius * math.cos(turn), segment.q * segment.radius * math.sin(turn)
        x, y = segment.x + c * along - s * across, segment.y + s * along + c * across
        knots.append(
            Component(Kind.SERSIC, x, y, scaled(light, weight), radius=rng.uniform(0.04, 0.14), q=rng.uniform(0.5, 1.0))
        )
    return knots


def _knots(rng: Generator, radius: float, red: bool, z: float, options: Options) -> list[Component]:
    """Two to five small knots one beside the other about the centre."""
    turn, step, count = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.25, 0.6), int(rng.integers(2, 6))
    light = source_flux(rng, arc_magnitude(rng, options), red, z)
    knots = []
    for weight in rng.dirichlet([3.0] * count).tolist():
        turn += step * rng.uniform(0.7, 1.3)
        knots.append(
            _main(
                radius * rng.uniform(0.85, 1.2),
                turn,
                light=scaled(light, weight),
                radius=rng.uniform(0.06, 0.2),
                q=rng.uniform(0.5, 1.0),
                angle=rng.uniform(0.0, math.pi),
            )
        )
    return knots


def _images(rng: Generator, radius: float, red: bool, z: float, options: Options) -> list[Component]:
    """Two to four alike about the centre, as the images of one source would be, but where no lens would put them."""
    count, first = int(rng.integers(2, 5)), rng.uniform(0.0, 2.0 * math.pi)
    light, size = source_flux(rng, arc_magnitude(rng, options), red, z), rng.uniform(0.06, 0.25)
    alike = []
    for number, weight in enumerate(rng.dirichlet([4.0] * count).tolist()):
        turn = first + 2.0 * math.pi * number / count + 0.4 * rng.standard_normal()
        angle = turn + math.pi / 2.0 + 0.6 * rng.standard_normal()
        distance = radius * rng.uniform(0.7, 1.3)
        alike.append(_main(distance, turn, light=scaled(light, weight), radius=size, q=rng.uniform(0.4, 0.9), angle=angle))
    return alike


def _arm(rng: Generator, radius: float) -> list[Component]:
    """A spiral in front or behind, near enough that its arms pass the galaxy."""
    spiral, turn = spiral_light(rng, rng.uniform(20.8, 23.0)), rng.uniform(0.0, 2.0 * math.pi)
    distance = radius * rng.uniform(1.0, 1.6)
    shrink = min(0.7 * distance / spiral[0].radius, 1.0)
    return [
        replace(
            part,
            x=shrink * part.x + distance * math.cos(turn),
            y=shrink * part.y + distance * math.sin(turn),
            radius=shrink * part.radius,
            # A smaller pattern is the same pattern turned.
            phase=part.phase - part.winding * math.log(shrink),
        )
        for part in spiral
    ]
