"""The truth table of labelled cutouts: one row an object, in the order of the cutout store.

In: a scene and what was measured of its arcs. Out: :class:`TruthRow`, and rows as an Arrow table whose fields carry ``unit``
and ``description`` in their metadata. What does not apply is NaN, zero or False; there are no nulls. Columns of the second
system, of compound lenses only, end in ``_2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.datasets.columns import Column, schema
from scanner.simulation.light.components import Kind, total_flux
from scanner.simulation.population.labels import ArcMeasurement, Label, labels
from scanner.simulation.population.system import System
from scanner.simulation.telescope.photometry import magnitude
from scanner.simulation.telescope.psf import stack

if TYPE_CHECKING:
    import pyarrow

    from scanner.simulation.datasets.cutout_scene import CutoutScene

SECOND = "_2"
#: Type of a column by the type of its field.
_ARROW_TYPES = {"int": "int64", "bool": "bool", "str": "string", "float": "float32"}


def _column(description: str, unit: str = "", default: Any = MISSING) -> Any:
    return field(metadata={"description": description, "unit": unit}, default=default)


def _none(description: str, unit: str = "") -> Any:
    return _column(description, unit, default=math.nan)


@dataclass(frozen=True)
class SystemTruth:
    """A source and the deflector in front of it; the defaults say that there is none."""

    theta_e_arcsec: float = _none("Einstein radius of the source's last deflector, for this source", "arcsec")
    lens_q: float = _none("axis ratio of the deflector's mass, minor to major")
    lens_angle: float = _none("position angle of the deflector's mass, from +x to +y", "rad")
    lens_x_arcsec: float = _none("deflector's place from the cutout's centre, x", "arcsec")
    lens_y_arcsec: float = _none("deflector's place from the cutout's centre, y", "arcsec")
    gamma1: float = _none("external shear along the axes")
    gamma2: float = _none("external shear along the diagonals")
    z_lens: float = _none("redshift of the deflector")
    z_source: float = _none("redshift of the source")
    sigma_v_kms: float = _none("velocity dispersion of the deflector", "km/s")
    front_theta_e_arcsec: float = _none("Einstein radius, for this source, of a deflector in front of the last", "arcsec")
    coupling: float = _none("share of the front deflector's deflection that is felt at the last deflector")
    source_x_arcsec: float = _none("source's place, unlensed, from the cutout's centre, x", "arcsec")
    source_y_arcsec: float = _none("source's place, unlensed, from the cutout's centre, y", "arcsec")
    source_offset_arcsec: float = _none("angle between source and deflector, unlensed", "arcsec")
    source_magnitude_vis: float = _none("VIS magnitude of the source, unlensed", "mag(AB)")
    source_vis_minus_h: float = _none("VIS - H colour of the source, unlensed", "mag(AB)")
    source_flux_vis: float = _none("VIS flux of the source, unlensed", "adu")
    source_flux_y: float = _none("Y flux of the source, unlensed", "adu")
    source_flux_j: float = _none("J flux of the source, unlensed", "adu")
    source_flux_h: float = _none("H flux of the source, unlensed", "adu")
    source_radius_arcsec: float = _none("half-light radius of the source's main profile, along its major axis", "arcsec")
    source_index: float = _none("Sérsic index of the source's main profile")
    source_q: float = _none("axis ratio of the source's main profile, minor to major")
    source_angle: float = _none("position angle of the source's main profile, from +x to +y", "rad")
    source_point_flux_vis: float = _column("VIS flux of the quasar in the source, unlensed", "adu", default=0.0)
    n_point_images: int = _column("images of the quasar", default=0)
    n_clumps: int = _column("further components of the source: clumps, a bulge, a point", default=0)
    red_source: bool = _column("the source has the colours of an old galaxy", default=False)
    magnification: float = _column("of a point at the source's centre, summed over its images", default=0.0)
    mag_eff: float = _column("lensed over unlensed VIS flux of the source", default=0.0)
    n_source_im: int = _column("images of the source's centre; 0 where there is only one", default=0)
    n_pix_source: int = _column("pixels of the noiseless, convolved VIS arcs above 1 sigma of the sky", default=0)
    arc_snr: float = _column("signal-to-noise ratio of these pixels in VIS", default=0.0)


@dataclass(frozen=True)
class TruthRow:
    """One row: what was drawn, and what can be measured of it without noise."""

    target_id: int = _column("number of the object in its dataset")
    is_lens: bool = _column("a lens by the definition: a system with n_source_im > 0, mag_eff > 1.6, n_pix_source > 20")
    visible: bool = _column("a lens whose arcs a person could see: arc_snr > 25, n_pix_source > 100")
    is_compound: bool = _column("a lens by the definition twice: both of its systems are")
    class_name: str = _column("what was drawn")
    n_systems: int = _column("sources behind a deflector: 0, 1, or 2 in compound lenses")
    x_arcsec: float = _column("object's place from the cutout's centre, x", "arcsec")
    y_arcsec: float = _column("object's place from the cutout's centre, y", "arcsec")
    magnitude_vis: float = _column("VIS magnitude of the object's unlensed light, satellites included", "mag(AB)")
    object_flux_vis: float = _column("VIS flux of the object's unlensed light", "adu")
    object_flux_y: float = _column("Y flux of the object's unlensed light", "adu")
    object_flux_j: float = _column("J flux of the object's unlensed light", "adu")
    object_flux_h: float = _column("H flux of the object's unlensed light", "adu")
    object_radius_arcsec: float = _column("half-light radius of the object's first profile, along its major axis", "arcsec")
    object_index: float = _column("Sérsic index of the object's first profile")
    object_q: float = _column("axis ratio of the object's first profile, minor to major")
    object_angle: float = _column("position angle of the object's first profile, from +x to +y", "rad")
    n_components: int = _column("profiles and stars of the object's unlensed light")
    n_field: int = _column("profiles and stars around it")
    psf_roll: float = _column("orientation of the telescope", "rad")
    psf_fwhm_vis_arcsec: float = _column("FWHM of the Gaussian with the VIS PSF's peak", "arcsec")
    psf_fwhm_y_arcsec: float = _column("FWHM of the Gaussian with the Y PSF's peak", "arcsec")
    psf_fwhm_j_arcsec: float = _column("FWHM of the Gaussian with the J PSF's peak", "arcsec")
    psf_fwhm_h_arcsec: float = _column("FWHM of the Gaussian with the H PSF's peak", "arcsec")
    noise_level: float = _column("factor on the sky's noise")
    native_nisp_noise: bool = _column('NISP has white noise on native 0.3" pixels; otherwise it was resampled as MER does')
    noise_tails: float = _column("of the VIS noise: cubic term in the unit noise of a pixel")
    shallow_vis: float = _column("factor on the sky's noise of VIS beyond a line, where fewer exposures overlap; 1 without")
    shallow_nisp: float = _column("the same of Y, J and H")
    background_vis: float = _column("what background subtraction left in VIS at the cutout's centre", "adu/pixel")
    background_y: float = _column('the same in Y, per 0.1" pixel', "adu/pixel")
    background_j: float = _column('the same in J, per 0.1" pixel', "adu/pixel")
    background_h: float = _column('the same in H, per 0.1" pixel', "adu/pixel")
    n_artefacts: int = _column("ghosts, tracks, hot pixels and the like, within the cutout or its margin")
    n_artefacts_on_object: int = _column("how many of them were put on the object on purpose: class artefact only")
    artefact_kinds: str = _column("kinds of these artefacts, separated by spaces")
    artefact_strength: float = _column("largest peak among them in sigma of the sky in the cutout's pixels; 0 without")
    bright_star_magnitude: float = _column("VIS magnitude of the brightest star in the cutout or its margin", "mag(AB)")
    bright_star_distance_arcsec: float = _column("its distance from the object", "arcsec")
    first: SystemTruth = SystemTruth()
    second: SystemTruth = SystemTruth()


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
    systems = [_system(*parts) for parts in zip(scene.systems, arcs, verdicts, strict=True)]
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


def _system(system: System, arcs: ArcMeasurement, verdict: Label) -> SystemTruth:
    *front, lens = system.sightline.lenses
    main = system.source[0]
    vis, y, j, h = system.unlensed_flux
    return SystemTruth(
        theta_e_arcsec=lens.theta_e,
        lens_q=lens.q,
        lens_angle=lens.angle,
        lens_x_arcsec=lens.x,
        lens_y_arcsec=lens.y,
        gamma1=lens.gamma1,
        gamma2=lens.gamma2,
        z_lens=system.z_lens,
        z_source=system.z_source,
        sigma_v_kms=system.sigma_v_kms,
        front_theta_e_arcsec=front[0].theta_e if front else math.nan,
        coupling=system.sightline.couplings[0] if front else math.nan,
        source_x_arcsec=system.source_x,
        source_y_arcsec=system.source_y,
        source_offset_arcsec=math.hypot(system.source_x - lens.x, system.source_y - lens.y),
        source_magnitude_vis=system.source_magnitude,
        source_vis_minus_h=magnitude(vis, "VIS") - magnitude(h, "H"),
        source_flux_vis=vis,
        source_flux_y=y,
        source_flux_j=j,
        source_flux_h=h,
        source_radius_arcsec=main.radius,
        source_index=main.index,
        source_q=main.q,
        source_angle=main.angle,
        source_point_flux_vis=system.point_flux[0],
        n_point_images=len(system.point_images),
        n_clumps=len(system.source) - 1,
        red_source=system.red_source,
        magnification=verdict.magnification,
        mag_eff=arcs.mag_eff,
        n_source_im=verdict.n_source_im,
        n_pix_source=arcs.n_pix_source,
        arc_snr=arcs.arc_snr,
    )


def _columns() -> Iterator[tuple[Column, Callable[[TruthRow], Any]]]:
    """Columns, and what takes each out of a row."""
    for item in fields(TruthRow):
        if item.metadata:
            yield _column_of(item), attrgetter(item.name)
    for part, suffix in (("first", ""), ("second", SECOND)):
        for item in fields(SystemTruth):
            yield _column_of(item, suffix), attrgetter(f"{part}.{item.name}")


def _column_of(item: Field[Any], suffix: str = "") -> Column:
    return Column(item.name + suffix, _ARROW_TYPES[str(item.type)], item.metadata["unit"], item.metadata["description"])


_GETTERS = tuple(_columns())
COLUMNS: tuple[Column, ...] = tuple(column for column, _ in _GETTERS)


def truth_arrays(rows: Sequence[TruthRow]) -> dict[str, NDArray[Any]]:
    """Rows as columns (N,) by name."""
    types = {"string": np.str_}
    return {
        column.name: np.array([value(row) for row in rows], dtype=types.get(column.dtype, column.dtype))
        for column, value in _GETTERS
    }


def truth_table(rows: Sequence[TruthRow]) -> pyarrow.Table:
    """Rows as a table, units and descriptions in the metadata of its fields."""
    import pyarrow as pa

    return pa.table([[value(row) for row in rows] for _, value in _GETTERS], schema=schema(COLUMNS))
