"""The truth tables of a dataset, and the page of the documentation that lists their columns."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.datasets.presets import CutoutScene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.truth import (
    MIN_ARC_PIXELS,
    MIN_MAGNIFICATION,
    SECOND,
    VISIBLE_PIXELS,
    VISIBLE_SNR,
    ArcMeasurement,
    Column,
    Label,
    ObjectLight,
    ObjectVerdict,
    SystemTruth,
    column,
    columns_of,
    getters_of,
    labels,
    object_light,
    object_verdict,
    part,
    schema,
    system_truths,
)
from scanner.simulation.telescope.artefacts import Artefact, ArtefactKind
from scanner.simulation.telescope.noise import magnitude
from scanner.simulation.telescope.psf import stack

if TYPE_CHECKING:
    import pyarrow

    from scanner.simulation.datasets.presets import CutoutScene


@dataclass(frozen=True)
class TruthRow:
    """One row: what was drawn, and what can be measured of it without noise."""

    target_id: int = column("number of the object in its dataset")
    verdict: ObjectVerdict = part(ObjectVerdict)
    class_name: str = column("what was drawn")
    n_systems: int = column("sources behind a deflector: 0, 1, or 2 in compound lenses")
    x_arcsec: float = column("object's place from the cutout's centre, x", "arcsec")
    y_arcsec: float = column("object's place from the cutout's centre, y", "arcsec")
    light: ObjectLight = part(ObjectLight)
    n_field: int = column("profiles and stars around it")
    psf_roll: float = column("orientation of the telescope", "rad")
    psf_fwhm_vis_arcsec: float = column("FWHM of the Gaussian with the VIS PSF's peak", "arcsec")
    psf_fwhm_y_arcsec: float = column("FWHM of the Gaussian with the Y PSF's peak", "arcsec")
    psf_fwhm_j_arcsec: float = column("FWHM of the Gaussian with the J PSF's peak", "arcsec")
    psf_fwhm_h_arcsec: float = column("FWHM of the Gaussian with the H PSF's peak", "arcsec")
    noise_level: float = column("factor on the sky's noise")
    depth: float = column("exposure time in units of Euclid's")
    noise_correlation: float = column("weight of a neighbour in the kernel of the VIS noise")
    missing_bands: str = column("bands without any pixel, separated by spaces")
    native_nisp_noise: bool = column('NISP has white noise on native 0.3" pixels; otherwise it was resampled as MER does')
    noise_tails: float = column("of the VIS noise: cubic term in the unit noise of a pixel")
    shallow_vis: float = column("factor on the sky's noise of VIS beyond a line, where fewer exposures overlap; 1 without")
    shallow_nisp: float = column("the same of Y, J and H")
    background_vis: float = column("what background subtraction left in VIS at the cutout's centre", "adu/pixel")
    background_y: float = column('the same in Y, per 0.1" pixel', "adu/pixel")
    background_j: float = column('the same in J, per 0.1" pixel', "adu/pixel")
    background_h: float = column('the same in H, per 0.1" pixel', "adu/pixel")
    n_artefacts: int = column("ghosts, tracks, hot pixels and the like, within the cutout or its margin")
    n_artefacts_on_object: int = column("how many of them were put on the object on purpose: class artefact only")
    artefact_kinds: str = column("kinds of these artefacts, separated by spaces")
    artefact_strength: float = column("largest peak among them in sigma of the sky in the cutout's pixels; 0 without")
    bright_star_magnitude: float = column("VIS magnitude of the brightest star in the cutout or its margin", "mag(AB)")
    bright_star_distance_arcsec: float = column("its distance from the object", "arcsec")
    first: SystemTruth = part(SystemTruth)
    second: SystemTruth = part(SystemTruth, SECOND)


def truths_of(
    target_ids: Sequence[int], scenes: Sequence[CutoutScene], measured: Sequence[Sequence[ArcMeasurement]]
) -> list[TruthRow]:
    """Rows of scenes; ``measured``: of each, what was measured of the arcs of each of its systems."""
    systems = [system for scene in scenes for system in scene.systems]
    verdicts = iter(labels(systems, [arcs for of_one in measured for arcs in of_one]))
    return [
        _truth(target_id, scene, arcs, [next(verdicts) for _ in arcs])
        for target_id, scene, arcs in zip(target_ids, scenes, measured, strict=True)
    ]


def _truth(target_id: int, scene: CutoutScene, arcs: Sequence[ArcMeasurement], verdicts: Sequence[Label]) -> TruthRow:
    first, second = system_truths(scene.systems, arcs, verdicts)
    artefacts, levels = scene.exposure.artefacts, [plane.level for plane in scene.exposure.background]
    shallow = [1.0 if part is None else part.factor for part in scene.exposure.shallow]
    around = [component for component in scene.components[scene.n_object :] if component.kind is Kind.POINT]
    star = max(around, key=lambda component: component.flux[0], default=None)
    # Of the Gaussian with the same peak.
    peaks = stack(scene.exposure.psfs).values(0.0, 0.0).tolist()
    fwhm = [VIS_PIXEL_SCALE_ARCSEC * math.sqrt(4.0 * math.log(2.0) / (math.pi * peak)) for peak in peaks]
    return TruthRow(
        target_id=target_id,
        verdict=object_verdict(verdicts, scene.off_centre),
        class_name=scene.class_name,
        n_systems=len(scene.systems),
        x_arcsec=scene.x,
        y_arcsec=scene.y,
        light=object_light(scene.components[: scene.n_object]),
        n_field=len(scene.components) - scene.n_object,
        psf_roll=scene.exposure.roll,
        psf_fwhm_vis_arcsec=fwhm[0],
        psf_fwhm_y_arcsec=fwhm[1],
        psf_fwhm_j_arcsec=fwhm[2],
        psf_fwhm_h_arcsec=fwhm[3],
        noise_level=scene.exposure.level,
        depth=scene.exposure.depth,
        noise_correlation=scene.exposure.vis_kernel[0],
        missing_bands=" ".join(BANDS[channel] for channel in scene.exposure.missing),
        native_nisp_noise=scene.exposure.native,
        noise_tails=scene.exposure.tails,
        shallow_vis=shallow[0],
        shallow_nisp=shallow[1],
        background_vis=levels[0],
        background_y=levels[1],
        background_j=levels[2],
        background_h=levels[3],
        n_artefacts=len(artefacts),
        n_artefacts_on_object=scene.exposure.n_on_object,
        artefact_kinds=" ".join(sorted({artefact.kind.value for artefact in artefacts})),
        artefact_strength=max((abs(artefact.strength) for artefact in artefacts), default=0.0),
        bright_star_magnitude=math.nan if star is None else magnitude(star.flux[0], "VIS"),
        bright_star_distance_arcsec=math.nan if star is None else math.hypot(star.x - scene.x, star.y - scene.y),
        first=first,
        second=second,
    )


COLUMNS, _GETTERS = columns_of(TruthRow), getters_of(TruthRow)


def truth_arrays(rows: Sequence[TruthRow]) -> dict[str, NDArray[Any]]:
    """Rows as columns (N,) by name."""
    types = {"string": np.str_}
    return {
        item.name: np.array([value(row) for row in rows], dtype=types.get(item.dtype, item.dtype))
        for item, value in zip(COLUMNS, _GETTERS, strict=True)
    }


def truth_table(rows: Sequence[TruthRow]) -> pyarrow.Table:
    """Rows as a table, units and descriptions in the metadata of its fields."""
    import pyarrow as pa

    return pa.table([[value(row) for row in rows] for value in _GETTERS], schema=schema(COLUMNS))


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
COMPONENT_COLUMNS: tuple[Column, ...] = (
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
    return dict(zip((column.name for column in COMPONENT_COLUMNS), (*head.T, *number.T, *other.T), strict=True))


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

    arrays = [pa.array(columns[column.name]) for column in COMPONENT_COLUMNS]
    for place, names in ((1, ROLES), (2, KINDS)):
        arrays[place] = pa.DictionaryArray.from_arrays(arrays[place], names).cast(pa.string())
    return pa.table(arrays, schema=schema(COMPONENT_COLUMNS))


_INTRODUCTION = f"""\
# Truth columns of a dataset

