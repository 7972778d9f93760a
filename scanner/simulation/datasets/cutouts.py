"""Labelled cutouts of drawn scenes, on a processor or a GPU; variants that test a network for a bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.errors import UsageError, pip_install
from scanner.processes import worker_pool
from scanner.records import (
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Float32,
    Float64,
)
from scanner.simulation import GeneratorName
from scanner.simulation.datasets.presets import CutoutScene, Preset, draw_scene, object_generator
from scanner.simulation.datasets.truth import TruthRow, component_columns, truth_arrays, truths_of
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.galaxies import System, fluxes, source_colours
from scanner.simulation.population.lenses import lensed_light, unlensed_light
from scanner.simulation.population.truth import ArcMeasurement, measure_system
from scanner.simulation.telescope.artefacts import Star
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, add_stars, blur, expose
from scanner.simulation.telescope.noise import magnitude

if TYPE_CHECKING:
    import torch

#: Objects rendered at once: their canvases stay within the cache.
_BATCH = 16


@dataclass(frozen=True)
class LabelledCutouts:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 in image units; ``truth``: N rows; ``components``: see there."""

    vis: Float32
    nisp: Float32
    truth: list[TruthRow]
    components: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.truth)


def draw(preset: Preset, seed: int, indices: Sequence[int], generator: GeneratorName = "fast") -> LabelledCutouts:
    """Draw the objects ``indices`` of a preset and seed.

    Memory: 0.25 MB an object, and 50 MB.

    Parameters
    ----------
    preset, seed, indices
        Which objects.
    generator
        What traces the rays.

    Returns
    -------
    LabelledCutouts
        In the order of ``indices``.

    Raises
    ------
    UsageError
        lenstronomy is asked for and not installed.
    """
    scenes = [draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices]
    return observe(scenes, indices, generator)


def observe(scenes: Sequence[CutoutScene], target_ids: Sequence[int], generator: GeneratorName = "fast") -> LabelledCutouts:
    """Render scenes, measure their arcs without noise, observe them."""
    vis = np.empty((len(scenes), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), np.float32)
    nisp = np.empty((len(scenes), 3, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), np.float32)
    measured: list[list[ArcMeasurement]] = []
    for start in range(0, len(scenes), _BATCH):
        some = scenes[start : start + _BATCH]
        canvases, arcs = noiseless(some, generator)
        here = slice(start, start + len(some))
        vis[here], nisp[here] = expose(canvases, [item.exposure for item in some], [item.rng for item in some])
        measured += arcs
    return LabelledCutouts(vis, nisp, truths_of(target_ids, scenes, measured), component_columns(target_ids, scenes))


def noiseless(
    scenes: Sequence[CutoutScene], generator: GeneratorName = "fast", like: Any = None
) -> tuple[Any, list[list[ArcMeasurement]]]:
    """Light as the telescope's optics hand it on: blurred, with stars, without artefacts, saturation and noise.

    Parameters
    ----------
    scenes
        What to draw.
    generator
        What traces the rays.
    like
        An array of the library and device to compute with, with the fast generator; numpy by default.

    Returns
    -------
    tuple
        Canvases (N, 4, 240, 240) float32, VIS Y J H; and for every scene, what was measured of the arcs of each of its systems.
    """
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    places = [(row, system) for row, item in enumerate(scenes) for system in item.systems]
    if generator == "fast":
        light = scene.render([item.components for item in scenes], raster, like=like)
        arcs = scene.render([system.source for _, system in places], raster, like=like)
    else:
        light = np.stack([unlensed_light(item.components, raster) for item in scenes])
        nothing = np.zeros((0, *light.shape[1:]), np.float32)
        arcs = np.concatenate([nothing, *(lensed_light(item.systems, raster) for item in scenes if item.systems)])
    exposures = [item.exposure for item in scenes]
    # VIS arcs are convolved apart from the rest, to be measured; the sum is the same.
    arcs_seen, measured = _measured(scenes, places, arcs[:, :1])
    for k, (row, _) in enumerate(places):
        light[row, 1:] += arcs[k, 1:]
    canvases = blur(light, exposures)
    for k, (row, _) in enumerate(places):
        canvases[row, 0] += arcs_seen[k]
    add_stars(canvases, exposures, [[Star(c.x, c.y, c.flux) for c in item.points] for item in scenes])
    return canvases, measured


