"""Where bundles are: installed with scanner, in a folder, or published in a store for all machines."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

import scanner
from scanner.atomic_file import cache_folder, data_folder, file_sha256
from scanner.config import StorageConfig
from scanner.ensemble.bundle import MANIFEST_FILE, Bundle, BundleManifest, fingerprint_of, parse_manifest, read_bundle
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.records import Record, SealedRecord
from scanner.storage import open_store
from scanner.storage.contract import Store, held_in_turn, is_remote, join, split

DEFAULT_FILE = "default.json"
#: The shortest beginning of a fingerprint that is looked up.
SHORTEST = 7
#: ``current``: what scans use. ``latest``: what was published last.
Pointer = Literal["current", "latest"]
POINTERS: tuple[Pointer, ...] = get_args(Pointer)


class DefaultBundle(Record):
    """``models/default.json``: the folder, beside it, of the bundle that is used when none is named."""

    bundle: str


class PublishedBundle(SealedRecord):
    """``current.json`` and ``latest.json`` of a store of bundles."""

    bundle: str = Field(pattern="^[0-9a-f]{64}$", description="fingerprint of the bundle, which is its folder's name too")
    name: str
    version: str
    before: str | None = Field(description="fingerprint of the bundle that it took the place of")
    since: datetime


def models_folder() -> Path:
    """Folder of the bundles that come with scanner: installed inside the package, at the root of a checkout beside it."""
    package = Path(scanner.__file__).parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def user_models_folder() -> Path:
    """Folder of the user's own bundles, which need not be there; what is in it comes before what scanner brings."""
    return data_folder("models")


def installed() -> list[Path]:
    """Folders of the bundles that can be used by name, by name: the user's own, and those that come with scanner."""
    found: dict[str, Path] = {}
    for folder in (models_folder(), user_models_folder()):
        found |= {path.parent.name: path.parent for path in folder.glob(f"*/{MANIFEST_FILE}")}
    return [found[name] for name in sorted(found)]


def find(bundle: str | Path | None) -> Path:
    """Resolve a path, the name of an installed bundle or of the user's own, or ``None`` for the default, to an existing folder.

    Raises
    ------
    InputMissingError
        There is no such folder.
    ContentError
        The default cannot be read.
    """
    folders = (user_models_folder(), models_folder())
    path = Path(_default_name(folders) if bundle is None else bundle)
    if path.name == str(path) and (bundle is None or not path.is_dir()):
        path = next((folder / path.name for folder in folders if (folder / path.name).is_dir()), path)
    if not path.is_dir():
        raise InputMissingError(f"{path}: no such bundle folder; 'scanner models list' shows the installed ones.")
    return path


def _default_name(folders: Sequence[Path]) -> str:
    """Name of the bundle that the first of these folders says is the default."""
    for file in (folder / DEFAULT_FILE for folder in folders):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        return DefaultBundle.from_bytes(content, file, "remove it", wrong="names no default bundle").bundle
    raise InputMissingError(f"{folders[-1] / DEFAULT_FILE}: no default bundle is installed; name one with --bundle.")


def load(bundle: str | Path | None = None, storage: StorageConfig = StorageConfig()) -> Bundle:
    """Load a bundle, verifying all of it.

    Parameters
    ----------
    bundle
        See :func:`find`; or the URL of a bundle's folder, of which a local copy is kept; or ``STORE/current``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        There is no such folder.
    ContentError
        The folder is not a bundle, or a file is missing, altered, unlisted or unreadable; the message says which.
    OutputError
        The copy of a bundle on an object store cannot be written.
    UnavailableError
        The object store does not answer.
    """
    if bundle is not None:
        bundle = followed(str(bundle), storage)
    remote = isinstance(bundle, str) and is_remote(bundle)
    path = cached(str(bundle), storage) if remote else find(bundle)
    return read_bundle(path, str(bundle) if remote else str(path.resolve()))


