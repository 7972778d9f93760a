"""One object of a run, by its name (``EUCL J…``), its rank (``#3``) or its place (``tile/target_id``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

from scanner.catalogue.hats import partition_path
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.records import TILE_ID_PATTERN, CommitRecord
from scanner.sphere import HEALPIX_ORDER, PREFIX, designations, healpix_29, place_of_designation
from scanner.survey.folder.ledger import RunFolder

PARTITIONS = "catalogue/partition_info.csv"
#: Half the side of the box in which the bearer of a name is looked for: more than its last digits, in degrees.
NAME_BOX_DEG = 1e-4

_Filters = list[tuple[str, str, Any]]
_RANK = re.compile(r"#?(?P<rank>\d{1,18})")
_NAME = re.compile(
    rf"(?:{PREFIX}[ _])?(?P<name>J(?P<hours>\d\d)(?P<minutes>\d\d)(?P<seconds>\d\d\.\d\d)"
    r"(?P<sign>[+-])(?P<degrees>\d\d)(?P<arcminutes>\d\d)(?P<arcseconds>\d\d\.\d))"
)
_PLACE = re.compile(rf"(?P<tile_id>{TILE_ID_PATTERN.strip('^$')})/(?P<target_id>-?\d{{1,19}})")


@dataclass(frozen=True)
class FoundObject:
    """Row ``index`` of ``table``, the rows of its tile as they were scored; ``rank`` is None outside the merged catalogue."""

    commit: CommitRecord
    table: pa.Table
    index: int
    rank: int | None

    @property
    def row(self) -> pa.Table:
        """The object's own row."""
        return self.table.slice(self.index, 1)

    @property
    def name(self) -> str:
        """Its designation."""
        return designations(self.row["ra"].to_numpy(), self.row["dec"].to_numpy())[0]


def find_object(folder: RunFolder, wanted: str, scratch: Path) -> FoundObject:
    """Find an object.

    Parameters
    ----------
    folder
        The run.
    wanted
        Name, rank or place; see the module.
    scratch
        Folder for what has to be fetched from an object store.

    Raises
    ------
    UsageError, InputMissingError, ContentError
        See the module.
    """
    text = wanted.strip()
    place = _PLACE.fullmatch(text)
    if place is not None:
        tile_id, target_id = place["tile_id"], int(place["target_id"])
    elif match := _RANK.fullmatch(text):
        tile_id, target_id = _by_rank(folder, int(match["rank"]), scratch)
    elif match := _NAME.fullmatch(text):
        tile_id, target_id = _by_name(folder, match, scratch)
    else:
        raise UsageError(
            f"{wanted!r} is no id of an object: give its name ('{PREFIX} J…'), its rank ('#3') or its place (tile/target_id)."
        )
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise InputMissingError(f"{folder.location}: holds no finished tile {tile_id}; 'scanner status' lists what there is.")
    table = folder.scores(commit)
    found = np.flatnonzero(table["target_id"].to_numpy() == target_id)
    if not len(found):
        raise InputMissingError(f"{folder.location}: tile {tile_id} has no object {target_id}.")
    row = table.slice(int(found[0]), 1)
    return FoundObject(commit=commit, table=table, index=int(found[0]), rank=_rank(folder, row, scratch))


def _by_rank(folder: RunFolder, rank: int, scratch: Path) -> tuple[str, int]:
    listed = _candidates(folder, scratch)
    rows = np.flatnonzero(listed["rank"] == rank)
    if len(rows):
        return listed["tile_id"][rows[0]], int(listed["target_id"][rows[0]])
    for found in _catalogue(folder, scratch, [("rank", "==", rank)]):
        if len(found):
            return found["tile_id"][0].as_py(), found["target_id"][0].as_py()
    raise InputMissingError(f"{folder.location}: no object has rank {rank}.")


