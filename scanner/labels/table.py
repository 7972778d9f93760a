"""Labels of a table: its columns, the presets of tables that people have, which values are lenses, and objects listed twice."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from scanner.errors import ContentError, InputMissingError, TileError, UsageError
from scanner.imaging_surveys import USUAL_COLUMNS
from scanner.records import ImageRef, Int64
from scanner.sphere import chord, unit_vectors

# What reads tables, and SciPy, are imported where they are used: names and presets cost nothing before.
if TYPE_CHECKING:
    from scanner.sky.source_catalogue import FileColumn

Role = Literal["ra", "dec", "label", "weight", "file", "id", "grade", "field", "theta_e"]
ROLES: tuple[Role, ...] = get_args(Role)
Purpose = Literal["training", "evaluation"]
#: Names by which the column of a role is found, in upper or lower case; the first that is there.
ALIASES: dict[Role, tuple[str, ...]] = {
    "ra": (*USUAL_COLUMNS["ra"], "_RAJ2000"),
    "dec": (*USUAL_COLUMNS["dec"], "_DEJ2000"),
    "label": ("LABEL", "IS_LENS", "GRADE", "CLASS", "CLASSIFICATION", "LENS", "VERDICT"),
    "weight": ("WEIGHT",),
    "file": ("FILE", "FILENAME", "FILE_NAME", "STAMP_FILE", "CUTOUT", "PATH"),
    "id": ("ID", "ID_STR", *USUAL_COLUMNS["id"][:-1], "SOURCEID", "CANDIDATE_ID", "NAME"),
    "grade": ("GRADE",),
    "field": ("FIELD", "TILE_ID", "TILE_INDEX", "TILEIDX", "TILE"),
    "theta_e": ("THETA_E_ARCSEC", "THETA_E", "EINSTEIN_RADIUS"),
}
#: Values that are lenses, and that are not, where nothing else is said.
LENS_VALUES = ("A", "B", "lens", "1", "true", "yes")
NOT_LENS_VALUES = ("X", "nonlens", "non-lens", "not lens", "other", "0", "false", "no")
#: Two rows this near are one object.
SAME_OBJECT_ARCSEC = 1.0
#: Ids of Euclid's strong-lens catalogue: the tile, then the object, whose minus sign is written NEG.
_EUCLID_ID = re.compile(r"(?P<tile>\d{6,12})_(?:NEG)?\d+")
_UNIT_IN_NAME = re.compile(r"\s*[\[(].*[\])]\s*$")
_COMPARISON = re.compile(r"(?P<sign>>=|<=|>|<)\s*(?P<number>.+)")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}
#: Names of columns, and values, that a message lists at most.
_SHOWN = 12


@dataclass(frozen=True)
class Preset:
    """What is known of tables of one kind.

    ``columns``: by role. ``lens``, ``not_lens``: as of :class:`LabelRule`. ``votes``: the table is of single classifications,
    which are counted (:func:`_read_votes`). ``companion``: a table beside it that says where the files' objects are on the sky.
    """

    description: str
    columns: Mapping[Role, str]
    lens: tuple[str, ...]
    not_lens: tuple[str, ...]
    purpose: Purpose = "training"
    votes: bool = False
    companion: str | None = None


PRESETS: dict[str, Preset] = {
    "slde": Preset(
        "Euclid Q1, Strong Lensing Discovery Engine (Zenodo 15025832): grades of experts, cutouts of VIS, Y, J, H",
        {"ra": "right_ascension", "dec": "declination", "label": "grade", "id": "id_str"},
        lens=("A", "B"),
        not_lens=("X",),
    ),
    "euclid-sage": Preset(
        "EUCLID-SAGE: lenses of Euclid Q1 against one of three sets of non-lenses, stamps of VIS; for evaluation only",
        {
            "ra": "right_ascension",
            "dec": "declination",
            "label": "label",
            "id": "object_id",
            "file": "stamp_file",
            "grade": "grade",
        },
        lens=("1",),
        not_lens=("0",),
        purpose="evaluation",
    ),
    "zooniverse": Preset(
        "Classifications exported from Zooniverse, as of Space Warps: the share of volunteers who marked a lens",
        {},
        lens=(">=0.5",),
        not_lens=("<0.1",),
        votes=True,
    ),
    "anomalymatch": Preset(
        "Labels of AnomalyMatch (labeled_data.csv), with the positions of metadata.csv beside it",
        {"label": "label"},
        lens=("anomaly",),
        not_lens=("normal",),
        companion="metadata.csv",
    ),
}


@dataclass(frozen=True)
class LabelRow:
    """One row of a table.

    ``number``: from 0, the heading not counted. ``label``: as the table has it. ``ra``, ``dec``: degrees. ``weight``: 1 where
    not stated. ``theta_e_arcsec``: Einstein radius. What is not stated is NaN or "".
    """

    number: int
    label: str
    ra: float = math.nan
    dec: float = math.nan
    name: str = ""
    file: str = ""
    field: str = ""
    grade: str = ""
    weight: float = 1.0
    theta_e_arcsec: float = math.nan
    is_lens: bool = False

    @property
    def is_placed(self) -> bool:
        """Whether the table says where it is on the sky."""
        return math.isfinite(self.ra) and math.isfinite(self.dec)


#: Why a row is left out.
Reason = Literal[
    "label not used", "duplicate", "contradiction", "no position", "outside", "masked", "missing file", "unreadable"
]


@dataclass(frozen=True)
class LeftOut:
    """A row that is not in the set, why, and what exactly is the matter."""

    row: LabelRow
    reason: Reason
    detail: str


@dataclass
class LabelTable:
    """Rows that can be used, in the table's order, those that cannot, and the columns that were read, by role."""

    rows: list[LabelRow]
    left_out: list[LeftOut] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelRule:
    """Which values are lenses, and which are not.

    Words, in upper or lower case; numbers; or comparisons such as ``>=0.5``. What neither of the two names is left out.
    """

    lens: tuple[str, ...] = LENS_VALUES
    not_lens: tuple[str, ...] = NOT_LENS_VALUES

    def fitted(self, labels: Iterable[str]) -> LabelRule:
        """The same rule with one number alone taken for a threshold where labels are fractions: at or above it is a lens."""
        if len(self.lens) != 1 or (bound := _number(self.lens[0])) is None:
            return self
        numbers = [number for label in labels if (number := _number(label)) is not None]
        if all(number.is_integer() for number in numbers):
            return self
        below = self.lens if self.not_lens == NOT_LENS_VALUES else self.not_lens
        return LabelRule((f">={bound}",), tuple(f"<{word}" if _number(word) is not None else word for word in below))

    def verdict(self, label: str) -> bool | None:
        """Whether the label is that of a lens; None: it is not used.

        Raises
        ------
        UsageError
            It is both.
        """
        is_lens, is_other = (any(_matches(label, word) for word in words) for words in (self.lens, self.not_lens))
        if is_lens and is_other:
            raise UsageError(f"the label {label!r} is named as --lens and as --not-lens; name it once.")
        return is_lens if is_lens or is_other else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _matches(label: str, word: str) -> bool:
    number = _number(label)
    if comparison := _COMPARISON.fullmatch(word.strip()):
        bound = _number(comparison["number"])
        if bound is None:
            raise UsageError(f"{word!r} compares with no number; write, for example, '>=0.5'.")
        return number is not None and _COMPARE[comparison["sign"]](number, bound)
    wanted = _number(word)
    if number is not None and wanted is not None:
        return number == wanted
    return label.strip().casefold() == word.strip().casefold()


