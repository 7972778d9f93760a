"""Sources of a tile's own catalogue, in which a column may have many names and few meanings.

In: a catalogue file. Out: :class:`Sources`. Columns are found by the names of :data:`ALIASES`, in upper or lower case, the
first that is there:

- position: ``RIGHT_ASCENSION``, ``RA``, ``ALPHA_J2000`` … with ``DECLINATION``, ``DEC``, ``DELTA_J2000`` …; degrees unless a
  unit says otherwise; text such as ``03:31:16.8`` is hours in right ascension and degrees in declination; ICRS;
- id: ``OBJECT_ID``, ``SOURCE_ID``, ``TARGET_ID``, ``ID``, if it is a whole number;
- VIS magnitude (AB): ``MAGNITUDE_VIS``, ``MAG_VIS``, ``MAG_AUTO`` …; else from ``FLUX_DETECTION_TOTAL``, in µJy unless a unit
  says otherwise: m = 23.9 - 2.5 log10(F / µJy). Where ``VIS_DET`` is 0 that flux is of the NISP detection image, and the VIS
  magnitude is unknown;
- area in VIS pixels: ``SEGMENTATION_AREA``, ``AREA``, ``ISOAREA_IMAGE``, ``NPIX``.

Refused (:class:`~scanner.errors.TileError`): unreadable files, no position columns (the message lists what is there), positions
that are not numbers or angles, units that do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import Angle
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.records import Float64, ImageRef, Int64
from scanner.sky.table_file import FileColumn, read_columns

ALIASES: dict[str, tuple[str, ...]] = {
    "ra": ("RIGHT_ASCENSION", "RA", "ALPHA_J2000", "ALPHAWIN_J2000", "RAJ2000", "RA_J2000", "RA_ICRS", "RA_DEG", "RADEG"),
    "dec": ("DECLINATION", "DEC", "DELTA_J2000", "DELTAWIN_J2000", "DEJ2000", "DEC_J2000", "DE_ICRS", "DEC_DEG", "DECDEG"),
    "id": ("OBJECT_ID", "SOURCE_ID", "TARGET_ID", "ID"),
    "magnitude": ("MAGNITUDE_VIS", "MAG_VIS", "VIS_MAG", "MAG_AUTO", "MAGNITUDE", "MAG"),
    "flux": ("FLUX_DETECTION_TOTAL",),
    "detected": ("VIS_DET",),
    "area": ("SEGMENTATION_AREA", "AREA", "ISOAREA_IMAGE", "NPIX"),
}
#: AB magnitude of 1 µJy.
MICROJANSKY_ZERO_POINT = 23.9
#: Names of columns that a message lists at most.
_SHOWN = 12


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


def read(file: ImageRef) -> Sources:
    """Read a catalogue.

    Raises
    ------
    TileError
        See the module's docstring.
    """
    names: dict[str, str] = {}

    def choose(available: Sequence[str]) -> Sequence[str]:
        names.update(_names_of_roles(available))
        missing = [role for role in ("ra", "dec") if role not in names]
        if missing:
            shown = ", ".join(available[:_SHOWN]) + (" …" if len(available) > _SHOWN else "")
            raise TileError(
                f"{file}: no column holds the {' and '.join(missing)}; name them RIGHT_ASCENSION and DECLINATION "
                f"(or ra and dec). Columns found: {shown or 'none'}."
            )
        return list(names.values())

    columns = read_columns(file, choose)
    found = {role: columns[name] for role, name in names.items()}
    ra, dec = _angle(found["ra"], file, u.hourangle), _angle(found["dec"], file, u.deg)
    usable = np.isfinite(ra) & (np.abs(dec) <= 90.0)
    return Sources(
        ra=np.where(usable, ra, np.nan) % 360.0,
        dec=np.where(usable, dec, np.nan),
        target_id=_ids(found.get("id")),
        magnitude=_magnitude(found, file),
        area=_numbers(found["area"], file) if "area" in found else None,
    )


def _names_of_roles(available: Sequence[str]) -> dict[str, str]:
    """The file's own name of each column that has a role."""
    by_upper: dict[str, str] = {}
    for name in available:
        by_upper.setdefault(name.upper(), name)
    return {
        role: next(by_upper[alias] for alias in aliases if alias in by_upper)
        for role, aliases in ALIASES.items()
        if any(alias in by_upper for alias in aliases)
    }


def _numbers(column: FileColumn, file: ImageRef) -> Float64:
    try:
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


def _ids(column: FileColumn | None) -> Int64 | None:
    if column is None or column.values.dtype.kind not in "iu" or column.missing.any():
        return None
    if column.values.dtype.kind == "u" and (column.values > np.iinfo(np.int64).max).any():
        return None
    return column.values.astype(np.int64)


def _magnitude(found: dict[str, FileColumn], file: ImageRef) -> Float64 | None:
    if "magnitude" in found:
        return _numbers(found["magnitude"], file)
    if "flux" not in found:
        return None
    flux = _converted(found["flux"], file, u.uJy, "flux density")
    known: NDArray[np.bool_] = flux > 0
    if "detected" in found:
        known &= _numbers(found["detected"], file) != 0
    magnitude = np.full(len(flux), np.nan)
    magnitude[known] = MICROJANSKY_ZERO_POINT - 2.5 * np.log10(flux[known])
    return magnitude


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
