"""Every column of the tables that scanner writes: name, type, unit, meaning, and what stands in it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scanner.records import BANDS, MEMBERS, Band, CutoutBatch, Flag, Float32, MemberName, Scores

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

    Parquet, FITS, VOTable and ECSV files carry unit, description and UCD from here, and so does ``docs/catalogue-columns.md``
    (:func:`markdown`). There are no nulls: what is not known is NaN.

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


@dataclass(frozen=True)
class _Batch:
    """What the columns of a tile's scores are made of."""

    tile_id: str
    cutouts: CutoutBatch
    scores: Scores
    probabilities: Float32


def _member_column(member: MemberName) -> Column:
    name = f"p_{member.lower().replace('-', '_')}"
    return Column(name, "float32", "", f"Lens probability of member {member}", "stat.probability;src.class")


_FURTHER = re.compile(r"p_([a-z][a-z0-9_]*)")


def further_column(name: str) -> Column:
    """The column of the probability of a member beyond the paper's seven."""
    return Column(f"p_{name}", "float32", "", f"Lens probability of member {name}", "stat.probability;src.class")


def further_of(column_names: Iterable[str]) -> tuple[str, ...]:
    """Names of the members beyond the paper's seven whose columns are among these, in alphabetical order."""
    unknown = [name for name in column_names if name not in _REGISTRY]
    return tuple(sorted(found[1] for found in map(_FURTHER.fullmatch, unknown) if found is not None))


def with_further(schema: pa.Schema, members: Sequence[str]) -> pa.Schema:
    """A schema with the columns of further members, in alphabetical order, after those of the paper's seven."""
    if not members:
        return schema
    fields, place = list(schema), schema.get_field_index(MEMBER_COLUMNS[MEMBERS[-1]].name) + 1
    return pa.schema([*fields[:place], *(further_column(name).field() for name in sorted(members)), *fields[place:]])


def _bad_column(band: Band) -> Column:
    what = f"Fraction of bad pixels in the {band} cutout"
    return Column(f"bad_{band.lower()}", "float32", "", what, "stat.filling;instr.pixel")


#: The column of each member's probability.
MEMBER_COLUMNS: dict[MemberName, Column] = {member: _member_column(member) for member in MEMBERS}
BAD_COLUMNS: dict[Band, Column] = {band: _bad_column(band) for band in BANDS}
_FLAG_BITS = ", ".join(f"{flag.value} {str(flag.name).lower().replace('_', ' ')}" for flag in Flag)

_Value = Callable[[_Batch], NDArray[Any] | pa.Array]


def _member_value(index: int) -> _Value:
    return lambda of: of.probabilities[:, index]


def _bad_value(index: int) -> _Value:
    return lambda of: of.cutouts.bad_fraction[:, index]


