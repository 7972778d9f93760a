"""Single objects of a run: found by name, rank or place; cutouts from the tiles' stores, else cut again from the mosaics."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from scanner.config import RunConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.framed import FramedCutout, of_tile, wcs_of_store
from scanner.errors import ContentError, InputMissingError, TileError, UsageError
from scanner.query.catalogue import Catalogue, Search, search
from scanner.query.region import Cone
from scanner.records import TILE_ID_PATTERN, CommitRecord, CutoutBatch, Int64, Targets, Tile
from scanner.sky.local_files import fetch_tile, temporary_folder
from scanner.sky.tile_images import TileImages, open_tile
from scanner.sphere import PREFIX, designations, parse_designation
from scanner.survey.folder.ledger import RunFolder

_CANDIDATES, _MERGED = "candidates.fits", "catalogue/hats.properties"
_RANK = re.compile(r"#?(\d{1,18})")
_PLACE = re.compile(rf"({TILE_ID_PATTERN.strip('^$')})/(-?\d{{1,19}})")
#: About a tile's row, the merged catalogue is searched for the same object.
_NEAR_DEG = 1 / 3600


@dataclass(frozen=True)
class FoundObject:
    """Row ``index`` of ``table``, the rows of its tile as they were scored; ``rank`` is None outside the merged catalogue.

    ``prefix``: what names begin with in the run's survey.
    """

    commit: CommitRecord
    table: pa.Table
    index: int
    rank: int | None
    prefix: str

    @property
    def row(self) -> pa.Table:
        """The object's own row."""
        return self.table.slice(self.index, 1)

    @property
    def name(self) -> str:
        """Its designation."""
        return designations(self.row["ra"].to_numpy(), self.row["dec"].to_numpy(), self.prefix)[0]


def find_object(folder: RunFolder, wanted: str, scratch: Path) -> FoundObject:
    """Find an object.

    Parameters
    ----------
    folder
        The run.
    wanted
        Name (``EUCL J…``), rank (``#3``) or place (``tile/target_id``).
    scratch
        Folder for what has to be fetched from an object store.

    Raises
    ------
    UsageError
        The text names no object, or several have the name.
    InputMissingError
        The run has no such object.
    ContentError
        The merged catalogue says something else of the object than its tile's table.
    """
    tile_id, target_id = _place(folder, wanted, scratch)
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise InputMissingError(f"{folder.location}: holds no finished tile {tile_id}; 'scanner status' lists what there is.")
    table = folder.record().decided(folder.scores(commit))
    found = np.flatnonzero(table["target_id"].to_numpy() == target_id)
    if not len(found):
        raise InputMissingError(f"{folder.location}: tile {tile_id} has no object {target_id}.")
    row = table.slice(int(found[0]), 1)
    prefix = folder.record().config.targets.survey.prefix
    return FoundObject(commit=commit, table=table, index=int(found[0]), rank=_rank(folder, row, scratch), prefix=prefix)


def _place(folder: RunFolder, wanted: str, scratch: Path) -> tuple[str, int]:
    """Tile and id of the object that a text names."""
    text = wanted.strip()
    if match := _PLACE.fullmatch(text):
        return match[1], int(match[2])
    if match := _RANK.fullmatch(text):
        return _by_rank(folder, int(match[1]), scratch)
    designation = parse_designation(text)
    if designation is None:
        raise UsageError(
            f"{wanted!r} is no id of an object: give its name ('{PREFIX} J…'), its rank ('#3') or its place (tile/target_id)."
        )
    return _by_name(folder, designation[0], scratch)


def _by_rank(folder: RunFolder, rank: int, scratch: Path) -> tuple[str, int]:
    # Nearly always a candidate is meant, whose list is a small file.
    results = folder.results(folder.record())
    if _CANDIDATES in (results.sha256 or {}):
        with fits.open(io.BytesIO(results.read(_CANDIDATES)), memmap=False) as hdus:
            for row in hdus[1].data[hdus[1].data["rank"] == rank]:
                return str(row["tile_id"]), int(row["target_id"])
    for found in search(_catalogue(folder, scratch), Search(rank=rank, columns=("tile_id", "target_id"))).to_pylist():
        return found["tile_id"], found["target_id"]
    raise InputMissingError(f"{folder.location}: no object has rank {rank}.")


def _by_name(folder: RunFolder, name: str, scratch: Path) -> tuple[str, int]:
    columns = ("rank", "tile_id", "target_id", "is_candidate")
    bearers = search(_catalogue(folder, scratch), Search(name=name, columns=columns)).to_pylist()
    bearers = [row for row in bearers if row["is_candidate"]] or bearers
    if not bearers:
        raise InputMissingError(f"{folder.location}: no object is called {name}.")
    if len(bearers) > 1:
        ranks = ", ".join(f"#{row['rank']}" for row in bearers)
        raise UsageError(f"{folder.location}: {len(bearers)} objects are called {name}; give the rank of one: {ranks}.")
    return bearers[0]["tile_id"], bearers[0]["target_id"]


def _rank(folder: RunFolder, row: pa.Table, scratch: Path) -> int | None:
    """Rank of a tile's row in the merged catalogue, which must hold the same values; None where it is not there."""
    if _MERGED not in folder.record().sha256:
        return None
    (wanted,) = row.to_pylist()
    near = Search(region=Cone(wanted["ra"], wanted["dec"], _NEAR_DEG))
    for merged in search(_catalogue(folder, scratch), near).to_pylist():
        if (merged["tile_id"], merged["target_id"]) != (wanted["tile_id"], wanted["target_id"]):
            continue
        # What is not known is NaN, which is unequal to itself.
        if any(merged[name] != value and (merged[name] == merged[name] or value == value) for name, value in wanted.items()):
            raise ContentError(
                f"{folder.store.where('catalogue')}: says something else of {wanted['tile_id']}/{wanted['target_id']} than the "
                "tile itself does; give the run's command again, which merges its tiles anew."
            )
        return int(merged["rank"])
    return None


def _catalogue(folder: RunFolder, scratch: Path) -> Catalogue:
    results = folder.results(folder.record())
    if _MERGED not in (results.sha256 or {}):
        raise InputMissingError(f"{folder.location}: its tiles have not been merged yet; give the object as tile/target_id.")
    return Catalogue.open(results.below("catalogue"), scratch)


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
