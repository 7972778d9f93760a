"""Tokens: who may do what, known by their hashes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from scanner.errors import ContentError, InputMissingError, ScannerError
from scanner.grading.grade import NAME, Role

VARIABLE = "SCANNER_SERVE_TOKENS"
_LINE = re.compile(rf"(?P<name>{NAME.pattern})\s+(?P<role>{'|'.join(get_args(Role))})\s+sha256:(?P<digest>[0-9a-f]{{64}})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenLine:
    """Whose token it is, what it allows, and its hash in hexadecimal digits."""

    name: str
    role: Role
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.role} sha256:{self.digest}"


def new_token(name: str, role: Role) -> tuple[str, TokenLine]:
    """Make a token: its text, which is for its owner alone, and its line."""
    token = f"scn_{secrets.token_urlsafe(32)}"
    return token, TokenLine(name, role, _digest(token))


def parse(text: str, where: str) -> tuple[TokenLine, ...]:
    """Read lines; ``where``: what they come from, for messages.

    Raises
    ------
    ContentError
        A line is not of this form, or two have the same token.
    """
    lines: list[TokenLine] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ContentError(
                f"{where}: line {number} is not 'name read|grade sha256:…'; 'scanner tokens add' writes such lines."
            )
        role: Role = next(one for one in get_args(Role) if one == match["role"])
        lines.append(TokenLine(match["name"], role, match["digest"]))
    if len({line.digest for line in lines}) < len(lines):
        raise ContentError(f"{where}: two lines have the same token; make each its own with 'scanner tokens add'.")
    return tuple(lines)


class TokenBook:
    """The tokens that a service knows; false where it knows none and asks for none.

    A token is 256 random bits, not a password, so one round of SHA-256 is enough. A reader of the file of hashes cannot use
    them. The file is read again when it changes, so a token that is removed from it ends at once.
    """

    def __init__(self, file: str | None, environment: Mapping[str, str] | None = None) -> None:
        self._file = None if file is None else Path(file)
        text = (os.environ if environment is None else environment).get(VARIABLE, "")
        self._fixed = parse(text.replace(";", "\n"), VARIABLE)
        self._lock = threading.Lock()
        self._version: tuple[int, ...] | None = None
        self._lines: dict[str, TokenLine] = {}
        self._read()
        if self._file is not None and not self._lines:
            raise ContentError(f"{self._file}: no token in it; make one with 'scanner tokens add NAME --file {self._file}'.")

    def __bool__(self) -> bool:
        # A file that has become empty locks everybody out; it does not open the door.
        return self._file is not None or bool(self._fixed)

    def find(self, token: str) -> TokenLine | None:
        """The line of a token; None where it is not known."""
        if self._changed():
            try:
                self._read()
            except ScannerError as error:
                logger.error("%s The tokens that were in it before still count.", error)
        return self._lines.get(_digest(token))

    def _changed(self) -> bool:
        return self._file is not None and _version(self._file) != self._version

    def _read(self) -> None:
        with self._lock:
            lines = self._fixed
            if self._file is not None:
                version = _version(self._file)
                self._version = version
                try:
                    lines += parse(self._file.read_text(encoding="utf-8"), str(self._file))
                except (OSError, UnicodeDecodeError) as error:
                    raise InputMissingError(f"{self._file}: cannot read the tokens ({error}).") from None
            self._lines = {line.digest: line for line in lines}


def _version(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # Who may read it changes neither its content nor its time.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
