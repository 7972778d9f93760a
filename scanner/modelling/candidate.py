"""The lens model of one candidate: a lens, or galaxies that happen to lie there, searched with the same care."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.fft
from astropy.wcs import WCS
from numpy.linalg import LinAlgError
from threadpoolctl import threadpool_limits

from scanner.errors import ScannerError
from scanner.modelling.deflector_light import fit_deflector
from scanner.modelling.lens_model import LensModel, ModelledGalaxy, ModelledMass, Pattern, SeenRadius, Status, Verdict
from scanner.modelling.observation import FIT_RADIUS, NISP_SIDE, SIDE, BandPsf, Observation, observe
from scanner.modelling.radius_network import RadiusPosterior, in_use
from scanner.modelling.scene_fit import (
    HIGHEST_RADIUS,
    HIGHEST_THETA_E,
    LOWEST_THETA_E,
    Fit,
    Problem,
    Scene,
    draw,
    fit,
    joined,
    nothing,
    of_one_colour,
)
from scanner.records import BANDS, Band, CutoutBatch, Float32, Float64
from scanner.simulation.lensing import Sightline, deflection, find_images

#: Galaxies that either hypothesis may have beside the deflector.
MOST_COMPANIONS = 4
#: Galaxies that may be parts of the source: a Sérsic profile is too stiff for one with clumps.
MOST_SOURCES = 3
#: Galaxies behind and beside a lens, together, and those without a lens: a source has several images, and each is a galaxy of
#: its own there. Where these use more than the lens may, the lens may have as many.
MOST_GALAXIES, MOST_UNLENSED = 6, 9
#: A companion must raise ln evidence by so much, and stand out by so many sigma to be tried.
_WORTH, _STANDS_OUT = 3.0, 5.0
#: Of the search: Einstein radii (arcsec), source positions in units of them, source radius.
_RADII = np.geomspace(0.38, 2.5, 15)
_OFFSETS = ((0.06, 4), (0.25, 8), (0.45, 8), (0.65, 8), (0.9, 8))
_SOURCE_RADIUS = 0.2
#: By what ln evidence is divided before the network's ln density is added, where one of several lenses is taken.
_TEMPERATURE = 8.0
#: The network moves a fit whose error it makes smaller than this share of what it was.
_NARROWER = 0.98
#: Share of the likeliest radius' density that a radius must have for a further start to be there.
_LIKELY = 0.2
#: Of each pattern that is no lens: radii (arcsec), shapes and phases to start from.
_PATTERN_GRID: tuple[tuple[Pattern, Any, tuple[float, ...], tuple[float, ...]], ...] = (
    ("ring", np.geomspace(0.4, 2.4, 12), (0.15,), (0.0,)),
    ("spiral", np.geomspace(0.4, 1.5, 4), (-3.0, -1.5, 1.5, 3.0), tuple(0.25 * math.pi * k for k in range(4))),
)
_STARTS, _FIRST_STEPS, _FINALISTS, _LAST_STEPS, _POLISH_STEPS = 10, 5, 3, 25, 50


@dataclass(frozen=True)
class Comparison:
    """The best of each hypothesis; ``ln_evidence_ratio`` is positive where a lens explains the pixels better."""

    lens: Fit
    companions: Fit

    @property
    def ln_evidence_ratio(self) -> float:
        """Natural logarithm of the Bayes factor, by Laplace's approximation."""
        return self.lens.ln_evidence - self.companions.ln_evidence


def compare(problem: Problem, radius: RadiusPosterior) -> Comparison:
    """Fit both hypotheses; ``radius``: what a network sees.

    It says where to look and which of several lenses to take, and is a second measurement of that lens's radius.
    """
    alone = with_more(problem, nothing(problem), MOST_COMPANIONS)
    lens = fit_lens(problem, alone, radius)
    # Fair play: what the lens hypothesis has found is offered to the other, each image as a galaxy of its own.
    offered = [*lens.scene.galaxies[lens.scene.n_sources :], *_images(problem, lens)]
    for most in sorted({min(len(offered), most) for most in (MOST_GALAXIES, MOST_UNLENSED)} - {0}):
        again = fit(problem, joined(nothing(problem).scene, offered[:most]), _LAST_STEPS)
        alone = max(alone, with_more(problem, again, MOST_UNLENSED), key=lambda one: one.ln_evidence)
    if len(alone.scene.galaxies) > MOST_GALAXIES:
        # And what the other needed, the lens may have beside it.
        lens = _polished(problem, with_more(problem, lens, MOST_UNLENSED))
    if lens.ln_evidence > alone.ln_evidence + CONSISTENT:
        alone = max(alone, with_a_pattern(problem), key=lambda one: one.ln_evidence)
    return Comparison(informed(problem, lens, radius), alone)


