"""What truth tables say of one system of a source and the deflectors in front of it.

In: a system, what was measured of its arcs, its label. Out: :class:`SystemTruth`, whose fields are columns. Nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scanner.simulation.population.columns import column, nan_column
from scanner.simulation.population.labels import ArcMeasurement, Label
from scanner.simulation.population.system import System
from scanner.simulation.telescope.photometry import magnitude

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