def _by_name(folder: RunFolder, match: re.Match[str], scratch: Path) -> tuple[str, int]:
    name = f"{PREFIX} {match['name']}"
    listed = _candidates(folder, scratch)
    rows = np.flatnonzero(listed["name"] == name)
    places = [(int(listed["rank"][i]), listed["tile_id"][i], int(listed["target_id"][i])) for i in rows]
    if not places:
        ra, dec = place_of_designation(
            *match.group("hours", "minutes", "seconds", "sign", "degrees", "arcminutes", "arcseconds")
        )
        box = [
            (column, compare, value + side * NAME_BOX_DEG)
            for column, value in (("ra", ra), ("dec", dec))
            for compare, side in ((">=", -1), ("<=", 1))
        ]
        for found in _catalogue(folder, scratch, box):
            names = designations(found["ra"].to_numpy(), found["dec"].to_numpy())
            for row, named in zip(found.to_pylist(), names, strict=True):
                if named == name:
                    places.append((row["rank"], row["tile_id"], row["target_id"]))
    if not places:
        raise InputMissingError(f"{folder.location}: no object is called {name}.")
    if len(places) > 1:
        ranks = ", ".join(f"#{rank}" for rank, _, _ in sorted(places))
        raise UsageError(f"{folder.location}: {len(places)} objects are called {name}; give the rank of one: {ranks}.")
    return places[0][1:]


def _rank(folder: RunFolder, row: pa.Table, scratch: Path) -> int | None:
    """Rank of a tile's row in the merged catalogue, which must hold the same values; None where it is not there."""
    if not folder.store.exists(PARTITIONS):
        return None
    wanted = row.to_pylist()[0]
    same = [(name, "==", wanted[name]) for name in ("tile_id", "target_id")]
    for found in _catalogue(folder, scratch, same, healpix_29(row["ra"].to_numpy(), row["dec"].to_numpy())[0]):
        if not len(found):
            continue
        merged = found.to_pylist()[0]
        # What is not known is NaN, which is unequal to itself.
        if any(merged[name] != value and (merged[name] == merged[name] or value == value) for name, value in wanted.items()):
            raise ContentError(
                f"{folder.store.where('catalogue')}: says something else of {wanted['tile_id']}/{wanted['target_id']} than the "
                "tile itself does; give the run's command again, which merges its tiles anew."
            )
        return int(merged["rank"])
    return None


def _candidates(folder: RunFolder, scratch: Path) -> dict[str, NDArray[Any]]:
    """Rank, name and place of the listed candidates: a small file that answers most questions."""
    key, names = "candidates.fits", ("rank", "name", "tile_id", "target_id")
    if not folder.store.exists(key):
        return {name: np.empty(0, dtype=object) for name in names}
    with fits.open(_local(folder, key, scratch), memmap=False) as hdus:
        rows = hdus[1].data
        return {name: np.asarray(rows[name].tolist(), dtype=object) for name in names}


def _catalogue(folder: RunFolder, scratch: Path, filters: _Filters, index: int | None = None) -> Iterator[pa.Table]:
    """Rows of the merged catalogue that pass, file by file; only of the file that holds a HEALPix index, where it is given."""
    if not folder.store.exists(PARTITIONS):
        raise InputMissingError(f"{folder.location}: its tiles have not been merged yet; give the object as tile/target_id.")
    for line in folder.store.read(PARTITIONS).decode("ascii").split()[1:]:
        order, pixel = (int(number) for number in line.split(","))
        if index is None or index >> 2 * (HEALPIX_ORDER - order) == pixel:
            place = _local(folder, f"catalogue/dataset/{partition_path(order, pixel)}", scratch)
            yield pq.read_table(place, filters=filters, partitioning=None)


def _local(folder: RunFolder, key: str, scratch: Path) -> Path:
    """Where a file of the run can be read; one that has to be fetched takes the place of the one before."""
    place = folder.store.local(key)
    if place is None:
        place = scratch / f"fetched{Path(key).suffix}"
        folder.store.fetch(key, place)
    return place
