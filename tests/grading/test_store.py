"""The file of grades: what is said stays, what stands follows from it, whoever writes at the same time."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import count, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.catalogue import merge
from scanner.config import CatalogueConfig
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.grading import store as database
from scanner.grading.grade import GRADES, MAX_COMMENT, Place
from scanner.grading.store import GradeStore

HERE = Place("run-1/10/7", "EUCL J1", 150.0, 2.0)
THERE = Place("run-1/10/8", "EUCL J2", 150.1, 2.0)
ARCSEC = 1 / 3600


@pytest.fixture
def store(tmp_path):
    return GradeStore(tmp_path / "grades.sqlite")


def stands(store, place=HERE):
    return {entry.grader: entry.grade for entry in store.standing_of(place)}


def test_a_grade_is_kept_with_what_was_seen(store):
    entry = store.give(HERE, "Ann", "A", "an arc", catalogue="survey 3", blind=True)
    assert store.history(HERE) == (entry,) == store.standing() == store.standing_of(HERE)
    kept = (entry.candidate_id, entry.grader, entry.grade, entry.comment, entry.catalogue, entry.blind, entry.undoes)
    assert kept == ("run-1/10/7", "Ann", "A", "an arc", "survey 3", True, None)
    assert entry.given.utcoffset().total_seconds() == 0


def test_a_later_grade_stands_and_the_earlier_one_stays_in_the_history(store):
    store.give(HERE, "Ann", "A")
    store.give(HERE, "Bob", "X")
    store.give(HERE, "Ann", "C", "on second thoughts")
    assert stands(store) == {"Ann": "C", "Bob": "X"}
    assert [(entry.grader, entry.grade) for entry in store.history(HERE)] == [("Ann", "A"), ("Bob", "X"), ("Ann", "C")]


def test_undo_is_an_entry_and_the_grade_before_stands_again(store):
    first, second = store.give(HERE, "Ann", "A"), store.give(HERE, "Ann", "B")
    assert store.undo(HERE, "Ann").undoes == second.number
    assert stands(store) == {"Ann": "A"}
    assert store.undo(HERE, "Ann").undoes == first.number
    assert stands(store) == {}
    assert [entry.grade for entry in store.history(HERE)] == ["A", "B", None, None]
    with pytest.raises(UsageError, match="no grade of run-1/10/7"):
        store.undo(HERE, "Ann")


def test_only_a_first_grade_was_blind(store):
    given = [store.give(HERE, "Ann", "A", blind=True), store.give(HERE, "Bob", "A", blind=True), store.undo(HERE, "Ann")]
    assert [entry.blind for entry in [*given, store.give(HERE, "Ann", "B", blind=True)]] == [True, True, False, False]


def test_nobody_takes_another_ones_grade_back(store):
    store.give(HERE, "Ann", "A")
    with pytest.raises(UsageError, match="Bob has no grade"):
        store.undo(HERE, "Bob")


said = st.lists(st.tuples(st.sampled_from(["Ann", "Bob"]), st.integers(0, 1), st.sampled_from([*GRADES, None])), max_size=8)


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory):
    return GradeStore(tmp_path_factory.mktemp("grades") / "grades.sqlite"), count()


@settings(max_examples=20)
@given(said)
def test_what_stands_is_what_a_list_of_grades_for_each_grader_says(one_for_all, said):
    store, numbers = one_for_all
    places = [Place(f"run-1/10/{number}", "", number / 100, 0.0) for number in islice(numbers, 2)]
    model = {}
    for grader, which, grade in said:
        grades = model.setdefault((grader, which), [])
        if grade is not None:
            store.give(places[which], grader, grade)
            grades.append(grade)
        elif grades:
            store.undo(places[which], grader)
            grades.pop()
        else:
            with pytest.raises(UsageError):
                store.undo(places[which], grader)
    for grader in ("Ann", "Bob"):
        grades = {place.candidate_id: model.get((grader, which)) for which, place in enumerate(places)}
        assert store.grades_of(grader, places) == {name: of_object[-1] for name, of_object in grades.items() if of_object}
        for which, place in enumerate(places):
            assert stands(store, place).get(grader) == (model.get((grader, which)) or [None])[-1]


@pytest.mark.parametrize("change", ["UPDATE entries SET grade = 'A'", "DELETE FROM entries", "UPDATE sightings SET object = 9",
                                    "DELETE FROM objects", "INSERT OR REPLACE INTO entries SELECT * FROM entries"])  # fmt: skip
def test_the_file_itself_refuses_to_forget(store, change):
    store.give(HERE, "Ann", "X")
    with closing(sqlite3.connect(store.path)) as opened:
        opened.execute("PRAGMA recursive_triggers = ON")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            opened.execute(change)
    assert stands(store) == {"Ann": "X"}


# Merging again: the object has another row.


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Place("run-1/11/900", "", 150.0, 2.0 + 0.45 * ARCSEC), True),  # an overlapping tile's row won
        (Place("run-2/10/31", "", 150.0, 2.0 - 0.45 * ARCSEC), True),  # another run, whose detection has other ids
        (Place("run-2/10/7", "", 150.0, 2.0 + 2.9 * ARCSEC), True),  # the same target, deblended differently
        (Place("run-1/11/900", "", 150.0, 2.0 + 0.55 * ARCSEC), False),
        (Place("run-2/10/7", "", 150.0, 2.0 + 3.1 * ARCSEC), False),
        (Place("run-1/10/8", "", 150.0, 2.0 + 0.1 * ARCSEC), False),  # a tile's own catalogue tells its objects apart
    ],
)
def test_a_grade_belongs_to_the_object_whatever_row_stands_for_it(store, other, same):
    store.give(HERE, "Ann", "B")
    assert stands(store, other) == ({"Ann": "B"} if same else {})
    store.give(other, "Ann", "C")
    assert stands(store, HERE) == {"Ann": "C" if same else "B"}
    assert len(store.places()) == (1 if same else 2)


def test_the_radii_are_those_by_which_a_merge_finds_duplicates():
    assert CatalogueConfig().duplicate_radius_arcsec == database.DUPLICATE_RADIUS_ARCSEC
    assert database.SAME_ID_RADIUS_ARCSEC == merge.SAME_ID_RADIUS_ARCSEC


def test_the_same_target_goes_before_a_nearer_one_and_the_choice_stays(store):
    store.give(HERE, "Ann", "A")
    store.give(Place("run-1/10/8", "", 150.0, 2.0 + 0.8 * ARCSEC), "Ann", "X")
    moved = Place("run-2/11/7", "", 150.0, 2.0 + 0.7 * ARCSEC)
    assert stands(store, moved) == {"Ann": "A"}
    store.give(moved, "Bob", "B")
    store.give(Place("run-3/11/99", "", 150.0, 2.0 + 0.7 * ARCSEC), "Cyd", "C")  # nearest graded object: the other
    assert stands(store, moved) == {"Ann": "A", "Bob": "B"}


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 10.0), (0.0, 90.0), (359.99999, -89.99999)])
def test_positions_match_at_the_poles_and_where_right_ascension_starts_again(store, ra, dec):
    store.give(Place("run-1/1/1", "", ra, dec), "Ann", "A")
    across = (ra + 0.00002) % 360 if dec == 10 else (ra + 180) % 360
    assert stands(store, Place("run-2/2/2", "", across, dec)) == {"Ann": "A"}


# Several writers.


WRITER = """
import sys
from scanner.grading.grade import GRADES, Place
from scanner.grading.store import GradeStore

