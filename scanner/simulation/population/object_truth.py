"""What truth tables say of one object: its unlensed light, and whether it is a lens.

In: the components of an object, the labels of its systems. Out: dataclasses whose fields are columns. Nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population.columns import column
from scanner.simulation.population.labels import Label
from scanner.simulation.telescope.photometry import magnitude


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
