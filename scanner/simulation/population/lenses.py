"""Lenses: galaxies, groups, quasars, two deflecting planes (Wilde et al. 2022, section 2.2); near-lenses, imaged only once."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from scanner.errors import UsageError, pip_install
from scanner.records import BANDS, Band, Float32, Float64
from scanner.simulation import Parameters, lensing
from scanner.simulation.lensing import HUBBLE_KM_S_MPC, OMEGA_MATTER, Images, Lens, Sightline, find_images
from scanner.simulation.light.components import (
    Component,
    Flux,
    Kind,
    profiles,
    sersic_b,
    surface_brightness,
    tabulate,
    total_flux,
)
from scanner.simulation.light.scene import Raster
from scanner.simulation.population.deflectors import (
    MAX_OFFSET,
    NEAR_LENS_OFFSET,
    RING_OFFSET,
    RING_SOURCES,
    SOURCE_MAGNITUDES,
    SURVEY_THETA_E_RANGE,
    THETA_E_RANGE,
    Deflector,
    background_galaxy,
    deflector_light,
    draw_deflector,
    draw_source,
    mass_of,
    source_redshift,
    source_redshifts,
)
from scanner.simulation.population.galaxies import (
    FABER_JACKSON_SCATTER,
    TRAINING,
    EarlyType,
    LabelledObject,
    Options,
    System,
    faber_jackson,
    fluxes,
    moved,
    power_law_magnitude,
    scaled,
    source_flux,
    velocity_dispersion,
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
_GALAXIES_TRIED = 6


def quasar_lens(rng: Generator, options: Options) -> LabelledObject:
    """A galaxy and a quasar behind it with at least two images bright enough to be told apart from it."""
    # Only single galaxies: a group's images of a point lie too far apart to be recognised as one source's.
    options = options.model_copy(update={"wide": False, "survey": options.survey or options.wide})
    faintest = flux(SURVEY_FAINTEST_SECOND if options.survey else FAINTEST_SECOND, "VIS")
    quad = bool(rng.random() < QUADS)
    offsets = (0.0, QUAD_OFFSET if quad else MAX_OFFSET)
    while True:
        galaxies, hosts, points = [], [], []
        for _ in range(_GALAXIES_TRIED):
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


HEAVIER_IN_FRONT = 2.0 / 3.0
#: Offsets, unlensed and in units of the front galaxy's θ_E: of the rear galaxy from the front one, and of the far source from
#: the middle of both, each weighted by its θ_E.
ARC_OFFSETS, RING_OFFSETS = (0.3, 0.9), (0.0, 0.3)
#: Share of rear galaxies without young stars; galaxies this heavy mostly are.
_QUIESCENT_REAR = 0.6
_PAIRS_TRIED = 64
_SMALLEST_GAP = 0.1  # in redshift, between front and rear galaxy and the far source


@dataclass(frozen=True)
class LineOfSight:
    """Redshifts and velocity dispersions (km/s) of the front and the rear galaxy, and θ_E (arcsec) for what is behind them."""

    z_front: float
    z_rear: float
    z_far: float
    sigma_front_kms: float
    sigma_rear_kms: float

    @property
    def front_theta_e(self) -> float:
        """Of the front galaxy for the far source (Wilde et al. 2022, equation 1)."""
        return float(lensing.einstein_radius_arcsec(self.sigma_front_kms, self.z_front, self.z_far))

    @property
    def rear_theta_e(self) -> float:
        """Of the rear galaxy for the far source."""
        return float(lensing.einstein_radius_arcsec(self.sigma_rear_kms, self.z_rear, self.z_far))

    @property
    def coupling(self) -> float:
        """Share of the front galaxy's deflection that is felt at the rear one."""
        return float(lensing.coupling(self.z_front, self.z_rear, self.z_far))


def compound_arc(rng: Generator, options: Options) -> LabelledObject:
    """Arcs of two sources behind one galaxy, the nearer of which bends the light of the farther."""
    return _draw(rng, options, "compound_arc", ARC_OFFSETS)


