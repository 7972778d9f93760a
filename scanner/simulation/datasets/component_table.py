"""``components.parquet``: every piece of light and every artefact that was drawn, one row each.

In: scenes. Out: columns as arrays, and the Arrow table of them, whose fields carry ``unit`` and ``description``. Objects come
in the order of the truth table; what does not apply is NaN. Nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.simulation.datasets.cutout_scene import CutoutScene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.columns import Column, schema
from scanner.simulation.telescope.artefacts import Artefact, ArtefactKind

if TYPE_CHECKING:
    import pyarrow

#: What a row belongs to: the object's unlensed light, its first and second source (before lensing), the images of a lensed
#: quasar (after lensing), the galaxies and stars around the object, what the camera added.
ROLES = ("object", "source", "source_2", "quasar_image", "field", "artefact")
#: Shapes of light, then kinds of artefacts.
KINDS = (*(kind.name.lower() for kind in Kind), *(kind.value for kind in ArtefactKind))

#: Fields of a component, and their columns.
NUMBERS: dict[str, Column] = {
    "x": Column("x_arcsec", "float32", "arcsec", "place from the cutout's centre, x; of sources: unlensed"),
    "y": Column("y_arcsec", "float32", "arcsec", "place from the cutout's centre, y; of sources: unlensed"),
    "radius": Column("radius_arcsec", "float32", "arcsec", "half-light radius along the major axis; radius of a ring"),
    "index": Column("index", "float32", "", "Sérsic index"),
    "q": Column("q", "float32", "", "axis ratio, minor to major"),
    "angle": Column("angle", "float32", "rad", "position angle, from +x to +y"),
    "width": Column("width_arcsec", "float32", "arcsec", "Gaussian width of a ring, a tail or an artefact"),
    "phase": Column("phase", "float32", "rad", "where a segment has its middle; orientation of spiral arms"),
    "extent": Column("extent", "float32", "rad", "Gaussian half-length of a segment; infinite for whole rings"),
    "arms": Column("arms", "float32", "", "number of spiral arms"),
    "contrast": Column("contrast", "float32", "", "of spiral arms: von Mises kappa of the azimuthal distribution"),
    "winding": Column("winding", "float32", "rad", "turn of the arms per e-fold of radius"),
}
_FLUXES = tuple(Column(f"flux_{band}", "float32", "adu", f"{band.upper()} flux") for band in ("vis", "y", "j", "h"))
_ARTEFACT = (
    Column("strength", "float32", "", "peak of an artefact in sigma of the sky in the cutout's pixels; negative: a dark one"),
    Column("length_arcsec", "float32", "arcsec", "length of a line, or radius of a ghost"),
)
COLUMNS: tuple[Column, ...] = (
    Column("target_id", "int64", "", "number of the object in its dataset"),
    Column("role", "string", "", f"what it belongs to: {', '.join(ROLES)}"),
    Column("kind", "string", "", "shape of the light, or kind of the artefact"),
    *NUMBERS.values(),
    *_FLUXES,
    *_ARTEFACT,
)
#: Numbers that say something of each kind of light; the others are left-over defaults.
_PLACE = {"x", "y"}
_SAID = {
    Kind.SERSIC: _PLACE | {"radius", "index", "q", "angle"},
    Kind.SPIRAL: _PLACE | {"radius", "index", "q", "angle", "phase", "arms", "contrast", "winding"},
    Kind.ANNULUS: _PLACE | {"radius", "q", "angle", "width", "phase", "extent"},
    Kind.POINT: _PLACE,
}
_ALL = frozenset(NUMBERS)
_SAID_OF = np.array([[name in _SAID.get(kind, _ALL) for name in NUMBERS] for kind in Kind] + [[True] * len(NUMBERS)])
_numbers = attrgetter(*NUMBERS)
_NO_FLUX = (math.nan,) * len(_FLUXES)


def component_columns(target_ids: Sequence[int], scenes: Sequence[CutoutScene]) -> dict[str, NDArray[Any]]:
    """Columns by name, each (K,); ``role`` and ``kind`` as numbers in :data:`ROLES` and :data:`KINDS`."""
    heads: list[tuple[int, int, int]] = []
    numbers: list[tuple[float, ...]] = []
    others: list[tuple[float, ...]] = []
    for target_id, scene in zip(target_ids, scenes, strict=True):
        for role, component in _light(scene):
            heads.append((target_id, role, int(component.kind)))
            numbers.append(_numbers(component))
            others.append((*component.flux, math.nan, math.nan))
        for artefact in scene.exposure.artefacts:
            heads.append((target_id, ROLES.index("artefact"), KINDS.index(artefact.kind.value)))
            numbers.append(_numbers_of(artefact))
            others.append((*_NO_FLUX, artefact.strength, artefact.length))
    head = np.array(heads, dtype=np.int64).reshape(-1, 3)
    number = np.array(numbers, dtype=np.float32).reshape(-1, len(NUMBERS))
    number = np.where(_SAID_OF[np.minimum(head[:, 2], len(Kind))], number, np.float32(math.nan))
    other = np.array(others, dtype=np.float32).reshape(-1, len(_FLUXES) + len(_ARTEFACT))
    return dict(zip((column.name for column in COLUMNS), (*head.T, *number.T, *other.T), strict=True))


def _light(scene: CutoutScene) -> Iterator[tuple[int, Component]]:
    """Pieces of light with the number of their role."""
    for component in scene.components[: scene.n_object]:
        yield 0, component
    for number, system in enumerate(scene.systems[:2], start=1):
        for component in system.source:
            yield number, component
    for system in scene.systems:
        for component in system.point_images:
            yield 3, component
    for component in scene.components[scene.n_object :]:
        yield 4, component


def _numbers_of(artefact: Artefact) -> tuple[float, ...]:
    """An artefact's numbers in the columns of a component's."""
    return tuple(float(getattr(artefact, name, math.nan)) for name in NUMBERS)


def component_table(columns: Mapping[str, NDArray[Any]]) -> pyarrow.Table:
    """The table of columns as :func:`component_columns` gives them."""
    import pyarrow as pa

    arrays = [pa.array(columns[column.name]) for column in COLUMNS]
    for place, names in ((1, ROLES), (2, KINDS)):
        arrays[place] = pa.DictionaryArray.from_arrays(arrays[place], names).cast(pa.string())
    return pa.table(arrays, schema=schema(COLUMNS))
