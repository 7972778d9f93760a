"""A patch of simulated sky: objects in the tangent plane of the field, the same for every tile that sees them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Record
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population import classes
from scanner.simulation.population.classes import NON_LENS_MIX
from scanner.simulation.population.galaxies import LabelledObject, System, power_law_magnitude
from scanner.simulation.population.neighbours import (
    FIELD_DENSITY,
    FIELD_MAGNITUDES,
    STAR_DENSITY,
    UNSEEN_DENSITY,
    UNSEEN_MAGNITUDES,
    draw_field_galaxy,
    draw_stars,
)
from scanner.simulation.population.truth import ArcMeasurement, Label, labels, measure_system
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.psf import convolve, mean_psf

CELL_ARCSEC = 50.0
#: Bright galaxies of the non-lens classes (spirals, mergers ...) beside the plain field, per square arcsec.
CLASS_DENSITY = 1.5 / 3600.0
#: Artefacts and plain stars come of themselves.
FIELD_CLASSES = tuple(name for name in NON_LENS_MIX if name not in ("empty", "star", "artefact"))
#: Share of each class among the lenses.
LENS_MIX = {"lens": 0.85, "quasar_lens": 0.05, "compound_arc": 0.05, "double_ring": 0.05}
_ARC_CANVAS_PIXELS = 160
_ATTEMPTS = 30


class FieldParameters(Record):
    """What fills a field. Densities per square arcsec."""

    seed: int
    lens_density: float
    galaxy_density: float = FIELD_DENSITY
    unseen_density: float = UNSEEN_DENSITY
    star_density: float = STAR_DENSITY
    class_density: float = CLASS_DENSITY


@dataclass(frozen=True)
class SkyObject:
    """One object of the field: unlensed light relative to its own position ``(x, y)`` in the plane, and what it is.

    ``magnitude``: VIS, of the unlensed light; infinite for galaxies too faint to be anybody's object, all of a cell in one.
    ``arcs``, ``labels``: of each of the systems.
    """

    object_id: int
    class_name: str
    x: float
    y: float
    components: list[Component]
    magnitude: float
    systems: tuple[System, ...] = ()
    arcs: tuple[ArcMeasurement, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def light(self) -> list[Component]:
        """Everything that shines: unlensed light, sources, images of quasars."""
        lensed = [component for system in self.systems for component in (*system.source, *system.point_images)]
        return [*self.components, *lensed]

    @property
    def is_star(self) -> bool:
        """Whether the object is a star."""
        return self.components[0].kind is Kind.POINT

    @property
    def is_lens(self) -> bool:
        """Whether one of its systems is a lens by the definition."""
        return any(label.is_lens for label in self.labels)

    @property
    def visible(self) -> bool:
        """Whether a person could see the arcs of one of its systems."""
        return any(label.visible for label in self.labels)


def draw_rectangle(field: FieldParameters, x0: float, x1: float, y0: float, y1: float) -> Iterator[SkyObject]:
    """All objects of the cells that touch ``[x0, x1] × [y0, y1]``, cell by cell; some lie outside the rectangle.

    In: a seed, the mean number of lenses per area, and a rectangle of the plane. Out: the :class:`SkyObject` list of the cells
    that the rectangle touches. The plane is cut into square cells whose objects come from the cell's own random numbers, so
    that any part of a field, however large, can be drawn alone and neighbouring tiles agree.

    Plane coordinates in arcsec: x grows to the west, y to the north, so that unrotated tiles see the plane as it is.
    """
    for row in range(math.floor(y0 / CELL_ARCSEC), math.floor(y1 / CELL_ARCSEC) + 1):
        for column in range(math.floor(x0 / CELL_ARCSEC), math.floor(x1 / CELL_ARCSEC) + 1):
            yield from draw_cell(field, column, row)


@lru_cache(maxsize=400)
def draw_cell(field: FieldParameters, column: int, row: int) -> tuple[SkyObject, ...]:
    """Objects of one cell, in a fixed order. Kept for a while: a tile's next strip asks again, and so do its neighbours."""
    # SeedSequence takes no negative numbers, so the cell's are folded: 0, -1, 1, -2 ... -> 0, 1, 2, 3 ...
    folded = [2 * k if k >= 0 else -2 * k - 1 for k in (column, row)]
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(b"field"), field.seed, *folded])))
    area = CELL_ARCSEC**2
    cell_id = ((folded[0] << 15) + folded[1]) << 12
    middle = (column + 0.5) * CELL_ARCSEC, (row + 0.5) * CELL_ARCSEC
    objects: list[SkyObject] = []

    def place() -> tuple[float, float]:
        x, y = rng.uniform(0.0, CELL_ARCSEC, 2)
        return column * CELL_ARCSEC + float(x), row * CELL_ARCSEC + float(y)

    def keep(class_name: str, components: list[Component]) -> None:
        objects.append(SkyObject(cell_id + len(objects), class_name, *place(), components, _magnitude(components)))

    for _ in range(_stratified_count(field, column, row)):
        objects.append(_visible_lens(rng, cell_id + len(objects), *place()))
    for _ in range(rng.poisson(field.class_density * area)):
        drawn = classes.draw_object(rng, classes.draw_class(rng, {name: NON_LENS_MIX[name] for name in FIELD_CLASSES}))
        objects.append(_placed(cell_id + len(objects), drawn, *place()))
    for _ in range(rng.poisson(field.galaxy_density * area)):
        magnitude = power_law_magnitude(rng, *FIELD_MAGNITUDES)
        keep("galaxy", draw_field_galaxy(rng, 0.0, 0.0, magnitude))
    for _ in range(rng.poisson(field.star_density * area)):
        # Star counts rise slowly; every tenth is bright enough for spikes or saturation.
        bright = rng.random() < 0.1
        keep("star", draw_stars(rng, rng.uniform(14.5, 18.0) if bright else rng.uniform(18.0, 24.5)))
    unseen: list[Component] = []
    for _ in range(rng.poisson(field.unseen_density * area)):
        x, y = place()
        unseen += draw_field_galaxy(rng, x - middle[0], y - middle[1], power_law_magnitude(rng, *UNSEEN_MAGNITUDES))
    if unseen:
        objects.append(SkyObject(cell_id + len(objects), "unseen", *middle, unseen, math.inf))
    return tuple(objects)