def double_ring(rng: Generator, options: Options) -> LabelledObject:
    """As :func:`compound_arc`, but close to the axis: two rings, whole or nearly so."""
    return _draw(rng, options, "double_ring", RING_OFFSETS)


def draw_line_of_sight(rng: Generator, options: Options) -> LineOfSight:
    """Two galaxies of the deflectors' population and a source behind both, in which both sources are visibly lensed.

    The front galaxy's θ_E for the rear one is as large as that of a single lens, and both together bend the far source's light
    no more than a single lens may. Which of the two is heavier is decided first, so that no selection changes the share.
    """
    smallest, largest = SURVEY_THETA_E_RANGE if options.survey else THETA_E_RANGE
    heavier_in_front = rng.random() < HEAVIER_IN_FRONT
    while True:
        light, heavy = np.sort(np.maximum(rng.normal(215.0, 50.0, (2, _PAIRS_TRIED)), 80.0), axis=0)
        z_front, z_rear = np.sort(np.minimum(rng.gamma(5.0, 0.12, (2, _PAIRS_TRIED)) + 0.05, 2.0), axis=0)
        z_far = source_redshifts(rng, _PAIRS_TRIED)
        front, rear = (heavy, light) if heavier_in_front else (light, heavy)
        for_rear = lensing.einstein_radius_arcsec(front, z_front, z_rear)
        for_far = lensing.einstein_radius_arcsec([front, rear], [z_front, z_rear], z_far).sum(axis=0)
        in_order = (z_rear > z_front + _SMALLEST_GAP) & (z_far > z_rear + _SMALLEST_GAP)
        usable = np.flatnonzero(in_order & (for_rear > smallest) & (for_far < largest))
        if len(usable):
            k = usable[0]
            return LineOfSight(float(z_front[k]), float(z_rear[k]), float(z_far[k]), float(front[k]), float(rear[k]))


def compound_systems(
    line: LineOfSight, front: Lens, rear: Lens, rear_light: list[Component], far: System, quiescent: bool
) -> tuple[System, System]:
    """Both systems of a line of sight.

    Parameters
    ----------
    line
        Redshifts and masses.
    front, rear
        Deflectors with θ_E and shear for the far source.
    rear_light
        Components of the rear galaxy, in place.
    far
        The far source, in place, whatever it is seen through.
    quiescent
        Whether the rear galaxy is red.
    """
    share = line.coupling
    nearer = Sightline(
        (replace(front, theta_e=share * front.theta_e, gamma1=share * front.gamma1, gamma2=share * front.gamma2),)
    )
    both = Sightline((front, rear), (share,))
    return (
        System(
            tuple(replace(component, seen_through=nearer) for component in rear_light),
            nearer,
            line.z_front,
            line.z_rear,
            line.sigma_front_kms,
            magnitude(total_flux(rear_light)[0], "VIS"),
            rear.x,
            rear.y,
            quiescent,
        ),
        replace(
            far,
            source=tuple(replace(component, seen_through=both) for component in far.source),
            sightline=both,
            z_lens=line.z_rear,
            z_source=line.z_far,
            sigma_v_kms=line.sigma_rear_kms,
        ),
    )