def measured_arcs(scenes: Sequence[CutoutScene]) -> list[list[ArcMeasurement]]:
    """What :func:`noiseless` measures of the arcs of each scene's systems, without drawing the rest."""
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    measured: list[list[ArcMeasurement]] = []
    for start in range(0, len(scenes), _BATCH):
        some = scenes[start : start + _BATCH]
        places = [(row, system) for row, item in enumerate(some) for system in item.systems]
        measured += _measured(some, places, scene.render([system.source for _, system in places], raster, ("VIS",)))[1]
    return measured


def _measured(
    scenes: Sequence[CutoutScene], places: Sequence[tuple[int, System]], arcs: Any
) -> tuple[Any, list[list[ArcMeasurement]]]:
    """VIS arcs of systems as seen, (K, ny, nx), and by scene what is measured of them; ``arcs`` (K, 1, ny, nx), unblurred."""
    exposures = [scenes[row].exposure for row, _ in places]
    seen = blur(arcs, exposures, (0,))[:, 0]
    measured: list[list[ArcMeasurement]] = [[] for _ in scenes]
    for k, ((row, system), seen_by) in enumerate(zip(places, exposures, strict=True)):
        measured[row].append(measure_system(system, float(arcs[k, 0].sum()), seen[k], seen_by.psfs[0], seen_by.roll))
    return seen, measured


#: Batches that wait to be taken, for each worker.
_AHEAD = 2


@dataclass(frozen=True)
class DeviceBatch:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 tensors, image units; ``truth``: columns (N,) by name."""

    vis: torch.Tensor
    nisp: torch.Tensor
    truth: dict[str, NDArray[Any]]


def draw_batches(
    preset: Preset, seed: int, n_objects: int, batch: int, device: str, *, first: int = 0, workers: int = 0
) -> Iterator[DeviceBatch]:
    """Draw objects ``first`` to ``first + n_objects - 1``, in order.

    Parameters
    ----------
    preset, seed
        Which objects.
    n_objects, batch
        How many, and how many at once; the last batch may be smaller. Some hundred keep a GPU busy: 4 MB of its memory each.
    device
        As torch names it.
    first
        Number of the first object.
    workers
        Processes that draw ahead, all on ``device``; with 0, drawing happens in this process when a batch is taken.

    Raises
    ------
    UsageError
        There is no such device.
    """
    check_device(device)
    stop = first + n_objects
    calls = ((preset, seed, range(start, min(start + batch, stop)), device) for start in range(first, stop, batch))
    if not workers:
        for call in calls:
            yield _on_device(draw_on_device(*call), device)
        return
    with worker_pool(workers) as pool:
        waiting = [pool.submit(draw_on_device, *call) for call in islice(calls, _AHEAD * workers)]
        while waiting:
            drawn = waiting.pop(0).result()
            waiting += [pool.submit(draw_on_device, *call) for call in islice(calls, 1)]
            yield _on_device(drawn, device)


def draw_on_device(preset: Preset, seed: int, indices: Sequence[int], device: str) -> LabelledCutouts:
    """Draw the objects ``indices`` in one go; arrays in this process' memory.

    Raises
    ------
    UsageError
        There is no such device.
    """
    import torch

    check_device(device)
    scenes = [draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices]
    with torch.inference_mode():
        canvases, measured = noiseless(scenes, like=torch.zeros(1, device=device))
        generator = torch.Generator(device=device)
        generator.manual_seed(int(object_generator(f"{preset.name}-noise", seed, indices[0]).integers(2**63)))
        vis, nisp = (images.cpu().numpy() for images in expose(canvases, [item.exposure for item in scenes], generator))
    return LabelledCutouts(vis, nisp, truths_of(indices, scenes, measured), component_columns(indices, scenes))


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises
    ------
    UsageError
        No torch, or no such device.
    """
    try:
        import torch
    except ImportError:
        raise UsageError(f"--device {device} needs torch; install the training side: {pip_install('train')}.") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; leave it out to draw on the processor.")


def _on_device(drawn: LabelledCutouts, device: str) -> DeviceBatch:
    import torch

    vis, nisp = (torch.from_numpy(np.ascontiguousarray(images)).to(device) for images in (drawn.vis, drawn.nisp))
    return DeviceBatch(vis, nisp, truth_arrays(drawn.truth))


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
