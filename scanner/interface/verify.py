"""``scanner.verify``: which files of a run, survey, bundle, dataset or cutout store are still what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.cutouts.store import CutoutStore
from scanner.ensemble import bundles
from scanner.ensemble.bundle import MANIFEST_FILE
from scanner.ensemble.bundles import POINTERS, PublishedBundles, read_pointer
from scanner.errors import InputMissingError, ScannerError, UnavailableError, UsageError
from scanner.interface.progress import Move, bar
from scanner.labelled_set import DESCRIPTION, LabelledSet
from scanner.modelling.lens_model import MODELS, files_of, modelled, read
from scanner.records import Record
from scanner.storage import Store, open_store
from scanner.storage.contract import in_order
from scanner.storage.verified import VerifiedFiles
from scanner.survey.folder.ledger import COMMIT, RUN_RECORD, RunFolder
from scanner.survey.published import SURVEY_RECORD, TILES_TABLE, VERSIONS, SurveyRecord, open_published, read_record, read_tiles

Kind = Literal["run", "survey", "bundle", "bundles", "dataset", "cutouts"]
IN_WORDS: dict[Kind, str] = {
    "run": "a run",
    "survey": "a survey",
    "bundle": "a bundle",
    "bundles": "a store of bundles",
    "dataset": "a dataset",
    "cutouts": "a store of cutouts",
}


class Verification(Record):
    """What came of :func:`verify`: ``n_files`` were compared with their checksums, ``problems`` is one sentence each.

    ``notes``: what is not damage, such as a run that was never finished.
    """

    location: str
    kind: Kind
    deep: bool
    n_files: int
    n_bytes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.problems


def verify(
    location: str | Path,
    *,
    deep: bool = False,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> Verification:
    """Compare the files of a folder with the checksums that were recorded when they were written. Nothing is changed.

    Parameters
    ----------
    location
        A run, a survey, a bundle, a store of bundles, a dataset or a cutout store: a path, or ``s3://…`` where it is one of
        the first four.
    deep
        Read every byte: the cutouts of a run's tiles, all versions of a survey, every cutout of a dataset too.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Raises
    ------
    InputMissingError
        There is nothing of these kinds.
    UnavailableError
        An object store does not answer: whether files are damaged is not known.

    Examples
    --------
    >>> import scanner
    >>> scanner.verify("scan").is_whole
    True
    """
    return verified(str(location), configuration.load_storage(config, endpoint, anonymous), deep=deep, progress=progress)


def verified(location: str, storage: StorageConfig, *, deep: bool, progress: bool | None = None) -> Verification:
    """Do what :func:`verify` does, with object stores reached as ``storage`` says."""
    store = open_store(location, storage)
    kind = _kind(store)
    with bar("verifying", shown=progress, unit="files") as move:
        tally = _Tally(move)
        _VERIFIERS[kind](location, store, storage, tally, deep)
    return Verification(
        location=location,
        kind=kind,
        deep=deep,
        n_files=tally.n_files,
        n_bytes=tally.n_bytes,
        problems=tuple(dict.fromkeys(tally.problems)),
        notes=tuple(tally.notes),
    )


class _Tally:
    """What was found so far."""

    def __init__(self, move: Move) -> None:
        self._move = move
        self.n_files = self.n_bytes = 0
        self.problems: list[str] = []
        self.notes: list[str] = []

    def attempt(self, read: Callable[[], object], n_files: int = 1) -> bool:
        """Read something; what is wrong with it is a problem."""
        try:
            found = read()
        except UnavailableError:
            raise
        except ScannerError as error:
            self.problems.append(str(error))
            return False
        self.n_files += n_files
        self.n_bytes += found if isinstance(found, int) else 0
        return True

    def files(self, files: VerifiedFiles, names: Iterable[str] | None = None) -> None:
        """Hash files, several at a time."""
        listed = list(files.sha256 or {}) if names is None else list(names)
        for done, (size, problem) in enumerate(in_order(partial(_hashed, files), listed), start=1):
            self.n_files += 1
            self.n_bytes += size
            self._move(done, len(listed), files.where(""))
            if problem:
                self.problems.append(problem)

    def several(self, found: Iterable[_Found]) -> None:
        """Take over what was found of several things."""
        for problems, n_files, n_bytes in found:
            self.problems += problems
            self.n_files += n_files
            self.n_bytes += n_bytes


#: Problems of one thing, and how many files and bytes of it were compared.
_Found = tuple[list[str], int, int]


def _hashed(files: VerifiedFiles, name: str) -> tuple[int, str]:
    try:
        return files.verify(name), ""
    except UnavailableError:
        raise
    except ScannerError as error:
        return 0, str(error)


def _kind(store: Store) -> Kind:
    """What lies in a folder; the name of its record says it, and where that is gone, what else is there."""
    signs: tuple[tuple[Kind, str], ...] = (
        ("survey", SURVEY_RECORD),
        ("run", RUN_RECORD),
        ("bundle", MANIFEST_FILE),
        ("dataset", DESCRIPTION),
        *(("bundles", f"{pointer}.json") for pointer in POINTERS),
        ("cutouts", "zarr.json"),
        ("survey", VERSIONS),
    )
    for kind, name in signs:
        if store.exists(name):
            return kind
    raise InputMissingError(
        f"{store.root}: holds no run, survey, bundle, dataset or cutout store; name the folder of one, or where its record "
        f"(such as {RUN_RECORD}) has gone, put that back."
    )


def _run(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    folder = RunFolder(store)
    if not tally.attempt(folder.record):
        return
    record = folder.record()
    results = folder.results(record)
    if not record.sha256:
        tally.notes.append("its tiles have not been merged yet; giving the run's command again finishes it")
    tally.files(results)
    committed = set(folder.committed())
    expected: set[str] = set()
    if TILES_TABLE in record.sha256:
        tally.attempt(lambda: expected.update(_done(read_tiles(results))), 0)
    tally.several(in_order(partial(_tile, folder, deep), sorted(committed | expected)))
    if store.exists(MODELS):
        tally.several(in_order(partial(_model, store), modelled(store)))


def _done(tiles: pa.Table) -> list[str]:
    return list(tiles.filter(pc.equal(tiles["state"], "done"))["tile_id"].to_pylist())


def _tile(folder: RunFolder, deep: bool, tile_id: str) -> _Found:
    """What is found of a tile."""
    try:
        commit = folder.commit_of(tile_id)
        if commit is None:
            return [f"{folder.store.where(folder.tile(tile_id))}: has no {COMMIT}; 'scanner run' scans the tile again."], 0, 0
        files = folder.files_of(commit)
        folder.verify(commit)
        if not deep:
            return [], 2, 0
        found = [_hashed(files, name) for name in commit.sha256]
    except UnavailableError:
        raise
    except ScannerError as error:
        return [str(error)], 0, 0
    return [problem for _, problem in found if problem], 1 + len(found), sum(size for size, _ in found)


def _model(store: Store, place: tuple[str, int]) -> _Found:
    """What is found of a lens model: its record is sealed, and holds the checksums of its picture and its images."""
    try:
        model = read(store, *place)
    except UnavailableError:
        raise
    except ScannerError as error:
        return [str(error)], 0, 0
    files = None if model is None else files_of(store, model)
    found = [] if files is None else [_hashed(files, name) for name in files.sha256 or {}]
    return [problem for _, problem in found if problem], 1 + len(found), sum(size for size, _ in found)


def _survey(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    read = partial(read_record, store, SURVEY_RECORD, SurveyRecord)
    if not tally.attempt(read):
        return
    survey = read()
    for number in [one.number for one in survey.versions] if deep else [survey.current]:
        if tally.attempt(partial(open_published, location, number, storage)):
            tally.files(open_published(location, number, storage).files)


def _bundle(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    tally.attempt(lambda: sum(len(one) for one in _contents(location, storage)))


def _contents(location: str, storage: StorageConfig) -> Iterator[bytes]:
    bundle = bundles.load(location, storage)
    for name in (MANIFEST_FILE, *bundle.manifest.sha256):
        yield (bundle.path / name).read_bytes()


def _bundles(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    published = PublishedBundles(location, storage)
    for pointer in POINTERS:
        if store.exists(f"{pointer}.json") and tally.attempt(partial(read_pointer, store, pointer)):
            found = read_pointer(store, pointer)
            tally.attempt(partial(published.manifest, "" if found is None else found.bundle), 0)
    for fingerprint in published.fingerprints():
        _bundle(published.where(fingerprint), store, storage, tally, deep)


def _dataset(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    if tally.attempt(lambda: LabelledSet(_local(store)), 2):
        _cutouts_of(LabelledSet(_local(store)).store, tally, deep)


def _cutouts(location: str, store: Store, storage: StorageConfig, tally: _Tally, deep: bool) -> None:
    if tally.attempt(lambda: CutoutStore(_local(store))):
        _cutouts_of(CutoutStore(_local(store)), tally, deep)


def _cutouts_of(cutouts: CutoutStore, tally: _Tally, deep: bool) -> None:
    """Read the columns, and the pixels: each chunk has a checksum of its own."""
    tally.attempt(lambda: len(cutouts.targets))
    if deep:
        tally.attempt(lambda: sum(batch.vis.nbytes + batch.nisp.nbytes for batch in cutouts.batches()))


def _local(store: Store) -> Path:
    path = store.local("")
    if path is None:
        raise UsageError(f"{store.root}: a dataset or cutout store on an object store cannot be verified there; copy it first.")
    return path


_VERIFIERS: dict[Kind, Callable[[str, Store, StorageConfig, _Tally, bool], None]] = {
    "run": _run,
    "survey": _survey,
    "bundle": _bundle,
    "bundles": _bundles,
    "dataset": _dataset,
    "cutouts": _cutouts,
}