Written by `python -m scanner.simulation.datasets.truth docs/truth-columns.md` from the code; do not edit.

A dataset of `scanner simulate dataset` has two tables. `truth.parquet` has one row a cutout, in the order of the cutout store;
`components.parquet` has every piece of light and every artefact that went into each cutout, joined to it by `target_id`. Both
carry units and descriptions in the metadata of their fields (`unit`, `description`). What does not apply is NaN, zero or False;
there are no nulls. Fluxes are in the units of the images (`adu`; zero points VIS 24.6, Y 29.8, J 30.0, H 29.9).

A **lens** by the definition has `n_source_im` > 0, `mag_eff` > {MIN_MAGNIFICATION} and `n_pix_source` > {MIN_ARC_PIXELS}; it is
**visible** if moreover `arc_snr` > {VISIBLE_SNR:g} and `n_pix_source` > {VISIBLE_PIXELS}. `class_name` says what was drawn,
`is_lens` whether it came out as one: labels of training are `is_lens`.

## `truth.parquet`
"""
_SECOND = f"""
These columns describe the object's only system of a source and a deflector, or in compound lenses the one of the nearer source;
all of them come once more with the suffix `{SECOND}` for the farther source of compound lenses.
"""


def markdown() -> str:
    """The page."""
    second = {column.name.removesuffix(SECOND) for column in COLUMNS if column.name.endswith(SECOND)}
    own = [column for column in COLUMNS if not column.name.endswith(SECOND)]
    general = [column for column in own if column.name not in second]
    of_systems = [column for column in own if column.name in second]
    parts = [_INTRODUCTION, _table(general), _SECOND, _table(of_systems), "## `components.parquet`\n"]
    return "\n".join([*parts, _table(COMPONENT_COLUMNS)])


def _table(columns: Sequence[Column]) -> str:
    rows = [f"| `{column.name}` | {column.dtype} | {column.unit} | {column.description} |" for column in columns]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