def _draw(rng: Generator, options: Options, class_name: str, offsets: tuple[float, float]) -> LabelledObject:
    # Both planes of a compound lens are single galaxies, also in the wide sky.
    options = options.model_copy(update={"wide": False, "survey": options.survey or options.wide})
    line = draw_line_of_sight(rng, options)
    galaxy = deflector_light(rng, line.sigma_front_kms, line.z_front)
    mass = mass_of(rng, galaxy, line.front_theta_e)
    foreground, deflector = with_neighbours(
        rng, galaxy, Deflector(mass, line.z_front, line.z_far, line.sigma_front_kms, galaxy.magnitude), options
    )
    front = deflector.lens

    quiescent = bool(rng.random() < _QUIESCENT_REAR)
    beyond = deflector_light(rng, line.sigma_rear_kms, line.z_rear) if quiescent else _star_forming(rng, line)
    low, high = (line.coupling * front.theta_e * offset for offset in offsets)
    distance, turn = math.sqrt(rng.uniform(low * low, high * high)), rng.uniform(0.0, 2.0 * math.pi)
    x, y = distance * math.cos(turn), distance * math.sin(turn)
    rear = replace(mass_of(rng, beyond, line.rear_theta_e), x=x, y=y)

    weight = rear.theta_e / (front.theta_e + rear.theta_e)
    while True:
        far = draw_source(rng, deflector, offsets, options).moved(weight * x, weight * y)
        systems = compound_systems(line, front, rear, moved(beyond.components, x, y), far, quiescent)
        if find_images(far.source_x, far.source_y, systems[1].sightline).count[0] > 1:
            return LabelledObject(class_name, foreground, systems)


def _star_forming(rng: Generator, line: LineOfSight) -> EarlyType:
    """A rear galaxy with young stars: as bright as its mass says, blue, with the structure of any blue source."""
    absolute = faber_jackson(line.sigma_rear_kms) + FABER_JACKSON_SCATTER * rng.standard_normal()
    vis = absolute + float(lensing.distance_modulus(line.z_rear)) + 0.4 * line.z_rear
    light = source_flux(rng, vis, False, line.z_rear)
    radius_kpc = 10.0 ** (0.5 + 0.18 * rng.standard_normal())
    radius = min(max(radius_kpc * float(lensing.arcsec_per_kpc(line.z_rear)), 0.1), 0.9)
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    main = Component(Kind.SERSIC, 0.0, 0.0, light, radius=radius, q=q, angle=angle)
    return EarlyType(background_galaxy(rng, main, red=False), line.z_rear, vis, absolute, radius, q, angle)


#: Table 1, with the authors' notebook where that differs: it has 4 where Table 1 prints a Sérsic index of 20, 0.05 where it
#: prints a shear of 0.5, and offsets of arcs of half an Einstein radius within the table's 5".
R_SERSIC_ARCSEC, N_SERSIC, AXIS_RATIO = (0.2, 7.0), (1.5, 4.0), (0.3, 1.0)
RING_OFFSET_ARCSEC, ARC_OFFSET_THETA_E, ARC_OFFSET_ARCSEC = 0.25, 0.5, 5.0  #: of a lens from the far source along x and y
LARGEST_SHEAR = 0.05
#: Far sources lie beyond, and one of the two lenses is a source that lies before (the notebook).
PAPER_FAR_REDSHIFT = 3.0

_PHYSICAL = {"compound_arc": compound_arc, "double_ring": double_ring}


def draw_paper_object(rng: Generator, class_name: str, parameters: Parameters) -> LabelledObject:
    """Draw a compound lens about the origin.

    Parameters
    ----------
    rng
        Random numbers.
    class_name
        ``compound_arc`` or ``double_ring``.
    parameters
        ``paper``: Table 1; ``physical``: the same object as :func:`scanner.simulation.population.classes.draw_object` draws.

    Raises
    ------
    KeyError
        Another class.
    """
    physical = _PHYSICAL[class_name]
    if parameters == "physical":
        return physical(rng, TRAINING)
    front_pair, rear_pair, far_pair = draw_pairs(rng)
    line = LineOfSight(
        front_pair.z, rear_pair.z, far_pair.z, velocity_dispersion_of(front_pair), velocity_dispersion_of(rear_pair)
    )
    # The far source is where rays are traced from.
    places = [
        (0.0, 0.0),
        *(_beside_source(rng, theta_e, class_name) for theta_e in (line.rear_theta_e, line.front_theta_e)),
    ]
    far_place, rear_place, front_place = places
    front_light = _profile(rng, _red(rng, front_pair), front_place)
    rear_light = _profile(rng, _red(rng, rear_pair), rear_place)
    front, rear = _mass(rng, front_light, line.front_theta_e), _mass(rng, rear_light, line.rear_theta_e)
    far = _far_source(rng, line, far_place, front, far_pair)
    return LabelledObject(class_name, [front_light], compound_systems(line, front, rear, [rear_light], far, quiescent=True))