#: The columns of ``scores.parquet`` in their order, and the values of each.
_SCORES: tuple[tuple[Column, _Value], ...] = (
    (
        Column("target_id", "int64", "", "Id in the input catalogue, else HEALPix index (order 29)", "meta.id;meta.main"),
        lambda of: of.cutouts.targets.target_id,
    ),
    (
        Column("tile_id", "string", "", "Tile that the object was scored in", "meta.id;obs.field"),
        lambda of: pa.repeat(pa.scalar(of.tile_id), len(of.cutouts)),
    ),
    (Column("ra", "float64", "deg", "Right ascension (ICRS)", "pos.eq.ra;meta.main"), lambda of: of.cutouts.targets.ra),
    (Column("dec", "float64", "deg", "Declination (ICRS)", "pos.eq.dec;meta.main"), lambda of: of.cutouts.targets.dec),
    (
        Column("x", "float64", "pixel", "Column in the tile's VIS mosaic, from 0", "pos.cartesian.x;instr.pixel"),
        lambda of: of.cutouts.targets.x,
    ),
    (
        Column("y", "float64", "pixel", "Row in the tile's VIS mosaic, from 0", "pos.cartesian.y;instr.pixel"),
        lambda of: of.cutouts.targets.y,
    ),
    (
        Column("offset_x", "float32", "pixel", "x of the object minus x of the cutout's centre", "pos.cartesian.x;arith.diff"),
        lambda of: of.cutouts.offset[:, 0],
    ),
    (
        Column("offset_y", "float32", "pixel", "y of the object minus y of the cutout's centre", "pos.cartesian.y;arith.diff"),
        lambda of: of.cutouts.offset[:, 1],
    ),
    (
        Column("magnitude_vis", "float32", "mag", "VIS magnitude (AB)", "phot.mag;em.opt"),
        lambda of: of.cutouts.targets.magnitude,
    ),
    *((column, _member_value(index)) for index, column in enumerate(MEMBER_COLUMNS.values())),
    (
        Column("tsne_x", "float32", "", "First coordinate in the t-SNE embedding", "pos.cartesian.x;meta.modelled"),
        lambda of: of.scores.tsne[:, 0],
    ),
    (
        Column("tsne_y", "float32", "", "Second coordinate in the t-SNE embedding", "pos.cartesian.y;meta.modelled"),
        lambda of: of.scores.tsne[:, 1],
    ),
    (
        Column("grid_value", "float32", "", "Lens fraction of the embedding's grid cell", "stat.value;src.class"),
        lambda of: of.scores.grid_value,
    ),
    (Column("cell_count", "int64", "", "Training objects in the grid cell", "meta.number"), lambda of: of.scores.cell_count),
    (
        Column(
            "p_calibrated",
            "float32",
            "",
            "Calibrated lens probability, all that scored it",
            "stat.probability;src.class",
        ),
        lambda of: of.scores.calibrated,
    ),
    (
        Column(
            "is_candidate", "bool", "", "Grid value (without a grid: p_calibrated) at or above the threshold", "meta.code.class"
        ),
        lambda of: of.scores.decision,
    ),
    *((column, _bad_value(index)) for index, column in enumerate(BAD_COLUMNS.values())),
    (
        Column("flags", "int32", "", f"Why to look twice, a sum of: {_FLAG_BITS}", "meta.code.qual"),
        lambda of: (of.cutouts.flags | of.scores.flags).astype(np.int32),
    ),
)
SCORE_COLUMNS: tuple[Column, ...] = tuple(column for column, _ in _SCORES)
HEALPIX_COLUMN = Column("_healpix_29", "int64", "", "HEALPix index of the position, order 29, nested", "pos.healpix")
RANK_COLUMN = Column("rank", "int64", "", "Place among all objects, from 1", "stat.rank")
SYSTEM_COLUMN = Column(
    "system_id",
    "int64",
    "",
    "Rank of the best object of its system (8 arcsec by default); its own if it leads",
    "meta.id.parent",
)
NAME_COLUMN = Column("name", "string", "", "IAU style designation", "meta.id;src")
RUN_COLUMN = Column("run", "string", "", "Run that scored the object: its tile list and fingerprint", "meta.id;meta.dataset")
BUNDLE_COLUMN = Column("bundle", "string", "", "Bundle of networks that scored it: name and version", "meta.id;meta.software")
KNOWN_COLUMNS: tuple[Column, ...] = (
    Column("known_name", "string", "", "Nearest lens that was known before; empty: none near", "meta.id.cross"),
    Column("known_separation", "float32", "arcsec", "Distance to it", "pos.angDistance"),
    Column("known_reference", "string", "", "Paper or table that knows it", "meta.bib"),
)
#: What ``scanner model`` finds out, joined to an object wherever the run has models (:mod:`scanner.modelling`).
MODEL_COLUMNS: tuple[Column, ...] = (
    Column("model_verdict", "string", "", "What the evidence of the lens model says; empty: not modelled", "meta.code.qual"),
    Column("model_status", "string", "", "Whether the lens model converged, or what else is wrong with it", "meta.code.status"),
    Column("theta_e", "float32", "arcsec", "Einstein radius by fit and network: sqrt(ab) of critical curve", "phys.angSize"),
    Column("theta_e_err", "float32", "arcsec", "Error of theta_e, of fit and network together", "stat.error;phys.angSize"),
    Column("mass_q", "float32", "", "Axis ratio of the mass, minor to major", "phys.size.axisRatio"),
    Column("mass_q_err", "float32", "", "Error of mass_q", "stat.error;phys.size.axisRatio"),
    Column("mass_pa", "float32", "deg", "Position angle of the mass's major axis, east of north, 0 to 180", "pos.posAng"),
    Column("shear", "float32", "", "Strength of the external shear", "phys.gravity"),
    Column("shear_pa", "float32", "deg", "Position angle along which it stretches, east of north, 0 to 180", "pos.posAng"),
    Column("mass_within_theta_e", "float32", "arcsec**2", "Mass within theta_e in units of the critical density", "phys.mass"),
    Column(
        "ln_evidence_ratio",
        "float32",
        "",
        "Logarithm of how much better a lens explains the pixels than unlensed galaxies",
        "stat.likelihood",
    ),
    Column("chi2_lens", "float32", "", "Chi squared of the lens model", "stat.fit.chi2"),
    Column("chi2_companions", "float32", "", "Chi squared without a lens", "stat.fit.chi2"),
    Column("n_model_pixels", "float32", "", "Independent pixels that were fitted", "meta.number"),
    Column("n_images", "int32", "", "Images of the brightest source of the model; 0: not modelled", "meta.number"),
    Column("n_sources", "int32", "", "2: a second source of another colour is lensed too; 0: not modelled", "meta.number"),
    Column("model_magnification", "float32", "", "Lensed over unlensed VIS flux of the source", "arith.factor"),
    Column("source_radius", "float32", "arcsec", "Half-light radius of the brightest source, unlensed", "phys.angSize"),
    Column("source_magnitude_vis", "float32", "mag", "VIS magnitude (AB) of the source, unlensed", "phot.mag;em.opt"),
    Column("source_magnitude_y", "float32", "mag", "Y magnitude (AB) of the source, unlensed", "phot.mag;em.IR.NIR"),
    Column("source_magnitude_j", "float32", "mag", "J magnitude (AB) of the source, unlensed", "phot.mag;em.IR.J"),
    Column("source_magnitude_h", "float32", "mag", "H magnitude (AB) of the source, unlensed", "phot.mag;em.IR.H"),
    Column("arc_snr", "float32", "", "S/N of the lensed light, all bands together", "stat.snr"),
    Column("counter_image_snr", "float32", "", "S/N of the second brightest image of the model; 0: there is none", "stat.snr"),
    Column("theta_e_network", "float32", "arcsec", "Einstein radius that a network sees in the image, median", "phys.angSize"),
    Column("theta_e_agreement", "float32", "", "Probability, by it, of a radius within 10 % of theta_e", "stat.probability"),
    Column("p_lens_modelled", "float32", "", "Probability of a lens by networks and lens model together", "stat.probability"),
    Column("model_pattern", "string", "", "Ring or spiral, if such explains most without a lens", "src.morph"),
    Column("model_psf", "string", "", "Where the PSF of VIS is from: image, stars or mean", "instr.det.psf"),
)
#: What stands in a column of an object that was not modelled.
NOT_MODELLED: dict[ColumnType, float | int | str] = {"float32": math.nan, "int32": 0, "string": ""}
#: What names an object. Every order of rows ends with these columns, so that no two are equal and no page depends on its size.
IDENTITY = ("run", "tile_id", "target_id")
#: The end of an order in which, of equal rows, the best comes first.
BEST_OF_EQUALS = (RANK_COLUMN.name, *IDENTITY)
#: A merged catalogue: every object once, with all that is known of it.
CATALOGUE_COLUMNS: tuple[Column, ...] = (
    HEALPIX_COLUMN, RANK_COLUMN, SYSTEM_COLUMN, NAME_COLUMN, *SCORE_COLUMNS, RUN_COLUMN, BUNDLE_COLUMN, *KNOWN_COLUMNS,
)  # fmt: skip

