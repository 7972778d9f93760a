"""Grades in one SQLite file: an append-only history that many threads and processes may share, and the grades that stand."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from scanner.catalogue.columns import MEMBER_COLUMNS, MODEL_COLUMNS, RANK_COLUMN, SYSTEM_COLUMN, further_of
from scanner.config import DUPLICATE_RADIUS_ARCSEC, SAME_ID_RADIUS_ARCSEC
from scanner.errors import ContentError, InputMissingError, OutputError, ScannerError, UnavailableError, UsageError
from scanner.grading.grade import GRADES, Entry, Grade, NewGrade, Place, Tag, Viewer, checked_comment, grader_name
from scanner.records import Flag
from scanner.sphere import chord, unit_vectors

#: How long a writer waits for its turn, in seconds.
BUSY_S = 20.0
#: Tells a file of grades from other SQLite files: "grad".
APPLICATION_ID = 0x67726164
_FIRST_LAYOUT = f"""
-- What was graded, at the position of the row that was graded first.
CREATE TABLE objects (object INTEGER PRIMARY KEY, ra REAL NOT NULL, dec REAL NOT NULL);
CREATE INDEX objects_by_dec ON objects (dec);

-- Rows of catalogues that stood for an object when it was graded.
CREATE TABLE sightings (
    candidate_id TEXT PRIMARY KEY,
    object INTEGER NOT NULL REFERENCES objects,
    name TEXT NOT NULL, ra REAL NOT NULL, dec REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sightings_by_object ON sightings (object);

-- The history. An entry is a grade, or takes an earlier one back.
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    object INTEGER NOT NULL REFERENCES objects,
    candidate_id TEXT NOT NULL REFERENCES sightings,
    grader TEXT NOT NULL,
    grade TEXT CHECK (grade IN ({", ".join(repr(grade) for grade in GRADES)})),
    comment TEXT NOT NULL,
    given TEXT NOT NULL,
    catalogue TEXT NOT NULL,
    blind INTEGER NOT NULL CHECK (blind IN (0, 1)),
    undoes INTEGER REFERENCES entries,
    CHECK ((grade IS NULL) = (undoes IS NOT NULL))
);
CREATE INDEX entries_by_object ON entries (object, grader);
-- Of these only: an index of all would be taken for "undoes IS NULL", which nearly every entry is.
CREATE UNIQUE INDEX entries_undone ON entries (undoes) WHERE undoes IS NOT NULL;
"""
_CAMPAIGNS = """
-- Painted into a copy of the sky: no other row stands for it, and no table of labels has it.
ALTER TABLE objects ADD COLUMN salted INTEGER NOT NULL DEFAULT 0;

CREATE TABLE campaigns (campaign INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, plan TEXT NOT NULL, made TEXT NOT NULL);

-- What a campaign has graded, in this order; known: whether it is a lens, where that was known before.
CREATE TABLE subjects (
    subject INTEGER PRIMARY KEY,
    campaign INTEGER NOT NULL REFERENCES campaigns,
    candidate_id TEXT NOT NULL, name TEXT NOT NULL, ra REAL NOT NULL, dec REAL NOT NULL,
    known INTEGER, salted INTEGER NOT NULL, place INTEGER NOT NULL,
    UNIQUE (campaign, candidate_id)
);
CREATE INDEX subjects_in_order ON subjects (campaign, place);

CREATE TABLE campaign_states (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    campaign INTEGER NOT NULL REFERENCES campaigns,
    state TEXT NOT NULL, given TEXT NOT NULL
);

-- A subject in the hands of a grader, by the name that the grader knows it by; until: seconds since 1970.
CREATE TABLE handouts (
    handout TEXT PRIMARY KEY,
    subject INTEGER NOT NULL REFERENCES subjects,
    grader TEXT NOT NULL,
    until REAL NOT NULL,
    UNIQUE (subject, grader)
);

