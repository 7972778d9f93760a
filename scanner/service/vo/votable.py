"""VOTable documents (VOTable 1.4, DALI 1.1), written as their rows come, and the XML of all VO documents."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from scanner.errors import ScannerError

#: Media type of a document, with the serialisation as TAP 1.1 names it.
MEDIA_TYPE = "application/x-votable+xml"
ERROR_MEDIA_TYPE = "text/xml"
#: Of a document of DataLink.
LINKS_MEDIA_TYPE = f"{MEDIA_TYPE};content=datalink"
Encoding = Literal["binary2", "tabledata"]
#: VOTable's name of every type that is not text.
DATATYPES: dict[pa.DataType, str] = {
    pa.bool_(): "boolean", pa.uint8(): "unsignedByte", pa.int16(): "short", pa.int32(): "int", pa.int64(): "long",
    pa.float32(): "float", pa.float64(): "double",
}  # fmt: skip
_BIG_ENDIAN: dict[pa.DataType, str] = {
    pa.uint8(): "u1", pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8", pa.float32(): ">f4", pa.float64(): ">f8",
}  # fmt: skip
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
#: Characters that no XML 1.0 document can hold.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# markup.NOT_XML as Arrow writes it.
_NOT_XML_RE2 = r"[^\t\n\r\x20-\x{d7ff}\x{e000}-\x{fffd}\x{10000}-\x{10ffff}]"
Bytes = NDArray[np.uint8]


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
        if is_text(self.type):
            return ("char" if self.ascii else "unicodeChar"), "*"
        return DATATYPES[self.type], ""

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
    """A service that takes a row of the answer (DataLink 1.1, section 4)."""

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
class DocumentHeading:
    """What a document says before its rows: of the answer (``infos``), of the table, and of services that take its rows."""

    table: str = ""
    description: str = ""
    infos: Sequence[Info] = ()
    services: Sequence[ServiceDescriptor] = field(default=())


def document(
    fields: Sequence[Field],
    batches: Iterable[pa.RecordBatch],
    heading: DocumentHeading = DocumentHeading(),
    *,
    encoding: Encoding = "binary2",
    max_rows: int | None = None,
    reports_errors: bool = True,
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
    reports_errors
        Whether a :class:`~scanner.errors.ScannerError` of ``batches`` ends the document with ERROR and its text, or is raised.

    Yields
    ------
    bytes
        Pieces of the document.
    """
    identifiers = _identifiers(fields)
    yield _opening(fields, identifiers, heading).encode()
    encode = Binary2(fields) if encoding == "binary2" else TableData(fields)
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
        if not reports_errors:
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


def error_form(request: Request, status: int, message: str, request_id: str) -> Response:
    """The answer to a request of TAP that is refused."""
    return Response(error_document(message), status, media_type=MEDIA_TYPE)


def _identifiers(fields: Sequence[Field]) -> list[str]:
    """An XML ID for each column: its name where that can be one."""
    names = [column.name for column in fields]
    return [
        name if _XML_ID.fullmatch(name) and names.count(name) == 1 else f"column.{number}" for number, name in enumerate(names)
    ]


def _opening(fields: Sequence[Field], identifiers: Sequence[str], heading: DocumentHeading) -> str:
    lines = ['<RESOURCE type="results">', Info("QUERY_STATUS", "OK").xml(), *(info.xml() for info in heading.infos)]
    lines += [element("TABLE", {"name": heading.table}, " ").replace(" </TABLE>", "")]
    lines += [f"<DESCRIPTION>{text(heading.description)}</DESCRIPTION>"] if heading.description else []
    lines += [column.xml(identifier) for column, identifier in zip(fields, identifiers, strict=True)]
    coordinates = _COOSYS if any(column.ucd.startswith(_POSITIONS) for column in fields) else ""
    return _OPENING + coordinates + "\n".join(lines) + "\n"


class Binary2:
    """BINARY2 rows in base64; every batch ends with its own line, so bytes that do not fill three wait for the next batch."""

    opening = b'<DATA><BINARY2><STREAM encoding="base64">\n'

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = tuple(fields)
        self._waiting = b""

    def rows(self, batch: pa.RecordBatch) -> bytes:
        """The rows of a batch, (N rows of C columns)."""
        content = self._waiting + binary2_rows(self._fields, batch)
        whole = len(content) // 3 * 3
        self._waiting = content[whole:]
        return base64.b64encode(content[:whole]) + b"\n"

    @property
    def closing(self) -> bytes:
        """The last bytes, and the closing elements."""
        return base64.b64encode(self._waiting) + b"\n</STREAM></BINARY2></DATA>\n"


class TableData:
    """Rows as XML."""

    opening = b"<DATA><TABLEDATA>\n"
    closing = b"</TABLEDATA></DATA>\n"

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = tuple(fields)

    def rows(self, batch: pa.RecordBatch) -> bytes:
        """The rows of a batch, a line each."""
        cells = [_cells(batch.column(number)) for number in range(len(self._fields))]
        lines = pc.binary_join_element_wise(*cells, "</TD><TD>") if len(cells) > 1 else cells[0]
        return "".join(f"<TR><TD>{line}</TD></TR>\n" for line in lines.to_pylist()).encode()