def informed(problem: Problem, lens: Fit, radius: RadiusPosterior) -> Fit:
    """The fit where pixels and network together put it: the network has seen lenses that no Sérsic profile describes.

    What the network adds is a Gaussian prior on ln θ_E, such that middle and error come out as those of the product of its
    histogram and the fit's own Gaussian. Where the product is no narrower, as between two of its peaks, the fit stays. The
    evidence stays that of the pixels.
    """
    theta_e, variance = lens.scene.lens.theta_e, max(float(lens.covariance[0, 0]), 1e-12)
    error = ERROR_SCALE * math.sqrt(variance)
    middle, narrower = radius.together(theta_e, theta_e * error)
    if narrower > _NARROWER * error:
        return lens
    # The covariance is not scaled yet: nor is what is added to it.
    precision = (ERROR_SCALE / narrower) ** 2 - 1.0 / variance
    added = (middle * (ERROR_SCALE / narrower) ** 2 - math.log(theta_e) / variance) / precision
    moved = fit(problem, lens.scene, _LAST_STEPS, ln_theta_e=(added, precision**-0.5))
    return replace(moved, ln_evidence=lens.ln_evidence, converged=lens.converged)


def _polished(problem: Problem, one: Fit) -> Fit:
    return one if one.converged else fit(problem, one.scene, _POLISH_STEPS)


def _images(problem: Problem, lens: Fit) -> list[Float64]:
    """The images of the sources as unlensed galaxies, the brightest first."""
    scene, found = lens.scene, []
    for source, flux in zip(scene.galaxies[: scene.n_sources], lens.fluxes[: scene.n_sources, 0], strict=True):
        images = find_images(source[0], source[1], Sightline((scene.lens,)))
        for x, y, magnification in zip(images.x[0], images.y[0], images.magnification[0], strict=True):
            if np.isfinite(x):
                seen = float(flux) * min(abs(float(magnification)), 20.0)
                found.append((seen, _galaxy_at(float(x), float(y), _tangential(problem, float(x), float(y)))))
    return [galaxy for _, galaxy in sorted(found, key=lambda one: -one[0])]


def with_a_pattern(problem: Problem) -> Fit:
    """A ring or spiral arms, whichever explains more, with the galaxies that are needed beside it."""
    fits = [fit(problem, start, _LAST_STEPS) for start in pattern_starts(problem)]
    return with_more(problem, max(fits, key=lambda one: one.ln_evidence), MOST_UNLENSED)


def pattern_starts(problem: Problem) -> list[Scene]:
    """For each pattern the one of a grid that explains most of the residual."""
    deflector = problem.deflector
    # As flat as the deflector, and round; rings also across it.
    own = max(math.hypot(deflector.e1, deflector.e2), 0.02), 0.5 * math.atan2(deflector.e2, deflector.e1)
    frames = {"spiral": [own, (0.05, 0.0)], "ring": [own, (0.05, 0.0), *((0.6, 0.25 * math.pi * k) for k in range(4))]}
    chosen = []
    for pattern, radii, shapes, phases in _PATTERN_GRID:
        every = itertools.product(radii, frames[pattern], shapes, phases)
        grid = np.array([(deflector.x, deflector.y, math.log(r), *frame, *last) for r, frame, *last in every])
        images = np.concatenate([draw(Scene(None, one[None], 0, pattern), problem.data, slopes=False)[0] for one in grid])
        gain = np.zeros(len(grid))
        for band, rows in enumerate(problem.columns(images)):
            squares, crossed, _ = problem.products_with_few(band, rows, problem.target[band][None])
            gain += np.clip(crossed[:, 0], 0.0, None) ** 2 / np.maximum(squares, 1e-12)
        chosen.append(Scene(None, grid[int(np.argmax(gain))][None], 0, pattern))
    return chosen