def _stratified_count(field: FieldParameters, column: int, row: int) -> int:
    """How many lenses a cell holds: random-looking, but spread evenly, so that equal tiles hold nearly equal numbers."""
    mean = field.lens_density * CELL_ARCSEC**2
    # A lattice of the plastic number: any compact group of cells samples the unit interval evenly.
    phase = (0.754877666 * column + 0.569840291 * row + 0.618033989 * field.seed) % 1.0
    return math.floor(mean) + int(phase < mean % 1.0)


def _visible_lens(rng: Generator, object_id: int, x: float, y: float) -> SkyObject:
    """A lens whose arcs can be seen: invisible ones tell a demonstration nothing."""
    for _ in range(_ATTEMPTS):
        item = _placed(object_id, classes.draw_object(rng, classes.draw_class(rng, LENS_MIX)), x, y)
        if item.visible:
            break
    return item


def _placed(object_id: int, drawn: LabelledObject, x: float, y: float) -> SkyObject:
    """A drawn object, its arcs measured through the average VIS PSF and labelled."""
    arcs = tuple(_measured(system) for system in drawn.systems)
    verdicts = tuple(labels(drawn.systems, arcs))
    magnitude = _magnitude(drawn.components)
    return SkyObject(object_id, drawn.class_name, x, y, drawn.components, magnitude, drawn.systems, arcs, verdicts)


def _measured(system: System) -> ArcMeasurement:
    raster = scene.centred_raster(_ARC_CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    light = scene.render([system.source], raster, ("VIS",))[0, 0]
    psf = mean_psf("VIS")
    seen = convolve(light, psf.transfer(_ARC_CANVAS_PIXELS, _ARC_CANVAS_PIXELS))
    return measure_system(system, float(light.sum(dtype=np.float64)), seen, psf, roll=0.0)


def _magnitude(components: list[Component]) -> float:
    """VIS magnitude of the light that is not lensed."""
    return noise.magnitude(total_flux(components)[0], "VIS")
