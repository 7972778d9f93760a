"""Writes a cutout store of known length from several processes, each its own shards, in any order.

In: the attributes of a store, and batches of whole shards with the number of their first row. Out: a folder as in
:mod:`scanner.cutouts.layout`, byte for byte what :class:`~scanner.cutouts.writer.CutoutWriter` writes; it appears under its
name with :func:`finish_store`. A shard that is written again replaces the one before. Refused: batches that do not fill whole
shards (ValueError); what the disk refuses is raised as it is (OSError).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray

from scanner.cutouts.layout import IMAGE_SHAPES, SHARD_OBJECTS, StoreAttributes
from scanner.cutouts.store_arrays import create_columns, create_images, stored_images
from scanner.records import CutoutBatch


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def begin_store(path: Path, attributes: StoreAttributes) -> None:
    """Make the arrays of a store, or find them made: for ``attributes.n_objects`` objects, without a pixel."""
    partial = _partial(path)
    if (partial / "zarr.json").exists():
        return
    # Renamed into place, so that a half-made folder is never taken for a store.
    making = path.with_name(path.name + ".new")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.create_group(making, zarr_format=3)
    create_images(group, attributes.n_objects, attributes.codec)
    group.attrs.put(attributes.model_dump(mode="json"))
    making.rename(partial)


def write_shards(path: Path, first: int, batch: CutoutBatch) -> None:
    """Write the images of a batch as rows ``first`` and following; every shard has one writer.

    Raises
    ------
    ValueError
        The batch begins within a shard, or ends in one that is not the store's last.
    """
    group = zarr.open_group(_partial(path), mode="r+", zarr_format=3)
    attributes = StoreAttributes.model_validate(dict(group.attrs))
    stop = first + len(batch)
    if first % SHARD_OBJECTS or (stop % SHARD_OBJECTS and stop != attributes.n_objects):
        raise ValueError(f"rows {first} to {stop} are not whole shards of {SHARD_OBJECTS} objects")
    for name, images in stored_images(batch, attributes.codec).items():
        _array(group, name)[first:stop] = images


def finish_store(path: Path, columns: dict[str, list[NDArray[Any]]]) -> None:
    """Write the per-object columns (their parts, in order, by name) and give the store its name."""
    partial = _partial(path)
    group = zarr.open_group(partial, mode="r+", zarr_format=3)
    for name in set(group.array_keys()) - set(IMAGE_SHAPES):
        del group[name]  # of an earlier attempt
    create_columns(group, columns)
    partial.rename(path)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