def with_more(problem: Problem, so_far: Fit, most: int) -> Fit:
    """Add galaxies where the residual is most conspicuous, as long as the evidence grows.

    Behind a mass each may be a part of the source, with images elsewhere, or lie there unlensed: what explains more is kept.
    """
    best, current, misses = so_far, so_far, 0
    while len(current.scene.galaxies) < most and misses < 2:
        place = _most_conspicuous(problem, current)
        if place is None:
            break
        tried = [fit(problem, joined(current.scene, [_galaxy_at(*place, _tangential(problem, *place))]), 10)]
        if current.scene.mass is not None and current.scene.n_sources < MOST_SOURCES:
            x, y = (np.array([value]) for value in place)
            alpha = deflection(x, y, current.scene.lens)
            part = _galaxy_at(float(x[0] - alpha[0][0]), float(y[0] - alpha[1][0]), 0.0)
            tried.append(fit(problem, current.scene.with_source(part), 10))
        current = max(tried, key=lambda one: one.ln_evidence)
        misses += 1
        if current.ln_evidence > best.ln_evidence + _WORTH:
            best, misses = current, 0
    return best


def _galaxy_at(x: float, y: float, angle: float) -> Float64:
    return np.array([x, y, math.log(0.2), 0.3, angle, 1.0, 0.0])


def _tangential(problem: Problem, x: float, y: float) -> float:
    return math.atan2(y - problem.deflector.y, x - problem.deflector.x) + 0.5 * math.pi


def _residuals(problem: Problem, current: Fit) -> list[Float32]:
    """What is left of each band's pixels, in units of their noise."""
    left = list(problem.target)
    if len(current.scene.galaxies):
        for band, rows in enumerate(problem.columns(draw(current.scene, problem.data, slopes=False)[0])):
            left[band] = left[band] - current.fluxes[:, problem.data.bands[band]].astype(np.float32) @ rows
    return [problem.remainder(band, row) for band, row in enumerate(left)]


def _most_conspicuous(problem: Problem, current: Fit) -> tuple[float, float] | None:
    """Where a small galaxy would explain most of the residual, if anywhere it stands out."""
    data = problem.data
    score = np.zeros((SIDE, SIDE))
    for band, left in enumerate(_residuals(problem, current)):
        template = _template(data, band)
        side = SIDE if data.bands[band] == 0 else NISP_SIDE
        signal, weight = np.zeros(side * side), np.zeros(side * side)
        signal[problem.used[band]] = left * problem.weights[band]
        weight[problem.used[band]] = problem.weights[band] ** 2
        matched = _correlate(signal.reshape(side, side), template)
        squared = np.maximum(_correlate(weight.reshape(side, side), template**2), 1e-12)
        one = np.clip(matched, 0.0, None) ** 2 / squared
        score += one if side == SIDE else np.repeat(np.repeat(one, 3, 0), 3, 1)
    distance = np.hypot(data.x - problem.deflector.x, data.y - problem.deflector.y)
    score[(distance < 0.25) | (np.hypot(data.x - data.x.mean(), data.y - data.y.mean()) > FIT_RADIUS)] = 0.0
    best = int(np.argmax(score))
    if score.flat[best] < _STANDS_OUT**2:
        return None
    return float(data.x.flat[best]), float(data.y.flat[best])


def _template(data: Observation, band: int) -> Float64:
    """A small galaxy in the middle of a band's window, its peak at pixel (0, 0)."""
    x, y = float(data.x[SIDE // 2 + 1, SIDE // 2 + 1]), float(data.y[SIDE // 2 + 1, SIDE // 2 + 1])
    scene = Scene(None, np.array([[x, y, math.log(0.2), 0.01, 0.0, 1.0, 0.0]]), 0)
    image = data.seen(draw(scene, data, slopes=False)[0])[band][0].astype(np.float64)
    row, column = np.unravel_index(int(np.argmax(image)), image.shape)
    return np.roll(image, (-int(row), -int(column)), axis=(0, 1))


def _correlate(image: Float64, template: Float64) -> Float64:
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(image) * np.conj(scipy.fft.rfft2(template)), s=image.shape))


