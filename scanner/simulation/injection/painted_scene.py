"""What is painted at a place: lensed arcs or their look-alikes beside a real galaxy, a whole object into empty sky, or nothing.

In: a preset, a place and random numbers. Out: :class:`~scanner.simulation.datasets.cutout_scene.CutoutScene`, of which only
what is painted is listed; what the real pixels show is not in it. Nothing is refused.

Every cutout gets a few unrelated background galaxies painted in away from its middle, whatever its class and whether or not
anything is painted in the middle: that a cutout has been painted tells nothing of its label. Beside real galaxies, half of the
non-lenses are look-alikes of painted light, the other half are left as they are in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

from numpy.random import Generator

from scanner.simulation.datasets.cutout_scene import CutoutScene
from scanner.simulation.datasets.presets import LENS_CLASSES, Preset
from scanner.simulation.injection.deflector_choice import choose_deflector
from scanner.simulation.injection.places import DEFLECTOR, EMPTY, GALAXY
from scanner.simulation.light.components import Component
from scanner.simulation.population import classes
from scanner.simulation.population.colours import power_law_magnitude
from scanner.simulation.population.companions import arc_like, companions
from scanner.simulation.population.field import draw_field_galaxy
from scanner.simulation.population.massive_galaxies import NEAR_LENS_CLEARANCE
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, NEAR_LENS_OFFSET, draw_source
from scanner.simulation.population.system import LabelledObject, moved
from scanner.simulation.telescope.exposure import Exposure

#: Classes whose middle is left as it is: a real deflector, another real object, empty sky.
RealClass = Literal["real_deflector", "real_galaxy", "real_sky"]
REAL_CLASSES: tuple[RealClass, ...] = get_args(RealClass)
#: Non-lenses on real galaxies: share of each. Half painted in the middle, half as they are.
REAL_GROUND: dict[str, float] = {
    "near_lens": 0.14,
    "companion": 0.18,
    "tangential": 0.18,
    "real_deflector": 0.22,
    "real_galaxy": 0.24,
    "real_sky": 0.04,
}
#: Classes that cannot be painted: real pixels have their own artefacts, what is empty is ``real_sky``, and what is painted is
#: the candidate.
_NOT_PAINTED = ("artefact", "empty", "beside_lens")
#: Unrelated galaxies painted into every cutout: how many, how far from the object at least and from the centre along x and y at
#: most (arcsec), how bright.
DECOYS, DECOY_DISTANCE_ARCSEC, DECOY_HALF_SIDE_ARCSEC, DECOY_MAGNITUDES = (1, 3), 3.5, 9.0, (21.5, 25.0)


def kind_of(class_name: str, into_sky: bool) -> int:
    """The kind of place that a class needs."""
    if into_sky or class_name == "real_sky":
        return EMPTY
    return GALAXY if class_name == "real_galaxy" else DEFLECTOR


def can_use_galaxies(preset: Preset) -> bool:
    """Whether a preset's lenses can be painted on real galaxies: single lenses only."""
    return "lens" in preset.mix or preset.lens_share == 0.0


def class_shares(preset: Preset, into_sky: bool, painted_only: bool = False) -> Mapping[str, float]:
    """Share of each class, adding up to one; lenses are as many on both grounds. ``painted_only``: nothing is left as it is."""
    lenses: dict[str, float] = {name: share for name, share in preset.mix.items() if name in LENS_CLASSES}
    others: dict[str, float] = {name: share for name, share in preset.mix.items() if name not in (*LENS_CLASSES, *_NOT_PAINTED)}
    if not into_sky:
        lenses, others = {"lens": preset.lens_share} if lenses else {}, REAL_GROUND
    if painted_only:
        others = {name: share for name, share in others.items() if name not in REAL_CLASSES}
    total = sum(others.values())
    return lenses | {name: (1.0 - preset.lens_share) * share / total for name, share in others.items()}


def paint_object(
    rng: Generator, class_name: str, into_sky: bool, host: tuple[float, float, float, float], options: Options
) -> LabelledObject:
    """What is painted in the middle, about the origin.

    Parameters
    ----------
    rng
        Random numbers of the object.
    class_name
        One of :func:`class_shares`.
    into_sky
        Whether the whole object is painted.
    host
        VIS magnitude, VIS - H, axis ratio and position angle of the real galaxy, if there is one.
    options
        Of the preset.
    """
    if into_sky and class_name not in REAL_CLASSES:
        return classes.draw_object(rng, class_name, options)
    if class_name in REAL_CLASSES:
        return LabelledObject(class_name, [])
    deflector = choose_deflector(rng, *host, options)
    if class_name == "lens":
        return LabelledObject("lens", [], (draw_source(rng, deflector, (0.0, MAX_OFFSET), options),))
    if class_name == "near_lens":
        system = draw_source(rng, deflector, NEAR_LENS_OFFSET, options, clearance=NEAR_LENS_CLEARANCE)
        return LabelledObject("near_lens", [], (system,))
    light = companions(rng, options) if class_name == "companion" else arc_like(rng, deflector.lens.theta_e, options)
    return LabelledObject(class_name, light)


def decoys(rng: Generator, x: float, y: float) -> list[Component]:
    """Unrelated galaxies in a cutout whose object lies at ``(x, y)`` arcsec, away from it; the same for every class."""
    components: list[Component] = []
    for _ in range(int(rng.integers(DECOYS[0], DECOYS[1] + 1))):
        here_x, here_y = x, y
        while math.hypot(here_x - x, here_y - y) < DECOY_DISTANCE_ARCSEC:
            here_x, here_y = (float(value) for value in rng.uniform(-DECOY_HALF_SIDE_ARCSEC, DECOY_HALF_SIDE_ARCSEC, 2))
        components += draw_field_galaxy(rng, here_x, here_y, power_law_magnitude(rng, *DECOY_MAGNITUDES))
    return components


def painted_scene(
    rng: Generator, painted: LabelledObject, unrelated: list[Component], x: float, y: float, exposure: Exposure
) -> CutoutScene:
    """The painted light of a cutout whose object lies at ``(x, y)`` arcsec from its centre; ``unrelated`` is placed already."""
    return CutoutScene(
        rng=rng,
        class_name=painted.class_name,
        components=[*moved(painted.components, x, y), *unrelated],
        n_object=len(painted.components),
        systems=tuple(system.moved(x, y) for system in painted.systems),
        x=x,
        y=y,
        exposure=exposure,
    )