SCORE_SCHEMA: pa.Schema = pa.schema([column.field() for column in SCORE_COLUMNS])
#: What merging begins with: the rows of tiles, and where they are from.
SOURCE_SCHEMA: pa.Schema = pa.schema([*SCORE_SCHEMA, RUN_COLUMN.field(), BUNDLE_COLUMN.field()])
CATALOGUE_SCHEMA: pa.Schema = pa.schema([column.field() for column in CATALOGUE_COLUMNS])
#: The candidate list: the same columns, but the one that only partitioning needs.
CANDIDATE_SCHEMA: pa.Schema = pa.schema([column.field() for column in CATALOGUE_COLUMNS[1:]])
_REGISTRY = {column.name: column for column in (*CATALOGUE_COLUMNS[1:], HEALPIX_COLUMN, *MODEL_COLUMNS)}


def column(name: str) -> Column:
    """Find a column: of the registry, or that of a further member.

    Raises
    ------
    KeyError
        There is none of this name.
    """
    further = further_of([name])
    return further_column(further[0]) if further else _REGISTRY[name]


#: ``tiles.parquet``.
TILE_COLUMNS: tuple[Column, ...] = (
    Column("tile_id", "string", "", "Tile", "meta.id;meta.main"),
    column("run"),
    column("bundle"),
    Column("state", "string", "", "done or failed", "meta.code.status"),
    Column("reason", "string", "", "Why it failed", "meta.note"),
    Column("ra", "float64", "deg", "Right ascension of the centre (ICRS)", "pos.eq.ra;meta.main"),
    Column("dec", "float64", "deg", "Declination of the centre (ICRS)", "pos.eq.dec;meta.main"),
    Column("s_region", "string", "", "Outline of the VIS mosaic (ICRS)", "pos.outline;obs.field"),
    Column("sky_area_deg2", "float64", "deg2", "Sky with good VIS pixels", "pos.angArea"),
    Column("n_targets", "int64", "", "Objects listed in it", "meta.number"),
    Column("n_scored", "int64", "", "Objects that could be scored", "meta.number"),
    Column("n_candidates", "int64", "", "Candidates in it, those that overlapping tiles repeat too", "meta.number"),
    Column("files", "string", "", "Names of its input files by role, as JSON", "meta.file"),
)
TILE_SCHEMA: pa.Schema = pa.schema([column.field() for column in TILE_COLUMNS])
#: ``models.parquet``: a row an object that was modelled.
MODEL_SCHEMA: pa.Schema = pa.schema(
    [
        *(column(name).field() for name in IDENTITY),
        Column("input_fingerprint", "string", "", "Fingerprint of the files of its tile that were fitted", "meta.id").field(),
        *(column.field() for column in MODEL_COLUMNS),
    ]
)