class PublishedBundles:
    """A store of bundles; ``location``: where.

    A store of bundles has a folder a bundle, ``STORE/FINGERPRINT/…``, there whole as soon as its ``bundle.json`` is and never
    altered, and two pointers, ``current.json`` and ``latest.json``, which are moved as a whole by one process at a time. A
    bundle on an object store is copied once to this machine.
    """

    def __init__(self, location: str, storage: StorageConfig) -> None:
        self.location = location
        self._store = open_store(location, storage)

    def publish(self, bundle: Bundle) -> str:
        """Put a bundle into the store, its manifest last, and let ``latest.json`` name it.

        Returns
        -------
        str
            Its location there.

        Raises
        ------
        ScannerError
            The store cannot be written: what was published before is as it was.
        """
        # Files that are there already are written again: the same bytes, or better ones than those of a damaged copy.
        for name in (*bundle.manifest.sha256, MANIFEST_FILE):
            self._store.write(f"{bundle.fingerprint}/{name}", (bundle.path / name).read_bytes())
        self.move("latest", bundle.fingerprint)
        return self.where(bundle.fingerprint)

    def where(self, fingerprint: str) -> str:
        """Location of a bundle."""
        return join(self.location, fingerprint)

    def pointer(self, pointer: Pointer) -> PublishedBundle | None:
        """What a pointer says; None where it was never set."""
        return read_pointer(self._store, pointer)

    def move(self, pointer: Pointer, fingerprint: str, *, only_from: PublishedBundle | None = None) -> PublishedBundle:
        """Let a pointer name a bundle that is in the store.

        Parameters
        ----------
        pointer, fingerprint
            Which, and to what.
        only_from
            What it said when it was decided to move it; None: whatever it says.

        Raises
        ------
        UsageError
            It was moved by somebody else meanwhile.
        HeldError
            Somebody else is moving a pointer of this store.
        """
        manifest = self.manifest(fingerprint)
        with held_in_turn(self._store):
            # A pointer that cannot be read is what a move mends, but what it said before is lost.
            try:
                before = read_pointer(self._store, pointer)
            except ContentError:
                before = None
            if only_from is not None and before != only_from:
                raise UsageError(
                    f"{self._store.where(f'{pointer}.json')}: was moved by somebody else meanwhile; look, then decide again."
                )
            if before is not None and before.bundle == fingerprint:
                return before
            after = PublishedBundle(
                bundle=fingerprint,
                name=manifest.name,
                version=manifest.version,
                before=None if before is None else before.bundle,
                since=datetime.now(UTC),
            )
            self._store.write(f"{pointer}.json", after.to_bytes())
        return after

    def manifest(self, fingerprint: str) -> BundleManifest:
        """What a bundle of the store says of itself.

        Raises
        ------
        InputMissingError
            It is not there.
        """
        key = f"{fingerprint}/{MANIFEST_FILE}"
        try:
            return parse_manifest(self._store.read(key), self._store.where(key))
        except FileNotFoundError:
            raise InputMissingError(
                f"{self._store.where(fingerprint)}: no such bundle; 'scanner models list --published {self.location}' shows "
                "what is there."
            ) from None

    def find(self, name: str) -> str:
        """Fingerprint of a bundle by the name of a pointer or by a beginning of the fingerprint.

        Raises
        ------
        InputMissingError
            There is no such bundle, or nothing was published yet.
        UsageError
            The beginning is too short, or that of several bundles.
        """
        for pointer in POINTERS:
            if name == pointer:
                found = self.pointer(pointer)
                if found is None:
                    raise InputMissingError(f"{self._store.where(f'{pointer}.json')}: no such file; publish a bundle first.")
                return found.bundle
        if len(name) < SHORTEST:
            raise UsageError(f"{name!r} names no published bundle; give {SHORTEST} characters of its fingerprint, or more.")
        able = [fingerprint for fingerprint in self.fingerprints() if fingerprint.startswith(name)]
        if len(able) > 1:
            raise UsageError(f"{name!r} begins several fingerprints of {self.location}; give more of it.")
        if not able:
            raise InputMissingError(
                f"{self.where(name)}: no such bundle; 'scanner models list --published {self.location}' shows what is there."
            )
        return able[0]

    def fingerprints(self) -> Iterator[str]:
        """All bundles that are there whole."""
        for entry in self._store.entries():
            if re.fullmatch("[0-9a-f]{64}", entry.name) and self._store.exists(f"{entry.name}/{MANIFEST_FILE}"):
                yield entry.name


