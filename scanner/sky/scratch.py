"""Where a mosaic's bytes really lie: local paths, and gzip files decompressed once into a scratch folder.

In: a path or URL of the tile list. Out: a local, uncompressed file. A decompressed file carries the fingerprint of its source
in its name and appears whole or not at all, so that workers can share the folder. Refused, as :class:`TileError`: URLs that
cannot be read yet, missing, unreadable and damaged files; as :class:`OutputError`: a scratch folder that is full.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.errors import OutputError, TileError

_GZIP_MAGIC = b"\x1f\x8b"
_COPY_BYTES = 1 << 22


class ScratchFolder:
    """A folder for decompressed and warped mosaics: the given one, which is left in place, or a passing one of its own."""

    def __init__(self, path: Path | None) -> None:
        self._given = path
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
                self._own = Path(tempfile.mkdtemp(prefix="scanner-"))
            return self._own
        except OSError as error:
            raise scratch_error(self._given or Path(tempfile.gettempdir()), error) from None

    def close(self) -> None:
        """Remove the folder if it is a passing one."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None


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
        raise TileError(f"{path}: reading from {scheme}:// is not supported yet; copy the file here and name its path.")
    return Path(unquote(urlsplit(path).path))


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
        with path.open("rb") as file:
            if file.read(2) != _GZIP_MAGIC:
                return path
        status = path.stat()
    except OSError as error:
        raise TileError(f"{path}: the mosaic cannot be read ({error.strerror}).") from None
    source = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = scratch.path / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}-{path.name.removesuffix('.gz')}"
    if not target.exists():
        _decompress(path, target)
    return target


def _decompress(path: Path, target: Path) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".decompressing-")
    except OSError as error:
        raise scratch_error(target.parent, error) from None
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output, gzip.open(path, "rb") as compressed:
            while True:
                try:
                    content = compressed.read(_COPY_BYTES)
                except (OSError, EOFError, zlib.error) as error:
                    raise TileError(f"{path}: the gzip file is damaged or truncated ({error}); fetch it again.") from None
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