def preset_named(name: str | None) -> Preset | None:
    """A preset by its name.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name is not None and name not in PRESETS:
        raise UsageError(f"there is no preset {name!r} of label tables; there are {', '.join(PRESETS)}.")
    return None if name is None else PRESETS[name]


def read_labels(
    path: Path,
    *,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    lens: Sequence[str] = (),
    not_lens: Sequence[str] = (),
) -> LabelTable:
    """Read a table of labels: CSV, ECSV, FITS, VOTable or Parquet.

    Columns are found by ``columns``, by the preset, then by the names of :data:`ALIASES`. Positions are ICRS, in degrees unless
    a unit says otherwise. Rows whose label is not used, and objects that are listed twice (within 1″, or as one file), are left
    out: of rows that agree the first stays; of rows that contradict each other none does.

    Parameters
    ----------
    path
        The table.
    preset
        One of :data:`PRESETS`.
    columns
        Names of columns by role (:data:`ROLES`), before all else.
    lens, not_lens
        Values, as of :class:`LabelRule`; the preset's, or the usual ones, where none are given.

    Raises
    ------
    InputMissingError
        The table is not there.
    ContentError
        It cannot be read, lacks a column, or none of its labels is used.
    UsageError
        A preset, a role or a value that makes no sense.
    """
    known, given = preset_named(preset), dict(columns or {})
    if unknown := sorted(set(given) - set(ROLES)):
        raise UsageError(f"--columns {unknown[0]}=…: there is no such column to name; there are {', '.join(ROLES)}.")
    if not path.is_file():
        raise InputMissingError(f"{path}: the table of labels is not there; check its path.")
    if known is not None and known.votes:
        found = _read_votes(path)
    else:
        found = _read_table(path, known, preset or "", given)
        if known is not None and known.companion is not None:
            _add_positions(found, path.with_name(known.companion))
    rule = LabelRule(
        tuple(lens) or (known.lens if known else LENS_VALUES), tuple(not_lens) or (known.not_lens if known else NOT_LENS_VALUES)
    ).fitted(row.label for row in found.rows)
    used = _judged(found, rule, path)
    kept, twice = _each_once(used)
    return LabelTable(kept, [*found.left_out, *twice], found.columns)


def _judged(found: LabelTable, rule: LabelRule, path: Path) -> list[LabelRow]:
    """Rows with a verdict; the others are added to those left out."""
    used = []
    for row in found.rows:
        verdict = rule.verdict(row.label)
        if verdict is None:
            what = f"label {row.label!r} is neither of a lens nor of a non-lens" if row.label else "has no label"
            found.left_out.append(LeftOut(row, "label not used", what))
        else:
            used.append(replace(row, is_lens=verdict))
    if not used:
        values = sorted({row.label for row in found.rows if row.label})
        shown = ", ".join(values[:_SHOWN]) + (" …" if len(values) > _SHOWN else "")
        raise ContentError(
            f"{path}: column {found.columns.get('label', 'label')} holds {shown or 'nothing'}, and none of this is a lens "
            f"({', '.join(rule.lens)}) or a non-lens ({', '.join(rule.not_lens)}); name the values with --lens and --not-lens, "
            "or the column with --columns label=NAME."
        )
    return used


def _read_table(path: Path, preset: Preset | None, preset_name: str, given: Mapping[str, str]) -> LabelTable:
    """Read a table with one row an object."""
    names: dict[str, str] = {}
    wanted: dict[str, str] = {**given}
    for role, name in (preset.columns if preset else {}).items():
        wanted.setdefault(role, name)

    def choose(available: Sequence[str]) -> Sequence[str]:
        for role, name in wanted.items():
            if name not in available:
                said = "" if role in given else f" (preset {preset_name})"
                raise ContentError(
                    f"{path}: has no column {name}{said}, which should hold the {role}; name another with "
                    f"--columns {role}=NAME. Columns: {_listed(available)}."
                )
        by_upper: dict[str, str] = {}
        for name in available:
            by_upper.setdefault(_normal(name), name)
        usual: dict[str, str] = {
            role: next(by_upper[alias] for alias in aliases if alias in by_upper)
            for role, aliases in ALIASES.items()
            if any(alias in by_upper for alias in aliases)
        }
        names.update({**usual, **wanted})
        if "label" not in names:
            raise ContentError(
                f"{path}: no column holds labels; name it with --columns label=NAME. Columns: {_listed(available)}."
            )
        if ("ra" in names) != ("dec" in names):
            missing = "dec" if "ra" in names else "ra"
            raise ContentError(
                f"{path}: no column holds the {missing}; name it with --columns {missing}=NAME. Columns: {_listed(available)}."
            )
        return list(dict.fromkeys(names.values()))

    from scanner.sky import source_catalogue

    file = ImageRef(path=str(path))
    try:
        found = source_catalogue.read_columns(file, choose)
        of_role = {role: found[name] for role, name in names.items()}
        n = len(of_role["label"].values)
        ra, dec = np.full((2, n), np.nan)
        if "ra" in of_role:
            ra, dec = source_catalogue.positions(of_role["ra"], of_role["dec"], file)
    except TileError as error:
        raise ContentError(str(error)) from None
    texts = {role: _texts(of_role[role]) if role in of_role else [""] * n for role in ("label", "file", "id", "grade", "field")}
    radii = [_number(text) for text in _texts(of_role["theta_e"])] if "theta_e" in of_role else [None] * n
    weights = [_weight(text, path) for text in _texts(of_role["weight"])] if "weight" in of_role else [1.0] * n
    rows = [
        LabelRow(
            number=i,
            label=texts["label"][i],
            ra=float(ra[i]),
            dec=float(dec[i]),
            name=texts["id"][i],
            file=texts["file"][i],
            field=texts["field"][i] or _tile_of(texts["id"][i]),
            grade=texts["grade"][i],
            weight=weights[i],
            theta_e_arcsec=math.nan if (radius := radii[i]) is None else radius,
        )
        for i in range(n)
    ]
    return LabelTable(rows, columns=names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _normal(name: str) -> str:
    return _UNIT_IN_NAME.sub("", name).strip().lstrip("#!/").upper().replace(" ", "_")


def _tile_of(name: str) -> str:
    """The tile that an id of Euclid's catalogue of lenses begins with."""
    match = _EUCLID_ID.fullmatch(name)
    return match["tile"] if match else ""


