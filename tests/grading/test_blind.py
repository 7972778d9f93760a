"""What is withheld: everything that the ensemble says, from whoever may grade and has not, at every address."""

import pytest

from scanner.catalogue.columns import CATALOGUE_COLUMNS, MODEL_COLUMNS
from scanner.grading.grade import Place, Viewer
from scanner.grading.store import SCORE_NAMES, Blindness, GradeStore
from scanner.records import Flag
from scanner.service.app import is_closed

ANN, BOB = Viewer("Ann", "grade", True), Viewer("Bob", "grade", True)
READER, NOBODY = Viewer("Eve", "read", True), Viewer(None, "grade", False)
HERE = Place("run-1/10/7", "EUCL J1", 10.0, 0.0)
#: What a column tells without the ensemble: where it is, what it looked like, what others knew.
NOT_SCORES = {"_healpix_29", "name", "target_id", "tile_id", "ra", "dec", "x", "y", "offset_x", "offset_y", "magnitude_vis",
              "bad_vis", "bad_y", "bad_j", "bad_h", "flags", "run", "bundle", "known_name", "known_separation",
              "known_reference"}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return GradeStore(tmp_path / "grades.sqlite")


def item(place=HERE):
    row = {column.name: 0.5 for column in CATALOGUE_COLUMNS} | {"id": place.candidate_id, "ra": place.ra, "dec": place.dec}
    return row | {"flags": int(Flag.SATURATED | Flag.FAR_FROM_TRAINING | Flag.EMPTY_CELL)}


def test_every_column_is_a_score_or_is_not():
    assert {column.name for column in CATALOGUE_COLUMNS} == NOT_SCORES | SCORE_NAMES
    assert not NOT_SCORES & SCORE_NAMES


def test_scores_are_withheld_until_one_has_graded(store):
    blindness = Blindness(store, on=True)
    for who in (ANN, NOBODY):
        (row,) = blindness.hide_scores(who, [item()])
        assert row["withheld"] is True
        assert row["grade"] is None
        assert {name for name, value in row.items() if value is None} == {*SCORE_NAMES, "grade"}
        assert row["flags"] == Flag.SATURATED
    store.give(HERE, "Ann", "B")
    (row,) = blindness.hide_scores(ANN, [item()])
    assert row == {**item(), "grade": "B", "withheld": False}
    assert blindness.hide_scores(BOB, [item()])[0]["p_calibrated"] is None
    store.undo(HERE, "Ann")
    assert blindness.hide_scores(ANN, [item()])[0]["p_calibrated"] is None


@pytest.mark.parametrize(("on", "who"), [(False, ANN), (False, NOBODY), (True, READER)])
def test_others_see_everything(store, on, who):
    blindness = Blindness(store, on=on)
    assert blindness.hide_scores(who, [item()]) == [{**item(), "grade": None, "withheld": False}]
    assert not is_closed(blindness, who, "/tap/sync")
    assert not blindness.hides_column(who, "p_calibrated")


def test_others_grades_are_withheld_until_one_has_graded(store):
    blindness = Blindness(store, on=True)
    theirs = store.give(HERE, "Bob", "A", "look at the arc")
    elsewhere = store.give(Place("run-1/10/8", "", 11.0, 0.0), "Bob", "X")
    assert blindness.history(ANN, HERE) == ((), True)
    assert blindness.standing(ANN) == ()
    assert blindness.history(BOB, HERE) == ((theirs,), False)
    assert blindness.history(READER, HERE) == ((theirs,), False)
    mine = store.give(HERE, "Ann", "C")
    assert blindness.history(ANN, HERE) == ((theirs, mine), False)
    assert set(blindness.standing(ANN)) == {theirs, mine}
    assert set(blindness.standing(READER)) == {theirs, mine, elsewhere}
    store.undo(HERE, "Ann")
    assert [entry.grader for entry in blindness.history(ANN, HERE)[0]] == ["Ann", "Ann"]


OPEN = [
    "/", "/c/demo/candidates", "/c/demo/candidates/run-1/10/7", "/static/grading.js", "/login", "/healthz", "/cutout",
    "/moc/demo", "/api/v1/grades/next", "/api/v1/grades/run-1/10/7", "/api/v1/collections", "/api/v1/collections/demo",
    "/api/v1/collections/demo/candidates", "/api/v1/collections/demo/candidates/run-1/10/7", "/api/v1/collections/demo/tiles",
]  # fmt: skip
CLOSED = [
    "/tap", "/tap/sync", "/tap/async/1/results/result", "/scs", "/scs/demo", "/datalink", "/nothing/of/the/kind", "/cutouts",
    "/api/v1/collections/demo/histogram", "/api/v1/collections/demo/tsne",
    "/api/v1/collections/demo/candidates/run-1/10/7/neighbours",
    "/api/v1/collections/demo/candidates/run-1/10/7/explanation", "/login/tap", "/\n/tap",
]  # fmt: skip


def test_addresses_that_tell_scores_are_closed(store):
    blindness = Blindness(store, on=True)
    assert [path for path in OPEN if is_closed(blindness, ANN, path)] == []
    assert [path for path in CLOSED if not is_closed(blindness, ANN, path)] == []


def test_orders_and_selections_that_tell_scores_are_refused(store):
    blindness = Blindness(store, on=True)
    refused = {column.name for column in CATALOGUE_COLUMNS if blindness.hides_column(ANN, column.name)}
    assert refused == SCORE_NAMES | {"flags"}
    assert all(blindness.hides_column(ANN, column.name) for column in MODEL_COLUMNS)
