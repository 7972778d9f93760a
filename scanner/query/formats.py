"""Answers as files (FITS, VOTable, ECSV, CSV, Parquet, DS9 regions), as text, and handed to other programs by SAMP 1.3."""

from __future__ import annotations

import io
import math
import os
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from scanner.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from scanner.catalogue.export import TableHeading


@dataclass(frozen=True)
class FileFormat:
    """A format: endings of its files' names, what makes a file of a table; ``is_binary``: a terminal cannot show it.

    The same table gives the same bytes. All but CSV and DS9 carry units, descriptions and UCDs.
    """

    suffixes: tuple[str, ...]
    media_type: str
    write: Callable[[pa.Table, TableHeading], bytes]
    is_binary: bool = False


def format_of(name: str) -> str:
    """The format in :data:`FILE_FORMATS` that a file's name ends in.

    Raises
    ------
    UsageError
        It ends in none of them.
    """
    by_suffix = {suffix: known for known, one in FILE_FORMATS.items() for suffix in one.suffixes}
    suffix = PurePath(name).suffix.lower()
    if suffix not in by_suffix:
        raise UsageError(f"{name}: its name tells no format; give --format, or end it in {', '.join(by_suffix)}.")
    return by_suffix[suffix]


# Libraries of tables take a second to import, which neither --help nor a service that is being started should wait for.
def _fits(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import fits_bytes

    return fits_bytes(table, heading)


def _votable(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import to_astropy, votable_bytes

    return votable_bytes(to_astropy(table), heading)


def _ecsv(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import ecsv_bytes, to_astropy

    return ecsv_bytes(to_astropy(table), heading)


def _csv(table: pa.Table, heading: TableHeading) -> bytes:
    """Comma-separated values; what is not known is left empty."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    known = [
        pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column for column in table.columns
    ]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(table.column_names, known, strict=True))), buffer)
    return buffer.getvalue()


def _parquet(table: pa.Table, heading: TableHeading) -> bytes:
    import pyarrow.parquet as pq

    facts = {entry.name: entry.value for entry in heading.entries}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), buffer, compression="zstd")
    return buffer.getvalue()


def _ds9(table: pa.Table, heading: TableHeading) -> bytes:
    import pyarrow as pa

    if not {"ra", "dec"} <= set(table.column_names):
        raise UsageError("Regions for DS9 need the columns ra and dec; ask for them too.")
    if not all(pa.types.is_floating(table.schema.field(name).type) for name in ("ra", "dec")):
        raise UsageError("Regions for DS9 need ra and dec in degrees, as numbers; ask for the columns themselves.")
    from scanner.catalogue.export import ds9_bytes

    return ds9_bytes(table)


FILE_FORMATS: dict[str, FileFormat] = {
    "fits": FileFormat((".fits", ".fit"), "application/fits", _fits, is_binary=True),
    "votable": FileFormat((".vot", ".votable", ".xml"), "application/x-votable+xml", _votable),
    "ecsv": FileFormat((".ecsv",), "text/plain; charset=utf-8", _ecsv),
    "csv": FileFormat((".csv",), "text/csv; charset=utf-8", _csv),
    "parquet": FileFormat((".parquet",), "application/vnd.apache.parquet", _parquet, is_binary=True),
    "ds9": FileFormat((".reg",), "text/plain; charset=utf-8", _ds9),
}

#: Digits behind the point, by unit: as many as mean something.
_DECIMALS = {"deg": 6, "arcsec": 2, "mag": 2, "pixel": 1}
_LONGEST_TEXT = 40
_GAP = "  "


def terminal_lines(table: pa.Table, width: int | None = None) -> tuple[list[str], list[str]]:
    """Set a table out in columns.

    Parameters
    ----------
    table
        The answer.
    width
        Letters in a line; None: as many as it needs.

    Returns
    -------
    tuple
        The lines, a heading first, and the names of the columns that did not fit.
    """
    from rich.cells import cell_len

    columns = [_column(field, values) for field, values in zip(table.schema, table.columns, strict=True)]
    fitting, used = 0, 0
    for column in columns:
        used += cell_len(column[0]) + (len(_GAP) if fitting else 0)
        if width is not None and used > width and fitting:
            break
        fitting += 1
    rows = zip(*columns[:fitting], strict=True)
    return [_GAP.join(row).rstrip() for row in rows], table.column_names[fitting:]


def _column(field: pa.Field, values: pa.ChunkedArray) -> list[str]:
    """Heading and values of a column, padded to one width: numbers to the right, texts to the left."""
    import pyarrow as pa

    from scanner.catalogue.columns import flag_words

    unit = (field.metadata or {}).get(b"unit", b"").decode()
    are_flags = field.name == "flags" and pa.types.is_integer(field.type)
    shown = [", ".join(flag_words(value or 0)) if are_flags else _text(value, unit) for value in values.to_pylist()]
    texts = [f"{field.name} [{unit}]" if unit else field.name, *shown]
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return _padded(texts, to_the_right=is_number and not are_flags)


def _padded(texts: Sequence[str], *, to_the_right: bool) -> list[str]:
    from rich.cells import cell_len

    widest = max(map(cell_len, texts))
    spaces = [" " * (widest - cell_len(text)) for text in texts]
    return [space + text if to_the_right else text + space for space, text in zip(spaces, texts, strict=True)]


def _text(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else str(value)
        return f"{value:.{_DECIMALS[unit]}f}" if unit in _DECIMALS else f"{value:.4g}"
    # Control characters in a catalogue must not reach the terminal.
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


#: Type of the message, by format of the table.
MESSAGES = {"votable": "table.load.votable", "fits": "table.load.fits"}
_NO_HUB = "No SAMP hub runs on this machine; start TOPCAT or Aladin, and send again."


def send_table(path: Path, format_: str, name: str, to: str) -> tuple[str, ...]:
    """Ask programs to load a table.

    Parameters
    ----------
    path
        Its file; the programs read it when they come to it, so it must stay.
    format_
        ``votable`` or ``fits``.
    name
        What the programs call the table.
    to
        A program's SAMP name or its beginning, in small or capital letters: ``topcat``; ``all``: every one that takes tables.

    Returns
    -------
    tuple of str
        The names of the programs that were asked.

    Raises
    ------
    UsageError
        Another format.
    UnavailableError
        No hub runs, or no such program takes tables from it.
    """
    if format_ not in MESSAGES:
        raise UsageError(f"{path}: SAMP hands over VOTable and FITS tables, not {format_}; end it in .vot or .fits.")
    secret, url = _hub()
    message = {"samp.mtype": MESSAGES[format_], "samp.params": {"url": path.resolve().as_uri(), "name": name}}
    try:
        with xmlrpc.client.ServerProxy(url) as proxy:
            hub: Any = proxy.samp.hub
            key = cast(dict[str, str], hub.register(secret))["samp.private-key"]
            hub.declareMetadata(key, {"samp.name": "scanner"})
            listeners = {one: _name(hub.getMetadata(key, one)) for one in hub.getSubscribedClients(key, MESSAGES[format_])}
            chosen = {one: known for one, known in listeners.items() if to == "all" or known.lower().startswith(to.lower())}
            for one in chosen:
                hub.notify(key, one, message)
            with suppress(xmlrpc.client.Fault):
                hub.unregister(key)
    except OSError:
        raise UnavailableError(_NO_HUB) from None
    except (xmlrpc.client.Error, KeyError) as error:
        raise UnavailableError(f"{url}: the SAMP hub refused the table ({error}).") from None
    if not chosen:
        found = f"only {', '.join(sorted(listeners.values()))} can" if listeners else "none that can is connected to the hub"
        raise UnavailableError(f"{to}: no program of this name can load tables; {found}.")
    return tuple(sorted(chosen.values()))


def _name(metadata: object) -> str:
    return str(cast(Mapping[str, object], metadata).get("samp.name", "a program without a name"))


def _hub() -> tuple[str, str]:
    """Secret and address of the hub, from its lock-file (section 4.3 of the standard).

    Raises
    ------
    UnavailableError
        There is none.
    """
    named = os.environ.get("SAMP_HUB", "")
    path = Path(unquote(urlsplit(named.removeprefix("std-lockurl:")).path)) if named else Path.home() / ".samp"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        raise UnavailableError(_NO_HUB) from None
    known = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    if not {"samp.secret", "samp.hub.xmlrpc.url"} <= known.keys():
        raise UnavailableError(f"{path}: is no lock-file of a SAMP hub; start TOPCAT or Aladin again.")
    return known["samp.secret"], known["samp.hub.xmlrpc.url"]
