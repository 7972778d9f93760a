"""The same cutouts with torch, on a GPU or a CPU: for training sets that are drawn where they are used.

In: a preset, a seed, object numbers, a device. Out: tensors on it, and the truth as arrays. Needs numpy, scipy and torch, but
neither astropy nor zarr. What is drawn of an object is the same as without torch (:func:`~.labelled_cutouts.draw`), its light
to 1e-4 of a pixel's noise; the noise is another, from one generator a batch. Equal calls on one machine give the same up to the
order of additions on a GPU. Refused: a device that is not there (UsageError).

A GPU waits for the processor here: scenes are drawn and laid out in Python, about 3 ms an object, so that it takes a dozen
``workers`` to keep it busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scanner.errors import UsageError
from scanner.simulation.datasets.component_table import component_columns
from scanner.simulation.datasets.cutout_scene import draw_scene, object_generator
from scanner.simulation.datasets.labelled_cutouts import LabelledCutouts, noiseless
from scanner.simulation.datasets.presets import Preset
from scanner.simulation.datasets.truth import truth_arrays, truths_of
from scanner.simulation.telescope.exposure import expose

if TYPE_CHECKING:
    import torch

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
            yield _on_device(draw(*call), device)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting = [pool.submit(draw, *call) for call in islice(calls, _AHEAD * workers)]
        while waiting:
            drawn = waiting.pop(0).result()
            waiting += [pool.submit(draw, *call) for call in islice(calls, 1)]
            yield _on_device(drawn, device)
    finally:
        pool.shutdown(cancel_futures=True)


def draw(preset: Preset, seed: int, indices: Sequence[int], device: str) -> LabelledCutouts:
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
        raise UsageError(f"--device {device} needs torch; install the training side: pip install 'scanner[train]'.") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU here; leave it out to draw on the processor.")


def _on_device(drawn: LabelledCutouts, device: str) -> DeviceBatch:
    import torch

    vis, nisp = (torch.from_numpy(np.ascontiguousarray(images)).to(device) for images in (drawn.vis, drawn.nisp))
    return DeviceBatch(vis, nisp, truth_arrays(drawn.truth))
