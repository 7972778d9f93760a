"""What lies beside an object: companions, groups, mergers, the field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.records import Float64
from scanner.simulation import lensing
from scanner.simulation.lensing import Lens
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.deflectors import (
    LARGEST_THETA_E,
    SOURCE_MAGNITUDES,
    Deflector,
    background_galaxy,
    draw_clumps,
    draw_deflector,
    source_magnitude,
    source_radius,
    source_redshift,
)
from scanner.simulation.population.discs import disc_radius, main_magnitude, spiral_light
from scanner.simulation.population.galaxies import (
    TRAINING,
    EarlyType,
    LabelledObject,
    Options,
    early_type,
    flux_rows,
    fluxes,
    galaxy_flux,
    moved,
    power_law_magnitude,
    power_law_magnitudes,
    scaled,
    source_flux,
    velocity_dispersion,
)

_REMNANT = 0.35


def merger(rng: Generator, options: Options) -> LabelledObject:
    """Two galaxies near each other, or one with two nuclei, and one to three tails."""
    magnitude = main_magnitude(rng)
    light = galaxy_flux(rng, magnitude, redder=rng.uniform(-0.2, 0.3))
    remnant = rng.random() < _REMNANT
    first = _disturbed(rng, magnitude, light)
    radius = first[0].radius
    separation, turn = radius * (rng.uniform(0.2, 0.6) if remnant else rng.uniform(1.2, 3.2)), rng.uniform(0.0, 2.0 * math.pi)
    x, y = separation * math.cos(turn), separation * math.sin(turn)
    fainter = rng.uniform(0.0, 2.0)
    second = galaxy_flux(rng, magnitude + fainter, redder=rng.uniform(-0.2, 0.5))
    if remnant:
        other = [Component(Kind.SERSIC, x, y, scaled(second, 0.4), radius=max(0.15 * radius, 0.06), index=1.5, q=0.8)]
    else:
        other = moved(_disturbed(rng, magnitude + fainter, second), x, y)
    parts = first + other
    sense = float(rng.choice([-1.0, 1.0]))
    for number in range(int(rng.choice([1, 2, 2, 3]))):
        # The first two leave the two galaxies to opposite sides, turning the same way.
        base = (0.0, 0.0) if number % 2 == 0 else (x, y)
        heading = turn + (math.pi if number % 2 == 0 else 0.0) + 0.7 * rng.standard_normal()
        parts += _tail(rng, base, heading, sense, radius, light)
    if not remnant and rng.random() < 0.5:
        parts.append(_bridge(rng, x, y, light))
    if rng.random() < 0.6:
        parts += draw_clumps(rng, first[0], scaled(light, rng.uniform(0.03, 0.2)), int(rng.integers(1, 6)))
    return LabelledObject("merger", parts)


def _disturbed(rng: Generator, magnitude: float, light: Flux) -> list[Component]:
    """A disc with open, one-sided arms, and a bulge that is not in its middle."""
    share = rng.uniform(0.1, 0.45)
    disc = Component(
        Kind.SPIRAL,
        0.0,
        0.0,
        scaled(light, 1.0 - share),
        radius=0.8 * disc_radius(rng, magnitude),
        index=rng.uniform(0.8, 1.6),
        q=rng.uniform(0.35, 0.95),
        angle=rng.uniform(0.0, math.pi),
        arms=int(rng.choice([1, 1, 2])),
        contrast=rng.uniform(0.3, 1.8),
        winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(0.6, 2.0),
        phase=rng.uniform(0.0, 2.0 * math.pi),
    )
    dx, dy = rng.normal(0.0, 0.12 * disc.radius, 2).tolist()
    bulge = Component(
        Kind.SERSIC,
        dx,
        dy,
        scaled(light, share),
        radius=max(disc.radius * rng.uniform(0.1, 0.3), 0.05),
        index=rng.uniform(1.0, 3.0),
        q=rng.uniform(0.6, 1.0),
        angle=disc.angle,
    )
    return [disc, bulge]


def _tail(
    rng: Generator, base: tuple[float, float], heading: float, sense: float, radius: float, light: Flux
) -> list[Component]:
    """A tail that leaves ``base`` along ``heading`` and curves to one side: brightest near its base, wider and fainter on."""
    curve = radius * math.exp(rng.uniform(0.2, 1.3))
    centre = heading + 0.5 * math.pi * sense
    x, y = base[0] + curve * math.cos(centre), base[1] + curve * math.sin(centre)
    length, share = rng.uniform(0.5, 1.6), rng.uniform(0.03, 0.14)
    width = radius * rng.uniform(0.08, 0.2)
    start = centre + math.pi  # where the base is, as seen from the centre of the curve
    vis, y_band, j, h = light
    blue = rng.uniform(0.7, 1.0)
    tail: Flux = (vis, blue * y_band, blue * j, blue * h)
    near = Component(
        Kind.ANNULUS,
        x,
        y,
        scaled(tail, 0.6 * share),
        radius=curve,
        width=width,
        q=rng.uniform(0.85, 1.0),
        angle=start,
        phase=sense * 0.35 * length,
        extent=0.35 * length,
    )
    far = replace(near, flux=scaled(tail, 0.4 * share), width=1.6 * width, phase=sense * 0.9 * length, extent=0.4 * length)
    parts = [near, far]
    if rng.random() < 0.4:  # a knot at the end
        end = start + sense * length * rng.uniform(0.8, 1.4)
        knot = Component(Kind.SERSIC, x + curve * math.cos(end), y + curve * math.sin(end), scaled(tail, 0.15 * share))
        parts.append(replace(knot, radius=rng.uniform(0.08, 0.25), q=rng.uniform(0.5, 1.0), angle=end))
    return parts


def _bridge(rng: Generator, x: float, y: float, light: Flux) -> Component:
    """Light between two galaxies."""
    length = math.hypot(x, y)
    return Component(
        Kind.SERSIC,
        0.5 * x,
        0.5 * y,
        scaled(light, rng.uniform(0.02, 0.08)),
        radius=0.4 * length,
        index=0.5,
        q=rng.uniform(0.15, 0.4),
        angle=math.atan2(y, x) + 0.2 * rng.standard_normal(),
    )


FIELD_DENSITY = 17.0 / 400.0  #: galaxies per square arcsec, VIS 18.5-27
STAR_DENSITY = 0.25 / 400.0
FIELD_MAGNITUDES = (18.5, 27.0)
#: Galaxies that are never seen singly but roughen the sky: as many again, since counts go on rising.
UNSEEN_DENSITY, UNSEEN_MAGNITUDES = 17.0 / 400.0, (27.0, 28.0)
#: Brighter galaxies show a bulge and a disc; fainter ones than the second nothing but one profile.
_BRIGHT, _FAINT = 21.5, 25.0
_RED = 0.25
#: Fainter galaxies are bluer: magnitudes of VIS-Y per magnitude beyond VIS 22.
_BLUER = 0.07
_DOUBLE_STARS = 0.2


def galaxy_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a field galaxy of a VIS magnitude, arcsec."""
    return float(galaxy_radii(rng, np.array([magnitude]))[0])