def fit_lens(problem: Problem, alone: Fit, radius: RadiusPosterior) -> Fit:
    """The best lens: starts from a grid, beside any of the unlensed galaxies that ``alone`` found."""
    tried = [fit(problem, start, _FIRST_STEPS) for start in starts(problem, alone.scene.galaxies, radius)]
    finalists = []
    # Companions explain most of an arc at once, and a lens only when it has converged: each number of them gets its chance.
    for size in sorted({len(one.scene.galaxies) for one in tried}):
        same = [one for one in tried if len(one.scene.galaxies) == size]
        same.sort(key=lambda one: -_preference(-0.5 * one.objective, one, radius))
        finalists += _different(same, 2 if size == 1 else 1)
    finalists = [fit(problem, one.scene, _LAST_STEPS) for one in finalists]
    finalists.sort(key=lambda one: -_preference(one.ln_evidence, one, radius))
    goes_on = _different(finalists, _FINALISTS)
    # A clumpy source is explained by companions before it is by one profile behind a lens: the plain lens always goes on.
    plain = next((one for one in finalists if len(one.scene.galaxies) == 1), None)
    if plain is not None and len(_different([*goes_on, plain], _FINALISTS + 1)) > len(goes_on):
        goes_on = [*goes_on[: _FINALISTS - 1], plain]
    ends = [with_more(problem, one, MOST_GALAXIES) for one in goes_on]
    return _polished(problem, max(ends, key=lambda one: _preference(one.ln_evidence, one, radius)))


def _preference(ln_evidence: float, one: Fit, radius: RadiusPosterior) -> float:
    """By what one of several lenses is taken; tempered, as no galaxy is a Sérsic profile and the evidence is too sure."""
    return ln_evidence / _TEMPERATURE + radius.ln_density(one.scene.lens.theta_e)


def _different(fits: list[Fit], most: int) -> list[Fit]:
    """The first, leaving out those that went to the same place as one before."""
    kept: list[Fit] = []
    for one in fits:
        where = [np.concatenate([f.scene.vector[:1], f.scene.galaxies[0, :2]]) for f in (one, *kept)]
        if all(np.abs(where[0] - other).max() > 0.05 for other in where[1:]):
            kept.append(one)
        if len(kept) == most:
            break
    return kept


def starts(problem: Problem, galaxies: Float64, radius: RadiusPosterior) -> list[Scene]:
    """Lenses to start from: isothermal spheres on a grid, scored by how much of the residual they explain.

    Each is scored beside every subset of the unlensed galaxies, whose fluxes are fitted along. Beside each number of them,
    the first start is the best of all, the others the best of those whose radius the network thinks likely.
    """
    data, deflector = problem.data, problem.deflector
    grid = [
        (radius, radius * offset * math.cos(turn), radius * offset * math.sin(turn))
        for radius in _RADII
        for offset, n in _OFFSETS
        for turn in (np.arange(n) + 0.5 * (n == 4)) * (2.0 * np.pi / n)
    ]
    dx, dy = data.x - np.float32(deflector.x), data.y - np.float32(deflector.y)
    distance = np.hypot(dx, dy) + np.float32(1e-6)
    cosine, sine = dx / distance, dy / distance
    table = np.array(grid, dtype=np.float32)
    templates = []
    for theta_e, x, y in table:
        r2 = (dx - theta_e * cosine - x) ** 2 + (dy - theta_e * sine - y) ** 2 + np.float32(0.03**2)
        templates.append(np.exp(np.sqrt(r2) * np.float32(-1.678 / _SOURCE_RADIUS)))
    subsets = [[k for k in range(len(galaxies)) if subset >> k & 1] for subset in range(1 << len(galaxies))]
    score = np.zeros((len(subsets), len(grid)))
    shown = None
    if len(galaxies):
        shown = problem.columns(draw(Scene(None, galaxies, 0), data, slopes=False)[0])
    for band, rows in enumerate(problem.columns(np.stack(templates))):
        few = problem.target[band][None] if shown is None else np.concatenate([problem.target[band][None], shown[band]])
        own, crossed, gram = problem.products_with_few(band, rows, few)
        right, cross, known, gram = crossed[:, 0], crossed[:, 1:], gram[1:, 0], gram[1:, 1:]
        for number, subset in enumerate(subsets):
            gain, left, norm = 0.0, right, own
            if subset:
                part = gram[np.ix_(subset, subset)]
                inverse = np.linalg.inv(part + 1e-6 * np.diag(np.diag(part)))
                gain = float(known[subset] @ inverse @ known[subset])
                left = right - cross[:, subset] @ inverse @ known[subset]
                norm = own - np.einsum("ij,jk,ik->i", cross[:, subset], inverse, cross[:, subset])
            score[number] += gain + np.clip(left, 0.0, None) ** 2 / np.maximum(norm, 1e-3 * own)
    return _chosen(score, subsets, table, galaxies, problem, _likely(radius))


