"""The formats that TAP answers in.

In: the value of RESPONSEFORMAT. Out: a :class:`Format`. Refused (:class:`BadRequestError`): others.

Source: TAP 1.1, section 2.7.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanner.service.errors import BadRequestError
from scanner.service.vo import votable
from scanner.service.vo.votable import Encoding


@dataclass(frozen=True)
class Format:
    """One format: its media type, short names, how a VOTable's rows are written, what separates values of one that is none."""

    media_type: str
    names: tuple[str, ...]
    identifier: str = ""
    encoding: Encoding = "binary2"
    separator: str = ""


_REGISTERED = "ivo://ivoa.net/std/TAPRegExt#output-votable-"
#: The first is that of clients that do not care.
FORMATS: tuple[Format, ...] = (
    Format(votable.MEDIA_TYPE, ("votable", "text/xml", "application/xml", "votable/b2")),
    Format(f"{votable.MEDIA_TYPE};serialization=binary2", (), f"{_REGISTERED}binary2"),
    Format(f"{votable.MEDIA_TYPE};serialization=tabledata", ("votable/td",), f"{_REGISTERED}td", encoding="tabledata"),
    Format("text/csv", ("csv", "text/csv;header=present"), separator=","),
    Format("text/tab-separated-values", ("tsv",), separator="\t"),
)


def format_named(value: str | None) -> Format:
    """The format that RESPONSEFORMAT (or FORMAT) names; None: the first.

    Raises
    ------
    BadRequestError
        There is none of this name.
    """
    if value is None:
        return FORMATS[0]
    wanted = value.lower().replace(" ", "")
    for one in FORMATS:
        if wanted in (one.media_type, *one.names):
            return one
    raise BadRequestError(
        f"RESPONSEFORMAT={value} is not offered; ask for one of {', '.join(one.media_type for one in FORMATS)}."
    )
