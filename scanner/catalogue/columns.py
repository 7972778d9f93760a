"""Every column of the tables that scanner writes: name, type, unit, meaning.

In: the cutouts and scores of a batch. Out: its rows as a :class:`pyarrow.Table`, whose schema carries unit, description and UCD
of every column (metadata ``unit``, ``description``, ``ucd`` of the Parquet field). The one registry, :data:`SCORE_COLUMNS` with
the columns that ranking and partitioning add, also makes the headers of the exports and ``docs/catalogue-columns.md``. Refused:
unknown column names.

There are no nulls: what is not known is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scanner.records import BANDS, MEMBERS, CutoutBatch, Flag, MemberName, Scores

ColumnType = Literal["bool", "int32", "int64", "float32", "float64", "string"]

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
}


@dataclass(frozen=True)
class Column:
    """One column.

    ``unit`` is written as FITS, VOUnit and astropy all read it, and empty for pure numbers. ``ucd`` is of the UCD1+ vocabulary.
    """

    name: str
    dtype: ColumnType
    unit: str
    description: str
    ucd: str

    def field(self) -> pa.Field:
        """The Parquet field, with its metadata."""
        metadata = {"unit": self.unit, "description": self.description, "ucd": self.ucd}
        return pa.field(self.name, _ARROW_TYPES[self.dtype], nullable=False, metadata=metadata)


def _member_column(member: MemberName) -> Column:
    name = f"p_{member.lower().replace('-', '_')}"
    return Column(name, "float32", "", f"Lens probability of member {member}", "stat.probability;src.class")


MEMBER_COLUMNS: tuple[Column, ...] = tuple(_member_column(member) for member in MEMBERS)
BAD_COLUMNS: tuple[Column, ...] = tuple(
    Column(f"bad_{band.lower()}", "float32", "", f"Fraction of bad pixels in the {band} cutout", "stat.filling;instr.pixel")
    for band in BANDS
)
_FLAG_BITS = ", ".join(f"{flag.value} {str(flag.name).lower().replace('_', ' ')}" for flag in Flag)

SCORE_COLUMNS: tuple[Column, ...] = (
    Column("target_id", "int64", "", "Id in the input catalogue, else HEALPix index (order 29)", "meta.id;meta.main"),
    Column("tile_id", "string", "", "Tile that the object was scored in", "meta.id;obs.field"),
    Column("ra", "float64", "deg", "Right ascension (ICRS)", "pos.eq.ra;meta.main"),
    Column("dec", "float64", "deg", "Declination (ICRS)", "pos.eq.dec;meta.main"),
    Column("x", "float64", "pixel", "Column in the tile's VIS mosaic, from 0", "pos.cartesian.x;instr.pixel"),
    Column("y", "float64", "pixel", "Row in the tile's VIS mosaic, from 0", "pos.cartesian.y;instr.pixel"),
    Column("offset_x", "float32", "pixel", "x of the object minus x of the cutout's centre", "pos.cartesian.x;arith.diff"),
    Column("offset_y", "float32", "pixel", "y of the object minus y of the cutout's centre", "pos.cartesian.y;arith.diff"),
    Column("magnitude_vis", "float32", "mag", "VIS magnitude (AB)", "phot.mag;em.opt"),
    *MEMBER_COLUMNS,
    Column("tsne_x", "float32", "", "First coordinate in the t-SNE embedding", "pos.cartesian.x;meta.modelled"),
    Column("tsne_y", "float32", "", "Second coordinate in the t-SNE embedding", "pos.cartesian.y;meta.modelled"),
    Column("grid_value", "float32", "", "Lens fraction of the embedding's grid cell", "stat.value;src.class"),
    Column("cell_count", "int64", "", "Training objects in the grid cell", "meta.number"),
    Column("p_calibrated", "float32", "", "Calibrated lens probability, all members", "stat.probability;src.class"),
    Column(
        "is_candidate", "bool", "", "Grid value (without a grid: p_calibrated) at or above the threshold", "meta.code.class"
    ),
    *BAD_COLUMNS,
    Column("flags", "int32", "", f"Why to look twice, a sum of: {_FLAG_BITS}", "meta.code.qual"),
)
HEALPIX_COLUMN = Column("_healpix_29", "int64", "", "HEALPix index of the position, order 29, nested", "pos.healpix")
RANK_COLUMN = Column("rank", "int64", "", "Place among all objects, from 1", "stat.rank")
NAME_COLUMN = Column("name", "string", "", "IAU style designation", "meta.id;src")
RUN_COLUMN = Column("run", "string", "", "Run that scored the object: its tile list and fingerprint", "meta.id;meta.dataset")
BUNDLE_COLUMN = Column("bundle", "string", "", "Bundle of networks that scored it: name and version", "meta.id;meta.software")
KNOWN_COLUMNS: tuple[Column, ...] = (
    Column("known_name", "string", "", "Nearest lens that was known before; empty: none near", "meta.id.cross"),
    Column("known_separation", "float32", "arcsec", "Distance to it", "pos.angDistance"),
    Column("known_reference", "string", "", "Paper or table that knows it", "meta.bib"),
)
#: What names an object. Every order of rows ends with these columns, so that no two are equal and no page depends on its size.
IDENTITY = ("run", "tile_id", "target_id")
#: The end of an order in which, of equal rows, the best comes first.
BEST_OF_EQUALS = (RANK_COLUMN.name, *IDENTITY)
#: A merged catalogue: every object once, with all that is known of it.
CATALOGUE_COLUMNS: tuple[Column, ...] = (
    HEALPIX_COLUMN, RANK_COLUMN, NAME_COLUMN, *SCORE_COLUMNS, RUN_COLUMN, BUNDLE_COLUMN, *KNOWN_COLUMNS,
)  # fmt: skip

SCORE_SCHEMA: pa.Schema = pa.schema([column.field() for column in SCORE_COLUMNS])
#: What merging begins with: the rows of tiles, and where they are from.
SOURCE_SCHEMA: pa.Schema = pa.schema([*SCORE_SCHEMA, RUN_COLUMN.field(), BUNDLE_COLUMN.field()])
CATALOGUE_SCHEMA: pa.Schema = pa.schema([column.field() for column in CATALOGUE_COLUMNS])
#: The candidate list: the same columns, but the one that only partitioning needs.
CANDIDATE_SCHEMA: pa.Schema = pa.schema([column.field() for column in CATALOGUE_COLUMNS[1:]])
_REGISTRY = {column.name: column for column in (*CATALOGUE_COLUMNS[1:], HEALPIX_COLUMN)}


def column(name: str) -> Column:
    """Find a column in the registry.

    Raises
    ------
    KeyError
        There is none of this name.
    """
    return _REGISTRY[name]


def all_columns() -> Sequence[Column]:
    """Every column that any of scanner's tables may have, in the order in which the candidate list shows them."""
    return tuple(_REGISTRY.values())


