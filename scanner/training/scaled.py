"""A dataset's images, scaled once, as float16 arrays on disk that the trainers of all members share.

In: cutouts with their sky and σ, and the name of the preprocessing. Out: a folder with ``vis.npy`` (N, 200, 200), ``nisp.npy``
(N, 3, 66, 66; Y, J, H), ``vis66.npy`` (N, 66, 66; resized) and ``scaled.json``, and :class:`ScaledImages` over it,
memory-mapped. Refused: an unfinished folder (it is made again).

Float16 resolves 0.0005 near 1, a hundredth of the sky's σ in either scaling's typical range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import ValidationError

from scanner.ensemble.preprocessing import Preprocessing, from_minimum, resize, scale_asinh_mad, scale_minmax
from scanner.evaluation.labelled_data import Dataset
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Float32, Record

Float16 = NDArray[np.float16]
BATCH = 256


class ScaledDescription(Record):
    """``scaled.json``: what the arrays were made from."""

    dataset_sha256: str
    preprocessing: Preprocessing
    n: int


@dataclass(frozen=True)
class ScaledImages:
    """Scaled images, float16: ``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66; Y, J, H) and ``vis66`` (N, 66, 66)."""

    vis: Float16
    nisp: Float16
    vis66: Float16
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.vis)


def scale_batch(vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, preprocessing: Preprocessing) -> ScaledImages:
    """Scale cutouts without NaN as the bundle's graph does, VIS at both sizes.

    Parameters
    ----------
    vis, nisp
        (n, 200, 200) and (n, 3, 66, 66), any unit.
    sky, sigma
        (n, 4), VIS, Y, J, H.
    preprocessing
        ``minmax`` or ``asinh_mad``.
    """
    if preprocessing == "minmax":
        scaled_vis, scaled_nisp = scale_minmax(vis), scale_minmax(nisp)
        small = scale_minmax(resize(from_minimum(vis), NISP_CUTOUT_PIXELS))
    else:
        scaled_vis = scale_asinh_mad(vis, sky[:, 0], sigma[:, 0])
        scaled_nisp = scale_asinh_mad(nisp, sky[:, 1:], sigma[:, 1:])
        small = resize(scaled_vis, NISP_CUTOUT_PIXELS)
    return ScaledImages(scaled_vis.astype(np.float16), scaled_nisp.astype(np.float16), small.astype(np.float16), preprocessing)


def open_scaled(folder: Path) -> ScaledImages:
    """Memory-map a folder that :func:`scale_dataset` finished."""
    description = ScaledDescription.model_validate_json((folder / "scaled.json").read_text(encoding="utf-8"))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("vis", "nisp", "vis66")}
    return ScaledImages(**arrays, preprocessing=description.preprocessing)


def scale_dataset(dataset: Dataset, folder: Path, preprocessing: Preprocessing) -> ScaledImages:
    """Scale all cutouts of ``dataset`` into ``folder``, or open what an earlier call left there.

    Returns
    -------
    ScaledImages
        Row-aligned with ``dataset.truth``.
    """
    wanted = ScaledDescription(dataset_sha256=dataset.fingerprint, preprocessing=preprocessing, n=len(dataset))
    marker = folder / "scaled.json"
    try:
        if ScaledDescription.model_validate_json(marker.read_text(encoding="utf-8")) == wanted:
            return open_scaled(folder)
    except (OSError, ValidationError):
        pass
    marker.unlink(missing_ok=True)
    rows = np.arange(len(dataset), dtype=np.int64)
    batches = ((vis, nisp, batch.sky, batch.sigma) for batch, vis, nisp in dataset.batches(rows, BATCH))
    write_scaled(folder, len(dataset), batches, preprocessing)
    marker.write_text(wanted.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return open_scaled(folder)


def write_scaled(folder: Path, n: int, batches: Iterator[tuple[Float32, ...]], preprocessing: Preprocessing) -> None:
    """Fill the three arrays of ``folder`` from batches of (vis, nisp, sky, sigma) that hold ``n`` rows in all."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {
        "vis": (n, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
        "nisp": (n, 3, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
        "vis66": (n, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
    }
    arrays: dict[str, Any] = {
        name: open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=shape) for name, shape in shapes.items()
    }
    start = 0
    for vis, nisp, sky, sigma in batches:
        scaled = scale_batch(vis, nisp, sky, sigma, preprocessing)
        for name, array in arrays.items():
            array[start : start + len(vis)] = getattr(scaled, name)
        start += len(vis)
    for array in arrays.values():
        array.flush()
