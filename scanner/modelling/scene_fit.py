"""Fits a lens, its sources and unlensed galaxies to one candidate: all bands at once, by variable projection.

Positions, shapes and the mass are shared by the bands; the flux of each galaxy is free in each band, so that all images of a
source have one colour. Fluxes are linear and found exactly at every step (Golub & Pereyra 1973, with the Jacobian of Kaufman
1975), and so is what the deflector's light may still change by: it is projected out of data and model once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from scanner.modelling.deflector_light import Deflector, foreign_light
from scanner.modelling.lens_model import Pattern
from scanner.modelling.observation import Observation
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Float32, Float64
from scanner.simulation.lensing import Lens, deflection, hessian
from scanner.simulation.light.components import sersic_b

#: Numbers of a mass: ln θ_E, ``-ln q`` times cosine and sine of twice its angle, centre, shear.
MASS = ("ln_theta_e", "e1", "e2", "x", "y", "gamma1", "gamma2")
#: Numbers of a galaxy's light: centre, logarithm of R_e = √(ab), -ln q, angle, Sérsic index, how much it bends (1/arcsec).
GALAXY = ("x", "y", "ln_radius", "flatness", "angle", "index", "bend")
#: Einstein radii that are looked for, arcsec.
LOWEST_THETA_E, HIGHEST_THETA_E = 0.35, 3.6
#: The largest galaxy, R_e in arcsec.
HIGHEST_RADIUS = 1.0
#: How far the arms of a spiral stand out, von Mises' κ of their light in azimuth; where they begin, in units of the half-light
#: radius of the disc that they lie in; b(1) of Sérsic's profile.
_ARM_CONTRAST, _ARMS_BEGIN, _EXPONENTIAL = 2.0, 0.5, 1.678
#: How far each number may go. Those of a ring are a galaxy's, with the ring's radius, and its width in units of it for the
#: index; those of two spiral arms have for the index by how many radians they wind while the radius grows e-fold, and for the
#: bend the angle that they begin at.
_LOW = {
    "galaxy": (-9.0, -9.0, math.log(0.03), 0.01, -9.0, 0.5, -3.0),
    "ring": (-9.0, -9.0, math.log(0.2), 0.01, -9.0, 0.03, -3.0),
    "spiral": (-9.0, -9.0, math.log(0.2), 0.01, -9.0, -6.0, -9.0),
    "mass": (math.log(LOWEST_THETA_E), -1.1, -1.1, -9.0, -9.0, -0.3, -0.3),
}
_HIGH = {
    "galaxy": (9.0, 9.0, math.log(HIGHEST_RADIUS), 2.2, 9.0, 4.0, 3.0),
    "ring": (9.0, 9.0, math.log(3.0), 2.2, 9.0, 0.5, 3.0),
    "spiral": (9.0, 9.0, math.log(3.0), 2.2, 9.0, 6.0, 9.0),
    "mass": (math.log(HIGHEST_THETA_E), 1.1, 1.1, 9.0, 9.0, 0.3, 0.3),
}
#: Middle and width of the Gaussian priors: sources and unlensed galaxies; a source does not bend.
_Prior = tuple[tuple[float, ...], tuple[float, ...]]
_SOURCE_PRIOR: _Prior = (0.0, 0.0, math.log(0.25), 0.4, 0.0, 1.2, 0.0), (0.45, 0.45, 0.6, 0.4, 2.0, 0.6, 1e-4)
_COMPANION_PRIOR: _Prior = (0.0, 0.0, math.log(0.3), 0.5, 0.0, 1.2, 0.0), (2.0, 2.0, 0.7, 0.6, 2.0, 0.8, 0.5)
_PATTERN_PRIOR: dict[Pattern, _Prior] = {
    "ring": ((0.0, 0.0, 0.0, 0.3, 0.0, 0.15, 0.0), (0.1, 0.1, 0.5, 0.4, 2.0, 0.1, 1e-4)),
    "spiral": ((0.0, 0.0, math.log(0.7), 0.4, 0.0, 0.0, 0.0), (0.1, 0.1, 0.5, 0.4, 2.0, 2.5, 2.0)),
}
_THETA_E_PRIOR = math.log(0.9), 0.45
_FLATNESS_SCATTER, _CENTRE_SCATTER, _SHEAR_SCATTER = 0.2, 0.04, 0.05
#: Softening of Sérsic cusps, arcsec, and where in a pixel light is sampled.
_SOFTENING = 0.003
_SAMPLES = tuple((i, j) for i in (-0.25, 0.25) for j in (-0.25, 0.25))


@dataclass(frozen=True)
class Scene:
    """What is there beside the deflector's light: ``mass`` (7,) or None, ``galaxies`` (n, 7), the first of them lensed.

    ``n_sources``: how many of the galaxies lie behind the mass. ``pattern``: what the first galaxy is where it is no Sérsic
    profile; there is no mass then.
    """

    mass: Float64 | None
    galaxies: Float64
    n_sources: int
    pattern: Pattern | None = None

    @property
    def lens(self) -> Lens:
        """The mass for :mod:`scanner.simulation.lensing`."""
        return lens_of(self.mass)

    @property
    def vector(self) -> Float64:
        """All numbers, the mass first."""
        parts = ([] if self.mass is None else [self.mass]) + [self.galaxies.ravel()]
        return np.concatenate(parts)

    def with_source(self, galaxy: Float64) -> Scene:
        """The scene with one more galaxy behind the mass."""
        n = self.n_sources
        return replace(self, galaxies=np.insert(self.galaxies, n, galaxy, axis=0), n_sources=n + 1)

    def with_vector(self, vector: Float64) -> Scene:
        """The same scene with other numbers."""
        n = 0 if self.mass is None else len(MASS)
        return replace(self, mass=vector[:n] if n else None, galaxies=vector[n:].reshape(-1, len(GALAXY)))


def lens_of(mass: Any) -> Lens:
    """A mass's numbers as a lens."""
    ln_theta_e, e1, e2, x, y, gamma1, gamma2 = (float(value) for value in mass)
    q, angle = math.exp(-math.hypot(e1, e2)), 0.5 * math.atan2(e2, e1)
    return Lens(math.exp(ln_theta_e), q, angle, x, y, gamma1, gamma2)