def is_text(type_: pa.DataType) -> bool:
    """Whether arrays of this type hold texts."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def binary2_rows(fields: Sequence[Field], batch: pa.RecordBatch) -> bytes:
    """Rows as BINARY2 without base64: null flags, then the columns, big-endian; texts after their length."""
    n = batch.num_rows
    blocks = [_Block.of_numbers(_null_flags(batch))]
    for number, column in enumerate(fields):
        values = batch.column(number)
        if is_text(column.type):
            blocks.append(_Block.of_texts(values, wide=not column.ascii))
        else:
            blocks.append(_Block.of_numbers(_number_bytes(values, column.type)))
    if all(block.lengths is None for block in blocks):
        return np.concatenate([block.content for block in blocks], axis=1).tobytes()
    widths = np.sum([block.widths(n) for block in blocks], axis=0)
    begin = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
    out = np.empty(int(widths.sum()), dtype=np.uint8)
    for block in blocks:
        block.write(out, begin)
        begin = begin + block.widths(n)
    return out.tobytes()


class _Block:
    """The bytes of one column: (N, W) where every row has W bytes, else one after another, with ``lengths`` (N,)."""

    def __init__(self, content: Bytes, lengths: NDArray[np.int64] | None) -> None:
        self.content, self.lengths = content, lengths

    @classmethod
    def of_numbers(cls, content: Bytes) -> _Block:
        return cls(content, None)

    @classmethod
    def of_texts(cls, values: pa.Array, *, wide: bool) -> _Block:
        """Every text after its number of characters, in four bytes; ``wide``: UTF-16, else ASCII."""
        encoded = [value.encode("utf-16-be" if wide else "utf-8", "replace") for value in values.fill_null("").to_pylist()]
        size = np.fromiter((len(value) for value in encoded), dtype=np.int64, count=len(encoded))
        characters = (size // 2 if wide else size).astype(">i4")
        pieces = [piece for pair in zip(_split(characters.tobytes(), 4), encoded, strict=True) for piece in pair]
        return cls(np.frombuffer(b"".join(pieces), dtype=np.uint8), size + 4)

    def widths(self, n: int) -> NDArray[np.int64]:
        return np.full(n, self.content.shape[1], dtype=np.int64) if self.lengths is None else self.lengths

    def write(self, out: Bytes, begin: NDArray[np.int64]) -> None:
        """Put each row's bytes at ``begin`` (N,) of ``out``."""
        if self.lengths is None:
            out[begin[:, None] + np.arange(self.content.shape[1])] = self.content
        else:
            own = np.cumsum(self.lengths) - self.lengths
            out[np.repeat(begin - own, self.lengths) + np.arange(len(self.content))] = self.content


def _split(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def _null_flags(batch: pa.RecordBatch) -> Bytes:
    """One bit a column, the first the highest: (N, ceil(C / 8)) uint8."""
    flags = np.zeros((batch.num_rows, batch.num_columns), dtype=np.bool_)
    for number in range(batch.num_columns):
        if batch.column(number).null_count:
            flags[:, number] = pc.is_null(batch.column(number)).to_numpy(zero_copy_only=False)
    return np.packbits(flags, axis=1)


def _number_bytes(values: pa.Array, type_: pa.DataType) -> Bytes:
    """The bytes of each value, (N, W) uint8; null: NaN, zero or ``?``."""
    if pa.types.is_boolean(type_):
        letters = pc.if_else(values, ord("T"), ord("F")).fill_null(ord("?"))
        return np.asarray(letters.to_numpy(zero_copy_only=False)).astype(np.uint8)[:, None]
    missing: Any = float("nan") if pa.types.is_floating(type_) else 0
    numbers = np.asarray(values.fill_null(missing).to_numpy(zero_copy_only=False))
    swapped = np.ascontiguousarray(numbers.astype(_BIG_ENDIAN[type_]))
    return swapped.view(np.uint8).reshape(len(swapped), -1)


def _cells(values: pa.Array) -> pa.Array:
    """The content of the cells of one column, as XML."""
    if is_text(values.type):
        clean = pc.replace_substring_regex(values, pattern=_NOT_XML_RE2, replacement="\ufffd")
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
            clean = pc.replace_substring(clean, character, entity)
        return clean.fill_null("")
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "T", "F").fill_null("")
    cells = pc.cast(values, pa.string())
    if pa.types.is_floating(values.type):
        for found, written in (("nan", "NaN"), ("inf", "+Inf"), ("-inf", "-Inf")):
            cells = pc.if_else(pc.equal(cells, found), written, cells)
    return cells.fill_null("")


def element(name: str, attributes: Mapping[str, str], content: str = "", keep: tuple[str, ...] = ()) -> str:
    """An XML element; attributes that are empty are left out, but for those to ``keep``; ``content`` is XML already."""
    written = "".join(f" {key}={_attribute(value)}" for key, value in attributes.items() if value or key in keep)
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(content: str) -> str:
    """Text as XML: escaped."""
    return escape(NOT_XML.sub("\ufffd", content))


def _attribute(value: str) -> str:
    return quoteattr(NOT_XML.sub("\ufffd", value))
