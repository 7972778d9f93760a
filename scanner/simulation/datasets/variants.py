"""Variants of a dataset that test a network for a bias: recoloured sources, a PSF that gives one class away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Float32, Float64
from scanner.simulation.datasets.cutouts import LabelledCutouts, observe
from scanner.simulation.datasets.presets import CutoutScene, Preset, draw_scene, object_generator
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.galaxies import System, fluxes, source_colours
from scanner.simulation.telescope.noise import magnitude

_QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 0.999)
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: Gaussian windows about the centre, arcsec: what is there, and its moments of second and third order.
_WINDOWS = (0.3, 0.8)
_MOMENTS = (0, 2, 3, 4)
#: Side of the square about the centre where neighbours and moments are measured.
_CENTRE_ARCSEC = 7.2


def galaxy_free(scene: CutoutScene, star_magnitude: float | None = None) -> CutoutScene:
    """The same exposure of a sky without galaxies, lenses and the object: field stars are left.

    ``star_magnitude``: VIS magnitude of a star in the object's place, which shows the PSF; None for nothing there.
    """
    stars = [component for component in scene.components[scene.n_object :] if component.kind is Kind.POINT]
    middle: list[Component] = []
    if star_magnitude is not None:
        middle = [Component(Kind.POINT, 0.0, 0.0, fluxes(star_magnitude, 0.6, 0.1, 0.1))]
    artefacts = scene.exposure.artefacts[: len(scene.exposure.artefacts) - scene.exposure.n_on_object]
    exposure = replace(scene.exposure, artefacts=artefacts, n_on_object=0)
    return replace(scene, components=middle + stars, n_object=len(middle), systems=(), exposure=exposure)


def conditions(vis: Float32, nisp: Float32) -> Float64:
    """Numbers that tell of PSF, noise and background.

    Parameters
    ----------
    vis, nisp
        (N, 200, 200) and (N, 3, 66, 66) float32.

    Returns
    -------
    array
        (N, F) float64: of every band, level and scatter, tails, correlations of neighbours in four directions, and the angular
        moments of the light about the centre.
    """
    planes = [(vis, VIS_PIXEL_SCALE_ARCSEC), *((nisp[:, band], NISP_PIXEL_SCALE_ARCSEC) for band in range(nisp.shape[1]))]
    return np.concatenate([_of_band(images, scale) for images, scale in planes], axis=1)


def _of_band(images: Float32, scale: float) -> Float64:
    # As many pixels as a NISP cutout has, from all over the image.
    step = images.shape[1] // 66
    flat = images[:, ::step, ::step].reshape(len(images), -1)
    sky = np.median(flat, axis=1, keepdims=True)
    sigma = 1.4826 * np.median(np.abs(flat - sky), axis=1, keepdims=True)
    tails = (np.quantile(flat, _QUANTILES, axis=1).T - sky) / sigma
    side = round(_CENTRE_ARCSEC / scale)
    first = (images.shape[1] - side) // 2
    # As far from either edge on even grids as on odd ones.
    centre = images[:, first : images.shape[1] - first, first : images.shape[1] - first].astype(np.float64)
    centre = (centre - sky[:, :, None]) / sigma[:, :, None]
    core = np.clip(centre, -4.0, 4.0)
    pairs = [(core * np.roll(core, shift, axis=(1, 2))).mean(axis=(1, 2)) for shift in _NEIGHBOURS]
    return np.column_stack([sky, np.log(sigma), tails, *pairs, *_moments(centre, scale)])


def _moments(images: Float64, scale: float) -> list[Float64]:
    """Light in Gaussian windows, and its angular moments as shares of it."""
    axis = (np.arange(images.shape[1]) - 0.5 * (images.shape[1] - 1)) * scale
    place = axis[None, :] + 1j * axis[:, None]
    found: list[Float64] = []
    for width in _WINDOWS:
        window = np.exp(-0.5 * np.abs(place) ** 2 / width**2)
        total = np.maximum(np.abs((images * window).sum(axis=(1, 2))), 1.0)
        for order in _MOMENTS:
            moment = (images * (window * (place / width) ** order)).sum(axis=(1, 2)) / total
            found += [moment.real, moment.imag] if order else [np.log(total)]
    return found


@dataclass(frozen=True)
class Verdict:
    """AUROC of a probe on images that it was not trained on, with its 95% interval; 0.5: it cannot tell."""

    auroc: float
    low: float
    high: float
    n_images: int

    @property
    def blind(self) -> bool:
        """Whether 0.5 lies within the interval."""
        return self.low <= 0.5 <= self.high


def probe(features: Float64, labels: Sequence[bool] | NDArray[np.bool_], seed: int = 0) -> Verdict:
    """Train boosted trees on either half of the images; see how well they tell the classes of the other half apart.

    Parameters
    ----------
    features
        (N, F).
    labels
        (N,) bool.
    seed
        Of the halves.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    truth: NDArray[Any] = np.asarray(labels, dtype=bool)
    order = np.random.default_rng(seed).permutation(len(truth))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    aurocs, errors = [], []
    for learn, test in (halves, halves[::-1]):
        model = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, max_leaf_nodes=15, random_state=seed)
        model.fit(features[learn], truth[learn])
        aurocs.append(float(roc_auc_score(truth[test], model.predict_proba(features[test])[:, 1])))
        errors.append(_standard_error(aurocs[-1], int(truth[test].sum()), int((~truth[test]).sum())))
    auroc, error = sum(aurocs) / 2.0, math.hypot(*errors) / 2.0
    return Verdict(auroc, auroc - 1.96 * error, auroc + 1.96 * error, len(truth))