ALTER TABLE entries ADD COLUMN tags TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN key TEXT;
ALTER TABLE entries ADD COLUMN handout TEXT REFERENCES handouts;
CREATE UNIQUE INDEX entries_by_key ON entries (key) WHERE key IS NOT NULL;
CREATE INDEX entries_by_handout ON entries (handout) WHERE handout IS NOT NULL;
"""
#: What each layout adds to the one before, and its tables whose rows never change.
_LAYOUTS = (
    (_FIRST_LAYOUT, ("objects", "sightings", "entries")),
    (_CAMPAIGNS, ("campaigns", "subjects", "campaign_states")),
)
_FIELDS = tuple(Entry.model_fields)
_COLUMNS = ", ".join(_FIELDS)
_OF_OBJECT = "AND object = ?"
_OF_GRADER = "AND object = ? AND grader = ?"
_ON_THE_SKY = "AND object NOT IN (SELECT object FROM objects WHERE salted)"


class GradeStore:
    """The grades in one SQLite file, which is made when the first is given.

    A grader who thinks again gives another grade. Taking a grade back is an entry too, after which the grader's grade before it
    stands. Any number of threads and processes may use one file; every call opens it for itself.

    Parameters
    ----------
    path
        The file, on a local disk: network file systems do not share the memory that the write-ahead log needs.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See :func:`connection`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reading(self.path):
            pass

    @classmethod
    def existing(cls, path: str | Path) -> GradeStore:
        """Open a file that must be there.

        Raises
        ------
        InputMissingError
            It is not.
        """
        if not Path(path).is_file():
            raise InputMissingError(f"{path}: no such file of grades; give the one that 'scanner serve' writes.")
        return cls(path)

    def give(
        self,
        place: Place,
        grader: str,
        grade: Grade,
        comment: str = "",
        *,
        tags: Sequence[Tag] = (),
        catalogue: str = "",
        blind: bool = False,
        key: str | None = None,
    ) -> Entry:
        """Add a grade; it takes the place of the grader's earlier one of the same object, which stays in the history.

        Parameters
        ----------
        place
            The row that was graded.
        grader, grade, comment
            Who says what of it; the comment is text, whatever it looks like.
        catalogue
            Collection and version that the grader saw.
        blind
            Whether scores and others' grades are withheld from those who have not graded; recorded for first grades only.
        tags
            What the grader saw.
        key
            What was kept under it before, by the same grader, is returned and not kept again.

        Raises
        ------
        UsageError
            The name or comment is refused.
        """
        said = NewGrade(grade=grade, comment=checked_comment(comment), tags=tuple(tags), key=key)
        name = grader_name(grader)
        with writing(self.path) as opened:
            return add_grade(opened, place, name, said, catalogue=catalogue, blind=blind)

    def undo(self, place: Place, grader: str, *, catalogue: str = "") -> Entry:
        """Take a grader's grade of an object back; the one before it stands again, if there was one.

        Raises
        ------
        UsageError
            No grade of this grader stands.
        """
        with writing(self.path) as opened:
            number = object_of(place, opened)
            last = next(_entries(opened.execute(_standing(_OF_GRADER), (number, grader))), None)
            if last is None:
                raise UsageError(f"{grader} has no grade of {place.candidate_id} that could be taken back.")
            return _append(
                opened,
                object=number,
                candidate_id=last.candidate_id,
                grader=grader,
                comment="",
                catalogue=catalogue,
                blind=False,
                undoes=last.number,
            )

    def history(self, place: Place) -> tuple[Entry, ...]:
        """Everything that was said of the object that a row stands for, oldest first."""
        with reading(self.path) as opened:
            found = opened.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE object = ? ORDER BY number", (object_of(place, opened),)
            )
            return tuple(_entries(found))

    def standing(self, *, salted: bool = False) -> tuple[Entry, ...]:
        """The last grade of each grader for each object that was not taken back, by object and grader.

        ``salted``: those of painted objects too, which tell of graders and of nothing on the sky.
        """
        with reading(self.path) as opened:
            return tuple(_entries(opened.execute(_standing("" if salted else _ON_THE_SKY))))

    def standing_of(self, place: Place) -> tuple[Entry, ...]:
        """The grades that stand of the object that a row stands for, by grader."""
        with reading(self.path) as opened:
            return tuple(_entries(opened.execute(_standing(_OF_OBJECT), (object_of(place, opened),))))

    def grades_of(self, grader: str, places: Iterable[Place]) -> Mapping[str, Grade]:
        """The grades of one grader that stand for some rows, by ``candidate_id``; rows without one are left out."""
        with reading(self.path) as opened:
            found: dict[str, Grade] = {}
            for place in _near_what_is_graded(list(places), grader, opened):
                number = object_of(place, opened)
                for entry in _entries(opened.execute(_standing(_OF_GRADER), (number, grader))):
                    if entry.grade is not None:
                        found[place.candidate_id] = entry.grade
            return found

    def places(self) -> Mapping[int, tuple[Place, ...]]:
        """The rows that were graded, by object; the last graded first."""
        with reading(self.path) as opened:
            rows = opened.execute(
                "SELECT object, candidate_id, name, ra, dec FROM sightings"
                " JOIN (SELECT candidate_id, max(number) AS last FROM entries GROUP BY candidate_id) USING (candidate_id)"
                " ORDER BY object, last DESC"
            )
            found: dict[int, tuple[Place, ...]] = {}
            for number, *values in rows:
                found[number] = (*found.get(number, ()), Place(*values))
            return found