#: A word for each flag, and a sentence that says what it means and, where an option helps, which; in the order of the bits.
FLAG_WORDS: dict[Flag, tuple[str, str]] = {
    Flag.OUTSIDE_MOSAIC: (
        "at the edge",
        "Part of the cutout lies outside a mosaic and was filled with noise before scoring; a smaller "
        "--max-bad-fraction leaves such objects out.",
    ),
    Flag.MASKED_PIXELS: (
        "masked pixels",
        "More than 1% of a band is masked and was filled with noise before scoring; a smaller --max-bad-fraction leaves such "
        "objects out.",
    ),
    Flag.TOO_MANY_BAD_PIXELS: (
        "not scored",
        "More of the cutout is missing than the run allows, so it has no scores; a larger --max-bad-fraction scores it.",
    ),
    Flag.SATURATED: ("bright neighbour", "A very bright source dominates the cutout; the scores may be about it."),
    Flag.EMPTY_CELL: (
        "empty cell",
        "No training object lies in its cell of the grid: the value is the mean of those around.",
    ),
    Flag.UNDEFINED_NEIGHBOURS: ("lonely cell", "The cells around are empty too: the value is that of the nearest filled cell."),
    Flag.OUTSIDE_EMBEDDING: ("off the map", "It lies beyond the box of the training embedding and was moved to its rim."),
    Flag.FAR_FROM_TRAINING: (
        "unlike training",
        "Its seven scores do not go together as those of any training object do: trust no number.",
    ),
    Flag.BANDS_MISSING: (
        "bands missing",
        "A NISP band is not there: the members that do without it scored this object, and the grid has no place for it; "
        "--require-all-bands leaves such objects out.",
    ),
    Flag.SCREENED: (
        "screened out",
        "Far from a lens by members of the screen, so that the others and the grid were not asked; --screen none asks all.",
    ),
    Flag.PADDED: (
        "small stamp",
        "The image is smaller than a cutout: there is noise around it, and sky and sigma are those of its darkest edge; a "
        "larger image, or an RMS map (VIS_RMS=… in the tile list), tells more.",
    ),
    Flag.NOT_RESCORED: (
        "not rescored",
        "Its cutout was not stored when the others were scored again by another bundle: the scores are those of the scan's "
        "bundle, and it is no candidate; scan with --keep all to have every object scored again.",
    ),
}