def _likely(radius: RadiusPosterior) -> frozenset[float]:
    """The grid's radii that a network thinks likely."""
    density = np.array([radius.ln_density(value) for value in _RADII])
    return frozenset(_RADII[density >= density.max() + math.log(_LIKELY)].astype(np.float32).tolist())


def _chosen(
    score: Float64, subsets: list[list[int]], table: Float32, galaxies: Float64, problem: Problem, likely: frozenset[float]
) -> list[Scene]:
    """The best of the grid, some for each number of unlensed galaxies, far apart; all but the first of a likely radius."""
    deflector = problem.deflector
    chosen: list[Scene] = []
    sizes = range(len(galaxies) + 1)
    quota = max(2, math.ceil(_STARTS / len(sizes)))
    for size in sizes:
        rows = [row for row, subset in enumerate(subsets) if len(subset) == size]
        order = np.argsort(-score[rows], axis=None)
        taken: list[tuple[int, Any]] = []
        for place in order:
            row, column = divmod(int(place), score.shape[1])
            radius, x, y = table[column]
            if taken and float(radius) not in likely:
                continue
            if any(
                rows[row] == other and abs(math.log(radius / had[0])) < 0.2 and np.hypot(x - had[1], y - had[2]) < 0.25 * radius
                for other, had in taken
            ):
                continue
            taken.append((rows[row], table[column]))
            source = np.array([deflector.x + x, deflector.y + y, math.log(_SOURCE_RADIUS), 0.2, 0.0, 1.0, 0.0])
            mass = np.array([math.log(radius), 0.9 * deflector.e1, 0.9 * deflector.e2, deflector.x, deflector.y, 0.0, 0.0])
            chosen.append(joined(Scene(mass, source[None], 1), list(galaxies[subsets[rows[row]]])))
            if len(taken) == quota:
                break
    return chosen


