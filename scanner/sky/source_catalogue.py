"""Sources of a tile's own catalogue, from FITS, ECSV, VOTable, CSV or Parquet; only the columns that are needed are read."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.coordinates import Angle
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.imaging_surveys import EUCLID, USUAL_COLUMNS, ImagingSurvey
from scanner.records import MICROJANSKY_ZERO_POINT, Float64, ImageRef, Int64
from scanner.sky.local_files import decompressed, local_path, refuse_endless, regular_file

#: Given the names of all columns, those to read.
Chooser = Callable[[Sequence[str]], Sequence[str]]
_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, zlib.error, pa.ArrowException)
#: Names of columns that a message lists at most.
_SHOWN = 12
#: Most rows, most bytes of a compressed FITS file, and of an ECSV file, which takes ten times as much memory. Euclid's deepest
#: tiles have some 200,000 sources.
LARGEST_ROWS, LARGEST_BYTES, LARGEST_ECSV_BYTES = 5_000_000, 1 << 30, 1 << 29


@dataclass(frozen=True)
class Sources:
    """Rows of a catalogue, all of them and in its order.

    ``ra, dec`` (N,) float64: degrees, NaN where missing or impossible. ``target_id`` (N,) int64, or None where the catalogue
    has no whole numbers to give. ``magnitude`` (N,) float64: VIS, AB, NaN where unknown; None without such a column. ``area``
    (N,) float64: VIS pixels, NaN where unknown; None without such a column.
    """

    ra: Float64
    dec: Float64
    target_id: Int64 | None
    magnitude: Float64 | None
    area: Float64 | None

    def __len__(self) -> int:
        return len(self.ra)


def read(file: ImageRef, survey: ImagingSurvey = EUCLID) -> Sources:
    """Read a catalogue.

    Columns are found by the names that the survey gives, then those of :data:`~scanner.imaging_surveys.USUAL_COLUMNS`, in upper
    or lower case, the first that is there:

    - position: degrees unless a unit says otherwise; text such as ``03:31:16.8`` is hours in right ascension and degrees in
      declination; ICRS;
    - id: if it is a whole number;
    - VIS magnitude (AB); else from ``FLUX_DETECTION_TOTAL``, in µJy unless a unit says otherwise: m = 23.9 - 2.5 log10(F /
      µJy). Where ``VIS_DET`` is 0 that flux is of the NISP detection image, and the VIS magnitude is unknown;
    - area in VIS pixels.

    Raises
    ------
    TileError
        The file cannot be read, has no position columns, or a column holds something else than it should.
    """
    names: dict[str, str] = {}

    def choose(available: Sequence[str]) -> Sequence[str]:
        names.update(_names_of_roles(available, survey))
        missing = [role for role in ("ra", "dec") if role not in names]
        if missing:
            shown = ", ".join(available[:_SHOWN]) + (" …" if len(available) > _SHOWN else "")
            raise TileError(
                f"{file}: no column holds the {' and '.join(missing)}; name them RIGHT_ASCENSION and DECLINATION "
                f"(or ra and dec). Columns found: {shown or 'none'}."
            )
        return list(names.values())

    columns = read_columns(file, choose)
    for column in columns.values():
        if column.values.ndim != 1 or any(isinstance(value, np.ndarray) for value in column.values[:1]):
            raise TileError(f"{file}: column {column.name} holds several values a row; name one that holds a single value.")
    found = {role: columns[name] for role, name in names.items()}
    ra, dec = positions(found["ra"], found["dec"], file)
    return Sources(
        ra=ra,
        dec=dec,
        target_id=_ids(found.get("id")),
        magnitude=_magnitude(found, file, survey.flux_unit),
        area=_numbers(found["area"], file) if "area" in found else None,
    )


def positions(ra: FileColumn, dec: FileColumn, file: ImageRef) -> tuple[Float64, Float64]:
    """Right ascension and declination in degrees, (N,) float64 each; NaN where missing or impossible.

    Degrees unless a unit says otherwise; text such as ``03:31:16.8`` is hours in right ascension and degrees in declination.

    Raises
    ------
    TileError
        A column holds something else than angles.
    """
    longitude, latitude = _angle(ra, file, u.hourangle), _angle(dec, file, u.deg)
    usable = np.isfinite(longitude) & (np.abs(latitude) <= 90.0)
    return np.where(usable, longitude, np.nan) % 360.0, np.where(usable, latitude, np.nan)


def _names_of_roles(available: Sequence[str], survey: ImagingSurvey) -> dict[str, str]:
    """The file's own name of each column that has a role."""
    by_upper: dict[str, str] = {}
    for name in available:
        by_upper.setdefault(name.upper(), name)
    found = {}
    for role, usual in USUAL_COLUMNS.items():
        aliases = (*(name.upper() for name in survey.catalogue_columns.get(role, ())), *usual)
        there = [by_upper[alias] for alias in aliases if alias in by_upper]
        if there:
            found[role] = there[0]
    return found


