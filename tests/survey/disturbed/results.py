"""What a run promises to give again, byte for byte, as hashes by name, and what it must not leave behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from scanner.config import StorageConfig
from scanner.storage import Store, open_store, split
from scanner.storage.object_store import FENCE_BYTES

RESULTS = ("catalogue", "catalogue_10arcs", "collection.properties")
RESULTS += (*(f"candidates.{kind}" for kind in ("fits", "ecsv", "vot", "reg", "html")), "scores.png", "tsne.png")
RESULTS += ("tiles.parquet", "footprint.fits", "failed-tiles.ecsv")
#: Beside the results: the run's own records, which tell of times and hosts.
RECORDS = ("run.json", "status.json")


def promised(location: str, config: StorageConfig) -> dict[str, str]:
    """Hash of every file that the run must give again: the results, and the tables and cutouts of each tile."""
    store = open_store(location, config)
    found = {key: content for name in RESULTS for key, content in _below(store, name).items()}
    for tile_id, (place, _) in places(store).items():
        base = "/".join(part for part in ("tiles", tile_id, place) if part)
        for key, content in _below(store, base).items():
            if not key.endswith("commit.json"):
                found[f"tiles/{tile_id}{key.removeprefix(base)}"] = content
    return found


def places(store: Store) -> dict[str, tuple[str, dict[str, object]]]:
    """For each committed tile the place of its files and its record."""
    found = {}
    for entry in store.entries("tiles"):
        try:
            record = json.loads(store.read(f"tiles/{entry.name}/commit.json"))
        except FileNotFoundError:
            continue
        found[entry.name] = (record["place"], record)
    return found


def n_committed(location: str, config: StorageConfig) -> int:
    """How many tiles have a record."""
    return len(places(open_store(location, config)))


def leftovers(location: str, config: StorageConfig) -> list[str]:
    """What lies in a run folder and belongs neither to its results nor to a committed tile."""
    store = open_store(location, config)
    known = (*RESULTS, *RECORDS, "tiles")
    left = _listed(store, "", known)
    committed = places(store)
    for entry in store.entries("tiles"):
        if entry.name not in committed:
            left += _listed(store, "tiles", tuple(committed))
        elif place := committed[entry.name][0]:
            left += _listed(store, f"tiles/{entry.name}", ("commit.json", place.split("/")[0]))
    folder = store.local("")
    if folder is not None:
        left += [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".lock"]
    return sorted(set(left))


def _listed(store: Store, key: str, known: tuple[str, ...]) -> list[str]:
    """What lies below a key under names that are not known."""
    others = [(entry, f"{key}/{entry.name}".lstrip("/")) for entry in store.entries(key) if entry.name not in known]
    if store.local("") is not None:
        return [name for _, name in others]
    # The test server lists a folder for a while after its last object is gone, as a folder or as an empty object.
    files = [name for entry, name in others if entry.size]
    return files + [file for entry, name in others if entry.is_folder for file in _below(store, name)]


def files_below(folder: Path) -> list[str]:
    """Every file and folder below a local one."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _below(store: Store, key: str) -> dict[str, str]:
    # A fence is in the place of a record that was never written.
    entries = [entry for entry in store.entries(key) if entry.size != FENCE_BYTES]
    if not entries:
        parent, name = split(key)
        is_file = any(entry.name == name and entry.size for entry in store.entries("" if parent == "." else parent))
        return {key: hashlib.sha256(store.read(key)).hexdigest()} if is_file else {}
    found = {}
    for entry in entries:
        below = f"{key}/{entry.name}"
        found |= _below(store, below) if entry.is_folder else {below: hashlib.sha256(store.read(below)).hexdigest()}
    return found
