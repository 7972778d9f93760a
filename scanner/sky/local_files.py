"""Files of a tile on this machine: scratch folders, files fetched from object stores, and gzip files decompressed."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, OutputError, TileError, UsageError
from scanner.records import Band, BandFiles, ImageRef, Tile
from scanner.storage import open_store
from scanner.storage.location import is_remote, split

#: Locked by the process that owns a folder: the system lets go of it however the process ends, on whatever host.
HELD_FILE = ".held"
_GZIP_MAGIC = b"\x1f\x8b"
_COPY_BYTES = 1 << 22
#: What a file is called until it is there, whole and plain.
_ARRIVING = ".arriving-"


def remote_files(tile: Tile) -> tuple[str, ...]:
    """URLs of the tile's files that have to be fetched, each once."""
    return tuple(dict.fromkeys(reference.path for reference in tile.files.values() if is_remote(reference.path)))


def fetch_tile(tile: Tile, folder: Path, storage: StorageConfig) -> Tile:
    """Fetch the remote files of a tile.

    Parameters
    ----------
    tile
        As the tile list has it; local files are left where they are.
    folder
        Serves this tile alone; it is made if need be, and the caller removes it.
    storage
        How object stores are reached.

    Returns
    -------
    Tile
        With local paths for all that is scanned; point-spread functions keep their URLs.

    Raises
    ------
    TileError
        A file is missing, may not be read, or is damaged.
    OutputError
        The folder is full or cannot be written.
    InputMissingError
        Credentials or bucket hold for no tile.
    UnavailableError
        The store does not answer.
    """
    urls = remote_files(tile)
    if not urls:
        return tile
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise scratch_error(folder, error) from None
    local = {url: _fetched(url, folder, storage) for url in urls}

    def here(reference: ImageRef | None) -> ImageRef | None:
        if reference is None or reference.path not in local:
            return reference
        return replace(reference, path=str(local[reference.path]), origin=reference.path)

    bands: dict[Band, BandFiles] = {
        band: files.model_copy(update={"image": here(files.image), "rms": here(files.rms), "flag": here(files.flag)})
        for band, files in tile.bands.items()
    }
    return tile.model_copy(update={"bands": bands, "catalogue": here(tile.catalogue)})


def _fetched(url: str, folder: Path, storage: StorageConfig) -> Path:
    """Local, plain copy of a file; two files of one name in different places do not meet."""
    place, name = split(url)
    prefix = hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / f"{prefix}-{name[:-3] if name.lower().endswith('.gz') else name}"
    if target.exists():
        return target
    arriving = folder / f"{_ARRIVING}{threading.get_ident()}-{target.name}"
    try:
        store = open_store(place, storage)
        entry = store.entry(name)
        if entry is None or entry.is_folder:
            raise FileNotFoundError
        store.fetch(name, arriving)
    except FileNotFoundError:
        raise TileError(f"{url}: there is no such object; check the tile list.") from None
    except (ForbiddenError, UsageError) as error:
        raise TileError(str(error)) from None
    try:
        if is_gzip(arriving):
            decompress(arriving, target, url)
        else:
            arriving.replace(target)
    except OSError as error:
        raise scratch_error(folder, error) from None
    finally:
        arriving.unlink(missing_ok=True)
    return target


class ScratchFolder:
    """A folder for decompressed and warped mosaics: a given one, which the caller removes, or a temporary one.

    A file in it is there whole or not at all.

    Parameters
    ----------
    path
        The given folder; None: a temporary one.
    parent
        Where a temporary one is made; None: the system's temporary folder.
    """

    def __init__(self, path: Path | None, parent: Path | None = None) -> None:
        self._given = path
        self._parent = parent
        self._own: Path | None = None

    @property
    def path(self) -> Path:
        """The folder, made when it is first asked for.

        Raises
        ------
        OutputError
            It cannot be made.
        """
        try:
            if self._given is not None:
                self._given.mkdir(parents=True, exist_ok=True)
                return self._given
            if self._own is None:
                if self._parent is not None:
                    self._parent.mkdir(parents=True, exist_ok=True)
                self._own = Path(tempfile.mkdtemp(prefix="scanner-", dir=self._parent))
            return self._own
        except OSError as error:
            raise scratch_error(self._given or self._parent or Path(tempfile.gettempdir()), error) from None

    def close(self) -> None:
        """Remove the folder if it is a temporary one."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None


@contextmanager
def temporary_folder(parent: str | None) -> Iterator[Path]:
    """A folder that is removed when the block ends.

    Parameters
    ----------
    parent
        Where to make it (``engine.scratch``); None: the system's temporary folder. The folder holds a locked file, by which
        others that clean up there see whether this process lives.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(closing(ScratchFolder(None, Path(parent) if parent else None))).path
        try:
            held = stack.enter_context((folder / HELD_FILE).open("a"))
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise scratch_error(folder, error) from None
        yield folder


def local_path(path: str) -> Path:
    """Turn a path or ``file://`` URL into a local path.

    Raises
    ------
    TileError
        Any other kind of URL.
    """
    scheme, separator, _ = path.partition("://")
    if not separator:
        return Path(path)
    if scheme.lower() != "file":
        raise TileError(f"{path}: this command reads nothing from {scheme}://; copy the file here and name its path.")
    return Path(unquote(urlsplit(path).path))


def is_gzip(path: Path) -> bool:
    """Whether a local file begins as gzip files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def uncompressed(path: Path, scratch: ScratchFolder) -> Path:
    """Return ``path`` itself, or its decompressed copy in ``scratch`` if it is a gzip file.

    Parameters
    ----------
    path
        Local file.
    scratch
        Folder of decompressed files. A copy made earlier from the same source is used again.

    Raises
    ------
    TileError
        The file is missing, cannot be read, or is a damaged or truncated gzip file.
    OutputError
        The scratch folder is full or cannot be written.
    """
    try:
        if not is_gzip(path):
            return path
        status = path.stat()
    except OSError as error:
        raise TileError(f"{path}: the mosaic cannot be read ({error.strerror}).") from None
    source = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = scratch.path / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-{path.name.removesuffix('.gz')}"
    if not target.exists():
        decompress(path, target, str(path))
    return target


def decompress(path: Path, target: Path, name: str) -> None:
    """Decompress a gzip file into a file that appears whole or not at all.

    Parameters
    ----------
    path, target
        Local files.
    name
        What messages call the file.

    Raises
    ------
    TileError
        It is damaged or truncated.
    OutputError
        The folder of ``target`` is full or cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".decompressing-")
    except OSError as error:
        raise scratch_error(target.parent, error) from None
    partial = Path(temporary)
    try:
        with os.fdopen(descriptor, "wb") as output, gzip.open(path, "rb") as compressed:
            while True:
                try:
                    content = compressed.read(_COPY_BYTES)
                except (OSError, EOFError, zlib.error) as error:
                    raise TileError(f"{name}: the gzip file is damaged or truncated ({error}); fetch it again.") from None
                if not content:
                    break
                output.write(content)
        partial.replace(target)
    except OSError as error:
        raise scratch_error(target.parent, error) from None
    finally:
        partial.unlink(missing_ok=True)


def scratch_error(folder: Path, error: OSError) -> OutputError:
    """Say that a scratch folder cannot be written."""
    return OutputError(
        f"{folder}: cannot write scratch files there ({error.strerror}); free some space or choose another --scratch folder."
    )