@dataclass(frozen=True)
class Fit:
    """A scene that was fitted.

    ``chi2``: of the pixels. ``objective``: with the priors, what was minimised. ``fluxes``: (n galaxies, 4), of each band in
    the images' units, before lensing; NaN where a band is missing. ``snr``: likewise, in units of its error. ``covariance``: of
    the numbers of the scene, from the curvature (Laplace). ``ln_evidence``: of the scene over none, likewise.
    """

    scene: Scene
    chi2: float
    objective: float
    fluxes: Float64
    snr: Float64
    covariance: Float64
    ln_evidence: float
    converged: bool


class Problem:
    """One candidate's pixels in units of their noise, from which what the deflector's light can take up is projected out.

    With modes M (pixels by modes) and priors of widths σ on their amplitudes, the least squares over the amplitudes leave the
    products ``aᵀb - (Q₁ᵀa)ᵀ(Q₁ᵀb)``, where Q₁ is the pixels' part of the orthogonal factor of M above diag(1/σ).
    """

    def __init__(self, data: Observation, deflector: Deflector) -> None:
        self.data, self.deflector = data, deflector
        self.used, self.weights, self.target, self._nuisance = [], [], [], []
        for band, (image, foreign) in enumerate(zip(data.images, foreign_light(data, deflector), strict=True)):
            used = np.flatnonzero(data.good[band] & ~foreign)
            light = np.maximum(deflector.light[band], image)
            weight = (1.0 / np.hypot(data.deviation(band, light), deflector.error[band])).ravel()[used].astype(np.float32)
            modes = deflector.modes[band].reshape(len(deflector.modes[band]), -1)[:, used] * weight
            stacked = np.concatenate([modes.T.astype(np.float64), np.diag(1.0 / deflector.mode_sigma[band])])
            self.used.append(used)
            self.weights.append(weight)
            self.target.append((image - deflector.light[band]).ravel()[used] * weight)
            self._nuisance.append(np.ascontiguousarray(np.linalg.qr(stacked)[0][: len(used)].astype(np.float32)))
        #: Of the deflector alone.
        self.chi2_nothing = float(sum(self.products(band, self.target[band][None])[0, 0] for band in range(self.n_bands)))

    @property
    def n_bands(self) -> int:
        """How many bands have pixels."""
        return len(self.used)

    @property
    def n_pixels(self) -> float:
        """How many independent pixels there are, given how their noise is correlated."""
        return sum(len(used) / factor for used, factor in zip(self.used, self.data.correlation, strict=True))

    def columns(self, images: Float32) -> list[Float32]:
        """Light (K, 90, 90), flux per 0.1" pixel, as the pixels of each band in units of their noise, (K, P)."""
        seen = self.data.seen(images)
        return [seen[band].reshape(len(images), -1)[:, used] * self.weights[band] for band, used in enumerate(self.used)]

    def products(self, band: int, rows: Float32) -> Float64:
        """Products (K, K) of columns of a band, the deflector fitted along."""
        inner = rows @ self._nuisance[band]
        return (rows @ rows.T - inner @ inner.T).astype(np.float64)

    def deflector_light(self, band: int, others: Float32) -> Float32:
        """The deflector as it fits best beside other light (ny, nx) of a band, as the telescope sees both."""
        modes, used = self.deflector.modes[band], self.used[band]
        columns = (modes.reshape(len(modes), -1)[:, used] * self.weights[band]).astype(np.float64)
        left = self.target[band] - others.ravel()[used] * self.weights[band]
        normal = columns @ columns.T + np.diag(self.deflector.mode_sigma[band] ** -2.0)
        return np.asarray(
            self.deflector.light[band] + np.tensordot(np.linalg.solve(normal, columns @ left), modes, 1), dtype=np.float32
        )

    def mask(self, band: int) -> Float32:
        """1 where a pixel of a band counts, 0 elsewhere."""
        mask = np.zeros(self.data.images[band].size, np.float32)
        mask[self.used[band]] = 1.0
        return mask.reshape(self.data.images[band].shape)

    def products_with_few(self, band: int, many: Float32, few: Float32) -> tuple[Float64, Float64, Float64]:
        """Of many columns (K, P) and few (L, P): squares of the many, products of both (K, L), products of the few (L, L)."""
        nuisance = self._nuisance[band]
        inner, inner_few = many @ nuisance, few @ nuisance
        squares = np.einsum("ij,ij->i", many, many) - np.einsum("ij,ij->i", inner, inner)
        crossed = many @ few.T - inner @ inner_few.T
        return squares.astype(np.float64), crossed.astype(np.float64), self.products(band, few)

    def remainder(self, band: int, row: Float32) -> Float32:
        """What is left of a column (P,) once the deflector is fitted to it."""
        nuisance = self._nuisance[band]
        return np.asarray(row - nuisance @ (row @ nuisance))


