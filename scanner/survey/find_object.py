"""One object of a run, by its name (``EUCL J…``), its rank (``#3``) or its place (``tile/target_id``)."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits

from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.query.catalogue import Catalogue
from scanner.query.region import Cone
from scanner.query.search import Search, search
from scanner.records import TILE_ID_PATTERN, CommitRecord
from scanner.sphere import PREFIX, designations, parse_designation
from scanner.survey.folder.ledger import RunFolder

CANDIDATES, MERGED = "candidates.fits", "catalogue/hats.properties"
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
    if CANDIDATES in (results.sha256 or {}):
        with fits.open(io.BytesIO(results.read(CANDIDATES)), memmap=False) as hdus:
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
    if MERGED not in folder.record().sha256:
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
    if MERGED not in (results.sha256 or {}):
        raise InputMissingError(f"{folder.location}: its tiles have not been merged yet; give the object as tile/target_id.")
    return Catalogue.open(results.below("catalogue"), scratch)