def _near_what_is_graded(places: list[Place], grader: str, opened: sqlite3.Connection) -> list[Place]:
    """Those of some rows that may stand for what a grader has graded: the others need not be looked up one by one."""
    mine = "object IN (SELECT object FROM entries WHERE grader = ?)"
    positions = opened.execute(f"SELECT ra, dec FROM objects WHERE {mine}", (grader,)).fetchall()
    if not positions or not places:
        return []
    ids = {row[0] for row in opened.execute(f"SELECT candidate_id FROM sightings WHERE {mine}", (grader,))}
    graded, given = (
        unit_vectors(*np.array(pairs, dtype=np.float64).T) for pairs in (positions, [(place.ra, place.dec) for place in places])
    )
    reach = chord(SAME_ID_RADIUS_ARCSEC) * (1 + 1e-6)
    near = np.isfinite(KDTree(graded).query(given, distance_upper_bound=reach)[0])
    return [place for place, is_near in zip(places, near, strict=True) if is_near or place.candidate_id in ids]


def _standing(condition: str = "") -> str:
    """The grades that stand: the last of each grader for each object that was not taken back.

    SQLite takes the other columns of a group from the row that ``max`` chose.
    """
    others = ", ".join(_FIELDS[1:])
    taken_back = "SELECT 1 FROM entries AS later WHERE later.undoes = entry.number"
    return (
        f"SELECT max(number) AS number, {others} FROM entries AS entry"
        f" WHERE undoes IS NULL AND NOT EXISTS ({taken_back}) {condition} GROUP BY object, grader"
    )


def add_grade(
    opened: sqlite3.Connection,
    place: Place,
    grader: str,
    said: NewGrade,
    *,
    catalogue: str = "",
    blind: bool = False,
    handout: str | None = None,
) -> Entry:
    """Add a grade, as :meth:`GradeStore.give`, within a transaction; ``handout``: of a campaign, that it answers."""
    if said.key is not None:
        wanted = f"SELECT {_COLUMNS} FROM entries WHERE key = ? AND grader = ?"
        for before in _entries(opened.execute(wanted, (said.key, grader))):
            return before
    number = object_of(place, opened)
    if number is None:
        number = opened.execute("INSERT INTO objects (ra, dec) VALUES (?, ?)", (place.ra, place.dec)).lastrowid
    opened.execute(
        "INSERT INTO sightings VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (place.candidate_id, number, place.name, place.ra, place.dec),
    )
    # Who has graded it once has seen all there is to see.
    unseen = opened.execute("SELECT NOT EXISTS (SELECT 1 FROM entries WHERE object = ? AND grader = ?)", (number, grader))
    return _append(
        opened,
        object=number,
        candidate_id=place.candidate_id,
        grader=grader,
        grade=said.grade,
        comment=checked_comment(said.comment),
        catalogue=catalogue,
        blind=blind and bool(unseen.fetchone()[0]),
        tags=" ".join(dict.fromkeys(said.tags)),
        key=said.key,
        handout=handout,
    )