def galaxy_radii(rng: Generator, magnitudes: Float64) -> Float64:
    """Half-light radii of many: 0.36" at VIS 23, scatter 0.22 dex."""
    logarithm = -0.12 * (magnitudes - 23.0) + 0.22 * rng.standard_normal(len(magnitudes))
    return np.clip(0.36 * np.power(10.0, logarithm), 0.05, 3.0)


def draw_field_galaxy(rng: Generator, x: float, y: float, magnitude: float) -> list[Component]:
    """An ordinary galaxy: the fainter, the simpler; in between mostly lumpy."""
    red = bool(rng.random() < _RED)
    light = galaxy_flux(rng, magnitude, redder=(0.5 if red else 0.0) - _BLUER * max(magnitude - 22.0, 0.0))
    radius, q, angle = galaxy_radius(rng, magnitude), rng.uniform(0.25, 1.0), rng.uniform(0.0, math.pi)
    main = Component(Kind.SERSIC, x, y, light, radius=radius, q=q, angle=angle)
    if magnitude > _FAINT:
        return [replace(main, index=rng.uniform(0.7, 2.5))]
    if magnitude > _BRIGHT:
        return background_galaxy(rng, main, red)
    if red and rng.random() < 0.5:
        return [replace(main, index=rng.uniform(2.5, 4.5), radius=0.8 * radius, q=max(q, 0.5))]
    share = rng.uniform(0.1, 0.5)
    bulge = replace(main, flux=scaled(light, share), radius=0.25 * radius, index=rng.uniform(2.0, 3.5), q=max(q, 0.6))
    disc = replace(main, flux=scaled(light, 1.0 - share), radius=1.2 * radius)
    if rng.random() < 0.6:
        disc = replace(
            disc,
            kind=Kind.SPIRAL,
            arms=int(rng.choice([1, 2, 2, 3, 4])),
            contrast=rng.uniform(0.3, 1.5),
            winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(1.2, 4.0),
            phase=rng.uniform(0.0, 2.0 * math.pi),
        )
    return [disc, bulge]


