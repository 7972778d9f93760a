"""Writes a cutout store: shard by shard in bounded memory, under a temporary name until it is complete.

In: batches of cutouts in the order they are cut. Out: a folder as in :mod:`scanner.cutouts.layout`. The same cutouts give the
same bytes, however they were divided into batches. Refused: a target that exists or cannot be written (OutputError).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
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
    StoreAttributes,
)
from scanner.errors import OutputError
from scanner.records import BANDS, Band, CutoutBatch


class CutoutWriter:
    r"""Writes one store; a context manager. The store appears under its name when the block ends without an error.

    Parameters
    ----------
    path
        Folder to make; must not exist.
    tile_id
        Recorded in the attributes.
    wcs_header
        WCS cards of the VIS mosaic as text (``astropy.io.fits.Header.tostring(sep="\n")``); "" where there is no sky.
    zero_points
        AB magnitude of one unit per band; NaN where unknown.
    units
        BUNIT per band; "" where unknown.
    codec
        ``"exact"`` or ``"compact"``.

    Raises
    ------
    OutputError
        The folder exists, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tile_id: str,
        wcs_header: str,
        zero_points: Mapping[Band, float],
        units: Mapping[Band, str],
        codec: CodecName,
    ) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._attributes = StoreAttributes(
            tile_id=tile_id,
            n_objects=0,
            codec=codec,
            units={band: units.get(band, "") for band in BANDS},
            zero_points={band: _finite_or_none(zero_points.get(band, np.nan)) for band in BANDS},
            wcs=wcs_header,
        )
        self._dtype = np.dtype(np.float32 if codec == "exact" else np.int16)
        self._buffers = {name: np.empty((SHARD_OBJECTS, *shape), self._dtype) for name, shape in IMAGE_SHAPES.items()}
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in (*TARGET_COLUMNS, *CUTOUT_COLUMNS)}
        self._buffered = 0
        self._written = 0
        if self.path.exists():
            raise OutputError(f"{self.path}: a cutout store is already there; remove it or choose another folder.")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._group = zarr.create_group(self._partial, zarr_format=3)
            self._images = {name: self._create_images(name, shape) for name, shape in IMAGE_SHAPES.items()}
        except OSError as error:
            raise self._cannot_write(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, batch: CutoutBatch) -> None:
        """Add the objects of a batch, in their order.

        Raises
        ------
        OutputError
            The disk is full or the folder has gone.
        """
        for name in TARGET_COLUMNS:
            self._rows[name].append(np.array(getattr(batch.targets, name)))
        for name in CUTOUT_COLUMNS:
            self._rows[name].append(np.array(getattr(batch, name)))
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + SHARD_OBJECTS - self._buffered)
            target = slice(self._buffered, self._buffered + stop - start)
            vis, nisp = batch.vis[start:stop], batch.nisp[start:stop]
            if self._attributes.codec == "compact":
                sky, sigma = batch.sky[start:stop], batch.sigma[start:stop]
                self._buffers["vis"][target] = compact.encode(vis, sky[:, 0], sigma[:, 0])
                self._buffers["nisp"][target] = compact.encode(nisp, sky[:, 1:], sigma[:, 1:])
            else:
                self._buffers["vis"][target], self._buffers["nisp"][target] = vis, nisp
            self._buffered = target.stop
            start = stop
            if self._buffered == SHARD_OBJECTS:
                self._flush()

    def close(self) -> None:
        """Write what is buffered and give the store its name.

        Raises
        ------
        OutputError
            The disk is full or the folder has gone.
        """
        self._flush()
        try:
            for name, dtype in TARGET_COLUMNS.items():
                self._create_rows(name, dtype, ())
            for name, (dtype, shape) in CUTOUT_COLUMNS.items():
                self._create_rows(name, dtype, shape)
            attributes = self._attributes.model_copy(update={"n_objects": self._written})
            self._group.attrs.put(attributes.model_dump(mode="json"))
            self._partial.rename(self.path)
        except OSError as error:
            raise self._cannot_write(error) from None

    def _flush(self) -> None:
        if not self._buffered:
            return
        stop = self._written + self._buffered
        try:
            for name, array in self._images.items():
                array.resize((stop, *IMAGE_SHAPES[name]))
                array[self._written : stop] = self._buffers[name][: self._buffered]
        except OSError as error:
            raise self._cannot_write(error) from None
        self._written, self._buffered = stop, 0

    def _create_images(self, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
        # Measured on noisy galaxies (benchmarks/storing.py): byte-shuffled zstd packs the codes tightest; on float32 no codec
        # gains more than a few per cent over lz4, and none is as fast.
        itemsize = self._dtype.itemsize
        if self._attributes.codec == "exact":
            blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=itemsize)
        else:
            blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=itemsize)
        return self._group.create_array(
            name,
            shape=(0, *shape),
            chunks=(CHUNK_OBJECTS, *shape),
            shards=(SHARD_OBJECTS, *shape),
            dtype=self._dtype,
            fill_value=np.nan if self._attributes.codec == "exact" else int(compact.NAN_CODE),
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )

    def _create_rows(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        rows = np.concatenate([np.empty((0, *shape), dtype), *self._rows[name]]).astype(dtype, copy=False)
        blosc = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
        array = self._group.create_array(
            name,
            shape=rows.shape,
            chunks=(ROWS_PER_CHUNK, *shape),
            dtype=dtype,
            compressors=(blosc, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        array[...] = rows

    def _cannot_write(self, error: OSError) -> OutputError:
        shutil.rmtree(self._partial, ignore_errors=True)
        return OutputError.of(self.path, error)


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
