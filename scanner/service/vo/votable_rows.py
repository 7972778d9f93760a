"""Rows of a VOTable from Arrow record batches, a column at a time.

In: fields and record batches. Out: the bytes of BINARY2 (base64) or TABLEDATA, exact: every number is read back as it was.
Nulls are BINARY2's null flags and empty cells; texts keep every character but those that XML forbids (TABLEDATA: U+FFFD).
Refused: column types that are not in :data:`DATATYPES`.

Source: VOTable 1.4, sections 5.1 and 5.4.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scanner.service.vo.votable import Field

Bytes = NDArray[np.uint8]

#: VOTable's name of every type that is not text.
DATATYPES: dict[pa.DataType, str] = {
    pa.bool_(): "boolean", pa.uint8(): "unsignedByte", pa.int16(): "short", pa.int32(): "int", pa.int64(): "long",
    pa.float32(): "float", pa.float64(): "double",
}  # fmt: skip
_BIG_ENDIAN: dict[pa.DataType, str] = {
    pa.uint8(): "u1", pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8", pa.float32(): ">f4", pa.float64(): ">f8",
}  # fmt: skip
# markup.NOT_XML as Arrow writes it.
_NOT_XML_RE2 = r"[^\t\n\r\x20-\x{d7ff}\x{e000}-\x{fffd}\x{10000}-\x{10ffff}]"


def is_text(type_: pa.DataType) -> bool:
    """Whether arrays of this type hold texts."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


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
