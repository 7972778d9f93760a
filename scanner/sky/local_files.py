"""Files of a tile on this machine: scratch folders, files fetched from object stores, and gzip files decompressed."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import math
import os
import shutil
import stat
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, OutputError, ScratchFullError, TileError, UsageError
from scanner.records import Band, BandFiles, ImageRef, Tile
from scanner.storage import open_store
from scanner.storage.contract import is_remote, split

#: Locked by the process that owns a folder: the system lets go of it however the process ends, on whatever host.
HELD_FILE = ".held"
_GZIP_MAGIC, _FITS_MAGIC = b"\x1f\x8b", b"SIMPLE  ="
_ENDLESS = "the file goes on far beyond what its FITS headers declare; fetch it again."
_COPY_BYTES = 1 << 22
_FITS_BLOCK, _CARD = 2880, 80
#: Most bytes of an HDU, of a header, and of what is no FITS file; most HDUs; and most bytes that may follow the last one. A
#: gzip file can hold a thousand times its own size.
_HDU_BYTES, _HEADER_BYTES, _OTHER_BYTES, _HDUS, _TRAILING_BYTES = 8 * 10**10, 2000 * _FITS_BLOCK, 1 << 30, 4096, 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
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


def fetched_file(reference: ImageRef, folder: Path, storage: StorageConfig) -> ImageRef:
    """One file of a tile, fetched into a folder where it is remote; parameters and errors as of :func:`fetch_tile`."""
    if not is_remote(reference.path):
        return reference
    return replace(reference, path=str(_fetched(reference.path, folder, storage)), origin=reference.path)


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


def regular_file(path: Path, name: str) -> Path:
    """The path itself, where it leads to a regular file: a pipe or a device would be waited for, or read, for ever.

    Parameters
    ----------
    path
        Local file.
    name
        What messages call it.

    Raises
    ------
    TileError
        It is not there, cannot be reached, or is no regular file.
    """
    if kind := irregular(path):
        raise TileError(f"{name}: {kind}; check the path in the tile list.")
    return path


def irregular(path: Path) -> str | None:
    """Why a path cannot be opened as a regular file, e.g. "is a pipe, not a file"; None where it can."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"cannot be read ({reason})"
    return None if stat.S_ISREG(mode) else f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file"


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
        if not is_gzip(regular_file(path, str(path))):
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

    def make_room(n_bytes: int) -> None:
        free = shutil.disk_usage(target.parent).free
        if n_bytes > free:
            raise ScratchFullError(
                f"{name}: needs {n_bytes:,} bytes of scratch space, and {target.parent} has {free:,} left; free some space "
                "or choose another --scratch folder."
            )

    try:
        with os.fdopen(descriptor, "wb") as output, gzip.open(path, "rb") as compressed:
            for piece in decompressed(compressed, name, make_room):
                output.write(piece)
        partial.replace(target)
    except OSError as error:
        raise scratch_error(target.parent, error) from None
    finally:
        partial.unlink(missing_ok=True)


def decompressed(compressed: gzip.GzipFile, name: str, make_room: Callable[[int], None]) -> Iterator[bytes]:
    """The content of a gzip file, piece by piece; of a FITS file no more than what its headers declare.

    Parameters
    ----------
    compressed
        The file, opened by :mod:`gzip`.
    name
        What messages call it.
    make_room
        Called with a number of bytes before they are yielded; raises what is to be said where they are too many.

    Raises
    ------
    TileError
        It is damaged, truncated, or goes on far beyond what its headers declare.
    """

    def read(n_bytes: int) -> bytes:
        try:
            return compressed.read(n_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise TileError(f"{name}: the gzip file is damaged or truncated ({error}); fetch it again.") from None

    def pieces(n_bytes: int) -> Iterator[bytes]:
        make_room(n_bytes)
        while n_bytes > 0 and (piece := read(min(_COPY_BYTES, n_bytes))):
            n_bytes -= len(piece)
            yield piece

    block = read(_FITS_BLOCK)
    if not block.startswith(_FITS_MAGIC):
        yield block
        yield from pieces(_OTHER_BYTES)
        if read(1):
            raise TileError(f"{name}: the gzip file holds more than {_OTHER_BYTES:,} bytes; decompress it.")
        return
    for _ in range(_HDUS):
        header = _rest_of_header(block, read)
        yield header
        yield from pieces(_declared_bytes(header, name))
        block = read(_FITS_BLOCK)
        if not block.startswith(b"XTENSION"):
            break
    # What is left is read, so that its checksum is looked at.
    if block.startswith(b"XTENSION") or len(read(_TRAILING_BYTES)) == _TRAILING_BYTES:
        raise TileError(f"{name}: {_ENDLESS}")


def refuse_endless(path: Path, name: str) -> None:
    """Refuse a plain FITS file with an endless header, table of contents or tail: astropy would read on for the next HDU.

    Raises
    ------
    TileError
        It is such a file.
    """
    with path.open("rb") as file:
        block = file.read(_FITS_BLOCK)
        if not block.startswith(_FITS_MAGIC):
            return
        for _ in range(_HDUS):
            file.seek(_declared_bytes(_rest_of_header(block, file.read), name), os.SEEK_CUR)
            block = file.read(_FITS_BLOCK)
            if not block.startswith(b"XTENSION"):
                break
        if block.startswith(b"XTENSION") or path.stat().st_size - file.tell() > _TRAILING_BYTES:
            raise TileError(f"{name}: {_ENDLESS}")


def _rest_of_header(block: bytes, read: Callable[[int], bytes]) -> bytes:
    header = block
    while _end_of_header(block) is None and len(header) < _HEADER_BYTES and (block := read(_FITS_BLOCK)):
        header += block
    return header


def _end_of_header(block: bytes) -> int | None:
    return next((at for at in range(0, len(block), _CARD) if block[at : at + _CARD].rstrip() == b"END"), None)


def _declared_bytes(header: bytes, name: str) -> int:
    """Bytes of an HDU's data, filled up to whole blocks, as its header declares them (FITS standard 4.0, section 4.4.1)."""
    if _end_of_header(header[-_FITS_BLOCK:]) is None:
        raise TileError(f"{name}: not a readable FITS file (a header without an end).")
    cards = [header[at : at + _CARD] for at in range(0, len(header), _CARD)]
    values = {card[:8].rstrip(): card[10:].partition(b"/")[0] for card in reversed(cards)}
    try:
        n_axes = int(values.get(b"NAXIS", b"0"))
        axes = [int(values[b"NAXIS%d" % axis]) for axis in range(1, min(n_axes, 999) + 1)]
        n_values = math.prod(axes) if axes else 0
        bits = int(values.get(b"BITPIX", b"8"))
        groups, extra = int(values.get(b"GCOUNT", b"1")), int(values.get(b"PCOUNT", b"0"))
    except (KeyError, ValueError):
        raise TileError(f"{name}: not a readable FITS file (BITPIX or NAXIS of a header is missing, or no number).") from None
    n_bytes = abs(bits) // 8 * groups * (extra + n_values)
    if not 0 <= n_bytes <= _HDU_BYTES:
        raise TileError(f"{name}: a header declares {n_bytes:,} bytes; no survey has files of that size.")
    return -(-n_bytes // _FITS_BLOCK) * _FITS_BLOCK


def scratch_error(folder: Path, error: OSError) -> OutputError:
    """Say that a scratch folder cannot be written."""
    kind = ScratchFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else OutputError
    return kind(
        f"{folder}: cannot write scratch files there ({error.strerror}); free some space or choose another --scratch folder."
    )