def draw_star(rng: Generator, x: float, y: float, magnitude: float) -> Component:
    """A star of the Galaxy: from F to M, the fainter the cooler."""
    cool = min(max(rng.normal(0.1 * (magnitude - 16.0), 0.3), 0.0), 1.0)
    a, b, c = rng.standard_normal(3)
    return Component(
        Kind.POINT,
        x,
        y,
        fluxes(magnitude, 0.2 + 0.9 * cool + 0.08 * a, 0.03 + 0.17 * cool + 0.04 * b, -0.02 + 0.08 * cool + 0.04 * c),
    )


def draw_stars(rng: Generator, magnitude: float) -> list[Component]:
    """A star at the origin, a fifth of them double."""
    stars = [draw_star(rng, 0.0, 0.0, magnitude)]
    if rng.random() < _DOUBLE_STARS:
        distance, turn = math.exp(rng.uniform(math.log(0.12), math.log(3.0))), rng.uniform(0.0, 2.0 * math.pi)
        stars.append(draw_star(rng, distance * math.cos(turn), distance * math.sin(turn), magnitude + rng.exponential(1.2)))
    return stars


def draw_field(rng: Generator, half_side: float) -> list[Component]:
    """Unrelated galaxies and stars over a square of ``2 half_side`` arcsec."""
    area = (2.0 * half_side) ** 2
    seen, unseen = rng.poisson((FIELD_DENSITY * area, UNSEEN_DENSITY * area)).tolist()
    places = rng.uniform(-half_side, half_side, (seen + unseen, 2))
    magnitudes = np.concatenate(
        [power_law_magnitudes(rng, *FIELD_MAGNITUDES, seen), power_law_magnitudes(rng, *UNSEEN_MAGNITUDES, unseen)]
    )
    faint = magnitudes > _FAINT
    components = _faint_galaxies(rng, places[faint], magnitudes[faint])
    for (x, y), magnitude in zip(places[~faint].tolist(), magnitudes[~faint].tolist(), strict=True):
        components += draw_field_galaxy(rng, x, y, magnitude)
    for _ in range(rng.poisson(STAR_DENSITY * area)):
        x, y = rng.uniform(-half_side, half_side, 2).tolist()
        components.append(draw_star(rng, x, y, rng.uniform(18.0, 24.5)))
    return components


def _faint_galaxies(rng: Generator, places: Float64, magnitudes: Float64) -> list[Component]:
    """Many galaxies too faint to show more than one profile: as :func:`draw_field_galaxy`, at once, for they are most."""
    count = len(magnitudes)
    redder = np.where(rng.random(count) < _RED, 0.5, 0.0) - _BLUER * (magnitudes - 22.0)
    a, b, c = rng.standard_normal((3, count))
    light = flux_rows(
        magnitudes, 0.6 + redder + 0.35 * a, 0.2 + 0.25 * redder + 0.12 * b, 0.2 + 0.4 * redder + 0.12 * c
    ).tolist()
    shapes = rng.uniform((0.25, 0.0, 0.7), (1.0, math.pi, 2.5), (count, 3)).tolist()
    return [
        Component(Kind.SERSIC, x, y, (vis, y_band, j, h), radius=radius, index=index, q=q, angle=angle)
        for (x, y), (vis, y_band, j, h), radius, (q, angle, index) in zip(
            places.tolist(), light, galaxy_radii(rng, magnitudes).tolist(), shapes, strict=True
        )
    ]


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


#: Share of massive galaxies with a group around them.
IN_GROUP = 0.2
#: Slope of the members' counts per magnitude, ``∝ 10^(slope m)``, and share of members that are still blue.
LUMINOSITY_SLOPE, BLUE_MEMBERS = 0.25, 0.2
LARGEST_SHEAR = 0.12
#: Members of a wide sky's group that bend light by themselves: how many at most, and their smallest θ_E, arcsec.
MASSES, SMALLEST_MASS = 3, 0.1


@dataclass(frozen=True)
class Surroundings:
    """Light of the neighbours, the external shear of their masses at the origin, and ``masses`` that bend light themselves."""

    components: list[Component]
    gamma1: float = 0.0
    gamma2: float = 0.0
    masses: tuple[Lens, ...] = ()