print("ready", flush=True)
sys.stdin.readline()
store = GradeStore(sys.argv[1])
for number in range(25):
    store.give(Place(f"run-1/10/{number}", "", 150 + number, 2.0), sys.argv[2], GRADES[number % 4])
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    path, names = tmp_path / "grades.sqlite", {f"grader {number}" for number in range(3)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    entries = GradeStore(path).standing()
    assert len(entries) == 75
    assert {entry.grader for entry in entries} == names
    # Each of the 25 objects was made by whoever came first, once.
    assert len(GradeStore(path).places()) == 25


@pytest.mark.parametrize("before", range(6))
def test_tables_that_another_process_makes_meanwhile(tmp_path, monkeypatch, before):
    """Before any of the statements that come before a writer's turn."""
    path, connect, said = tmp_path / "grades.sqlite", sqlite3.connect, []

    def another_gives_meanwhile(statement):
        # SQLite's own statements within one of ours begin with "--".
        if statement.startswith("--"):
            return
        said.append(statement)
        if len(said) == before + 1 and "BEGIN IMMEDIATE" not in said:
            monkeypatch.setattr(sqlite3, "connect", connect)
            GradeStore(path).give(HERE, "Ben", "B")

    def watched(*words, **settings):
        opened = connect(*words, **settings)
        opened.set_trace_callback(another_gives_meanwhile)
        return opened

    store = GradeStore(path)
    monkeypatch.setattr(sqlite3, "connect", watched)
    store.give(HERE, "Ann", "A")
    monkeypatch.setattr(sqlite3, "connect", connect)
    # The last of these numbers is that of no such statement.
    assert stands(store) == {"Ann": "A"} | ({"Ben": "B"} if before < said.index("BEGIN IMMEDIATE") else {})


def test_a_reader_does_not_wait_for_a_writer_and_a_writer_waits_for_its_turn(store, monkeypatch):
    store.give(HERE, "Ann", "A")
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    with database.connection(store.path) as other, database.transaction(other):
        assert stands(store) == {"Ann": "A"}
        with pytest.raises(Exception, match="locked by another process"):
            store.give(HERE, "Ann", "B")
    store.give(HERE, "Ann", "B")
    assert stands(store) == {"Ann": "B"}


# What people type.


@pytest.mark.parametrize("name", ["", "  ", "a" * 41, "<b>Ann</b>", "Ann\x00", "a/b", "Ann;"])
def test_names_that_are_refused(store, name):
    with pytest.raises(UsageError, match="A name has"):
        store.give(HERE, name, "A")
    assert store.standing() == ()


def test_space_around_names_goes(store):
    assert store.give(HERE, "  Ann   B. Cole-7 ", "A").grader == "Ann B. Cole-7"


def test_comments_are_kept_as_text_without_what_no_text_has(store):
    comment = "<script>alert('x')</script> & \"quotes\"\nsecond line \x00\x1b[31m\u202e"
    assert store.give(HERE, "Ann", "A", comment).comment == "<script>alert('x')</script> & \"quotes\"\nsecond line [31m"
    with pytest.raises(UsageError, match="at most 2,000"):
        store.give(HERE, "Ann", "A", "x" * (MAX_COMMENT + 1))


# Files that are not ours.


def test_files_that_are_refused(tmp_path):
    with pytest.raises(InputMissingError, match="no such file of grades"):
        GradeStore.existing(tmp_path / "none.sqlite")
    text = tmp_path / "text"
    text.write_text("no database, and long enough to be looked at" * 30)
    with pytest.raises(ContentError, match="not a file of grades"):
        GradeStore(text)
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE entries (n)")
    with pytest.raises(ContentError, match="not a file of grades"):
        GradeStore(tmp_path / "other.sqlite")
    with closing(sqlite3.connect(tmp_path / "later.sqlite")) as later:
        later.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        later.execute("PRAGMA user_version = 9")
    with pytest.raises(ContentError, match="another version of scanner"):
        GradeStore(tmp_path / "later.sqlite")
    with pytest.raises(OutputError, match="choose another place"):
        GradeStore(text / "below" / "grades.sqlite").give(HERE, "Ann", "A")


def test_the_file_is_made_with_the_first_grade(store):
    assert (store.history(HERE), store.standing(), store.grades_of("Ann", [HERE]), store.places()) == ((), (), {}, {})
    with pytest.raises(UsageError):
        store.give(HERE, "<", "A")
    assert not store.path.exists()
    store.give(HERE, "Ann", "A")
    assert store.path.exists()


def test_a_file_that_somebody_is_just_making_is_empty_and_can_be_written_to(tmp_path):
    path = tmp_path / "grades.sqlite"
    path.touch()
    store = GradeStore(path)
    assert store.standing() == ()
    store.give(HERE, "Ann", "A")
    assert stands(store) == {"Ann": "A"}


def test_a_store_that_exists_is_opened(store):
    store.give(HERE, "Ann", "A")
    assert GradeStore.existing(store.path).standing() == store.standing()
