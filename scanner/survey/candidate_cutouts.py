"""The cutouts of ranked objects: from the tiles' stores where they were kept, else cut again from the mosaics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS

from scanner.config import RunConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.framed import FramedCutout, of_tile, wcs_of_store
from scanner.errors import InputMissingError, TileError
from scanner.records import CutoutBatch, Int64, Targets, Tile
from scanner.sky.local_files import fetch_tile, temporary_folder
from scanner.sky.tile_images import TileImages, open_tile
from scanner.survey.folder.ledger import RunFolder


def candidate_cutouts(rows: pa.Table, folder: RunFolder, tiles: Mapping[str, Tile], config: RunConfig) -> CutoutBatch | None:
    """Gather the cutouts of some rows; None where there are no rows.

    Parameters
    ----------
    rows
        Rows with the columns of :mod:`scanner.catalogue.columns`.
    folder, tiles
        The run and the tiles it was made from, by id.
    config
        As the tiles were scanned with.
    """
    tile_ids = np.asarray(rows["tile_id"].to_pylist(), dtype=object)
    parts: list[CutoutBatch] = []
    order: list[Int64] = []
    for tile_id in sorted(set(tile_ids)):
        index = np.flatnonzero(tile_ids == tile_id)
        batch, found, _ = tile_cutouts(rows.take(index), folder, tiles[tile_id], config)
        parts.append(batch)
        order.append(index[found])
    if not parts:
        return None
    return CutoutBatch.joined(parts).take(np.argsort(np.concatenate(order)))


def tile_cutouts(rows: pa.Table, folder: RunFolder, tile: Tile, config: RunConfig) -> tuple[CutoutBatch, Int64, WCS]:
    """Cutouts of some rows of one tile, for each the index of its row, and the WCS of the tile's VIS mosaic.

    Parameters and errors are those of :func:`candidate_cutouts`.
    """
    targets = targets_of(rows)
    commit = folder.commit_of(tile.tile_id)
    parts: list[CutoutBatch] = []
    with temporary_folder(config.engine.scratch) as scratch:
        stored = None if commit is None else folder.cutouts(commit, scratch)
        kept = np.zeros(len(targets), np.bool_)
        if stored is not None:
            place = {int(target_id): row for row, target_id in enumerate(stored.target_id)}
            places = np.array([place.get(int(target_id), -1) for target_id in targets.target_id], dtype=np.int64)
            kept = places >= 0
            if kept.any():
                parts.append(stored.read(places[kept]))
                wcs = wcs_of_store(stored.attributes)
        if not kept.all():
            with _opened(tile, config, scratch) as images:
                parts += cut(images, targets.take(~kept))
                wcs = images.vis.wcs
    batch = CutoutBatch.joined(parts)
    place = {int(target_id): row for row, target_id in enumerate(targets.target_id)}
    return batch, np.array([place[int(target_id)] for target_id in batch.targets.target_id], dtype=np.int64), wcs


def framed_again(row: pa.Table, tile: Tile, config: RunConfig) -> FramedCutout:
    """Cut one object again from its tile's mosaics.

    Parameters
    ----------
    row
        One row with the columns of :mod:`scanner.catalogue.columns`.
    tile, config
        The tile, and what it was scanned with.

    Raises
    ------
    InputMissingError
        The tile cannot be opened any more.
    """
    with temporary_folder(config.engine.scratch) as scratch, _opened(tile, config, scratch) as images:
        (batch,) = cut(images, targets_of(row), 1)
        return of_tile(batch, images)


@contextmanager
def _opened(tile: Tile, config: RunConfig, scratch: Path) -> Iterator[TileImages]:
    try:
        with open_tile(fetch_tile(tile, scratch, config.storage), config.cutouts, scratch) as images:
            yield images
    except TileError as error:
        raise InputMissingError(f"{error} Candidates are cut from it again, as their cutouts were not kept.") from None


def targets_of(rows: pa.Table) -> Targets:
    """The targets that rows of the catalogue were made from."""
    column = {name: rows[name].to_numpy() for name in ("target_id", "ra", "dec", "x", "y", "magnitude_vis")}
    magnitude = np.asarray(column.pop("magnitude_vis"), dtype=np.float32)
    return Targets(**column, magnitude=magnitude)
