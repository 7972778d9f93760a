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
from numpy.typing import NDArray

from scanner.cutouts.layout import IMAGE_SHAPES, SHARD_OBJECTS, CodecName, StoreAttributes
from scanner.cutouts.store_arrays import (
    COLUMNS,
    column_values,
    create_columns,
    create_images,
    stored_images,
    stored_type,
)
from scanner.errors import OutputError
from scanner.records import BANDS, Band, CutoutBatch


class CutoutWriter:
    """Writes one store; a context manager. The store appears under its name when the block ends without an error.

    Parameters
    ----------
    path
        Folder to make; must not exist.
    tile_id
        Recorded in the attributes.
    wcs_header
        WCS cards of the VIS mosaic, one after another (``astropy.wcs.WCS.to_header_string``); "" where there is no sky.
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
        self._attributes = store_attributes(tile_id, wcs_header, zero_points, units, codec)
        dtype = stored_type(codec)
        self._buffers = {name: np.empty((SHARD_OBJECTS, *shape), dtype) for name, shape in IMAGE_SHAPES.items()}
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._buffered = 0
        self._written = 0
        if self.path.exists():
            raise OutputError(f"{self.path}: a cutout store is already there; remove it or choose another folder.")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._group = zarr.create_group(self._partial, zarr_format=3)
            self._images = create_images(self._group, 0, codec)
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
        for name, values in column_values(batch).items():
            self._rows[name].append(values)
        stored = stored_images(batch, self._attributes.codec)
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + SHARD_OBJECTS - self._buffered)
            target = slice(self._buffered, self._buffered + stop - start)
            for name, images in stored.items():
                self._buffers[name][target] = images[start:stop]
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
            create_columns(self._group, self._rows)
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

    def _cannot_write(self, error: OSError) -> OutputError:
        shutil.rmtree(self._partial, ignore_errors=True)
        return OutputError.of(self.path, error)


def store_attributes(
    tile_id: str, wcs_header: str, zero_points: Mapping[Band, float], units: Mapping[Band, str], codec: CodecName
) -> StoreAttributes:
    """Attributes of an empty store; the arguments are those of :class:`CutoutWriter`."""
    return StoreAttributes(
        tile_id=tile_id,
        n_objects=0,
        codec=codec,
        units={band: units.get(band, "") for band in BANDS},
        zero_points={band: _finite_or_none(zero_points.get(band, np.nan)) for band in BANDS},
        wcs=wcs_header,
    )


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