def _texts(column: FileColumn) -> list[str]:
    """Values as text; whole numbers without a point, so that 1.0 is 1."""
    return ["" if gone else _text(value) for value, gone in zip(column.values.tolist(), column.missing, strict=True)]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(int(value)) if value.is_integer() else repr(value)
    return str(value).strip()


def _weight(text: str, path: Path) -> float:
    weight = 1.0 if not text else _number(text)
    if weight is None or weight < 0:
        raise ContentError(
            f"{path}: the weight {text!r} is no number of 0 or more; name another column, --columns weight=NAME."
        )
    return weight


def _add_positions(found: LabelTable, companion: Path) -> None:
    """Take positions and ids from a table that names the same files, where it is there."""
    if not companion.is_file():
        return
    where = _read_table(companion, None, "", {"label": found.columns.get("file", "filename")})
    by_file = {row.file: row for row in where.rows if row.file}
    found.rows[:] = [
        replace(row, ra=place.ra, dec=place.dec, name=row.name or place.name) if (place := by_file.get(row.file)) else row
        for row in found.rows
    ]


def _read_votes(path: Path) -> LabelTable:
    """Count the classifications of a Zooniverse export: the label of a subject is the share that marked a lens in it.

    A classification marks a lens where an answer says so (``lens``, ``yes``, ``true``, or a text that begins with one of these)
    or, in a task of marking or drawing, where anything is marked. Position, file and id stand in the subject's metadata, under
    the names of :data:`ALIASES`, perhaps behind a ``#`` or ``!``. ``weight`` is the number of classifications.
    """
    votes: dict[str, list[bool]] = defaultdict(list)
    subjects: dict[str, dict[str, str]] = {}
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := {"annotations", "subject_data"} - set(reader.fieldnames or ()):
                raise ContentError(
                    f"{path}: has no column {' or '.join(sorted(missing))}; export the project's classifications again."
                )
            for line in reader:
                marked = _marks_lens(json.loads(line["annotations"]))
                for subject, data in json.loads(line["subject_data"]).items():
                    votes[subject].append(marked)
                    subjects.setdefault(subject, {_normal(str(key)): _text(value) for key, value in data.items()})
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError, AttributeError) as error:
        raise ContentError(f"{path}: is no export of classifications ({' '.join(str(error).split())[:200]}).") from None
    rows = []
    for number, (subject, marks) in enumerate(votes.items()):
        said = {role: _first(subjects[subject], ALIASES[role]) for role in ROLES}
        ra, dec = (_number(said[role]) for role in ("ra", "dec"))
        rows.append(
            LabelRow(
                number=number,
                label=f"{sum(marks) / len(marks):.6g}",
                ra=math.nan if ra is None or dec is None else ra,
                dec=math.nan if ra is None or dec is None else dec,
                name=said["id"] or subject,
                file=said["file"],
                field=said["field"] or _tile_of(said["id"]),
                weight=float(len(marks)),
            )
        )
    return LabelTable(rows, columns={"label": "annotations"})