#: ln evidence ratio from which a candidate is certified, consistent with a lens, and better explained without one; and, of
#: what is certified, the least S/N of the counter-image and :attr:`SeenRadius.agreement`. ``docs/lens-models.md`` says how
#: many pass.
CERTIFIED, CONSISTENT, WITHOUT = 10.0, 5.0, -5.0
CERTIFIED_COUNTER_IMAGE_SNR, CERTIFIED_AGREEMENT = 3.0, 0.4
#: From which S/N, and which rise of chi squared if it has the colour of the first, a second source is told from a clump.
SECOND_SOURCE_SNR, SECOND_SOURCE_COLOUR = 10.0, 12.0
#: What a model adds to the networks' log-odds: a constant, and factors of :func:`model_terms`. Fitted to lenses and non-lenses
#: that networks rank high; the mean odds ratio of the non-lenses is one.
ADDED_LOG_ODDS = (0.06, 0.37, 0.31, 0.93)
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
    radius: RadiusPosterior | None = None,
    zero_points: Mapping[Band, float] = MappingProxyType({}),
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
    radius
        Its Einstein radius as a network sees it; by default, the network in use.
    zero_points
        AB magnitude of one unit of the images, of bands where it is known.
    """
    target_id = int(cutout.targets.target_id[0])
    try:
        # Sums of several threads differ in their last bits from run to run.
        with threadpool_limits(1), np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            data = observe(cutout, psfs)
            problem = Problem(data, fit_deflector(data))
            radius = radius or in_use().posterior(cutout)
            found = compare(problem, radius)
            images = images_of(problem, found.lens)
            record = _record(problem, found, images, radius, tile_id, target_id, input_fingerprint)
            used = {band: psfs[band].source if band in psfs else "mean" for band in BANDS if band in record.bands}
            further = {"psf": used, "zero_points": dict(zero_points), "mass": _on_the_sky(record.mass, cutout, wcs)}
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
    problem: Problem,
    found: Comparison,
    images: ModelImages,
    radius: RadiusPosterior,
    tile_id: str,
    target_id: int,
    input_fingerprint: str,
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
    agreement = radius.near(lens.theta_e)
    second_snr, second_colour = _second_source(problem, fit)
    return LensModel(
        tile_id=tile_id,
        target_id=target_id,
        input_fingerprint=input_fingerprint,
        status=status,
        verdict=verdict(ratio, status, counter_image_snr, agreement),
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
        pattern=found.companions.scene.pattern,
        ln_evidence_ratio=ratio,
        chi2_lens=fit.chi2,
        chi2_companions=found.companions.chi2,
        n_pixels=problem.n_pixels,
        n_images=n_images,
        magnification=float(seen / sources.sum()) if sources.sum() > 0.0 else None,
        arc_snr=snr,
        counter_image_snr=counter_image_snr,
        seen_radius=SeenRadius(
            network=radius.network,
            theta_e_arcsec=radius.quantile(0.5),
            low_arcsec=radius.quantile(0.16),
            high_arcsec=radius.quantile(0.84),
            agreement=agreement,
        ),
        deflector_kept=kept,
        n_sources=sources_told_apart(second_snr, second_colour) if len(sources) else 0,
        second_source_snr=second_snr,
        second_source_colour=second_colour,
    )


def _second_source(problem: Problem, fit: Fit) -> tuple[float | None, float | None]:
    """S/N of the second brightest lensed galaxy, and how much chi squared rises if it has the colour of the brightest."""
    if fit.scene.n_sources < 2:
        return None, None
    snr = np.sqrt(np.nansum(fit.snr[: fit.scene.n_sources] ** 2, axis=1))
    first, second = np.argsort(-snr, kind="stable")[:2].tolist()
    return float(snr[second]), of_one_colour(problem, fit, first, second)


def sources_told_apart(second_snr: float | None, second_colour: float | None) -> int:
    """2 where a second lensed galaxy is no clump of the first: it is seen, and has another colour; else 1."""
    if second_snr is None or second_colour is None:
        return 1
    return 2 if second_snr > SECOND_SOURCE_SNR and second_colour > SECOND_SOURCE_COLOUR else 1


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


def verdict(ln_evidence_ratio: float, status: Status, counter_image_snr: float, agreement: float) -> Verdict:
    """What the evidence says.

    Certified is only a model that converged, whose second brightest image is seen, and whose radius the network sees too.
    """
    shown = counter_image_snr > CERTIFIED_COUNTER_IMAGE_SNR and agreement >= CERTIFIED_AGREEMENT
    if ln_evidence_ratio > CERTIFIED and status == "converged" and shown:
        return "certified"
    if ln_evidence_ratio > CONSISTENT:
        return "consistent"
    return "no evidence" if ln_evidence_ratio > WITHOUT else "better without a lens"


def model_terms(ln_evidence_ratio: Any, counter_image_snr: Any, agreement: Any) -> Float64:
    """What a model says of a lens, (3, ...): :data:`ADDED_LOG_ODDS` are a constant and what each of these is multiplied by."""
    return np.stack([np.arcsinh(ln_evidence_ratio / 5.0), np.log1p(counter_image_snr), np.log(0.01 + agreement)])


def lens_probability(model: LensModel, p_calibrated: float) -> float | None:
    """Probability of a lens by networks and model together, at the networks' prevalence; None where they gave none."""
    ratio, snr, seen = model.ln_evidence_ratio, model.counter_image_snr, model.seen_radius
    if ratio is None or snr is None or seen is None or math.isnan(p_calibrated):
        return None
    constant, *coefficients = ADDED_LOG_ODDS
    added = constant + float(coefficients @ model_terms(ratio, snr, seen.agreement))
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