def read_pointer(store: Store, pointer: Pointer) -> PublishedBundle | None:
    """Read a pointer; None where it was never set.

    Raises
    ------
    ContentError
        It does not name a bundle.
    """
    key = f"{pointer}.json"
    try:
        content = store.read(key)
    except FileNotFoundError:
        return None
    remedy = f"set it with 'scanner models rollback --published {store.root} --to'"
    return PublishedBundle.from_bytes(content, store.where(key), remedy, wrong="does not name a bundle")


def is_pointer(location: str) -> bool:
    """Whether a location is that of a pointer; on a disk, a folder of that name stands for itself."""
    local = None if is_remote(location) else Path(location)
    return split(location)[1] in POINTERS and (local is None or (not local.is_dir() and local.with_suffix(".json").is_file()))


def followed(location: str, storage: StorageConfig) -> str:
    """The location of the bundle that a pointer names now, or the location itself where it is no pointer's.

    Raises
    ------
    InputMissingError
        Nothing was published or promoted there.
    """
    if not is_pointer(location):
        return location
    folder, name = split(location)
    store = open_store(folder, storage)
    found = read_pointer(store, "current" if name == "current" else "latest")
    if found is None:
        raise InputMissingError(
            f"{store.where(f'{name}.json')}: no such file; publish a bundle with 'scanner models publish --to {folder}' and "
            f"promote it with 'scanner models promote latest --published {folder}'."
        )
    return join(folder, found.bundle)


def cached(location: str, storage: StorageConfig) -> Path:
    """Copy a bundle to this machine, unless it is there.

    Parameters
    ----------
    location
        URL of its folder.
    storage
        How object stores are reached.

    Returns
    -------
    Path
        Local folder, in which all files are what ``bundle.json`` says.

    Raises
    ------
    InputMissingError
        There is no bundle.
    ContentError
        A file of it is missing or altered.
    OutputError
        The copy cannot be written.
    """
    store = open_store(location, storage)
    try:
        text = store.read(MANIFEST_FILE)
    except FileNotFoundError:
        raise InputMissingError(f"{location}: no such bundle folder ({MANIFEST_FILE} is not in it).") from None
    manifest = parse_manifest(text, store.where(MANIFEST_FILE))
    folder = cache_folder("bundles") / fingerprint_of(text)
    if _is_whole(folder, text, manifest):
        return folder
    with _new_folder(folder) as partial:
        (partial / MANIFEST_FILE).write_bytes(text)
        for name, expected in manifest.sha256.items():
            _fetch(store, name, partial / name)
            if file_sha256(partial / name) != expected:
                raise ContentError(
                    f"{store.where(name)}: altered (its SHA-256 is not the one in {MANIFEST_FILE}); upload the bundle again."
                )
    return folder


def _fetch(store: Store, name: str, target: Path) -> None:
    try:
        store.fetch(name, target)
    except FileNotFoundError:
        raise ContentError(f"{store.where(name)}: is missing; upload the bundle again.") from None


def _is_whole(folder: Path, text: bytes, manifest: BundleManifest) -> bool:
    expected = {MANIFEST_FILE: hashlib.sha256(text).hexdigest(), **manifest.sha256}
    try:
        return all(file_sha256(folder / name) == sha256 for name, sha256 in expected.items())
    except OSError:
        return False


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder in the making, which takes the name ``folder`` when the block ends; of several processes the first one wins."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-", ignore_cleanup_errors=True) as partial:
            yield Path(partial)
            if not folder.exists():
                Path(partial).rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder.parent}: cannot keep a copy of the bundle there ({error.strerror}); set XDG_CACHE_HOME to another folder."
        ) from None
