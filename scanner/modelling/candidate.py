"""The lens model of one candidate: what is fitted, what is said of it, and the images that go with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from astropy.wcs import WCS
from numpy.linalg import LinAlgError
from threadpoolctl import threadpool_limits

from scanner.errors import ScannerError
from scanner.modelling.deflector_light import fit_deflector
from scanner.modelling.hypotheses import Comparison, compare
from scanner.modelling.lens_model import LensModel, ModelledGalaxy, ModelledMass, Status, Verdict
from scanner.modelling.observation import Observation, observe
from scanner.modelling.psf import BandPsf
from scanner.modelling.scene_fit import HIGHEST_RADIUS, HIGHEST_THETA_E, LOWEST_THETA_E, Fit, Problem, Scene, draw
from scanner.records import BANDS, Band, CutoutBatch, Float32, Float64
from scanner.simulation.lensing import Sightline, find_images

#: ln evidence ratio from which a candidate is certified, consistent with a lens, and better explained without one; and the
#: least S/N of the counter-image of what is certified. ``docs/lens-models.md`` says how many pass.
CERTIFIED, CONSISTENT, WITHOUT = 15.0, 5.0, -5.0
CERTIFIED_COUNTER_IMAGE_SNR = 5.0
#: What a model adds to the networks' log-odds: a constant, and times asinh(ln evidence ratio / 5) and ln(1 + S/N of the
#: counter-image). Fitted to lenses and non-lenses that networks rank high; the mean odds ratio of the non-lenses is one.
ADDED_LOG_ODDS = (-1.32, 0.13, 0.75)
#: Least S/N of the lensed light, all bands together, of a model that is worth its name.
LEAST_ARC_SNR = 8.0
#: What errors are multiplied by: the curvature knows of no other minimum, and of no clumps that the model leaves out.
ERROR_SCALE = 1.7
#: Largest chi squared of a good fit, in units of the number of independent pixels.
WORST_CHI2 = 1.5
#: Least share of its light that the deflector keeps beside a source: what takes over the galaxy itself is no arc.
LEAST_KEPT = 0.25


@dataclass(frozen=True)
class ModelImages:
    """What each band of the window shows, (90, 90) for VIS and (30, 30) for NISP, in the images' units; sky taken off.

    ``data``, ``deflector``, ``lensed`` (the source's images), ``companions`` (unlensed galaxies), ``noise``, ``fitted``
    (whether a pixel counted), ``psf``: of each band. ``source``: unlensed VIS light on pixels of 0.02", (100, 100), about
    ``source_centre`` (arcsec).
    """

    bands: tuple[int, ...]
    data: tuple[Float32, ...]
    deflector: tuple[Float32, ...]
    lensed: tuple[Float32, ...]
    companions: tuple[Float32, ...]
    noise: tuple[Float32, ...]
    fitted: tuple[Float32, ...]
    psf: tuple[Float32, ...]
    source: Float32
    source_centre: tuple[float, float]
    window_x: float
    window_y: float

    def residual(self, number: int) -> Float32:
        """Data less everything that is modelled."""
        return self.data[number] - self.deflector[number] - self.lensed[number] - self.companions[number]


def model_cutout(
    cutout: CutoutBatch,
    tile_id: str,
    input_fingerprint: str,
    wcs: WCS | None = None,
    psfs: Mapping[Band, BandPsf] = MappingProxyType({}),
    p_calibrated: float = math.nan,
) -> tuple[LensModel, ModelImages | None]:
    """Fit one candidate; whatever is wrong with it is said in its record.

    Parameters
    ----------
    cutout
        A batch of one.
    tile_id, input_fingerprint
        Where it is from.
    wcs
        Of the tile's VIS mosaic, for position angles.
    psfs
        See :func:`~scanner.modelling.observation.observe`.
    p_calibrated
        The networks' probability that it is a lens; NaN where there is none.
    """
    target_id = int(cutout.targets.target_id[0])
    try:
        # Sums of several threads differ in their last bits from run to run.
        with threadpool_limits(1), np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            data = observe(cutout, psfs)
            problem = Problem(data, fit_deflector(data))
            found = compare(problem)
            images = images_of(problem, found.lens)
            record = _record(problem, found, images, tile_id, target_id, input_fingerprint)
            used = {band: psfs[band].source if band in psfs else "mean" for band in BANDS if band in record.bands}
            further = {"psf": used, "mass": _on_the_sky(record.mass, cutout, wcs)}
            record = record.model_copy(update=further | {"p_lens_modelled": lens_probability(record, p_calibrated)})
            return record, images
    except (ScannerError, LinAlgError, ValueError, FloatingPointError) as error:
        reason = str(error) if isinstance(error, ScannerError) else f"the fit broke down ({error})"
    refused = LensModel(
        tile_id=tile_id,
        target_id=target_id,
        input_fingerprint=input_fingerprint,
        status="refused",
        verdict="refused",
        reason=reason,
    )
    return refused, None


def _record(
    problem: Problem, found: Comparison, images: ModelImages, tile_id: str, target_id: int, input_fingerprint: str
) -> LensModel:
    fit, ratio = found.lens, found.ln_evidence_ratio
    mass = fit.scene.mass
    assert mass is not None
    lens = fit.scene.lens
    error = ERROR_SCALE * np.sqrt(np.clip(np.diag(fit.covariance), 0.0, None))
    flat = math.hypot(mass[1], mass[2])
    flat_error = float(error[1:3].mean() if flat < 1e-6 else math.hypot(mass[1] * error[1], mass[2] * error[2]) / flat)
    sources = fit.fluxes[: fit.scene.n_sources, 0]
    brightest = int(np.argmax(sources)) if len(sources) else 0
    x, y = fit.scene.galaxies[brightest, :2]
    amount = [float(image.sum()) for image in draw(fit.scene, problem.data, slopes=False)[0]]
    seen = sum(flux * share for flux, share in zip(sources, amount, strict=False))
    snr = float(np.sqrt(np.nansum(fit.snr[: fit.scene.n_sources] ** 2)))
    kept = float(images.deflector[0].sum() / max(problem.deflector.light[0].sum(), 1e-30))
    status = _status(fit, snr, lens.theta_e, problem.n_pixels, kept)
    seen_images = find_images(x, y, Sightline((lens,)))
    n_images = int(seen_images.count[0])
    brightness = np.sort(np.abs(seen_images.magnification[0, :n_images]))[::-1]
    counter_image_snr = float(snr * brightness[1] / brightness.sum()) if n_images > 1 else 0.0
    return LensModel(
        tile_id=tile_id,
        target_id=target_id,
        input_fingerprint=input_fingerprint,
        status=status,
        verdict=verdict(ratio, status, counter_image_snr),
        bands=tuple(BANDS[band] for band in problem.data.bands),
        mass=ModelledMass(
            theta_e_arcsec=lens.theta_e,
            theta_e_error_arcsec=float(lens.theta_e * error[0]),
            q=lens.q,
            q_error=float(lens.q * flat_error),
            angle_rad=lens.angle,
            x_arcsec=lens.x,
            y_arcsec=lens.y,
            gamma1=lens.gamma1,
            gamma2=lens.gamma2,
        ),
        galaxies=tuple(
            _galaxy(row, flux, number < fit.scene.n_sources)
            for number, (row, flux) in enumerate(zip(fit.scene.galaxies.tolist(), fit.fluxes.tolist(), strict=True))
        ),
        n_companions_without_lens=len(found.companions.scene.galaxies),
        ln_evidence_ratio=ratio,
        chi2_lens=fit.chi2,
        chi2_companions=found.companions.chi2,
        n_pixels=problem.n_pixels,
        n_images=n_images,
        magnification=float(seen / sources.sum()) if sources.sum() > 0.0 else None,
        arc_snr=snr,
        counter_image_snr=counter_image_snr,
        deflector_kept=kept,
    )


def _on_the_sky(mass: ModelledMass | None, cutout: CutoutBatch, wcs: WCS | None) -> ModelledMass | None:
    """The mass with its position angles, where the tile's WCS is known."""
    if mass is None or wcs is None:
        return mass
    place = wcs, float(cutout.targets.x[0]), float(cutout.targets.y[0])
    angles = {
        "position_angle_deg": position_angle_deg(*place, mass.angle_rad),
        "shear_position_angle_deg": position_angle_deg(*place, 0.5 * math.atan2(mass.gamma2, mass.gamma1)),
    }
    return mass.model_copy(update=angles)


def position_angle_deg(wcs: WCS, x: float, y: float, angle_rad: float) -> float:
    """Position angle of an axis, east of north, from 0 to 180 degrees.

    Parameters
    ----------
    wcs
        Of the image.
    x, y
        Where the axis is, zero-based pixels.
    angle_rad
        The axis, from +x to +y of the pixels.
    """
    ra, dec = wcs.all_pix2world([x, x + math.cos(angle_rad)], [y, y + math.sin(angle_rad)], 0)
    east = ((ra[1] - ra[0] + 180.0) % 360.0 - 180.0) * math.cos(math.radians(dec[0]))
    return math.degrees(math.atan2(east, dec[1] - dec[0])) % 180.0


def _galaxy(row: list[float], flux: list[float], lensed: bool) -> ModelledGalaxy:
    x, y, ln_radius, flat, angle, index, bend = row
    vis, y_band, j, h = (None if math.isnan(value) else value for value in flux)
    return ModelledGalaxy(
        lensed=lensed,
        x_arcsec=x,
        y_arcsec=y,
        radius_arcsec=math.exp(ln_radius),
        q=math.exp(-flat),
        angle_rad=angle,
        index=index,
        bend_per_arcsec=0.0 if lensed else bend,
        flux=(vis, y_band, j, h),
    )


def _status(fit: Fit, snr: float, theta_e: float, n_pixels: float, deflector_kept: float) -> Status:
    if snr < LEAST_ARC_SNR:
        return "low S/N"
    if fit.chi2 > WORST_CHI2 * n_pixels or deflector_kept < LEAST_KEPT:
        return "poor fit"
    # A source as large as may be is no galaxy far away: shells and rings of the nearer one want such.
    largest = math.exp(fit.scene.galaxies[: fit.scene.n_sources, 2].max())
    if not 1.02 * LOWEST_THETA_E < theta_e < HIGHEST_THETA_E / 1.02 or largest > HIGHEST_RADIUS / 1.02:
        return "at a limit"
    return "converged" if fit.converged else "not converged"


def verdict(ln_evidence_ratio: float, status: Status, counter_image_snr: float) -> Verdict:
    """What the evidence says; certified is only a model that converged, and whose second brightest image is seen."""
    if ln_evidence_ratio > CERTIFIED and status == "converged" and counter_image_snr > CERTIFIED_COUNTER_IMAGE_SNR:
        return "certified"
    if ln_evidence_ratio > CONSISTENT:
        return "consistent"
    return "no evidence" if ln_evidence_ratio > WITHOUT else "better without a lens"


def lens_probability(model: LensModel, p_calibrated: float) -> float | None:
    """Probability of a lens by networks and model together, at the networks' prevalence; None where they gave none."""
    ratio, snr = model.ln_evidence_ratio, model.counter_image_snr
    if ratio is None or snr is None or math.isnan(p_calibrated):
        return None
    constant, of_evidence, of_counter_image = ADDED_LOG_ODDS
    added = constant + of_evidence * math.asinh(ratio / 5.0) + of_counter_image * math.log1p(snr)
    odds = p_calibrated / max(1.0 - p_calibrated, 1e-9) * math.exp(added)
    return odds / (1.0 + odds)


def images_of(problem: Problem, fit: Fit) -> ModelImages:
    """The images of a fit, the deflector as it is best under this fit."""
    data, n = problem.data, fit.scene.n_sources
    seen = data.seen(draw(fit.scene, data, slopes=False)[0])
    fluxes = np.nan_to_num(fit.fluxes[:, list(data.bands)]).astype(np.float32)
    lensed = tuple(np.tensordot(fluxes[:n, band], seen[band][:n], 1) for band in range(problem.n_bands))
    others = tuple(np.tensordot(fluxes[n:, band], seen[band][n:], 1) for band in range(problem.n_bands))
    deflector = tuple(problem.deflector_light(band, lensed[band] + others[band]) for band in range(problem.n_bands))
    centre = fit.scene.galaxies[:n, :2].mean(axis=0)
    return ModelImages(
        bands=data.bands,
        data=data.images,
        deflector=deflector,
        lensed=lensed,
        companions=others,
        noise=tuple(data.deviation(band, np.maximum(light, 0.0)) for band, light in enumerate(deflector)),
        fitted=tuple(problem.mask(band) for band in range(problem.n_bands)),
        psf=tuple(data.psf(band) for band in range(problem.n_bands)),
        source=_source_plane(fit.scene, fit.fluxes[:n, 0], centre, data),
        source_centre=(float(centre[0]), float(centre[1])),
        window_x=float(data.x.mean()),
        window_y=float(data.y.mean()),
    )


#: Side of the source plane's image, and its pixels in arcsec.
SOURCE_SIDE, SOURCE_PIXEL = 100, 0.02


def _source_plane(scene: Scene, fluxes: Float64, centre: Float64, data: Observation) -> Float32:
    steps = ((np.arange(SOURCE_SIDE) - 0.5 * (SOURCE_SIDE - 1)) * SOURCE_PIXEL).astype(np.float32)
    x, y = np.meshgrid(steps + np.float32(centre[0]), steps + np.float32(centre[1]))
    unlensed = Scene(None, scene.galaxies[: scene.n_sources], 0)
    images = draw(unlensed, Observation(x, y, data.bands, (), (), (), (), ()), slopes=False)[0]
    return np.asarray(np.tensordot(np.nan_to_num(fluxes).astype(np.float32), images, 1), dtype=np.float32)
