"""What a client asks TAP.

In: parameters. Out: a :class:`~scanner.service.vo.tap_service.TapQuery`. Refused (:class:`BadRequestError`): requests other
than doQuery, languages other than ADQL, uploads, a MAXREC that is no number of rows, formats that are not offered, no query.

Source: TAP 1.1, section 2.7.
"""

from __future__ import annotations

from collections.abc import Mapping

from scanner.service.errors import BadRequestError
from scanner.service.vo.parameters import Parameters, is_whole_number
from scanner.service.vo.tap_formats import format_named
from scanner.service.vo.tap_service import TapQuery

#: What a job keeps; with the names that TAP 1.0 had for some.
NAMES: tuple[tuple[str, ...], ...] = (
    ("REQUEST",),
    ("LANG",),
    ("QUERY",),
    ("MAXREC",),
    ("RESPONSEFORMAT", "FORMAT"),
)
_LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")


def kept(parameters: Parameters) -> dict[str, str]:
    """The parameters of a query, those that were given.

    Raises
    ------
    BadRequestError
        One was given twice, or tables were to be uploaded.
    """
    if parameters.all("UPLOAD"):
        raise BadRequestError("UPLOAD is not supported by this service: it answers queries about its own tables only.")
    values = {names[0]: parameters.one(*names) for names in NAMES}
    return {name: value for name, value in values.items() if value is not None}


def read_query(values: Mapping[str, str], default_rows: int, most_rows: int) -> TapQuery:
    """What is asked.

    Parameters
    ----------
    values
        As :func:`kept` gives them.
    default_rows, most_rows
        Rows where MAXREC is not given, and where it is larger.

    Raises
    ------
    BadRequestError
        See the module.
    """
    request, language = values.get("REQUEST", "doQuery"), values.get("LANG", _LANGUAGES[0])
    if request.lower() != "doquery":
        raise BadRequestError(f"REQUEST={request} is not known; the only request is doQuery.")
    if language.upper() not in _LANGUAGES:
        raise BadRequestError(f"LANG={language} is not understood; ask in {', '.join(_LANGUAGES)}.")
    if "QUERY" not in values:
        raise BadRequestError("QUERY is missing; give a query in ADQL.")
    limit = values.get("MAXREC", str(default_rows))
    if not is_whole_number(limit, 19):
        raise BadRequestError(f"MAXREC={limit} is no number of rows.")
    return TapQuery(values["QUERY"], min(int(limit), most_rows), format_named(values.get("RESPONSEFORMAT")))