def _first(data: Mapping[str, str], names: Iterable[str]) -> str:
    return next((data[name] for name in names if data.get(name)), "")


def _marks_lens(annotations: Iterable[Mapping[str, Any]]) -> bool:
    for annotation in annotations:
        value = annotation.get("value")
        if isinstance(value, list) and value:
            return True
        if isinstance(value, str) and re.match(
            r"(a |possible |probable |definite )?(lens|yes|true)\b", value.strip(), re.IGNORECASE
        ):
            return True
    return False


def same_objects(ra: Sequence[float], dec: Sequence[float], radius_arcsec: float, also: Sequence[str]) -> Int64:
    """Group objects: those within a radius of one another, those of one text, and all who are linked by these.

    Parameters
    ----------
    ra, dec
        Degrees; NaN: nowhere.
    radius_arcsec
        How near two of a group may lie.
    also
        A text each; "": none.

    Returns
    -------
    numpy.ndarray
        (N,) int64, number of the group of each.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    n = len(ra)
    longitude, latitude = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    placed = np.flatnonzero(np.isfinite(longitude) & np.isfinite(latitude))
    links = np.empty((0, 2), dtype=np.int64)
    if len(placed):
        tree = KDTree(unit_vectors(longitude[placed], latitude[placed]))
        links = placed[tree.query_pairs(chord(radius_arcsec), output_type="ndarray")].reshape(-1, 2)
    firsts: dict[str, int] = {}
    named = [(firsts.setdefault(text, i), i) for i, text in enumerate(also) if text]
    links = np.concatenate([links, np.asarray(named, dtype=np.int64).reshape(-1, 2)])
    graph = coo_array((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _each_once(rows: Sequence[LabelRow]) -> tuple[list[LabelRow], list[LeftOut]]:
    """Keep the first row of every object, and none of an object whose rows contradict each other."""
    if not rows:
        return [], []
    also = ["" if row.is_placed else row.file or row.name for row in rows]
    group = same_objects([row.ra for row in rows], [row.dec for row in rows], SAME_OBJECT_ARCSEC, also)
    members: dict[int, list[LabelRow]] = defaultdict(list)
    for row, number in zip(rows, group.tolist(), strict=True):
        members[number].append(row)
    kept, left_out = [], []
    for row, number in zip(rows, group.tolist(), strict=True):
        alike = members[number]
        others = [other for other in alike if other is not row]
        if any(other.is_lens != row.is_lens for other in others):
            said = "; ".join(f"row {other.number}: {other.label}" for other in alike)
            left_out.append(LeftOut(row, "contradiction", f"one object, several verdicts ({said})"))
        elif row is not alike[0]:
            left_out.append(LeftOut(row, "duplicate", f"the object of row {alike[0].number}, which stays"))
        else:
            kept.append(row)
    return kept, left_out