def draw(scene: Scene, data: Observation, slopes: bool = True) -> tuple[Float32, list[tuple[int, int, Float32]]]:
    """Light of each galaxy, (n, 90, 90), unit flux before lensing; and derivatives: (number of the vector, galaxy, image)."""
    x, y = data.x, data.y
    n_mass = 0 if scene.mass is None else len(MASS)
    h = None
    bx, by = x, y
    if scene.mass is not None:
        lens = scene.lens
        alpha = deflection(x, y, lens)
        h = hessian(x, y, lens)
        bx, by = x - alpha[0], y - alpha[1]
    images = np.empty((len(scene.galaxies), *x.shape), np.float32)
    out: list[tuple[int, int, Float32]] = []
    bends = _mass_slopes(scene, x, y, alpha, h) if slopes and scene.mass is not None else []
    for number, galaxy in enumerate(scene.galaxies):
        lensed = number < scene.n_sources
        if number == 0 and scene.pattern is not None:
            image, du, dv, own = _pattern(x, y, scene.pattern, galaxy, slopes)
        else:
            image, du, dv, own = _galaxy(
                bx if lensed else x, by if lensed else y, h if lensed else None, galaxy, slopes, not lensed
            )
        images[number] = image
        if not slopes:
            continue
        first = n_mass + number * len(GALAXY)
        out += [(first, number, -du), (first + 1, number, -dv)]
        out += [(first + 2 + k, number, one) for k, one in enumerate(own)]
        if lensed:
            out += [(k, number, -(du * ax + dv * ay)) for k, (ax, ay) in enumerate(bends)]
    return images, out


