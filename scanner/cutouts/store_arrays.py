"""The arrays of a cutout store, as both of its writers make them: the same cutouts, the same bytes.

In: a zarr group, a codec, cutouts. Out: arrays in the group, and pixels as the codec stores them. Nothing is caught.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from scanner.cutouts import codec as compact
from scanner.cutouts.layout import (
    CHUNK_OBJECTS,
    CUTOUT_COLUMNS,
    IMAGE_SHAPES,
    ROWS_PER_CHUNK,
    SHARD_OBJECTS,
    TARGET_COLUMNS,
    CodecName,
)
from scanner.records import CutoutBatch

#: Type and shape of every per-object column, in the order of the layout.
COLUMNS = {name: (dtype, ()) for name, dtype in TARGET_COLUMNS.items()} | CUTOUT_COLUMNS


def stored_type(codec: CodecName) -> np.dtype[Any]:
    """Type of the images' elements."""
    return np.dtype(np.float32 if codec == "exact" else np.int16)


def stored_images(batch: CutoutBatch, codec: CodecName) -> dict[str, NDArray[Any]]:
    """``vis`` and ``nisp`` as they are stored, by name of the array."""
    if codec == "exact":
        return {"vis": batch.vis, "nisp": batch.nisp}
    return {
        "vis": compact.encode(batch.vis, batch.sky[:, 0], batch.sigma[:, 0]),
        "nisp": compact.encode(batch.nisp, batch.sky[:, 1:], batch.sigma[:, 1:]),
    }


def column_values(batch: CutoutBatch) -> dict[str, NDArray[Any]]:
    """Copies of the per-object columns of a batch."""
    return {name: np.array(getattr(batch.targets if name in TARGET_COLUMNS else batch, name)) for name in COLUMNS}


def create_images(group: zarr.Group, n_objects: int, codec: CodecName) -> dict[str, zarr.Array[Any]]:
    """Make the image arrays, for ``n_objects`` rows."""
    # Measured on noisy galaxies (benchmarks/storing.py): byte-shuffled zstd packs the codes tightest; on float32 no codec
    # gains more than a few per cent over lz4, and none is as fast.
    dtype = stored_type(codec)
    if codec == "exact":
        blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize)
    else:
        blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=dtype.itemsize)
    return {
        name: group.create_array(
            name,
            shape=(n_objects, *shape),
            chunks=(CHUNK_OBJECTS, *shape),
            shards=(SHARD_OBJECTS, *shape),
            dtype=dtype,
            fill_value=np.nan if codec == "exact" else int(compact.NAN_CODE),
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        for name, shape in IMAGE_SHAPES.items()
    }


def create_columns(group: zarr.Group, values: dict[str, list[NDArray[Any]]]) -> None:
    """Make and fill the arrays of the per-object columns; ``values``: their parts, in order, by name."""
    for name, (dtype, shape) in COLUMNS.items():
        rows = np.concatenate([np.empty((0, *shape), dtype), *values[name]]).astype(dtype, copy=False)
        blosc = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
        array = group.create_array(
            name,
            shape=rows.shape,
            chunks=(ROWS_PER_CHUNK, *shape),
            dtype=dtype,
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        array[...] = rows
