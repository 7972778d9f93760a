"""Reads a cutout store, object by object or in bulk; its writer is :class:`CutoutWriter`.

In: a folder as in :mod:`scanner.cutouts.layout`. Out: batches of cutouts, in float32 whatever the codec. Refused: a store
that is missing (InputMissingError), incomplete or damaged (ContentError): every chunk carries a checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from scanner.cutouts import codec as compact
from scanner.cutouts.layout import (
    CUTOUT_COLUMNS,
    IMAGE_SHAPES,
    ROWS_PER_CHUNK,
    SHARD_OBJECTS,
    TARGET_COLUMNS,
    StoreAttributes,
)
from scanner.cutouts.writer import CutoutWriter
from scanner.errors import ContentError, InputMissingError
from scanner.records import CutoutBatch, Float64, Int64, Targets

__all__ = ["CutoutStore", "CutoutWriter"]


class CutoutStore:
    """Reads a finished store.

    Raises
    ------
    InputMissingError
        There is nothing at ``path``.
    ContentError
        It is no cutout store, or arrays or shards of it are missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputMissingError(f"{self.path}: no such cutout store.")
        try:
            group = zarr.open_group(self.path, mode="r", zarr_format=3)
            self.attributes = StoreAttributes.model_validate(dict(group.attrs))
            self._arrays = {name: _array(group, name) for name in (*IMAGE_SHAPES, *TARGET_COLUMNS, *CUTOUT_COLUMNS)}
        except (OSError, KeyError, ValueError, TypeError, ValidationError) as error:
            raise self._bad(f"not a cutout store ({type(error).__name__})") from None
        self._check_complete()

    def __len__(self) -> int:
        return self.attributes.n_objects

    @property
    def target_id(self) -> Int64:
        """Identifiers of all objects, (N,) int64."""
        return self._columns["target_id"]

    @property
    def ra(self) -> Float64:
        """Right ascension of all objects, (N,) float64 degrees."""
        return self._columns["ra"]

    @property
    def dec(self) -> Float64:
        """Declination of all objects, (N,) float64 degrees."""
        return self._columns["dec"]

    @property
    def targets(self) -> Targets:
        """All objects."""
        return Targets(**{name: self._columns[name] for name in TARGET_COLUMNS})

    def read(self, index: int | slice | NDArray[Any]) -> CutoutBatch:
        """Read some objects; an integer gives a batch of one.

        Parameters
        ----------
        index
            Integer, slice, or integer or boolean array, as numpy would take it.

        Raises
        ------
        IndexError
            An index is out of range.
        ContentError
            A chunk is damaged.
        """
        rows = np.atleast_1d(np.arange(len(self))[index])
        contiguous = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        images: dict[str, NDArray[Any]] = {}
        for name in IMAGE_SHAPES:
            try:
                array = self._arrays[name]
                images[name] = np.asarray(array[rows[0] : rows[-1] + 1] if contiguous else array.oindex[rows])
            except (OSError, ValueError, RuntimeError, TypeError) as error:
                raise self._bad(f"array {name!r} is damaged ({error})") from None
        columns = {name: values[rows] for name, values in self._columns.items()}
        if self.attributes.codec == "compact":
            sky, sigma = columns["sky"], columns["sigma"]
            images["vis"] = compact.decode(images["vis"], sky[:, 0], sigma[:, 0])
            images["nisp"] = compact.decode(images["nisp"], sky[:, 1:], sigma[:, 1:])
        targets = Targets(**{name: columns.pop(name) for name in TARGET_COLUMNS})
        return CutoutBatch(targets=targets, **images, **columns)

    def batches(self, batch_size: int = SHARD_OBJECTS) -> Iterator[CutoutBatch]:
        """Go through the store in order, ``batch_size`` objects at a time."""
        for start in range(0, len(self), batch_size):
            yield self.read(slice(start, start + batch_size))

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        try:
            return {name: np.asarray(self._arrays[name][...]) for name in (*TARGET_COLUMNS, *CUTOUT_COLUMNS)}
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise self._bad(f"a column is damaged ({error})") from None

    def _check_complete(self) -> None:
        # zarr reads a missing file as fill values without a word.
        for name, array in self._arrays.items():
            if array.shape[0] != len(self):
                raise self._bad(f"array {name!r} has {array.shape[0]} rows instead of {len(self)}")
            rows = SHARD_OBJECTS if name in IMAGE_SHAPES else ROWS_PER_CHUNK
            for shard in range(-(-len(self) // rows)):
                file = self.path.joinpath(name, "c", str(shard), *["0"] * (array.ndim - 1))
                if not file.is_file():
                    raise self._bad(f"the file {file.relative_to(self.path)} is missing")

    def _bad(self, reason: str) -> ContentError:
        return ContentError(f"{self.path}: {reason}; remove the store and make it again.")


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array
