"""The truth table of labelled cutouts: one row an object, in the order of the cutout store.

In: a scene and what was measured of its arcs. Out: :class:`TruthRow`, and rows as an Arrow table whose fields carry ``unit``
and ``description`` in their metadata. What does not apply is NaN, zero or False; there are no nulls. Columns of the second
system, of compound lenses only, end in ``_2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.light.components import Kind
from scanner.simulation.population.columns import column, columns_of, getters_of, part, schema
from scanner.simulation.population.labels import ArcMeasurement, Label, labels
from scanner.simulation.population.object_truth import ObjectLight, ObjectVerdict, object_light, object_verdict
from scanner.simulation.population.system_truth import SECOND, SystemTruth, system_truths
from scanner.simulation.telescope.photometry import magnitude
from scanner.simulation.telescope.psf import stack

if TYPE_CHECKING:
    import pyarrow

    from scanner.simulation.datasets.cutout_scene import CutoutScene


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
