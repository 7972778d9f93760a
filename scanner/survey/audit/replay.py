"""Do one object of a run again: cut it from its tile, score it, and say whether the result is the same.

In: a run folder and an object (see :mod:`scanner.survey.audit.find_object`). Out: :class:`ReplayReport`, and the cutout as
files if they are asked for. The run folder is only read. Refused: what is not there any more (tile list, tile, files, bundle:
:class:`InputMissingError`); input files that have changed, unless that is asked for, and tables and tiles that are damaged
(:class:`ContentError`).

Everything else that is not as it was (scanner, bundle, provider, settings, machine) is told, and the object is scored all the
same: what comes of it is what one wants to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner import __version__
from scanner.catalogue import columns
from scanner.config import StorageConfig
from scanner.cutouts import framed
from scanner.cutouts.extract import TileImages, cut, open_tile
from scanner.ensemble import bundle as bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.score import Scorer
from scanner.ensemble.session import BATCH, Provider
from scanner.errors import ContentError, InputMissingError, TileError, UsageError
from scanner.records import CutoutBatch, Tile
from scanner.sky import fetching, tile_list
from scanner.sky.scratch import passing_folder
from scanner.storage import open_store
from scanner.survey.audit.cutout_files import write_cutout
from scanner.survey.audit.find_object import FoundObject, find_object
from scanner.survey.audit.replay_report import ReplayedPixels, ReplayReport, compare_pixels, compare_rows
from scanner.survey.candidate_cutouts import targets_of
from scanner.survey.folder import fingerprint
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.scan.machine import machine_fingerprint
from scanner.survey.scan.scoring import score_batch


@dataclass(frozen=True)
class ReplayRequest:
    """What is to be done again.

    ``run_folder``: a path or URL. ``candidate``: name, rank or place. ``storage``: how object stores are reached; None: as the
    run did. ``tile_list``, ``bundle``: in the place of the run's own.
    ``anyway``: go on where the tile's files have changed. ``out``: folder for the cutout's files. ``scratch``: folder for what
    is fetched, decompressed and resampled; None: the system's.
    """

    run_folder: str
    candidate: str
    storage: StorageConfig | None = None
    tile_list: str | None = None
    bundle: str | None = None
    anyway: bool = False
    out: Path | None = None
    scratch: Path | None = None


def replay(request: ReplayRequest) -> ReplayReport:
    """Cut and score one object of a run again.

    Raises
    ------
    ScannerError
        See the module and :func:`~scanner.survey.audit.find_object.find_object`.
    """
    folder = RunFolder(open_store(request.run_folder, request.storage or StorageConfig()))
    record = folder.record()
    storage = request.storage or record.config.storage
    with passing_folder(None if request.scratch is None else str(request.scratch)) as scratch:
        found = find_object(folder, request.candidate, scratch)
        tile = _tile(request.tile_list or record.tile_list, found.commit.tile_id, storage)
        bundle = bundles.load(request.bundle or record.config.scoring.bundle, storage)
        scorer = _scorer(bundle, record)
        differences = [
            *_changed_since(record, found, bundle, scorer.provider),
            *_changed_inputs(tile, found, storage, request.anyway),
        ]
        try:
            with open_tile(fetching.fetch(tile, scratch, storage), record.config.cutouts, scratch) as images:
                batch = _batch(found, images, record.config.cutouts.batch_size, scorer.provider)
                row = int(np.flatnonzero(batch.targets.target_id == found.row["target_id"][0].as_py())[0])
                now = columns.table(batch, score_batch(scorer, batch), tile.tile_id).slice(row, 1)
                cutout = batch.take(np.array([row]))
                files = () if request.out is None else _written(request.out, found, cutout, images, record)
        except TileError as error:
            raise ContentError(str(error)) from None
        pixels = _pixels(folder, found, cutout, scratch)
    here = machine_fingerprint(scorer.provider)
    differences += _changed_machine(found.commit.machine, here)
    return ReplayReport(
        run_folder=folder.location,
        tile_id=tile.tile_id,
        target_id=int(found.row["target_id"][0].as_py()),
        name=found.name,
        rank=found.rank,
        ra=found.row["ra"][0].as_py(),
        dec=found.row["dec"][0].as_py(),
        machine_then=found.commit.machine,
        machine_now=here,
        differences=tuple(differences),
        pixels=pixels,
        values=compare_rows(found.row, now),
        files=tuple(str(file) for file in files),
    )


def _tile(location: str, tile_id: str, storage: StorageConfig) -> Tile:
    listed = tile_list.read(location, storage)
    for tile in listed.tiles:
        if tile.tile_id == tile_id:
            return tile
    for failure in listed.failed:
        if failure.tile_id == tile_id:
            raise InputMissingError(failure.reason)
    raise InputMissingError(f"{location}: has no tile {tile_id} any more; name the run's list with --tile-list.")


def _scorer(bundle: Bundle, record: RunRecord) -> Scorer:
    """The run's own provider, or where this machine does not have it, the best that it has."""
    scoring, limit = record.config.scoring, record.config.cutouts.max_bad_fraction
    try:
        return Scorer(bundle, record.provider, scoring.threads, scoring.beta, limit)
    except UsageError:
        return Scorer(bundle, "auto", scoring.threads, scoring.beta, limit)