def _ids(column: FileColumn | None) -> Int64 | None:
    if column is None or column.values.dtype.kind not in "iu" or column.missing.any():
        return None
    if column.values.dtype.kind == "u" and (column.values > np.iinfo(np.int64).max).any():
        return None
    return column.values.astype(np.int64)


def _magnitude(found: dict[str, FileColumn], file: ImageRef, flux_unit: str) -> Float64 | None:
    if "magnitude" in found:
        return _numbers(found["magnitude"], file)
    if "flux" not in found:
        return None
    flux = (_converted(found["flux"], file, u.Unit(flux_unit), "flux density") * u.Unit(flux_unit)).to_value(u.uJy)
    known: NDArray[np.bool_] = flux > 0
    if "detected" in found:
        known &= _numbers(found["detected"], file) != 0
    magnitude = np.full(len(flux), np.nan)
    magnitude[known] = MICROJANSKY_ZERO_POINT - 2.5 * np.log10(flux[known])
    return magnitude


def _numbers(column: FileColumn, file: ImageRef) -> Float64:
    try:
        if column.values.dtype.kind == "c":
            raise TypeError
        values = column.values.astype(np.float64)
    except (ValueError, TypeError):
        raise TileError(f"{file}: column {column.name} holds something else than numbers.") from None
    return np.where(column.missing, np.nan, values)


def _angle(column: FileColumn, file: ImageRef, sexagesimal: u.UnitBase) -> Float64:
    """Degrees; text that is no plain number is in ``sexagesimal`` units unless the column says otherwise."""
    unit = _unit(column.unit)
    if column.values.dtype.kind not in "USO":
        return _converted(column, file, u.deg, "angle")
    text = np.char.strip(column.values.astype(str))
    given = ~column.missing & (text != "")
    degrees = np.full(len(text), np.nan)
    # Units such as "h:m:s", which some tables give to text, are none that astropy knows.
    unit = unit if unit is not None and unit.is_equivalent(u.deg) else None
    try:
        try:
            degrees[given] = (text[given].astype(np.float64) * (unit or u.deg)).to_value(u.deg)
        except ValueError:
            degrees[given] = Angle(text[given], unit=unit or sexagesimal).to_value(u.deg)
    except (ValueError, TypeError, u.UnitsError) as error:
        reason = " ".join(str(error).split())
        raise TileError(f"{file}: column {column.name} holds something else than angles ({reason}).") from None
    return degrees


def _converted(column: FileColumn, file: ImageRef, default: u.UnitBase, kind: str) -> Float64:
    """Numbers in the unit ``default``, in which they are taken to be where the column names none."""
    unit = default if not column.unit.strip() else _unit(column.unit)
    if unit is None or not unit.is_equivalent(default):
        raise TileError(f"{file}: column {column.name} is in {column.unit!r}, which is no unit of {kind}.")
    return np.asarray((_numbers(column, file) * unit).to_value(default), dtype=np.float64)


