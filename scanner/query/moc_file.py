"""MOC files (IVOA MOC 2.0) as regions.

In: the location of a MOC in FITS, JSON or ASCII. Out: :class:`~scanner.query.region.MocRegion`. Refused: files that are not
there (:class:`~scanner.errors.InputMissingError`) or are no MOC of the sky (:class:`~scanner.errors.ContentError`).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.query.region import MocRegion
from scanner.storage import read_file

if TYPE_CHECKING:
    from mocpy import MOC


def read_moc(location: str, storage: StorageConfig) -> MocRegion:
    """Read a MOC.

    Parameters
    ----------
    location
        A local path or ``s3://…``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError, ContentError
        See the module.
    """
    try:
        content = read_file(location, storage)
    except (FileNotFoundError, IsADirectoryError):
        raise InputMissingError(f"{location}: there is no such file; name a MOC in FITS, JSON or ASCII.") from None
    try:
        return MocRegion(_parsed(content))
    # The library's errors have no common class.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ContentError(f"{location}: is no MOC of the sky in FITS, JSON or ASCII ({reason}); name another.") from None


def _parsed(content: bytes) -> MOC:
    from mocpy import MOC

    if content.startswith(b"SIMPLE"):
        with tempfile.TemporaryDirectory(prefix="scanner-moc-") as folder:
            path = Path(folder, "moc.fits")
            path.write_bytes(content)
            return MOC.from_fits(path)
    text = content.decode("ascii")
    return MOC.from_json(json.loads(text)) if text.lstrip().startswith("{") else MOC.from_string(text, "ascii")
