"""What is known of a drawn object: its truth columns, and the labels that follow from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.lensing import Lens, Sightline, find_images
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population.galaxies import System
from scanner.simulation.telescope.artefacts import add_star
from scanner.simulation.telescope.noise import SKY_SIGMA, magnitude
from scanner.simulation.telescope.psf import Psf, stack

if TYPE_CHECKING:
    import pyarrow


#: Type of a column by the type of its field.
_ARROW_TYPES = {"int": "int64", "bool": "bool", "str": "string", "float": "float32"}


@dataclass(frozen=True)
class Column:
    """A column; ``dtype``: Arrow's name of its type. There are no nulls: what does not apply is NaN, zero or False."""

    name: str
    dtype: str
    unit: str
    description: str


def column(description: str, unit: str = "", default: Any = MISSING) -> Any:
    """A field of a dataclass that is a column of a table."""
    return field(metadata={"description": description, "unit": unit}, default=default)


def nan_column(description: str, unit: str = "") -> Any:
    """A field that is a column, and NaN where nothing else is said."""
    return column(description, unit, default=math.nan)


def part(rows: type, suffix: str = "") -> Any:
    """A field that holds another dataclass of columns: they stand in its place, their names with ``suffix``."""
    return field(metadata={"part": rows, "suffix": suffix})


def columns_of(rows: type) -> tuple[Column, ...]:
    """Columns of a dataclass of rows, those of its parts among them; fields that are made otherwise are none."""
    return tuple(item for _, item in _walk(rows))


def getters_of(rows: type) -> tuple[Callable[[Any], Any], ...]:
    """What takes each of :func:`columns_of` out of a row."""
    return tuple(attrgetter(path) for path, _ in _walk(rows))


def _walk(rows: type, path: str = "", suffix: str = "") -> Iterator[tuple[str, Column]]:
    for item in fields(rows):
        if "part" in item.metadata:
            yield from _walk(item.metadata["part"], f"{path}{item.name}.", suffix + item.metadata["suffix"])
        elif item.metadata:
            text = item.metadata["unit"], item.metadata["description"]
            yield path + item.name, Column(item.name + suffix, _ARROW_TYPES[str(item.type)], *text)


def schema(columns: Sequence[Column]) -> pyarrow.Schema:
    """Schema of a table of these columns."""
    import pyarrow as pa

    return pa.schema(
        pa.field(
            column.name,
            pa.type_for_alias(column.dtype),
            nullable=False,
            metadata={"unit": column.unit, "description": column.description},
        )
        for column in columns
    )


MIN_MAGNIFICATION = 1.6
MIN_ARC_PIXELS = 20
VISIBLE_SNR = 25.0
VISIBLE_PIXELS = 100


@dataclass(frozen=True)
class ArcMeasurement:
    """What the noiseless arcs of one system amount to; zeros where there are none."""

    mag_eff: float = 0.0
    n_pix_source: int = 0
    arc_snr: float = 0.0


@dataclass(frozen=True)
class Label:
    """The verdict on one system; ``magnification``: of a point at the source's centre, summed over its images."""

    n_source_im: int = 0
    magnification: float = 0.0
    is_lens: bool = False
    visible: bool = False


def measure_arcs(arcs: Any, mag_eff: float) -> ArcMeasurement:
    """Measure noiseless, PSF-convolved arcs in VIS, (ny, nx) float32 on 0.1" pixels, numpy or torch."""
    bright = arcs[arcs > SKY_SIGMA["VIS"]]
    count = int(bright.shape[0])
    if not count:
        return ArcMeasurement(mag_eff=mag_eff)
    # In float32 the sum of some thousand pixels is good to 1e-6: numpy adds in pairs, torch in blocks.
    snr = float(bright.sum()) / (SKY_SIGMA["VIS"] * math.sqrt(count))
    return ArcMeasurement(mag_eff=mag_eff, n_pix_source=count, arc_snr=snr)


