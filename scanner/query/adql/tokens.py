"""The words of a query.

In: ADQL text. Out: tokens with their places; comments (``-- …``) and white space are gone. Refused (:class:`AdqlError`):
characters that ADQL has no use for, strings and quoted names without an end, numbers too large to be one, queries too long.

Source: ADQL 2.1, section 2.1, https://www.ivoa.net/documents/ADQL/20231215/.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from scanner.query.adql.error import AdqlError, Place

MAX_TOKENS = 20_000
_INT64 = 2**63

TokenKind = Literal["word", "name", "text", "number", "sign", "end"]

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|--[^\n]*)+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")+")
    |(?P<sign>\|\||<>|!=|<=|>=|[-+*/=<>(),.;])""",
    re.VERBOSE,
)
_UNENDED = {"'": "a character string without its closing '", '"': 'a quoted name without its closing "'}


@dataclass(frozen=True)
class Token:
    """One word: ``text`` is what was written without its quotes, or in capitals where quotes were not needed (``word``)."""

    kind: TokenKind
    text: str
    written: str
    place: Place
    number: int | float = 0

    def __str__(self) -> str:
        return "the end of the query" if self.kind == "end" else f"“{shortened(self.written)}”"


def tokens(query: str) -> list[Token]:
    """Divide a query into its words; the last token is its end.

    Raises
    ------
    AdqlError
        It cannot be.
    """
    found: list[Token] = []
    at, line, line_start = 0, 1, 0
    while at < len(query):
        place = Place(line, at - line_start + 1)
        match = _TOKEN.match(query, at)
        if match is None:
            raise AdqlError(_UNENDED.get(query[at], f"“{query[at]}” means nothing in ADQL; leave it out"), place)
        written = match.group()
        if match.lastgroup != "space":
            found.append(_token(match, place))
        if len(found) > MAX_TOKENS:
            raise AdqlError(f"the query has more than {MAX_TOKENS} words; ask for less at a time", place)
        line += written.count("\n")
        if "\n" in written:
            line_start = at + written.rindex("\n") + 1
        at = match.end()
    found.append(Token("end", "", "", Place(line, at - line_start + 1)))
    return found


def shortened(text: str) -> str:
    """A text as messages show it."""
    return text if len(text) <= 40 else f"{text[:39]}…"


def _token(match: re.Match[str], place: Place) -> Token:
    written = match.group()
    if match.lastgroup == "word":
        return Token("word", written.upper(), written, place)
    if match.lastgroup == "number":
        return Token("number", written, written, place, _number(written, place))
    if match.lastgroup == "text":
        return Token("text", written[1:-1].replace("''", "'"), written, place)
    if match.lastgroup == "name":
        return Token("name", written[1:-1].replace('""', '"'), written, place)
    return Token("sign", {"!=": "<>"}.get(written, written), written, place)


def _number(written: str, place: Place) -> int | float:
    if len(written) > 400:
        raise AdqlError(f"{shortened(written)} has too many digits", place)
    if written.isdigit() and int(written) < _INT64:
        return int(written)
    if written[:2] in ("0x", "0X"):
        if int(written, 16) >= _INT64:
            raise AdqlError(f"{shortened(written)} is larger than any whole number can be", place)
        return int(written, 16)
    value = float(written)
    if not math.isfinite(value):
        raise AdqlError(f"{shortened(written)} is larger than any number can be", place)
    return value
