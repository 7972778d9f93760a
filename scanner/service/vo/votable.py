"""VOTable documents, written as their rows come.

In: fields, Arrow record batches, INFO elements, service descriptors. Out: the document's bytes, piece by piece, so that an
answer of any length needs the memory of one batch. Before the rows it says OK, and after them what went otherwise (QUERY_STATUS
OVERFLOW or ERROR). Refused (KeyError): column types that no table of scanner has, references to columns that are not there.

Source: VOTable 1.4, https://www.ivoa.net/documents/VOTable/20191021/; DALI 1.1, section 4.4, for QUERY_STATUS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from scanner.errors import ScannerError
from scanner.service.vo import votable_rows
from scanner.service.vo.markup import element, text

#: Media type of a document, with the serialisation as TAP 1.1 names it.
MEDIA_TYPE = "application/x-votable+xml"
ERROR_MEDIA_TYPE = "text/xml"

Encoding = Literal["binary2", "tabledata"]

_OPENING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 http://www.ivoa.net/xml/VOTable/v1.3">\n'
)
#: IDs with a dot are the document's own.
_COOSYS = '<COOSYS ID="sky.icrs" system="ICRS"/>\n'
_XML_ID = re.compile("[A-Za-z_][A-Za-z0-9_-]*")
_POSITIONS = ("pos.eq.ra", "pos.eq.dec")


@dataclass(frozen=True)
class Field:
    """One column of an answer.

    ``type`` is that of its Arrow arrays. ``ascii``: its texts are known to be ASCII (``char``), else they travel as
    ``unicodeChar``. Whatever has the UCD of an equatorial coordinate refers to the document's ICRS coordinate system.
    """

    name: str
    type: pa.DataType
    unit: str = ""
    ucd: str = ""
    description: str = ""
    utype: str = ""
    xtype: str = ""
    ascii: bool = False

    @classmethod
    def of(cls, column: pa.Field, *, ascii: bool = False) -> Field:  # noqa: A002
        """The field of an Arrow column, with ``unit``, ``ucd``, ``utype``, ``xtype`` and ``description`` of its metadata."""
        metadata = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
        known = {key: metadata.get(key, "") for key in ("unit", "ucd", "utype", "xtype", "description")}
        return cls(column.name, column.type, **known, ascii=ascii)

    @property
    def datatype(self) -> tuple[str, str]:
        """Its ``datatype`` and ``arraysize`` (empty: one value)."""
        if votable_rows.is_text(self.type):
            return ("char" if self.ascii else "unicodeChar"), "*"
        return votable_rows.DATATYPES[self.type], ""

    def xml(self, identifier: str) -> str:
        """Its FIELD element."""
        datatype, arraysize = self.datatype
        reference = "sky.icrs" if self.ucd.startswith(_POSITIONS) else ""
        attributes = {
            "ID": identifier, "name": self.name, "datatype": datatype, "arraysize": arraysize, "unit": self.unit,
            "ucd": self.ucd, "utype": self.utype, "xtype": self.xtype, "ref": reference,
        }  # fmt: skip
        return element("FIELD", attributes, f"<DESCRIPTION>{text(self.description)}</DESCRIPTION>" if self.description else "")


@dataclass(frozen=True)
class Info:
    """An INFO element."""

    name: str
    value: str
    content: str = ""

    def xml(self) -> str:
        """The element."""
        return element("INFO", {"name": self.name, "value": self.value}, text(self.content))


@dataclass(frozen=True)
class Parameter:
    """An input of a service: a constant ``value``, or (``column``) the name of the answer's column that it is taken from.

    ``options``: the values that it takes, where these are few.
    """

    name: str
    value: str = ""
    column: str | None = None
    ucd: str = ""
    description: str = ""
    datatype: str = "char"
    arraysize: str = "*"
    unit: str = ""
    xtype: str = ""
    options: tuple[str, ...] = ()

    def xml(self, identifiers: Mapping[str, str]) -> str:
        """Its PARAM element; ``identifiers`` has the ID of every column."""
        attributes = {
            "name": self.name, "datatype": self.datatype, "arraysize": self.arraysize, "value": self.value, "ucd": self.ucd,
            "unit": self.unit, "xtype": self.xtype, "ref": "" if self.column is None else identifiers[self.column],
        }  # fmt: skip
        content = f"<DESCRIPTION>{text(self.description)}</DESCRIPTION>" if self.description else ""
        if self.options:
            content += element("VALUES", {}, "".join(element("OPTION", {"value": option}) for option in self.options))
        return element("PARAM", attributes, content, keep=("value",))


@dataclass(frozen=True)
class ServiceDescriptor:
    """A service that can be asked about every row of the answer, as DataLink 1.1, section 4, describes it."""

    identifier: str
    access_url: str
    standard_id: str = ""
    inputs: tuple[Parameter, ...] = ()
    description: str = ""
    content_type: str = ""

    def xml(self, identifiers: Mapping[str, str]) -> str:
        """Its RESOURCE element; ``identifiers`` has the ID of every column."""
        parameters = [Parameter("accessURL", self.access_url)]
        parameters += [Parameter("standardID", self.standard_id)] if self.standard_id else []
        parameters += [Parameter("contentType", self.content_type)] if self.content_type else []
        lines = [f"<DESCRIPTION>{text(self.description)}</DESCRIPTION>"] if self.description else []
        lines += [parameter.xml(identifiers) for parameter in parameters]
        lines += [element("GROUP", {"name": "inputParams"}, "".join(parameter.xml(identifiers) for parameter in self.inputs))]
        attributes = {"type": "meta", "ID": self.identifier, "utype": "adhoc:service"}
        return element("RESOURCE", attributes, "\n".join(lines)) + "\n"


@dataclass(frozen=True)
class Heading:
    """What a document says before its rows: of the answer (``infos``), of the table, and of services that take its rows."""

    table: str = ""
    description: str = ""
    infos: Sequence[Info] = ()
    services: Sequence[ServiceDescriptor] = field(default=())


def document(
    fields: Sequence[Field],
    batches: Iterable[pa.RecordBatch],
    heading: Heading = Heading(),
    *,
    encoding: Encoding = "binary2",
    max_rows: int | None = None,
    tells_errors: bool = True,
) -> Iterator[bytes]:
    """Write a document.

    Parameters
    ----------
    fields
        The C columns.
    batches
        Rows of C columns in the order of ``fields``, whatever their names.
    heading
        What is said before the rows.
    encoding
        How rows are written.
    max_rows
        No more rows are written; if there were more, the document ends with OVERFLOW.
    tells_errors
        Whether a :class:`~scanner.errors.ScannerError` of ``batches`` ends the document with ERROR and its text, or is raised.

    Yields
    ------
    bytes
        Pieces of the document.
    """
    identifiers = _identifiers(fields)
    yield _opening(fields, identifiers, heading).encode()
    encode = votable_rows.Binary2(fields) if encoding == "binary2" else votable_rows.TableData(fields)
    yield encode.opening
    left = max_rows
    status = ""
    try:
        for batch in batches:
            shown = batch if left is None else batch.slice(0, left)
            if shown.num_rows:
                yield encode.rows(shown)
            if left is not None:
                left -= shown.num_rows
                if shown.num_rows < batch.num_rows:
                    status = Info("QUERY_STATUS", "OVERFLOW", f"there are more than {max_rows} rows").xml() + "\n"
                    break
    except ScannerError as error:
        if not tells_errors:
            raise
        status = Info("QUERY_STATUS", "ERROR", str(error)).xml() + "\n"
    yield encode.closing
    yield f"</TABLE>\n{status}</RESOURCE>\n".encode()
    by_name = {column.name: identifier for column, identifier in zip(fields, identifiers, strict=True)}
    yield ("".join(service.xml(by_name) for service in heading.services) + "</VOTABLE>\n").encode()


def error_document(message: str, infos: Sequence[Info] = ()) -> bytes:
    """A document without a table that says what went wrong, as DALI asks for."""
    lines = ['<RESOURCE type="results">', Info("QUERY_STATUS", "ERROR", message).xml(), *(info.xml() for info in infos)]
    return (_OPENING + "\n".join(lines) + "\n</RESOURCE>\n</VOTABLE>\n").encode()


def _identifiers(fields: Sequence[Field]) -> list[str]:
    """An XML ID for each column: its name where that can be one."""
    names = [column.name for column in fields]
    return [
        name if _XML_ID.fullmatch(name) and names.count(name) == 1 else f"column.{number}" for number, name in enumerate(names)
    ]


def _opening(fields: Sequence[Field], identifiers: Sequence[str], heading: Heading) -> str:
    lines = ['<RESOURCE type="results">', Info("QUERY_STATUS", "OK").xml(), *(info.xml() for info in heading.infos)]
    lines += [element("TABLE", {"name": heading.table}, " ").replace(" </TABLE>", "")]
    lines += [f"<DESCRIPTION>{text(heading.description)}</DESCRIPTION>"] if heading.description else []
    lines += [column.xml(identifier) for column, identifier in zip(fields, identifiers, strict=True)]
    coordinates = _COOSYS if any(column.ucd.startswith(_POSITIONS) for column in fields) else ""
    return _OPENING + coordinates + "\n".join(lines) + "\n"
