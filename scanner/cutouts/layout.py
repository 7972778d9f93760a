"""The layout of a cutout store: names, types, shapes and attributes that its writer and its reader share.

One zarr v3 group per tile holds ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66; Y, J, H), and one row per object in
``target_id, ra, dec, x, y, magnitude, x0, y0, offset, bad_fraction, sky, sigma, flags``, all as
:class:`scanner.records.CutoutBatch` describes them. Images are sharded: one file of 256 objects, in chunks of 16.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from scanner.cutouts import codec as compact
from scanner.records import BANDS, NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Band, Record

CodecName = Literal["exact", "compact"]
#: Objects per file and per separately compressed chunk: one object is read in 2 ms, and a shard is 8 to 45 MB.
SHARD_OBJECTS = 256
CHUNK_OBJECTS = 16
ROWS_PER_CHUNK = 65536
IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "vis": (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS),
    "nisp": (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS),
}
TARGET_COLUMNS: dict[str, DTypeLike] = {
    "target_id": np.int64,
    "ra": np.float64,
    "dec": np.float64,
    "x": np.float64,
    "y": np.float64,
    "magnitude": np.float32,
}
CUTOUT_COLUMNS: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
    "x0": (np.int64, ()),
    "y0": (np.int64, ()),
    "offset": (np.float32, (2,)),
    "bad_fraction": (np.float32, (len(BANDS),)),
    "sky": (np.float32, (len(BANDS),)),
    "sigma": (np.float32, (len(BANDS),)),
    "flags": (np.uint32, ()),
}


class StoreAttributes(Record):
    """Attributes of the zarr group. ``wcs``: FITS cards of the VIS mosaic; a cutout's own CRPIX is less by (x0, y0)."""

    format_version: Literal[1] = 1
    tile_id: str
    n_objects: int
    codec: CodecName
    softening_sigma: float = compact.SOFTENING_SIGMA
    steps_per_asinh: float = compact.STEPS_PER_ASINH
    code_of_sky: int = compact.CODE_OF_SKY
    nan_code: int = int(compact.NAN_CODE)
    bands: tuple[Band, ...] = BANDS
    units: dict[Band, str]
    zero_points: dict[Band, float | None]
    wcs: str