def _mass_slopes(scene: Scene, x: Float32, y: Float32, alpha: Any, h: Any) -> list[tuple[Float32, Float32]]:
    """Derivatives of the deflection with respect to the numbers of the mass."""
    mass = scene.mass
    assert mass is not None
    dx, dy = x - np.float32(mass[3]), y - np.float32(mass[4])
    g1, g2 = np.float32(mass[5]), np.float32(mass[6])
    own = alpha[0] - g1 * dx - g2 * dy, alpha[1] - g2 * dx + g1 * dy
    out = [own]
    for number in (1, 2):
        moved = mass.copy()
        step = 0.02 if moved[number] < 0.5 else -0.02
        moved[number] += step
        other = deflection(x, y, lens_of(moved))
        out.append(((other[0] - alpha[0]) / np.float32(step), (other[1] - alpha[1]) / np.float32(step)))
    out += [(-h[0], -h[1]), (-h[1], -h[2]), (dx, -dy), (dy, dx)]
    return out


def _galaxy(
    x: Float32, y: Float32, h: Any, galaxy: Float64, slopes: bool, bends: bool
) -> tuple[Float32, Float32, Float32, list[Float32]]:
    """A Sérsic profile on pixels at (x, y), sampled four times in each, and its mean derivatives.

    ``h``: second derivatives of the potential where it is lensed: they take the samples in a pixel to the source plane.
    """
    gx, gy, ln_radius, flat, angle, index, bend = (float(v) for v in galaxy)
    c, s = math.cos(angle), math.sin(angle)
    q, b = math.exp(-flat), float(sersic_b(index))
    per_r2 = math.exp(-2.0 * ln_radius)
    soft = _SOFTENING**2 * per_r2
    step = VIS_PIXEL_SCALE_ARCSEC
    dx, dy = x - np.float32(gx), y - np.float32(gy)
    us, vs = [], []
    for i, j in _SAMPLES:
        px, py = np.float32(i * step), np.float32(j * step)
        if h is None:
            us.append(dx + px)
            vs.append(dy + py)
        else:
            us.append(dx + (px - h[0] * px - h[1] * py))
            vs.append(dy + (py - h[1] * px - h[2] * py))
    u, v = np.stack(us), np.stack(vs)
    a, t = c * u + s * v, c * v - s * u
    if bends:
        t = t - np.float32(0.5 * bend) * a * a
    aq, tq = a * np.float32(q * per_r2), t * np.float32(per_r2 / q)
    r2 = a * aq + t * tq
    r2s = r2 + np.float32(soft)
    log_r2 = np.log(r2s)
    power = np.exp(log_r2 * np.float32(0.5 / index))
    light = np.exp(np.float32(-b) * power)
    # Unit flux: ∫ over the plane in pixels.
    light *= np.float32(_unit_flux(index, b) * per_r2 * step**2)
    image = light.mean(axis=0)
    if not slopes:
        return image, image, image, []
    common = light * np.float32(b)
    by_r2 = common * power
    by_r2 /= r2s
    by_r2 *= np.float32(-0.5 / index)
    by_a = np.float32(2.0) * by_r2 * aq
    by_t = np.float32(2.0) * by_r2 * tq
    sa = by_a - np.float32(bend) * a * by_t if bends else by_a
    du, dv = (c * sa - s * by_t).mean(axis=0), (s * sa + c * by_t).mean(axis=0)
    by_radius = (by_r2 * r2).mean(axis=0) * np.float32(-2.0)
    by_flat = (by_r2 * (t * tq - a * aq)).mean(axis=0)
    # The frame turns: da/dφ = t₀, dt₀/dφ = -a, t₀ before bending.
    t0 = t + np.float32(0.5 * bend) * a * a if bends else t
    by_angle = (sa * t0 - by_t * a).mean(axis=0)
    step_b = (float(sersic_b(index + 0.01)) - float(sersic_b(index - 0.01))) / 0.02
    by_index = (light * power * (np.float32(b / (2.0 * index**2)) * log_r2 - np.float32(step_b))).mean(axis=0)
    own = [by_radius, by_flat, by_angle, by_index]
    if bends:
        own.append((by_t * a * a).mean(axis=0) * np.float32(-0.5))
    return image, du, dv, own