def _standard_error(auroc: float, positives: int, negatives: int) -> float:
    """Of an AUROC (Hanley & McNeil 1982, equation 1)."""
    q1, q2 = auroc / (2.0 - auroc), 2.0 * auroc**2 / (1.0 + auroc)
    spread = auroc * (1.0 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    return math.sqrt(spread / (positives * negatives))


def recoloured(scene: CutoutScene, vis_minus_h: float) -> CutoutScene:
    """The scene with every lensed source as red as asked, VIS - H in AB mag; it draws the same noise, however often."""
    return replace(
        scene, rng=deepcopy(scene.rng), systems=tuple(_recoloured_system(system, vis_minus_h) for system in scene.systems)
    )


def draw_recoloured(
    preset: Preset, seed: int, indices: Sequence[int], colours: Sequence[float]
) -> Iterator[tuple[float, LabelledCutouts]]:
    """Draw the objects ``indices`` once for every colour; see :mod:`scanner.simulation.datasets.cutouts`."""
    scenes = [draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices]
    for colour in colours:
        yield colour, observe([recoloured(scene, colour) for scene in scenes], indices)


def _recoloured_system(system: System, vis_minus_h: float) -> System:
    blue, red = (source_colours(is_red, system.z_source) for is_red in (False, True))
    share = (vis_minus_h - sum(blue)) / (sum(red) - sum(blue))
    vis_y, y_j, j_h = (a + share * (b - a) for a, b in zip(blue, red, strict=True))
    before = system.unlensed_flux
    wanted = fluxes(magnitude(before[0], "VIS"), vis_y, y_j, j_h)
    factors = (1.0, *(new / old for new, old in zip(wanted[1:], before[1:], strict=True)))
    return replace(
        system,
        source=tuple(_scaled(component, factors) for component in system.source),
        point_images=tuple(_scaled(image, factors) for image in system.point_images),
        point_flux=_by_band(system.point_flux, factors),
    )


def _scaled(component: Component, factors: Sequence[float]) -> Component:
    return replace(component, flux=_by_band(component.flux, factors))


def _by_band(light: Flux, factors: Sequence[float]) -> Flux:
    vis, y, j, h = (value * factor for value, factor in zip(light, factors, strict=True))
    return vis, y, j, h