def flag_words(flags: int) -> tuple[str, ...]:
    """The words of the bits that are set."""
    return tuple(word for flag, (word, _) in FLAG_WORDS.items() if flag in Flag(flags))


def all_columns() -> Sequence[Column]:
    """Every column that any of scanner's tables may have, in the order in which the candidate list shows them."""
    return tuple(_REGISTRY.values())


def score_table(batch: CutoutBatch, scores: Scores, tile_id: str, further: Sequence[str] = ()) -> pa.Table:
    """Rows of ``scores.parquet``.

    Parameters
    ----------
    batch
        The N cutouts of one tile.
    scores
        What the ensemble says of them, in the same order.
    tile_id
        The tile.
    further
        Names of the bundle's members beyond the paper's seven, in its order.

    Returns
    -------
    pyarrow.Table
        N rows of :data:`SCORE_SCHEMA`, with a column more for each further member, in the order of the batch.
    """
    of = _Batch(tile_id, batch, scores, scores.probabilities)
    arrays = [pa.array(value(of), type=_ARROW_TYPES[column.dtype], from_pandas=False) for column, value in _SCORES]
    rows = pa.Table.from_arrays(arrays, schema=SCORE_SCHEMA)
    for number, name in enumerate(further, len(MEMBERS)):
        rows = with_column(rows, further_column(name), of.probabilities[:, number])
    return rows.select(with_further(SCORE_SCHEMA, further).names) if further else rows


def rescored(scan: pa.Table, again: Sequence[pa.Table], further: Sequence[str] = ()) -> pa.Table:
    """A tile's rows as another bundle scores them.

    Parameters
    ----------
    scan
        The rows as they were scanned.
    again
        Rows of :func:`score_table` of those whose cutouts were stored, in any order.
    further
        Names of the other bundle's members beyond the paper's seven.

    Returns
    -------
    pyarrow.Table
        The scan's rows in their order. What was not stored keeps its scores, flagged ``NOT_RESCORED``, and is no candidate;
        it has none of further members.
    """
    schema = with_further(SCORE_SCHEMA, further)
    kept = scan.select(SCORE_SCHEMA.names)
    for name in further:
        kept = with_column(kept, further_column(name), np.full(len(kept), np.nan, np.float32))
    flags = kept["flags"].to_numpy() | np.uint32(Flag.NOT_RESCORED)
    kept = with_column(kept, column("flags"), flags, kept.column_names.index("flags"))
    kept = with_column(kept, column("is_candidate"), np.zeros(len(kept), np.bool_), kept.column_names.index("is_candidate"))
    rows = pa.concat_tables([as_schema(table, schema) for table in (kept, *again)])
    place = {int(target_id): row for row, target_id in enumerate(rows["target_id"].to_numpy())}
    return rows.take(pa.array([place[int(target_id)] for target_id in scan["target_id"].to_numpy()], pa.int64()))


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