def _changed_since(record: RunRecord, found: FoundObject, bundle: Bundle, provider: str) -> Iterator[str]:
    if record.scanner_version != __version__:
        yield f"scanner: {record.scanner_version} → {__version__}"
    if record.bundle_fingerprint != bundle.fingerprint:
        yield (
            f"bundle: {record.bundle_name} {record.bundle_version} ({record.bundle_fingerprint[:12]}) → "
            f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.fingerprint[:12]}); name the run's with --bundle"
        )
    if record.provider != provider:
        yield f"provider: {record.provider} → {provider}; this machine does not have the run's"
    if fingerprint.of_config(record.config, record.provider) != record.config_fingerprint:
        yield "settings: those in run.json are not those of its fingerprint; it was edited, or written by another scanner"
    if (found.commit.config_fingerprint, found.commit.bundle_fingerprint) != (
        record.config_fingerprint,
        record.bundle_fingerprint,
    ):
        yield f"settings: tile {found.commit.tile_id} was not scanned with the settings and bundle that run.json names"


def _changed_inputs(tile: Tile, found: FoundObject, storage: StorageConfig, anyway: bool) -> Iterator[str]:
    try:
        now = fingerprint.of_files(tile, storage)
    except TileError as error:
        raise InputMissingError(str(error)) from None
    then, names = found.commit.input_files, tile.files
    changed = [str(names.get(role, role)) for role in sorted(then.keys() | now.keys()) if then.get(role) != now.get(role)]
    if not changed:
        return
    told = f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since tile {tile.tile_id} was scanned"
    if not anyway:
        raise ContentError(
            f"{told}, so nothing can be said of the run; bring the old state back, or see with --anyway what comes of this one."
        )
    yield f"inputs: {told}"


def _changed_machine(then: str, now: str) -> Iterator[str]:
    """What tells two machines apart: the parts of their fingerprints that only one of them has."""
    if not then:
        yield "machine: the run does not say what it was made on"
    elif then != now:
        old, new = then.split("; "), now.split("; ")
        gone, come = ([part for part in mine if part not in others] for mine, others in ((old, new), (new, old)))
        yield f"machine: {', '.join(gone) or 'nothing'} → {', '.join(come) or 'nothing'}"


def _batch(found: FoundObject, images: TileImages, batch_size: int, provider: Provider) -> CutoutBatch:
    """The cutouts that the object was scored with: on a CPU none but itself count, on a GPU those of its batch."""
    alone = BATCH[provider] == 1
    first = found.index if alone else found.index // batch_size * batch_size
    rows = found.table.slice(first, 1 if alone else batch_size)
    (batch,) = cut(images, targets_of(rows), len(rows))
    return batch


def _pixels(folder: RunFolder, found: FoundObject, cutout: CutoutBatch, scratch: Path) -> ReplayedPixels:
    store = folder.cutouts(found.commit, scratch)
    rows = np.empty(0, np.int64) if store is None else np.flatnonzero(store.target_id == cutout.targets.target_id[0])
    if store is None or not len(rows):
        return ReplayedPixels(agreement="not kept")
    return compare_pixels(store.read(rows[:1]), cutout, store.attributes.codec)


def _written(out: Path, found: FoundObject, cutout: CutoutBatch, images: TileImages, record: RunRecord) -> tuple[Path, ...]:
    header = {
        "OBJECT": found.name,
        "TILE": found.commit.tile_id,
        "TARGET": str(found.row["target_id"][0].as_py()),
        "BUNDLE": f"{record.bundle_name} {record.bundle_version}",
        "CREATOR": f"scanner {__version__}",
    }
    return write_cutout(out, found.name.replace(" ", "_"), framed.of_tile(cutout, images), header)