def measure_system(system: System, arcs_flux: float, seen: Any, psf: Psf, roll: float) -> ArcMeasurement:
    """Measure the arcs of one system together with the images of the quasar in its source, if there is one.

    Parameters
    ----------
    system
        What was drawn.
    arcs_flux
        VIS flux of the lensed light, the quasar's aside, before the PSF.
    seen
        (ny, nx) float32 on 0.1" pixels, the system in the middle: the same light after the PSF. Left as it is.
    psf, roll
        Of VIS, and the angle of the telescope: what a star looks like.
    """
    if system.point_images:
        seen = array_namespace(seen).asarray(seen, copy=True)
        for image in system.point_images:
            arcs_flux += image.flux[0]
            x = image.x / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (seen.shape[-1] - 1)
            y = image.y / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (seen.shape[-2] - 1)
            add_star(seen[None], x, y, image.flux[:1], stack([psf]), magnitude(image.flux[0], "VIS"), roll)
    return measure_arcs(seen, arcs_flux / system.unlensed_flux[0])


def label(system: System, arcs: ArcMeasurement) -> Label:
    """Apply the definition to one system."""
    return labels([system], [arcs])[0]


def labels(systems: Sequence[System], arcs: Sequence[ArcMeasurement]) -> list[Label]:
    """Apply the definition to many systems at once, many times faster than to each; ``arcs``: of each."""
    alike: dict[int, list[int]] = defaultdict(list)
    for number, system in enumerate(systems):
        alike[len(system.sightline.lenses)].append(number)
    found: dict[int, Label] = {}
    for numbers in alike.values():
        some = [systems[number] for number in numbers]
        x, y = (np.array([getattr(system, name) for system in some]) for name in ("source_x", "source_y"))
        images = find_images(x, y, _together([system.sightline for system in some]))
        total = np.nansum(np.abs(images.magnification), axis=1)
        for row, number in enumerate(numbers):
            found[number] = _verdict(int(images.count[row]), float(total[row]), arcs[number])
    return [found[number] for number in range(len(systems))]


def _verdict(images: int, magnification: float, arcs: ArcMeasurement) -> Label:
    count = images if images > 1 else 0
    is_lens = count > 0 and arcs.mag_eff > MIN_MAGNIFICATION and arcs.n_pix_source > MIN_ARC_PIXELS
    return Label(
        n_source_im=count,
        magnification=magnification,
        is_lens=is_lens,
        visible=is_lens and arcs.arc_snr > VISIBLE_SNR and arcs.n_pix_source > VISIBLE_PIXELS,
    )


def _together(sightlines: Sequence[Sightline]) -> Sightline:
    """Sightlines of equally many planes as one of arrays (N,)."""
    planes = zip(*(line.lenses for line in sightlines), strict=True)
    lenses = tuple(
        Lens(*(np.array(values) for values in zip(*(vars(lens).values() for lens in plane), strict=True))) for plane in planes
    )
    return Sightline(lenses, tuple(np.array(values) for values in zip(*(line.couplings for line in sightlines), strict=True)))


@dataclass(frozen=True)
class ObjectVerdict:
    """The labels of all systems of an object together."""

    is_lens: bool = column("a lens by the definition: a system with n_source_im > 0, mag_eff > 1.6, n_pix_source > 20")
    visible: bool = column("a lens whose arcs a person could see: arc_snr > 25, n_pix_source > 100")
    is_compound: bool = column("a lens by the definition twice: both of its systems are")


def object_verdict(labels: Sequence[Label], off_centre: bool = False) -> ObjectVerdict:
    """The verdict on an object with these labels; without systems, or with another's (``off_centre``), it is no lens."""
    if off_centre:
        return ObjectVerdict(is_lens=False, visible=False, is_compound=False)
    lenses = [label.is_lens for label in labels]
    return ObjectVerdict(any(lenses), any(label.visible for label in labels), len(lenses) > 1 and all(lenses))


@dataclass(frozen=True)
class ObjectLight:
    """Light that is not lensed; NaN is what does not apply: the shape of a star, anything of nothing."""

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


def object_light(components: Sequence[Component]) -> ObjectLight:
    """What is true of an object's components, the main one first."""
    vis, y, j, h = total_flux(components)
    main = components[0] if components and components[0].kind is not Kind.POINT else None
    return ObjectLight(
        magnitude_vis=magnitude(vis, "VIS") if vis > 0.0 else math.nan,
        object_flux_vis=vis,
        object_flux_y=y,
        object_flux_j=j,
        object_flux_h=h,
        object_radius_arcsec=math.nan if main is None else main.radius,
        object_index=math.nan if main is None else main.index,
        object_q=math.nan if main is None else main.q,
        object_angle=math.nan if main is None else main.angle,
        n_components=len(components),
    )


#: Ends the columns of the second system, of compound lenses only.
SECOND = "_2"