def scored(rows: pa.Table) -> NDArray[np.bool_]:
    """Which rows the ensemble scored: those with at least one member's probability, (N,) bool."""
    finite = [np.isfinite(rows[column.name].to_numpy()) for column in MEMBER_COLUMNS.values()]
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


def with_models(rows: pa.Table, models: pa.Table) -> pa.Table:
    """Rows of a catalogue with the columns of their lens models.

    Parameters
    ----------
    rows
        With the columns of :data:`IDENTITY`.
    models
        Of :data:`MODEL_SCHEMA`, in any order; :data:`NOT_MODELLED` stands in the columns of objects that it lacks.
    """
    place = {key: number for number, key in enumerate(_identities(models))}
    found = pa.array([place.get(key) for key in _identities(rows)], pa.int64())
    for one in MODEL_COLUMNS:
        values = models[one.name].take(found).fill_null(NOT_MODELLED[one.dtype])
        rows = rows.append_column(one.field(), values)
    return rows


def _identities(rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in IDENTITY), strict=True)


_INTRODUCTION = """\
# Columns of the tables

Written by `python -m scanner.catalogue.columns docs/catalogue-columns.md` from the registry in
[`scanner/catalogue/columns.py`](../scanner/catalogue/columns.py); do not edit.

| table | columns |
|---|---|
| `tiles/<id>/scores.parquet` | all but `rank`, `name`, `_healpix_29`, `run`, `bundle` and `known_…`; every target of the tile |
| `catalogue/` (HATS Parquet) | all; every object once |
| `candidates.fits`, `.ecsv`, `.vot` | all but `_healpix_29`, [the lens models](#lens-models) too; the best objects |
| `models.parquet` | [the lens models](#lens-models), `run`, `tile_id` and `target_id`; every object that was modelled |
| `tiles.parquet` | [its own](#tilesparquet); every tile of the list |

A run and a survey of many runs have the same tables ([the survey's catalogue](survey-catalogue.md)).

Every file carries units, descriptions and UCDs: Parquet in the metadata of its fields (`unit`, `description`, `ucd`), FITS in
`TUNITn`, `TCOMMn`, `TUCDn`, ECSV and VOTable in their own ways. What is not known is NaN; there are no nulls.

A bundle with [members beyond the paper's seven](own-network.md) adds a column `p_NAME` for each, after `p_ou_200`.
"""


_MODELS = """\
## Lens models

Where a run or a survey has [lens models](lens-models.md), queries, TAP, cone searches, the JSON API, the pages and the
candidate list have these columns too. Of an object that was not modelled they hold NaN, an empty text or 0.
"""


def markdown() -> str:
    """The page ``docs/catalogue-columns.md``."""
    lines = [_INTRODUCTION, "| column | type | unit | meaning | UCD |", "|---|---|---|---|---|"]
    for column in (*CATALOGUE_COLUMNS[1:], HEALPIX_COLUMN):
        meaning = column.description.partition(", a sum of")[0] + (", see below" if column.name == "flags" else "")
        lines.append(f"| `{column.name}` | {column.dtype} | {column.unit} | {meaning} | `{column.ucd}` |")
    lines += ["", *_MODELS.splitlines(), "", "| column | type | unit | meaning | UCD |", "|---|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.dtype} | {one.unit} | {one.description} | `{one.ucd}` |" for one in MODEL_COLUMNS]
    lines += ["", "## tiles.parquet", "", "| column | type | unit | meaning | UCD |", "|---|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.dtype} | {one.unit} | {one.description} | `{one.ucd}` |" for one in TILE_COLUMNS]
    lines += ["", "## Bits of `flags`", "", "| value | name | word | meaning |", "|---|---|---|---|"]
    lines += [f"| {flag.value} | `{flag.name}` | {word} | {meaning} |" for flag, (word, meaning) in FLAG_WORDS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