@dataclass(frozen=True)
class Pair:
    """A redshift and a VIS magnitude that belong to one galaxy of the single-lens training set."""

    z: float
    magnitude: float


def draw_pairs(rng: Generator) -> tuple[Pair, Pair, Pair]:
    """Front lens, rear lens and far source, drawn in pairs of redshift and magnitude from what single lenses are drawn from.

    As in the authors' notebook one lens is a lens of that set and the other a source of it at z < 3, in the order of their
    redshifts, and the far source lies at z > 3. "The lower redshift lens is more massive than the higher redshift lens
    two-thirds of the time" (section 2.2): that is decided first, and pairs are drawn until it is so.
    """
    heavier_in_front = rng.random() < HEAVIER_IN_FRONT
    while True:
        far = _source_pair(rng, lambda z: z > PAPER_FAR_REDSHIFT)
        galaxy, deflector = draw_deflector(rng, TRAINING)
        pairs = Pair(deflector.z_lens, galaxy.magnitude), _source_pair(rng, lambda z: z < PAPER_FAR_REDSHIFT)
        front, rear = sorted(pairs, key=lambda pair: pair.z)
        if front.z < rear.z and (velocity_dispersion_of(front) > velocity_dispersion_of(rear)) == heavier_in_front:
            return front, rear, far


def _source_pair(rng: Generator, wanted: Callable[[float], bool]) -> Pair:
    while not wanted(z := source_redshift(rng)):
        pass
    return Pair(z, power_law_magnitude(rng, *SOURCE_MAGNITUDES))


def velocity_dispersion_of(pair: Pair) -> float:
    """km/s by the relation of Faber and Jackson, from the absolute magnitude without a K-correction, as the notebook has it."""
    return velocity_dispersion(pair.magnitude - float(lensing.distance_modulus(pair.z)))


def _beside_source(rng: Generator, theta_e: float, class_name: str) -> tuple[float, float]:
    """Place of a lens from the far source: of arcs within half an Einstein radius along either axis, of rings within 0.25"."""
    largest = RING_OFFSET_ARCSEC if class_name == "double_ring" else min(ARC_OFFSET_THETA_E * theta_e, ARC_OFFSET_ARCSEC)
    x, y = rng.uniform(-largest, largest, 2).tolist()
    return x, y


def _red(rng: Generator, pair: Pair) -> Flux:
    """Light of a red lens galaxy of a magnitude."""
    light = total_flux(deflector_light(rng, velocity_dispersion_of(pair), pair.z).components)
    return scaled(light, flux(pair.magnitude, "VIS") / light[0])


def _profile(rng: Generator, light: Flux, place: tuple[float, float]) -> Component:
    """A galaxy as Table 1 has it."""
    q = rng.uniform(*AXIS_RATIO)
    radius = rng.uniform(*R_SERSIC_ARCSEC) / math.sqrt(q)  # major axis
    return Component(
        Kind.SERSIC, *place, light, radius=radius, index=rng.uniform(*N_SERSIC), q=q, angle=rng.uniform(0.0, math.pi)
    )


def _mass(rng: Generator, light: Component, theta_e: float) -> Lens:
    """Mass that follows the light, with external shear."""
    gamma1, gamma2 = rng.uniform(-LARGEST_SHEAR, LARGEST_SHEAR, 2).tolist()
    return Lens(theta_e, light.q, light.angle, light.x, light.y, gamma1, gamma2)


def _far_source(rng: Generator, line: LineOfSight, place: tuple[float, float], front: Lens, pair: Pair) -> System:
    """The far source, blue, as seen through the front galaxy alone."""
    sightline = Sightline((front,))
    light = replace(_profile(rng, source_flux(rng, pair.magnitude, False, pair.z), place), seen_through=sightline)
    return System((light,), sightline, line.z_front, line.z_far, line.sigma_front_kms, pair.magnitude, *place, False)