def table(batch: CutoutBatch, scores: Scores, tile_id: str) -> pa.Table:
    """Rows of ``scores.parquet``.

    Parameters
    ----------
    batch
        The N cutouts of one tile.
    scores
        What the ensemble says of them, in the same order.
    tile_id
        The tile.

    Returns
    -------
    pyarrow.Table
        N rows of :data:`SCORE_SCHEMA`, in the order of the batch.
    """
    probabilities = scores.probabilities
    values: dict[str, NDArray[Any] | pa.Array] = {
        "target_id": batch.targets.target_id,
        "tile_id": pa.repeat(pa.scalar(tile_id), len(batch)),
        "ra": batch.targets.ra,
        "dec": batch.targets.dec,
        "x": batch.targets.x,
        "y": batch.targets.y,
        "offset_x": batch.offset[:, 0],
        "offset_y": batch.offset[:, 1],
        "magnitude_vis": batch.targets.magnitude,
        "tsne_x": scores.tsne[:, 0],
        "tsne_y": scores.tsne[:, 1],
        "grid_value": scores.grid_value,
        "cell_count": scores.cell_count,
        "p_calibrated": scores.calibrated,
        "is_candidate": scores.decision,
        "flags": (batch.flags | scores.flags).astype(np.int32),
    }
    values |= {member.name: probabilities[:, i] for i, member in enumerate(MEMBER_COLUMNS)}
    values |= {bad.name: batch.bad_fraction[:, i] for i, bad in enumerate(BAD_COLUMNS)}
    arrays = [pa.array(values[field.name], type=field.type, from_pandas=False) for field in SCORE_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCORE_SCHEMA)


def as_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema, in its order and with its metadata, in one piece.

    Raises
    ------
    KeyError
        One is missing.
    """
    arrays = [rows[field.name].combine_chunks().cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema).combine_chunks()


def with_source(rows: pa.Table, run: str, bundle: str) -> pa.Table:
    """Rows of :data:`SCORE_SCHEMA` as those of :data:`SOURCE_SCHEMA`: all of one run and bundle."""
    for added, value in ((RUN_COLUMN, run), (BUNDLE_COLUMN, bundle)):
        rows = rows.append_column(added.field(), pa.repeat(pa.scalar(value), len(rows)))
    return rows


def empty_table() -> pa.Table:
    """The table of a tile without targets: :data:`SCORE_SCHEMA` and no rows."""
    return SCORE_SCHEMA.empty_table()


def scored(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows the ensemble scored: those with at least one member's probability, (N,) bool."""
    finite = [np.isfinite(rows[member.name].to_numpy()) for member in MEMBER_COLUMNS]
    return np.asarray(np.any(finite, axis=0), dtype=np.bool_)


def with_column(rows: pa.Table, added: Column, values: NDArray[Any] | Sequence[Any], position: int | None = None) -> pa.Table:
    """Add a column of the registry, or replace it where it is there already.

    Parameters
    ----------
    rows
        The table, N rows.
    added
        The column.
    values
        Its N values.
    position
        Where it goes, from 0; last by default.
    """
    if added.name in rows.column_names:
        rows = rows.drop_columns([added.name])
    array = pa.array(values, type=_ARROW_TYPES[added.dtype], from_pandas=False)
    return rows.add_column(rows.num_columns if position is None else position, added.field(), array)
