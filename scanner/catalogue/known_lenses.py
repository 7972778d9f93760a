"""Lenses that were known before, from a table, and which objects of a catalogue they are."""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import scipy
from astropy.coordinates import Angle
from astropy.table import Column, Table
from astropy.utils.exceptions import AstropyWarning

from scanner.catalogue import columns
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.records import Float64
from scanner.sphere import chord, chord_angle_deg, unit_vectors
from scanner.storage import read_file, split

#: The name that stands for the table of the package lenscat.
LENSCAT = "lenscat"
ALIASES: dict[str, tuple[str, ...]] = {
    "ra": ("RA", "RIGHT_ASCENSION", "RAJ2000", "RA_J2000", "_RAJ2000", "RA_ICRS", "RA_DEG", "RADEG", "ALPHA_J2000"),
    "dec": ("DEC", "DECLINATION", "DEJ2000", "DEC_J2000", "_DEJ2000", "DE_ICRS", "DEC_DEG", "DECDEG", "DELTA_J2000"),
    "name": ("NAME", "LENS_NAME", "OBJECT", "SYSTEM", "ID", "OBJECT_ID"),
    "reference": ("REF", "REFERENCE", "REFERENCES", "BIBCODE", "DISCOVERY"),
}
_FORMATS = {
    ".fits": "fits", ".fit": "fits", ".vot": "votable", ".votable": "votable", ".xml": "votable", ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
}  # fmt: skip
_UNIT_IN_NAME = re.compile(r"\s*[\[(].*[\])]\s*$")
#: Names of columns that a message lists at most.
_SHOWN = 12


@dataclass(frozen=True)
class KnownLenses:
    """A table of N known lenses, by position.

    ``ra, dec`` (N,) float64: degrees, ICRS. ``name``, ``reference``: N texts.
    """

    ra: Float64
    dec: Float64
    name: tuple[str, ...]
    reference: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ra)


class KnownLensMatcher:
    """Finds the nearest known lens of every row.

    Parameters
    ----------
    lenses
        The table; None: nothing is known.
    radius_arcsec
        How far from an object its lens may lie.
    """

    def __init__(self, lenses: KnownLenses | None, radius_arcsec: float) -> None:
        self._radius = chord(radius_arcsec)
        # The last entry is the answer where there is none near.
        self._names = np.asarray([*lenses.name, ""] if lenses else [""], dtype=object)
        self._references = np.asarray([*lenses.reference, ""] if lenses else [""], dtype=object)
        self._tree = scipy.spatial.KDTree(unit_vectors(lenses.ra, lenses.dec)) if lenses else None

    def describe(self, rows: pa.Table) -> pa.Table:
        """Add :data:`~scanner.catalogue.columns.KNOWN_COLUMNS` to rows with ``ra`` and ``dec`` in degrees."""
        distance, nearest = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.int64)
        if self._tree is not None and len(rows):
            vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
            distance, nearest = self._tree.query(vectors, distance_upper_bound=self._radius)
        near = np.isfinite(distance)
        separation = np.full(len(rows), np.nan)
        separation[near] = chord_angle_deg(distance[near]) * 3600
        index = np.where(near, nearest, len(self._names) - 1)
        name, separations, reference = columns.KNOWN_COLUMNS
        for added, values in (
            (name, self._names[index]), (separations, separation), (reference, self._references[index]),
        ):  # fmt: skip
            rows = columns.with_column(rows, added, values)
        return rows