def _pattern(
    x: Float32, y: Float32, pattern: Pattern, galaxy: Float64, slopes: bool
) -> tuple[Float32, Float32, Float32, list[Float32]]:
    """A ring or spiral arms on pixels at (x, y), as :func:`_galaxy` draws a galaxy.

    Derivatives leave out that of the normalisation, which is one of the flux.
    """
    gx, gy, ln_radius, flat, angle, shape, phase = (float(value) for value in galaxy)
    cosine, sine, step = math.cos(angle), math.sin(angle), VIS_PIXEL_SCALE_ARCSEC
    along, across = math.exp(-0.5 * flat - ln_radius), math.exp(0.5 * flat - ln_radius)
    samples = (np.array(_SAMPLES, dtype=np.float32) * np.float32(step))[:, :, None, None]
    dx, dy = x - np.float32(gx) + samples[:, 0], y - np.float32(gy) + samples[:, 1]
    # In units of the radius; the softening keeps the logarithm finite.
    a, t = (cosine * dx + sine * dy) * np.float32(along), (cosine * dy - sine * dx) * np.float32(across)
    r2 = a * a + t * t + np.float32(1e-4)
    r = np.sqrt(r2)
    area = 2.0 * math.pi * math.exp(2.0 * ln_radius) / step**2
    if pattern == "ring":
        off = (r - 1.0) / np.float32(shape)
        light = np.exp(-0.5 * off * off) / np.float32(area * math.sqrt(2.0 * math.pi) * shape)
    else:
        turn = 2.0 * (np.arctan2(t, a) - np.float32(phase)) - np.float32(shape) * np.log(r2)
        inside = r2 + np.float32(_ARMS_BEGIN**2)
        light = np.exp(np.float32(_ARM_CONTRAST) * np.cos(turn) - np.float32(_EXPONENTIAL) * r) * (r2 / inside)
        light /= np.float32(area * np.i0(_ARM_CONTRAST) / _EXPONENTIAL**2)
    image = light.mean(axis=0)
    if not slopes:
        return image, image, image, []
    # Of ln(light): by the squared radius, by the angle, by the shape, by the phase.
    by_r2: Any
    by_turn: Any
    by_shape: Any
    if pattern == "ring":
        by_r2, by_turn = -0.5 * off / (np.float32(shape) * r), np.float32(0.0)
        by_shape, by_phase = off * off / np.float32(shape), np.zeros_like(r)
    else:
        wave = np.float32(_ARM_CONTRAST) * np.sin(turn)
        by_r2 = -np.float32(0.5 * _EXPONENTIAL) / r + np.float32(shape) * wave / r2 + 1.0 / r2 - 1.0 / inside
        by_turn, by_shape, by_phase = -2.0 * wave, wave * np.log(r2), 2.0 * wave
    by_a = light * (2.0 * a * by_r2 - t / r2 * by_turn)
    by_t = light * (2.0 * t * by_r2 + a / r2 * by_turn)
    own = [
        -(a * by_a + t * by_t),
        0.5 * (t * by_t - a * by_a),
        t * by_a * np.float32(along / across) - a * by_t * np.float32(across / along),
        light * by_shape,
        light * by_phase,
    ]
    du, dv = cosine * along * by_a - sine * across * by_t, sine * along * by_a + cosine * across * by_t
    return image, du.mean(axis=0), dv.mean(axis=0), [one.mean(axis=0) for one in own]


def _unit_flux(index: float, b: float) -> float:
    """One over the flux of exp(-b r^(1/n)) with R_e = 1: ∫ = 2π n b^(-2n) Γ(2n)."""
    return float(b ** (2.0 * index) / (2.0 * math.pi * index * math.gamma(2.0 * index)))