def _append(opened: sqlite3.Connection, **values: object) -> Entry:
    values["given"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    sql = f"INSERT INTO entries ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
    number = opened.execute(sql, tuple(values.values())).lastrowid
    return next(_entries(opened.execute(f"SELECT {_COLUMNS} FROM entries WHERE number = ?", (number,))))


def _entries(rows: Iterable[Sequence[object]]) -> Iterator[Entry]:
    for row in rows:
        yield Entry.model_validate(dict(zip(_FIELDS, row, strict=True)))


def object_of(place: Place, opened: sqlite3.Connection) -> int | None:
    """The object that a row stands for, which may be of another catalogue than that which was graded; None: none was graded.

    The rule is that of :mod:`scanner.catalogue.merge`, since a merge may replace a row that was graded by another tile's.
    A row stands for the object that was graded under its ``candidate_id``; otherwise for a graded object within the duplicate
    radius, or within the larger one where a row graded as that object has its ``target_id``. One with its ``target_id`` goes
    first, then the nearest, then the first graded. Rows of one tile of one run are never the same object. The answer is stored
    with the first grade that is given under a ``candidate_id``, so it never changes.
    """
    known = opened.execute("SELECT object FROM sightings WHERE candidate_id = ?", (place.candidate_id,)).fetchone()
    if known is not None:
        return int(known[0])
    reach = SAME_ID_RADIUS_ARCSEC / 3600.0 * (1 + 1e-6)
    near = opened.execute(
        "SELECT object, ra, dec FROM objects WHERE dec BETWEEN ? AND ? AND NOT salted", (place.dec - reach, place.dec + reach)
    ).fetchall()
    if not near:
        return None
    ra, dec = np.array([row[1:] for row in near], dtype=np.float64).T
    here = unit_vectors(np.array([place.ra]), np.array([place.dec]))
    distance = np.linalg.norm(unit_vectors(ra, dec) - here, axis=1)
    found: list[tuple[bool, float, int]] = []
    for index in np.flatnonzero(distance <= chord(SAME_ID_RADIUS_ARCSEC)):
        number = int(near[index][0])
        ids = [row[0] for row in opened.execute("SELECT candidate_id FROM sightings WHERE object = ?", (number,))]
        if any(other.startswith(place.tile) for other in ids):
            continue
        same_id = any(other.rpartition("/")[2] == place.target_id for other in ids)
        if same_id or distance[index] <= chord(DUPLICATE_RADIUS_ARCSEC):
            found.append((not same_id, float(distance[index]), number))
    return min(found)[2] if found else None


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that alone may write; the file and its tables are made if need be, even by several processes at once.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See :func:`connection`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.of(path, error) from None
    with connection(path) as opened:
        if not _layout(opened, path):
            _to_write_ahead(opened)
        with transaction(opened):
            _bring_up_to_date(opened, _layout(opened, path))
            yield opened


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose statements all see one state of the file; empty tables where nobody has written yet.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See :func:`connection`.
    """
    if path.exists():
        with connection(path) as opened:
            layout = _layout(opened, path)
            if 0 < layout < len(_LAYOUTS):
                with transaction(opened):
                    _bring_up_to_date(opened, _layout(opened, path))
            opened.execute("BEGIN")
            if layout:
                yield opened
                return
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as nothing:
        _bring_up_to_date(nothing, 0)
        yield nothing


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed at the end; SQLite's errors become one sentence.

    Raises
    ------
    ContentError
        The file is something else, or damaged.
    OutputError
        It cannot be written.
    UnavailableError
        It stays locked for :data:`BUSY_S`.
    """
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as opened:
            opened.execute("PRAGMA foreign_keys = ON")
            # With a write-ahead log, every commit reaches the disk only so.
            opened.execute("PRAGMA synchronous = FULL")
            yield opened
    except sqlite3.Error as error:
        raise _sentence(path, error) from None


@contextmanager
def transaction(opened: sqlite3.Connection) -> Iterator[None]:
    """Hold the right to write from the first statement on, so that nobody changes what the block reads."""
    opened.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        opened.execute("ROLLBACK")
        raise
    opened.execute("COMMIT")


def _layout(opened: sqlite3.Connection, path: Path) -> int:
    """Which of the layouts the file has; 0: nobody has written to it yet."""
    # One statement: between two, another process may make the tables.
    version, application, n_tables = opened.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if (version, application, n_tables) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        raise ContentError(f"{path}: not a file of grades; name another file.")
    if not 0 < version <= len(_LAYOUTS):
        raise ContentError(f"{path}: made by another version of scanner (layout {version}); update scanner.")
    return int(version)


def _bring_up_to_date(opened: sqlite3.Connection, layout: int) -> None:
    """Add what later layouts have; what is in the file stays as it is."""
    refusal = "SELECT RAISE(ABORT, 'the history of grades is append-only')"
    for definitions, tables in _LAYOUTS[layout:]:
        for statement in definitions.split(";\n"):
            opened.execute(statement)
        for table in tables:
            for change in ("UPDATE", "DELETE"):
                opened.execute(f"CREATE TRIGGER no_{change.lower()}_of_{table} BEFORE {change} ON {table} BEGIN {refusal}; END")
    if layout < len(_LAYOUTS):
        opened.execute(f"PRAGMA user_version = {len(_LAYOUTS)}")
        opened.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _to_write_ahead(opened: sqlite3.Connection) -> None:
    """Change the file's mode; SQLite does not wait for its turn with this, so we do."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            opened.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _sentence(path: Path, error: sqlite3.Error) -> ScannerError:
    match error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else None:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return UnavailableError(f"{path}: locked by another process for {BUSY_S:.0f} s; try again.")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return ContentError(f"{path}: not a file of grades, or damaged; name another file or bring back a copy.")
        case sqlite3.SQLITE_FULL:
            return OutputError(f"{path}: the disk is full; make space and give the grade again.")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
            return OutputError(f"{path}: cannot be written ({error}); choose another place.")
    raise error


#: Columns that the ensemble made.
SCORE_NAMES = frozenset(
    (
        *(column.name for column in MEMBER_COLUMNS.values()),
        *(RANK_COLUMN.name, SYSTEM_COLUMN.name, "tsne_x", "tsne_y", "grid_value", "cell_count", "p_calibrated", "is_candidate"),
    )
)
#: What a lens model says tells as much as a score.
_MODEL_NAMES = frozenset(column.name for column in MODEL_COLUMNS)
_SCORE_FLAGS = Flag.EMPTY_CELL | Flag.UNDEFINED_NEIGHBOURS | Flag.OUTSIDE_EMBEDDING | Flag.FAR_FROM_TRAINING


class Blindness:
    """What is withheld from whom.

    Withheld is what the ensemble says: probabilities, place in the embedding, rank, decision, and the flags that it sets;
    and what lens models say.
    Readers cannot grade, so nothing is withheld from them.

    Parameters
    ----------
    store
        The grades.
    on
        Whether anything is withheld at all.
    """

    def __init__(self, store: GradeStore, *, on: bool) -> None:
        self.store = store
        self.on = on

    def holds_for(self, viewer: Viewer) -> bool:
        """Whether scores are withheld from somebody until they have graded."""
        return self.on and viewer.role == "grade"

    def hides_column(self, viewer: Viewer, column: str) -> bool:
        """Whether somebody may not sort or select by a column, since the order or selection would betray its values."""
        return self.holds_for(viewer) and (_tells(column) or column == "flags")

    def hide_scores(self, viewer: Viewer, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows as somebody may see them.

        Parameters
        ----------
        viewer
            Who asks.
        items
            Rows of a catalogue as JSON shows them: ``id``, ``ra``, ``dec`` and any other columns.

        Returns
        -------
        list of dict
            The rows with ``grade``, the viewer's own or None, and ``withheld``: whether scores are None for this reason.
        """
        places = [Place(item["id"], "", item["ra"], item["dec"]) for item in items]
        grades = {} if viewer.name is None else self.store.grades_of(viewer.name, places)
        found = []
        for item in items:
            grade = grades.get(item["id"])
            withheld = grade is None and self.holds_for(viewer)
            row = {**item, **_without_scores(item)} if withheld else dict(item)
            found.append({**row, "grade": grade, "withheld": withheld})
        return found

    def history(self, viewer: Viewer, place: Place) -> tuple[tuple[Entry, ...], bool]:
        """The entries of an object that somebody may see, and whether those of others are withheld."""
        said = self.store.history(place)
        if not self.holds_for(viewer) or (viewer.name is not None and self.store.grades_of(viewer.name, [place])):
            return said, False
        own = tuple(entry for entry in said if entry.grader == viewer.name)
        return own, True

    def standing(self, viewer: Viewer) -> tuple[Entry, ...]:
        """The standing grades of the objects whose grades somebody may see."""
        entries = self.store.standing()
        if not self.holds_for(viewer):
            return entries
        graded = {entry.object for entry in entries if entry.grader == viewer.name}
        return tuple(entry for entry in entries if entry.object in graded)


def _tells(column: str) -> bool:
    return column in SCORE_NAMES or column in _MODEL_NAMES or bool(further_of([column]))


def _without_scores(item: Mapping[str, Any]) -> dict[str, Any]:
    veil: dict[str, Any] = dict.fromkeys(filter(_tells, item))
    if item.get("flags") is not None:
        veil["flags"] = item["flags"] & ~int(_SCORE_FLAGS)
    return veil