def load_known_lenses(source: str, storage: StorageConfig = StorageConfig()) -> KnownLenses:
    """Read a table of known lenses.

    The table is that of the package ``lenscat`` (Vujeva et al. 2024; ``pip install --no-deps lenscat``), or any FITS, VOTable,
    ECSV or CSV file. Columns are found by the names of :data:`ALIASES`, in upper or lower case, with or without a unit in
    brackets. Positions are ICRS, in degrees unless a unit says otherwise; text such as ``03:31:16.8`` is hours in right
    ascension. Rows without a position are left out; a row without a reference has the table's own name.

    Parameters
    ----------
    source
        ``lenscat``, or the location of a table, a local path or ``s3://…``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        The table is not there, or lenscat is not installed.
    ContentError
        It cannot be read, or holds no positions.
    """
    location = str(_lenscat_table()) if source == LENSCAT else source
    suffix = Path(split(location)[1]).suffix.lower()
    if suffix not in _FORMATS:
        raise ContentError(f"{location}: is no table of known lenses that can be read; give FITS, VOTable, ECSV or CSV.")
    try:
        content = read_file(location, storage)
    except FileNotFoundError:
        raise InputMissingError(f"{location}: the table of known lenses is not there; check its path.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            table = Table.read(io.BytesIO(content), format=_FORMATS[suffix])
    except Exception as error:
        # astropy's readers raise whatever befell them.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ContentError(f"{location}: the table of known lenses cannot be read ({reason}).") from None
    return _lenses(table, location, LENSCAT if source == LENSCAT else split(location)[1])


def _lenscat_table() -> Path:
    # Not imported: what the package depends on weighs hundreds of megabytes, and its table is all that is wanted.
    found = importlib.util.find_spec(LENSCAT)
    if found is None or not found.submodule_search_locations:
        raise InputMissingError(
            "lenscat, the table of known lenses, is not installed; give 'pip install --no-deps lenscat', or name a table."
        )
    return Path(found.submodule_search_locations[0], "data", "catalog.csv")


def _lenses(table: Table, location: str, title: str) -> KnownLenses:
    found = _columns_of_roles(table.colnames)
    missing = [role for role in ("ra", "dec") if role not in found]
    if missing:
        shown = ", ".join(table.colnames[:_SHOWN]) + (" …" if len(table.colnames) > _SHOWN else "")
        raise ContentError(
            f"{location}: no column holds the {' and '.join(missing)} of the lenses; name them ra and dec. Columns: {shown}."
        )
    ra = _degrees(table[found["ra"]], u.hourangle, location)
    dec = _degrees(table[found["dec"]], u.deg, location)
    usable = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    if not usable.any():
        raise ContentError(f"{location}: no row has a position; give a table of known lenses.")
    # Tables that were made of several say "- | one name | another | one name".
    names = [next(iter(_parts(text)), "") for text in _texts(table, found.get("name"))]
    references = [" | ".join(_parts(text)) or title for text in _texts(table, found.get("reference"))]
    # In an order of their own: of two at one place, the table's order must not choose.
    lines = sorted({(float(ra[i]) % 360.0, float(dec[i]), names[i], references[i]) for i in np.flatnonzero(usable)})
    return KnownLenses(
        ra=np.asarray([line[0] for line in lines]),
        dec=np.asarray([line[1] for line in lines]),
        name=tuple(line[2] or f"J{line[0]:.4f}{line[1]:+.4f}" for line in lines),
        reference=tuple(line[3] for line in lines),
    )


def _columns_of_roles(available: Sequence[str]) -> dict[str, str]:
    by_upper: dict[str, str] = {}
    for name in available:
        by_upper.setdefault(_UNIT_IN_NAME.sub("", name).strip().upper().replace(" ", "_"), name)
    return {
        role: next(by_upper[alias] for alias in aliases if alias in by_upper)
        for role, aliases in ALIASES.items()
        if any(alias in by_upper for alias in aliases)
    }


def _degrees(column: Column, sexagesimal: u.UnitBase, location: str) -> Float64:
    """Values in degrees, NaN where masked; text that is no number is in ``sexagesimal`` units."""
    missing = np.ma.getmaskarray(np.ma.asarray(column))
    unit = column.unit if column.unit is not None and column.unit.is_equivalent(u.deg) else u.deg
    values = np.full(len(column), np.nan)
    try:
        if column.dtype.kind not in "USO":
            values[~missing] = (np.asarray(column[~missing], dtype=np.float64) * unit).to_value(u.deg)
            return values
        text = np.char.strip(np.asarray(np.ma.asarray(column).filled(""), dtype=str))
        missing |= text == ""
        try:
            values[~missing] = (text[~missing].astype(np.float64) * unit).to_value(u.deg)
        except ValueError:
            values[~missing] = Angle(text[~missing], unit=sexagesimal).to_value(u.deg)
    except (ValueError, TypeError, u.UnitsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ContentError(f"{location}: column {column.name} holds something else than angles ({reason}).") from None
    return values


def _texts(table: Table, name: str | None) -> list[str]:
    if name is None:
        return [""] * len(table)
    values = np.ma.asarray(table[name])
    missing = np.ma.getmaskarray(values)
    return ["" if gone else _text(value) for value, gone in zip(values.data.tolist(), missing, strict=True)]


def _text(value: object) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()


def _parts(text: str) -> list[str]:
    """What a text joins by bars, each once."""
    return list(dict.fromkeys(part for part in re.split(r"\s*\|\s*", text) if part not in ("", "-")))
