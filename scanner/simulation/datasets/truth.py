"""The truth table of labelled cutouts: one row an object, in the order of the cutout store.

In: a scene and what was measured of its arcs. Out: :class:`TruthRow`, and rows as an Arrow table whose fields carry ``unit``
and ``description`` in their metadata. What does not apply is NaN, zero or False; there are no nulls. Columns of the second
system, of compound lenses only, end in ``_2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.light.components import Kind, total_flux
from scanner.simulation.population.columns import Column, column, columns_of, schema
from scanner.simulation.population.labels import ArcMeasurement, Label, labels
from scanner.simulation.population.system_truth import SystemTruth, system_truth
from scanner.simulation.telescope.photometry import magnitude
from scanner.simulation.telescope.psf import stack

if TYPE_CHECKING:
    import pyarrow

    from scanner.simulation.datasets.cutout_scene import CutoutScene

SECOND = "_2"


@dataclass(frozen=True)
class TruthRow:
    """One row: what was drawn, and what can be measured of it without noise."""

    first: SystemTruth
    second: SystemTruth
    target_id: int = column("number of the object in its dataset")
    is_lens: bool = column("a lens by the definition: a system with n_source_im > 0, mag_eff > 1.6, n_pix_source > 20")
    visible: bool = column("a lens whose arcs a person could see: arc_snr > 25, n_pix_source > 100")
    is_compound: bool = column("a lens by the definition twice: both of its systems are")
    class_name: str = column("what was drawn")
    n_systems: int = column("sources behind a deflector: 0, 1, or 2 in compound lenses")
    x_arcsec: float = column("object's place from the cutout's centre, x", "arcsec")
    y_arcsec: float = column("object's place from the cutout's centre, y", "arcsec")
    magnitude_vis: float = column("VIS magnitude of the object's unlensed light, satellites included", "mag(AB)")
    object_flux_vis: float = column("VIS flux of the object's unlensed light", "adu")
    object_flux_y: float = column("Y flux of the object's unlensed light", "adu")
    object_flux_j: float = column("J flux of the object's unlensed light", "adu")
    object_flux_h: float = column("H flux of the object's unlensed light", "adu")
    object_radius_arcsec: float = column("half-light radius of the object's first profile, along its major axis", "arcsec")
    object_index: float = column("Sérsic index of the object's first profile")
    object_q: float = column("axis ratio of the object's first profile, minor to major")
    object_angle: float = column("position angle of the object's first profile, from +x to +y", "rad")
    n_components: int = column("profiles and stars of the object's unlensed light")
    n_field: int = column("profiles and stars around it")
    psf_roll: float = column("orientation of the telescope", "rad")
    psf_fwhm_vis_arcsec: float = column("FWHM of the Gaussian with the VIS PSF's peak", "arcsec")
    psf_fwhm_y_arcsec: float = column("FWHM of the Gaussian with the Y PSF's peak", "arcsec")
    psf_fwhm_j_arcsec: float = column("FWHM of the Gaussian with the J PSF's peak", "arcsec")
    psf_fwhm_h_arcsec: float = column("FWHM of the Gaussian with the H PSF's peak", "arcsec")
    noise_level: float = column("factor on the sky's noise")
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
    systems = [system_truth(*parts) for parts in zip(scene.systems, arcs, verdicts, strict=True)]
    first, second = (systems + [SystemTruth()] * 2)[:2]
    main = scene.components[0] if scene.n_object else None
    vis, y, j, h = total_flux(scene.components[: scene.n_object])
    artefacts, levels = scene.exposure.artefacts, [plane.level for plane in scene.exposure.background]
    shallow = [1.0 if part is None else part.factor for part in scene.exposure.shallow]
    around = [component for component in scene.components[scene.n_object :] if component.kind is Kind.POINT]
    star = max(around, key=lambda component: component.flux[0], default=None)
    # Of the Gaussian with the same peak.
    peaks = stack(scene.exposure.psfs).values(0.0, 0.0).tolist()
    fwhm = [VIS_PIXEL_SCALE_ARCSEC * math.sqrt(4.0 * math.log(2.0) / (math.pi * peak)) for peak in peaks]
    return TruthRow(
        target_id=target_id,
        is_lens=any(verdict.is_lens for verdict in verdicts),
        visible=any(verdict.visible for verdict in verdicts),
        is_compound=len(verdicts) > 1 and all(verdict.is_lens for verdict in verdicts),
        class_name=scene.class_name,
        n_systems=len(scene.systems),
        x_arcsec=scene.x,
        y_arcsec=scene.y,
        magnitude_vis=magnitude(vis, "VIS") if vis > 0.0 else math.nan,
        object_flux_vis=vis,
        object_flux_y=y,
        object_flux_j=j,
        object_flux_h=h,
        object_radius_arcsec=math.nan if main is None else main.radius,
        object_index=math.nan if main is None else main.index,
        object_q=math.nan if main is None else main.q,
        object_angle=math.nan if main is None else main.angle,
        n_components=scene.n_object,
        n_field=len(scene.components) - scene.n_object,
        psf_roll=scene.exposure.roll,
        psf_fwhm_vis_arcsec=fwhm[0],
        psf_fwhm_y_arcsec=fwhm[1],
        psf_fwhm_j_arcsec=fwhm[2],
        psf_fwhm_h_arcsec=fwhm[3],
        noise_level=scene.exposure.level,
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


def _columns() -> Iterator[tuple[Column, Callable[[TruthRow], Any]]]:
    """Columns, and what takes each out of a row."""
    for item in columns_of(TruthRow):
        yield item, attrgetter(item.name)
    for part, suffix in (("first", ""), ("second", SECOND)):
        for item in columns_of(SystemTruth):
            yield replace(item, name=item.name + suffix), attrgetter(f"{part}.{item.name}")


_GETTERS = tuple(_columns())
COLUMNS: tuple[Column, ...] = tuple(item for item, _ in _GETTERS)


def truth_arrays(rows: Sequence[TruthRow]) -> dict[str, NDArray[Any]]:
    """Rows as columns (N,) by name."""
    types = {"string": np.str_}
    return {
        item.name: np.array([value(row) for row in rows], dtype=types.get(item.dtype, item.dtype)) for item, value in _GETTERS
    }


def truth_table(rows: Sequence[TruthRow]) -> pyarrow.Table:
    """Rows as a table, units and descriptions in the metadata of its fields."""
    import pyarrow as pa

    return pa.table([[value(row) for row in rows] for _, value in _GETTERS], schema=schema(COLUMNS))