def priors(scene: Scene, deflector: Deflector) -> tuple[Float64, Float64]:
    """Middle and width of the prior of each number."""
    middle, width = [], []
    if scene.mass is not None:
        middle += [_THETA_E_PRIOR[0], 0.9 * deflector.e1, 0.9 * deflector.e2, deflector.x, deflector.y, 0.0, 0.0]
        width += [_THETA_E_PRIOR[1], *[_FLATNESS_SCATTER] * 2, *[_CENTRE_SCATTER] * 2, *[_SHEAR_SCATTER] * 2]
    for number in range(len(scene.galaxies)):
        if number == 0 and scene.pattern is not None:
            m, w = _PATTERN_PRIOR[scene.pattern]
        else:
            m, w = _SOURCE_PRIOR if number < scene.n_sources else _COMPANION_PRIOR
        middle += [m[0] + deflector.x, m[1] + deflector.y, *m[2:]]
        width += w
    return np.array(middle), np.array(width)


def _limits(scene: Scene) -> tuple[Float64, Float64]:
    first = [] if scene.mass is None else ["mass"]
    names = [*first, *(["galaxy"] * len(scene.galaxies))]
    if scene.pattern is not None:
        names[0] = scene.pattern
    low, high = (np.concatenate([[], *(table[name] for name in names)]) for table in (_LOW, _HIGH))
    return low, high


def _solve(gram: Float64, right: Float64) -> Float64:
    """Fluxes, none negative: the smallest is left out until all are positive (few columns, so this is the non-negative fit)."""
    n = len(right)
    active = list(range(n))
    flux = np.zeros(n)
    while active:
        part = gram[np.ix_(active, active)]
        got = np.linalg.solve(_ridged(part), right[active])
        if (got >= 0.0).all():
            flux[active] = got
            break
        active.pop(int(np.argmin(got / np.sqrt(1.0 / np.maximum(np.diag(part), 1e-30)))))
    return flux


def _ridged(gram: Float64) -> Float64:
    """Products that have an inverse, though two galaxies lie in one place or one has no light that counts."""
    return gram + 1e-9 * np.diag(np.diag(gram)) + 1e-30 * np.eye(len(gram))


@dataclass(frozen=True)
class _State:
    objective: float
    chi2: float
    fluxes: Float64
    snr: Float64
    curvature: Float64
    slope: Float64


def _evaluate(problem: Problem, scene: Scene, middle: Float64, width: Float64, slopes: bool = True) -> _State:
    n, n_par = len(scene.galaxies), len(middle)
    images, derivatives = draw(scene, problem.data, slopes)
    stack = np.concatenate([images, np.stack([one for _, _, one in derivatives])]) if derivatives else images
    fluxes, snr = np.full((n, 4), np.nan), np.full((n, 4), np.nan)
    curvature, gradient = np.zeros((n_par, n_par)), np.zeros(n_par)
    parameter, owner = (np.array([one[k] for one in derivatives], dtype=np.int64) for k in (0, 1))
    chi2 = 0.0
    for band, rows in enumerate(problem.columns(stack)):
        gram = problem.products(band, np.concatenate([rows, problem.target[band][None]]))
        flux = _solve(gram[:n, :n], gram[:n, -1])
        # The residual as a combination of the rows, and each number's derivative as one.
        rest = np.zeros(len(gram))
        rest[:n], rest[-1] = -flux, 1.0
        chi2 += float(rest @ gram @ rest)
        on = np.flatnonzero(flux > 0.0)
        inverse = np.linalg.inv(_ridged(gram[np.ix_(on, on)]))
        column = problem.data.bands[band]
        fluxes[:, column], snr[:, column] = flux, 0.0
        snr[on, column] = flux[on] / np.sqrt(np.maximum(np.diag(inverse), 1e-30))
        if not slopes:
            continue
        combine = np.zeros((n_par, len(gram)))
        combine[parameter, n + np.arange(len(parameter))] = flux[owner]
        crossed = combine @ gram
        with_flux = crossed[:, on]
        curvature += crossed @ combine.T - with_flux @ inverse @ with_flux.T
        gradient += crossed @ rest
    off = scene.vector - middle
    objective = chi2 + float(((off / width) ** 2).sum())
    curvature[np.diag_indices(n_par)] += width**-2.0
    gradient -= off / width**2
    return _State(objective, chi2, fluxes, snr, curvature, gradient)