def _unit(text: str) -> u.UnitBase | None:
    try:
        return u.Unit(text) if text.strip() else None
    except ValueError:
        return None


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
    read = next((read for suffixes, read in _FORMATS.items() if file.path.lower().endswith(suffixes)), None)
    path = local_path(file.path)
    if read is None:
        raise TileError(f"{file}: is not a catalogue that can be read; give FITS, ECSV, VOTable, CSV or Parquet.")
    regular_file(path, str(file))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            return read(file, str(path), choose)
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TileError(f"{file}: the catalogue cannot be read ({reason}).") from None


def _read_fits(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    source: str | io.BytesIO = path
    if path.lower().endswith(".gz"):
        # Left to itself, astropy takes the good beginning of a damaged stream for the whole file.
        with gzip.open(path) as stream:
            source = io.BytesIO(b"".join(decompressed(stream, str(file), partial(_bounded, file))))
    else:
        refuse_endless(Path(path), str(file))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", AstropyWarning)
        with fits.open(source, memmap=isinstance(source, str), lazy_load_hdus=False) as hdus:
            if any("truncated" in str(warning.message) for warning in warned):
                raise TileError(f"{file}: the catalogue cannot be read (it is truncated).")
            hdu = _table_of(hdus, file)
            _refuse_rows(file, int(hdu.header["NAXIS2"]))
            return {name: _fits_column(hdu, name) for name in choose(hdu.columns.names)}


def _bounded(file: ImageRef, n_bytes: int) -> None:
    if n_bytes > LARGEST_BYTES:
        raise TileError(f"{file}: the catalogue has {n_bytes:,} bytes, compressed; decompress it, or keep fewer columns.")


def _refuse_rows(file: ImageRef, n_rows: int) -> None:
    if n_rows > LARGEST_ROWS:
        raise TileError(f"{file}: the catalogue has {n_rows:,} rows, more than {LARGEST_ROWS:,}; keep those of this tile.")


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


def _read_ecsv(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    n_bytes = Path(path).stat().st_size
    if n_bytes > LARGEST_ECSV_BYTES:
        raise TileError(f"{file}: the catalogue has {n_bytes:,} bytes of ECSV; write it as FITS or Parquet.")
    return _from_astropy(Table.read(path, format="ascii.ecsv"), choose)


def _read_votable(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    n_bytes = Path(path).stat().st_size
    if n_bytes > LARGEST_ECSV_BYTES:
        raise TileError(f"{file}: the catalogue has {n_bytes:,} bytes of VOTable; write it as FITS or Parquet.")
    return _from_astropy(Table.read(path, format="votable"), choose)


def _from_astropy(table: Table, choose: Chooser) -> dict[str, FileColumn]:
    columns = {}
    for name in choose(table.colnames):
        values = np.ma.asarray(table[name])
        unit = str(table[name].unit or "")
        columns[name] = FileColumn(name, _native(np.asarray(values.data)), np.ma.getmaskarray(values), unit)
    return columns


def _read_csv(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    with pa.csv.open_csv(path) as reader:
        names = choose(reader.schema.names)
    # Arrow would take 03:31:16 for a time of day, and the type of a column from its first rows.
    text = pa.csv.ConvertOptions(
        include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
    )
    batches, n_rows = [], 0
    with pa.csv.open_csv(path, convert_options=text) as reader:
        for batch in reader:
            batches.append(batch)
            n_rows += len(batch)
            _refuse_rows(file, n_rows)
        table = pa.Table.from_batches(batches, reader.schema)
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


def _read_parquet(file: ImageRef, path: str, choose: Chooser) -> dict[str, FileColumn]:
    with pq.ParquetFile(path) as parquet:
        _refuse_rows(file, parquet.metadata.num_rows)
        return _from_arrow(parquet.read(columns=list(choose(parquet.schema_arrow.names))))


#: How a file is read, by the endings of its name.
_FORMATS: dict[tuple[str, ...], Callable[[ImageRef, str, Chooser], dict[str, FileColumn]]] = {
    (".fits", ".fit", ".fits.gz", ".fits.fz"): _read_fits,
    (".ecsv",): _read_ecsv,
    (".vot", ".votable", ".xml"): _read_votable,
    (".csv",): _read_csv,
    (".parquet", ".parq", ".pq"): _read_parquet,
}


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