def surroundings(rng: Generator, galaxy: EarlyType, deflector: Deflector, options: Options) -> Surroundings:
    """The group that a massive galaxy may stand in; empty for most, never for a group's mass."""
    z_source = deflector.z_source
    if options.wide and deflector.is_group:
        reach, compact = max(9.0, 1.5 * deflector.lens.theta_e), rng.random() < 0.3
        count, gap = (rng.integers(3, 6), 0.0) if compact else (rng.integers(4, 16), rng.uniform(0.5, 1.5))
        return members(rng, galaxy, int(count), (1.2, reach), z_source, gap, masses=MASSES)
    if rng.random() >= IN_GROUP:
        return Surroundings([])
    return members(rng, galaxy, int(rng.integers(2, 7)), (2.2, 11.0), z_source, masses=MASSES if options.wide else 0)


def members(
    rng: Generator,
    galaxy: EarlyType,
    count: int,
    distances: tuple[float, float],
    z_source: float | None = None,
    gap: float = 0.3,
    masses: int = 0,
) -> Surroundings:
    """Galaxies at the redshift of the one in the middle and up to four magnitudes fainter, mostly red.

    Parameters
    ----------
    rng, galaxy
        Random numbers; the galaxy at the origin.
    count, distances
        How many, and how near and how far, arcsec; as many at any distance, so that they crowd towards the middle.
    z_source
        Redshift for which the members' shear is wanted; without it there is none.
    gap
        Magnitudes by which they are fainter at least.
    masses
        How many of them at most bend light by themselves; the others only shear it.
    """
    components: list[Component] = []
    bending: list[Lens] = []
    gamma1 = gamma2 = 0.0
    # θ_E of a member with 1 km/s; it grows with the square.
    per_square = float(lensing.einstein_radius_arcsec(1.0, galaxy.z, z_source)) if z_source is not None else 0.0
    for _ in range(count):
        distance, turn = rng.uniform(*distances), rng.uniform(0.0, 2.0 * math.pi)
        x, y = distance * math.cos(turn), distance * math.sin(turn)
        fainter = math.log10(1.0 + rng.random() * (10.0 ** (4.0 * LUMINOSITY_SLOPE) - 1.0)) / LUMINOSITY_SLOPE
        absolute = galaxy.absolute_magnitude + gap + fainter
        theta_e, q, angle = per_square * velocity_dispersion(absolute) ** 2, 0.8, 0.0
        if rng.random() < BLUE_MEMBERS:
            components += draw_field_galaxy(rng, x, y, galaxy.magnitude + gap + fainter)
        else:
            member = early_type(rng, galaxy.z, absolute)
            components += moved(member.components, x, y)
            q, angle = member.q, member.angle
        if theta_e > SMALLEST_MASS and len(bending) < masses:
            bending.append(Lens(theta_e, q, angle, x, y, 0.0, 0.0))
            continue
        # The shear of an isothermal sphere at distance r is θ_E/2r, stretching towards it.
        shear = 0.5 * theta_e / distance
        gamma1, gamma2 = gamma1 - shear * math.cos(2.0 * turn), gamma2 - shear * math.sin(2.0 * turn)
    limit = min(1.0, LARGEST_SHEAR / max(math.hypot(gamma1, gamma2), 1e-9))
    return Surroundings(components, limit * gamma1, limit * gamma2, tuple(bending))


def group(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy among four to ten others; in compact groups they are as bright and near."""
    galaxy, _ = draw_deflector(rng, options)
    compact = rng.random() < 0.4
    count = int(rng.integers(3, 6)) if compact else int(rng.integers(4, 11))
    around = members(rng, galaxy, count, (1.0, 4.0 if compact else 9.0))
    return LabelledObject("group", galaxy.components + around.components)


def cluster(rng: Generator, options: Options) -> LabelledObject:
    """A brightest cluster galaxy, its envelope, light between the galaxies, and dozens of red members."""
    z = rng.uniform(0.2, 1.1)
    bcg = early_type(rng, z, rng.normal(-23.4, 0.4), envelope=True)
    # Not always is the galaxy in the middle of the cutout the one in the middle of the cluster.
    around = members(rng, bcg, int(rng.integers(8, 26)), (0.8, 14.0), gap=1.0).components
    halo = replace(bcg.components[0], flux=scaled(bcg.components[0].flux, rng.uniform(0.1, 0.3)), radius=6.0, index=1.0, q=0.7)
    parts = [*bcg.components, halo, *around]
    if rng.random() < 0.4:
        satellite = early_type(rng, z, bcg.absolute_magnitude + rng.uniform(0.8, 2.5))
        turn, distance = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(2.0, 7.0)
        parts = satellite.components + moved(parts, distance * math.cos(turn), distance * math.sin(turn))
    return LabelledObject("cluster", parts)