#: Samples per pixel side: everywhere; where the light bends within a pixel; and where a cusp sits.
_COARSE, _FINE, _FINEST = 3, 12, 48
#: A pixel is drawn again where its second differences exceed this share of the peak ...
_CURVATURE = 0.004
#: ... and a third time where they exceed this one.
_CUSP_CURVATURE = 0.1
_NO_SOFTENING = 1.0e-4  # arcsec; not zero, for the logarithm of spiral arms

Brightness = Callable[[Float64, Float64], Float64]  # positions (P,) in arcsec -> (bands, P) flux per arcsec²


def unlensed_light(components: Sequence[Component], raster: Raster, bands: Sequence[Band] = BANDS) -> Float32:
    """Pixels of components seen through nothing.

    Parameters
    ----------
    components
        Stars among them are skipped.
    raster, bands
        What to draw.

    Returns
    -------
    array
        (bands, ny, nx) float32, image units per pixel.

    Raises
    ------
    UsageError
        lenstronomy is not installed.
    """
    return _pixels(_light(components, bands), raster, len(bands))


def lensed_light(systems: Sequence[System], raster: Raster, bands: Sequence[Band] = BANDS) -> Float32:
    """Pixels of the sources of one object, each at its own redshift behind the deflectors in front of it.

    Parameters
    ----------
    systems
        All systems of one object, nearest source first: the n-th source but the last is the (n+1)-th deflector. θ_E are taken
        from the last one's sightline; what they are for nearer sources is lenstronomy's business.
    raster, bands
        What to draw.

    Returns
    -------
    array
        (systems, bands, ny, nx) float32, image units per pixel.

    Raises
    ------
    UsageError
        lenstronomy is not installed.
    """
    out = np.zeros((len(systems), len(bands), raster.ny, raster.nx), dtype=np.float32)
    for row, system in enumerate(systems):
        trace, brightness = _tracer(systems, row), _light(system.source, bands)
        out[row] = _pixels(lambda x, y, trace=trace, light=brightness: light(*trace(x, y)), raster, len(bands))  # type: ignore[misc]
    return out