@dataclass(frozen=True)
class SystemTruth:
    """A source and the deflector in front of it; the defaults say that there is none."""

    theta_e_arcsec: float = nan_column("Einstein radius of the source's last deflector, for this source", "arcsec")
    n_deflectors: int = column("masses that bend the source's light", default=0)
    lens_magnitude_vis: float = nan_column("VIS magnitude of the deflector's galaxy alone", "mag(AB)")
    lens_q: float = nan_column("axis ratio of the deflector's mass, minor to major")
    lens_angle: float = nan_column("position angle of the deflector's mass, from +x to +y", "rad")
    lens_x_arcsec: float = nan_column("deflector's place from the cutout's centre, x", "arcsec")
    lens_y_arcsec: float = nan_column("deflector's place from the cutout's centre, y", "arcsec")
    gamma1: float = nan_column("external shear along the axes")
    gamma2: float = nan_column("external shear along the diagonals")
    z_lens: float = nan_column("redshift of the deflector")
    z_source: float = nan_column("redshift of the source")
    sigma_v_kms: float = nan_column("velocity dispersion of the deflector", "km/s")
    front_theta_e_arcsec: float = nan_column("Einstein radius, for this source, of a deflector in front of the last", "arcsec")
    coupling: float = nan_column("share of the front deflector's deflection that is felt at the last deflector")
    source_x_arcsec: float = nan_column("source's place, unlensed, from the cutout's centre, x", "arcsec")
    source_y_arcsec: float = nan_column("source's place, unlensed, from the cutout's centre, y", "arcsec")
    source_offset_arcsec: float = nan_column(
        "angle between source and deflector, unlensed; other masses of a group apart", "arcsec"
    )
    source_magnitude_vis: float = nan_column("VIS magnitude of the source, unlensed", "mag(AB)")
    source_vis_minus_h: float = nan_column("VIS - H colour of the source, unlensed", "mag(AB)")
    source_flux_vis: float = nan_column("VIS flux of the source, unlensed", "adu")
    source_flux_y: float = nan_column("Y flux of the source, unlensed", "adu")
    source_flux_j: float = nan_column("J flux of the source, unlensed", "adu")
    source_flux_h: float = nan_column("H flux of the source, unlensed", "adu")
    source_radius_arcsec: float = nan_column("half-light radius of the source's main profile, along its major axis", "arcsec")
    source_index: float = nan_column("Sérsic index of the source's main profile")
    source_q: float = nan_column("axis ratio of the source's main profile, minor to major")
    source_angle: float = nan_column("position angle of the source's main profile, from +x to +y", "rad")
    source_point_flux_vis: float = column("VIS flux of the quasar in the source, unlensed", "adu", default=0.0)
    n_point_images: int = column("images of the quasar", default=0)
    n_clumps: int = column("further components of the source: clumps, a bulge, a point", default=0)
    red_source: bool = column("the source has the colours of an old galaxy", default=False)
    magnification: float = column("of a point at the source's centre, summed over its images", default=0.0)
    mag_eff: float = column("lensed over unlensed VIS flux of the source", default=0.0)
    n_source_im: int = column("images of the source's centre; 0 where there is only one", default=0)
    n_pix_source: int = column("pixels of the noiseless, convolved VIS arcs above 1 sigma of the sky", default=0)
    arc_snr: float = column("signal-to-noise ratio of these pixels in VIS", default=0.0)


def system_truth(system: System, arcs: ArcMeasurement, verdict: Label) -> SystemTruth:
    """What is true of one system.

    Parameters
    ----------
    system
        In the coordinates that the columns shall have.
    arcs, verdict
        What was measured of its arcs, and its label.
    """
    lens, front = system.lens, system.sightline.front
    main = system.source[0]
    vis, y, j, h = system.unlensed_flux
    return SystemTruth(
        theta_e_arcsec=lens.theta_e,
        n_deflectors=len(system.sightline.lenses),
        lens_magnitude_vis=system.lens_magnitude,
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
        source_offset_arcsec=system.source_offset,
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


def system_truths(
    systems: Sequence[System], arcs: Sequence[ArcMeasurement], verdicts: Sequence[Label]
) -> tuple[SystemTruth, SystemTruth]:
    """What is true of the first and of the second system of an object, where there are any."""
    found = [system_truth(*parts) for parts in zip(systems, arcs, verdicts, strict=True)]
    first, second = (found + [SystemTruth()] * 2)[:2]
    return first, second
