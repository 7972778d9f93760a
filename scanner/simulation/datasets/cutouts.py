"""Labelled cutouts of drawn scenes, on a processor or a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scanner.errors import UsageError, pip_install
from scanner.processes import worker_pool
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.simulation.datasets.presets import CutoutScene, Preset, draw_scene, object_generator
from scanner.simulation.datasets.truth import TruthRow, component_columns, truth_arrays, truths_of
from scanner.simulation.light import scene
from scanner.simulation.population.galaxies import System
from scanner.simulation.population.lenses import lensed_light, unlensed_light
from scanner.simulation.population.truth import ArcMeasurement, measure_system
from scanner.simulation.telescope.artefacts import Star
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, add_stars, blur, expose

if TYPE_CHECKING:
    import torch


GeneratorName = Literal["fast", "lenstronomy"]
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