def _lenstronomy(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own dependencies' deprecations
            return importlib.import_module(f"lenstronomy.{module}")
    except ImportError:
        raise UsageError(f"lenstronomy is not installed: to draw with it, {pip_install('paper')}.") from None


def _tracer(systems: Sequence[System], row: int) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    """Rays back to the source of one system."""
    lens_model = _lenstronomy("LensModel.lens_model")
    from astropy.cosmology import FlatLambdaCDM

    redshifts, parameters = [], []
    for system, lens in zip(systems, systems[-1].sightline.lenses, strict=True):
        if system.z_lens >= systems[row].z_source:
            continue
        e = (1.0 - lens.q) / (1.0 + lens.q)
        centre = {"center_x": lens.x, "center_y": lens.y}
        parameters += [
            {"theta_E": lens.theta_e, "e1": e * math.cos(2.0 * lens.angle), "e2": e * math.sin(2.0 * lens.angle), **centre},
            {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
        ]
        redshifts += [system.z_lens, system.z_lens]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns whenever it is told a cosmology
        model = lens_model.LensModel(
            ["SIE", "SHEAR"] * (len(redshifts) // 2),
            lens_redshift_list=redshifts,
            z_source=systems[row].z_source,
            z_source_convention=systems[-1].z_source,
            multi_plane=True,
            cosmo=FlatLambdaCDM(H0=HUBBLE_KM_S_MPC, Om0=OMEGA_MATTER),
        )
    return lambda x, y: model.ray_shooting(x, y, parameters)


def _light(components: Sequence[Component], bands: Sequence[Band]) -> Brightness:
    """Surface brightness in the components' own plane."""
    sersic = [component for component in components if component.kind is Kind.SERSIC]
    others = [component for component in components if component.kind not in (Kind.SERSIC, Kind.POINT)]
    model = _lenstronomy("LightModel.light_model").LightModel(["SERSIC_ELLIPSE"] * len(sersic))
    parameters = [_sersic(component) for component in sersic]
    share = np.array([1.0 / total for total in model.total_flux([{"amp": 1.0, **p} for p in parameters])])
    sersic_flux, other_flux = _flux(sersic, bands), _flux(others, bands)

    def brightness(x: Float64, y: Float64) -> Float64:
        total = np.zeros((len(bands), len(x)))
        if sersic:
            total += (sersic_flux * share) @ np.stack(model.functions_split(x, y, parameters)[0])
        for component, of_bands in zip(others, other_flux.T, strict=True):
            dx, dy = (x - component.x)[None, None, :], (y - component.y)[None, None, :]
            total += (
                of_bands[:, None] * surface_brightness(dx, dy, profiles(tabulate([component]), np.asarray), _NO_SOFTENING)[0]
            )
        return total

    return brightness


def _flux(components: Sequence[Component], bands: Sequence[Band]) -> Float64:
    """(bands, components) in image units."""
    channels = [BANDS.index(band) for band in bands]
    return np.array([[c.flux[k] for c in components] for k in channels], dtype=np.float64).reshape(len(bands), -1)


def _sersic(component: Component) -> dict[str, float]:
    """A profile as lenstronomy has it: its radius is the geometric mean of the axes.

    Half of the light is within it only nearly, as its b(n) is a straight line, 0.4% off at n = 1; the radius makes up for it.
    """
    e = (1.0 - component.q) / (1.0 + component.q)
    line = _lenstronomy("LensModel.Profiles.sersic_utils").SersicUtil.b_n(component.index)
    return {
        "R_sersic": component.radius * math.sqrt(component.q) * float(line / sersic_b(component.index)) ** component.index,
        "n_sersic": component.index,
        "e1": e * math.cos(2.0 * component.angle),
        "e2": e * math.sin(2.0 * component.angle),
        "center_x": component.x,
        "center_y": component.y,
    }


def _pixels(brightness: Brightness, raster: Raster, bands: int) -> Float32:
    """Integrals over pixels: a coarse pass, and finer ones where the light is not smooth."""
    rows, columns = (grid.ravel() for grid in np.indices((raster.ny, raster.nx)))
    mean = _mean(brightness, raster, rows, columns, _COARSE).reshape(bands, raster.ny, raster.nx)
    for samples, limit in ((_FINE, _CURVATURE), (_FINEST, _CUSP_CURVATURE)):
        rows, columns = np.nonzero(_uneven(mean, limit))
        mean[:, rows, columns] = _mean(brightness, raster, rows, columns, samples)
    return (mean * raster.scale**2).astype(np.float32)


def _mean(brightness: Brightness, raster: Raster, rows: Any, columns: Any, samples: int) -> Float64:
    """(bands, P) mean surface brightness of pixels."""
    within = ((np.arange(samples) + 0.5) / samples - 0.5) * raster.scale
    x = (raster.x0 + columns * raster.scale)[:, None, None] + within[None, None, :]
    y = (raster.y0 + rows * raster.scale)[:, None, None] + within[None, :, None]
    x, y = np.broadcast_arrays(x, y)
    values = brightness(x.ravel(), y.ravel())
    return np.asarray(values.reshape(len(values), len(rows), samples**2).mean(axis=-1), dtype=np.float64)


def _uneven(mean: Float64, limit: float) -> Any:
    """(ny, nx) bool: pixels, and their neighbours, whose second differences exceed a share of the band's peak."""
    padded = np.pad(mean, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, 1:-1, 1:-1]
    curvature = np.abs(padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] - 2.0 * inner)
    curvature += np.abs(padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] - 2.0 * inner)
    steep = np.pad((curvature > limit * mean.max(axis=(1, 2), keepdims=True)).any(axis=0), 1)
    ny, nx = mean.shape[1:]
    return np.logical_or.reduce([steep[1 + dy : ny + 1 + dy, 1 + dx : nx + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
