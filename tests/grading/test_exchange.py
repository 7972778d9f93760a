"""Grades in the layouts of other projects, and back."""

import csv

import pytest
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.errors import ContentError, InputMissingError
from scanner.grading.grade import Place
from scanner.grading.labels import import_classifications
from scanner.grading.store import GradeStore
from scanner.labels.table import PRESETS, read_labels

PLACES = [Place(f"run/t/{n}", f"EUCL J{n}", 10.0 + n / 3, -20.123456789012) for n in range(3)]


@pytest.fixture
def store(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    store.give(PLACES[0], "Ann", "B", "first thought")
    store.give(
        PLACES[0], "Ann", "A", 'an arc, "blue",\nof two knots – schön', tags=("arc", "quad"), catalogue="s 2", blind=True
    )
    store.give(PLACES[0], "Bob", "B")
    store.give(PLACES[1], "Ann", "X", "=1+1")
    store.give(PLACES[1], "Bob", "C")
    store.give(PLACES[2], "Bob", "X")
    store.undo(PLACES[2], "Bob")
    return store


def export(store, out, *options):
    result = CliRunner().invoke(scanner, ["grades", "export", str(out), "--grades", str(store.path), *options])
    assert result.exit_code == 0, result.output
    return out


def said(store):
    return [(e.candidate_id, e.grader, e.grade, e.comment, e.tags, e.catalogue, e.blind) for e in store.standing()]


def test_votes_come_back_as_they_were_and_once(store, tmp_path):
    path, other = export(store, tmp_path / "votes.csv", "--layout", "zooniverse"), GradeStore(tmp_path / "other.sqlite")
    found = import_classifications(path, other)
    assert (found.n_votes, found.n_new) == (4, 4)
    # The first thought does not stand, and what was first said blind of an object is not what stands.
    assert said(other) == said(store)
    assert {place for of in other.places().values() for place in of} == set(PLACES[:2])
    assert import_classifications(path, other).n_new == 0
    assert len(other.history(PLACES[0])) == 2
    again = export(other, tmp_path / "again.csv", "--layout", "zooniverse")
    rows, rows_again = (list(csv.DictReader(one.read_text(encoding="utf-8").splitlines())) for one in (path, again))
    for row in (*rows, *rows_again):
        del row["created_at"]
    assert rows == rows_again


def test_labels_import_reads_both_layouts(store, tmp_path):
    votes = read_labels(export(store, tmp_path / "votes.csv", "--layout", "zooniverse"), preset="zooniverse")
    assert [(row.name, row.is_lens) for row in votes.rows] == [("run/t/0", True), ("run/t/1", False)]
    assert (votes.rows[0].ra, votes.rows[0].dec) == (10.0, -20.123456789012)
    grades = read_labels(export(store, tmp_path / "slde.csv", "--layout", "slde"), preset="slde")
    assert {row.name: row.label for row in grades.rows}["run/t/0"] == "B"
    assert "slde" in PRESETS


def test_what_is_no_vote_is_refused_whole(store, tmp_path):
    path, other = export(store, tmp_path / "votes.csv", "--layout", "zooniverse"), GradeStore(tmp_path / "other.sqlite")
    path.write_text(path.read_text().replace("No lens", "Perhaps"))
    with pytest.raises(ContentError, match=r"line . is no vote"):
        import_classifications(path, other)
    assert other.standing() == ()
    with pytest.raises(InputMissingError, match="no such file"):
        import_classifications(tmp_path / "none.csv", other)
