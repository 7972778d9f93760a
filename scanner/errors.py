"""What goes wrong, as one sentence and one exit code."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit


def printable(text: str) -> str:
    """The text in one line; characters that would command a terminal are spelled out, an escape as x1b after a backslash.

    Messages quote files: their headers, names of columns, names of files.
    """
    if text.isprintable():
        return text
    line = re.sub(r"\s*[\n\r]\s*", " ", text.strip())
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def pip_install(extra: str) -> str:
    """The command that adds an extra to this installation.

    It names the distribution that is installed, and where that came from (a checkout, a wheel): on a package index, ``scanner``
    is somebody else's.
    """
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    name = "lens-scanner"
    with suppress(PackageNotFoundError):
        name = next(iter(packages_distributions().get("scanner", ())), name)
        origin = json.loads(distribution(name).read_text("direct_url.json") or "{}").get("url", "")
        if origin.startswith("file://"):
            name = unquote(urlsplit(origin).path)
    return f"pip install '{name}[{extra}]'"


class ScannerError(Exception):
    """An error whose message is written for the user.

    Every error that a user can cause or mend is a :class:`ScannerError`; the command line prints its message and exits with its
    ``exit_code``. A :class:`TileError` fails one tile only: the run goes on and lists it.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(ScannerError):
    """A flag, a configuration key or their combination makes no sense (exit 64)."""

    exit_code = 64


@contextmanager
def importing(doing: str, extra: str) -> Iterator[None]:
    """Let a block import what an extra brings.

    Raises
    ------
    UsageError
        It is not installed; the message begins with what it is needed for (``doing``).
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{doing} needs {error.name}; {pip_install(extra)}.") from None


class TileListError(ScannerError):
    """The tile list cannot be understood: bad line, empty list, duplicate tile id (exit 65)."""

    exit_code = 65


class InputMissingError(ScannerError):
    """A file or folder that the command needs is not there (exit 66)."""

    exit_code = 66


class ForbiddenError(InputMissingError):
    """One file may not be read; others of the same place may. Object stores say so of missing files too (exit 66)."""


class OutputError(ScannerError):
    """The output cannot be written: no permission, full disk, a folder that is in use (exit 73)."""

    exit_code = 73

    @classmethod
    def of(cls, path: Path, error: OSError) -> OutputError:
        """Say that a file or folder could not be written, why, and what to do."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(f"{path}: the disk is full; make space and give the same command again.")
        return cls(f"{path}: cannot be written ({error.strerror or error}); choose another place.")


class ScratchFullError(OutputError):
    """A scratch folder is full: tiles that are done make room there, so a scan tries again later (exit 73)."""


class HeldError(OutputError):
    """Another process writes to a folder, which allows one at a time (exit 73)."""


class UnavailableError(ScannerError):
    """A store or scheduler does not answer, for longer than it was tried: the same command may work later (exit 75)."""

    exit_code = 75


class ContentError(ScannerError):
    """A bundle, configuration or run folder is there but its content is bad (exit 78)."""

    exit_code = 78


class TileError(ScannerError):
    """One tile cannot be scanned; the others go on, and the run ends with exit 3."""

    exit_code = 3


def error_with_code(exit_code: int, message: str) -> ScannerError:
    """The error that a worker process reported, as an exception of this one."""
    kinds = {kind.exit_code: kind for kind in ScannerError.__subclasses__()}
    return kinds.get(exit_code, ScannerError)(message)