def fit(
    problem: Problem, start: Scene, steps: int, tolerance: float = 0.05, ln_theta_e: tuple[float, float] | None = None
) -> Fit:
    """Levenberg-Marquardt from a start; at most so many steps, fewer where the objective falls by less than ``tolerance``.

    ``ln_theta_e``: what else is known of the Einstein radius, its middle and width, beside the prior that all lenses have.
    """
    middle, width = priors(start, problem.deflector)
    if ln_theta_e is not None:
        precision = np.array([width[0], ln_theta_e[1]]) ** -2.0
        middle[0] = precision @ (middle[0], ln_theta_e[0]) / precision.sum()
        width[0] = precision.sum() ** -0.5
    low, high = _limits(start)
    scene = start.with_vector(np.clip(start.vector, low, high))
    state = _evaluate(problem, scene, middle, width)
    damping, converged, calm = 0.03, False, 0
    for _ in range(steps):
        matrix = state.curvature.copy()
        matrix[np.diag_indices_from(matrix)] *= 1.0 + damping
        step = np.linalg.solve(matrix, state.slope)
        trial = scene.with_vector(np.clip(scene.vector + step, low, high))
        # Four in ten trials are worse, and need no slopes.
        gain = state.objective - _evaluate(problem, trial, middle, width, slopes=False).objective
        if gain > 0.0:
            scene, state, damping = trial, _evaluate(problem, trial, middle, width), max(damping * 0.2, 1e-5)
            calm = calm + 1 if gain < tolerance else 0
            if calm >= 2:
                converged = True
                break
        else:
            damping *= 8.0
            if damping > 1e4 or -gain < 1e-6:
                converged = True
                break
    return _finished(problem, scene, state, width, converged)


def _finished(problem: Problem, scene: Scene, state: _State, width: Float64, converged: bool) -> Fit:
    covariance = np.asarray(np.linalg.pinv(state.curvature), dtype=np.float64)
    sign, logdet = np.linalg.slogdet(state.curvature * np.outer(width, width))
    # Fluxes: a prior three times as wide as the flux; only those that are there count.
    occam = float(np.log(1.0 + 3.0 * np.nan_to_num(state.snr)).sum())
    gain = problem.chi2_nothing - state.objective
    ln_evidence = 0.5 * gain - 0.5 * (logdet if sign > 0 else 1e6) - occam
    return Fit(scene, state.chi2, state.objective, state.fluxes, state.snr, covariance, ln_evidence, converged)


def of_one_colour(problem: Problem, found: Fit, first: int, second: int) -> float:
    """By how much chi squared rises if two galaxies of a fit must have one colour; its degrees of freedom: bands less one.

    All other fluxes are fitted anew; places and shapes stay.
    """
    n = len(found.scene.galaxies)
    columns = problem.columns(draw(found.scene, problem.data, slopes=False)[0])
    grams = [problem.products(band, np.concatenate([rows, problem.target[band][None]])) for band, rows in enumerate(columns)]

    def chi2(merge: Float64) -> float:
        return sum(_least(merge @ gram @ merge.T) for gram in grams)

    def merged(ln_ratio: float) -> float:
        merge = np.delete(np.eye(n + 1), second, axis=0)
        merge[first if first < second else first - 1, second] = math.exp(ln_ratio)
        return chi2(merge)

    best = minimize_scalar(merged, bounds=(-7.0, 7.0), method="bounded", options={"xatol": 1e-3})
    return max(float(best.fun) - chi2(np.eye(n + 1)), 0.0)


def _least(gram: Float64) -> float:
    """Chi squared of the best fluxes; ``gram``: products of the galaxies and, last, of what is to be fitted."""
    flux = _solve(gram[:-1, :-1], gram[:-1, -1])
    rest = np.append(-flux, 1.0)
    return float(rest @ gram @ rest)


def nothing(problem: Problem) -> Fit:
    """The fit of the deflector alone."""
    none = np.zeros((0, len(GALAXY)))
    return Fit(
        Scene(None, none, 0),
        problem.chi2_nothing,
        problem.chi2_nothing,
        np.zeros((0, 4)),
        np.zeros((0, 4)),
        np.zeros((0, 0)),
        0.0,
        True,
    )


def joined(scene: Scene, galaxies: Sequence[Float64]) -> Scene:
    """The scene with more unlensed galaxies."""
    more = np.array(galaxies, dtype=np.float64).reshape(-1, len(GALAXY))
    return replace(scene, galaxies=np.concatenate([scene.galaxies, more]))
