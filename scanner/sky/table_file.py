"""Some columns of a table file, whatever its format.

In: a FITS (``.fits``, ``.fits.gz``, ``.fits.fz``), ECSV, CSV or Parquet file, and a function that chooses columns by name.
Out: the chosen columns as arrays with their units, the rest of the file unread where the format allows it. Refused with a
:class:`~scanner.errors.TileError` that names the file: missing, damaged and other files; FITS files without a table.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.records import ImageRef
from scanner.sky.scratch import local_path

#: Given the names of all columns, those to read.
Chooser = Callable[[Sequence[str]], Sequence[str]]

_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error, pa.ArrowException)


@dataclass(frozen=True)
class FileColumn:
    """One column.

    ``values`` (N,): numbers, booleans or text, in the file's own type. ``missing`` (N,) bool: null, masked or FITS TNULL.
    ``unit``: as the file spells it, empty where it does not say.
    """

    name: str
    values: NDArray[Any]
    missing: NDArray[np.bool_]
    unit: str


def read_columns(file: ImageRef, choose: Chooser) -> dict[str, FileColumn]:
    """Read the columns that ``choose`` picks.

    Parameters
    ----------
    file
        The file; its extension, if it has one, must be a binary table.
    choose
        Called with all names; a TileError that it raises is passed on.

    Raises
    ------
    TileError
        The file cannot be read.
    """
    path = str(local_path(file.path))
    name = path.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            if name.endswith((".fits", ".fit", ".fits.gz", ".fits.fz")):
                return _read_fits(file, path, choose)
            if name.endswith(".ecsv"):
                return _read_ecsv(path, choose)
            if name.endswith(".csv"):
                return _read_csv(path, choose)
            if name.endswith((".parquet", ".parq", ".pq")):
                return _read_parquet(path, choose)
    except FileNotFoundError:
        raise TileError(f"{file}: the catalogue is not there; check the path, or use --targets detection.") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TileError(f"{file}: the catalogue cannot be read ({reason}).") from None
    raise TileError(f"{file}: is not a catalogue that can be read; give FITS, ECSV, CSV or Parquet.")


def _read_fits(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    source: str | io.BytesIO = path
    if path.lower().endswith(".gz"):
        # Left to itself, astropy takes the good beginning of a damaged stream for the whole file.
        with gzip.open(path) as stream:
            source = io.BytesIO(stream.read())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", AstropyWarning)
        with fits.open(source, memmap=isinstance(source, str), lazy_load_hdus=False) as hdus:
            if any("truncated" in str(warning.message) for warning in told):
                raise TileError(f"{file}: the catalogue cannot be read (it is truncated).")
            hdu = _table_of(hdus, file)
            return {name: _fits_column(hdu, name) for name in choose(hdu.columns.names)}


def _fits_column(hdu: fits.BinTableHDU, name: str) -> FileColumn:
    column = hdu.columns[name]
    values = np.array(hdu.data[name])
    missing = np.zeros(len(values), dtype=np.bool_)
    if column.null is not None and values.dtype.kind in "iu":
        missing = values == column.null
    return FileColumn(name, _native(values), missing, column.unit or "")


def _table_of(hdus: fits.HDUList, file: ImageRef) -> fits.BinTableHDU:
    if file.extension is not None:
        hdu = hdus[file.extension]
        if isinstance(hdu, fits.BinTableHDU):
            return hdu
        raise TileError(f"{file}: is not a binary table; name the extension that is.")
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
            return hdu
    raise TileError(f"{file}: holds no binary table; give a catalogue.")


def _read_ecsv(path: str, choose: Chooser) -> dict[str, FileColumn]:
    table = Table.read(path, format="ascii.ecsv")
    columns = {}
    for name in choose(table.colnames):
        values = np.ma.asarray(table[name])
        unit = str(table[name].unit or "")
        columns[name] = FileColumn(name, _native(np.asarray(values.data)), np.ma.getmaskarray(values), unit)
    return columns


def _read_csv(path: str, choose: Chooser) -> dict[str, FileColumn]:
    with pa.csv.open_csv(path) as reader:
        names = choose(reader.schema.names)
    # Arrow would take 03:31:16 for a time of day, and the type of a column from its first rows.
    text = pa.csv.ConvertOptions(
        include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
    )
    table = pa.csv.read_csv(path, convert_options=text)
    for i, name in enumerate(table.column_names):
        table = table.set_column(i, name, _typed(pc.utf8_trim_whitespace(table[name])))
    return _from_arrow(table)


def _typed(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """The simplest type that every value of a column has."""
    for type_ in (pa.int64(), pa.float64(), pa.bool_()):
        try:
            return text.cast(type_)
        except pa.ArrowInvalid:
            continue
    return text


def _read_parquet(path: str, choose: Chooser) -> dict[str, FileColumn]:
    with pq.ParquetFile(path) as file:
        return _from_arrow(file.read(columns=list(choose(file.schema_arrow.names))))


def _from_arrow(table: pa.Table) -> dict[str, FileColumn]:
    columns = {}
    for field in table.schema:
        column = table[field.name]
        missing = np.asarray(column.is_null(), dtype=np.bool_)
        if pa.types.is_integer(field.type):
            # to_numpy would make floats of integers with nulls, and lose the last digits of an id.
            values = column.fill_null(0).to_numpy()
        elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            values = np.asarray(column.fill_null("").to_pylist(), dtype=str)
        else:
            values = column.to_numpy()
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        columns[field.name] = FileColumn(field.name, values, missing, unit)
    return columns


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="))
