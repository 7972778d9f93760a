from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, PackageLoader

from scanner.grading.grade import GRADES, MEANINGS, Place
from scanner.grading.labels import LABEL_COLUMNS, LABEL_SCHEMA, label_table, median_grade, proposed_label
from scanner.grading.store import GradeStore

grades = st.lists(st.sampled_from(GRADES), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("votes", "grade", "label"),
    [
        ("A", "A", "lens"), ("B", "B", "lens"), ("C", "C", "unclear"), ("X", "X", "other"),
        ("AX", "X", "unclear"), ("AC", "C", "unclear"), ("ABX", "B", "lens"), ("AXX", "X", "other"), ("ACX", "C", "unclear"),
        ("ABCX", "C", "unclear"), ("BBCX", "C", "unclear"), ("AABX", "B", "lens"), ("CXXX", "X", "other"),
    ],
)  # fmt: skip
def test_rule(votes, grade, label):
    assert (median_grade(votes), proposed_label(votes)) == (grade, label)


@given(grades, st.randoms())
def test_neither_order_nor_names_matter_and_a_better_vote_never_makes_it_worse(votes, random):
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert (median_grade(votes), proposed_label(votes)) == (median_grade(shuffled), proposed_label(shuffled))
    better = [GRADES[max(0, GRADES.index(votes[0]) - 1)], *votes[1:]]
    assert GRADES.index(median_grade(better)) <= GRADES.index(median_grade(votes))
    worth = {"other": 0, "unclear": 1, "lens": 2}
    assert worth[proposed_label(better)] >= worth[proposed_label(votes)]


def test_fewer_graders_than_asked_for_settle_nothing():
    for votes, least in product(("A", "XX", "AAA"), (1, 2, 3)):
        assert (proposed_label(votes, least) == "unclear") == (len(votes) < least)
    with pytest.raises(ValueError, match="grader"):
        proposed_label("A", 0)


def test_table(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    east, west = Place("run-1/10/7", "EUCL J2", 20.0, -5.0), Place("run-1/10/8", "EUCL J1", 10.0, -5.0)
    store.give(east, "Bob", "X", "a ring\nof dust; A2", blind=True)
    store.give(east, "Ann", "A", blind=True)
    store.give(Place("run-2/11/900", "EUCL J2", 20.0, -5.00001), "Ann", "C", "<b>")
    last = store.give(west, "Cyd", "B")
    table = label_table(store.standing(), store.places())
    assert table.schema == LABEL_SCHEMA
    first, second = table.to_pylist()
    assert first == {
        "candidate_id": "run-1/10/8", "name": "EUCL J1", "ra": 10.0, "dec": -5.0, "label": "lens", "grade": "B", "n_graders": 1,
        "votes_a": 0, "votes_b": 1, "votes_c": 0, "votes_x": 0, "n_blind": 0, "graders": "Cyd: B", "comments": "", "tags": "",
        "graded": last.given.strftime("%Y-%m-%dT%H:%M:%SZ"), "other_ids": "",
    }  # fmt: skip
    # Graded under two ids: one object, under the id that was graded last.
    assert (second["candidate_id"], second["other_ids"], second["dec"]) == ("run-2/11/900", "run-1/10/7", -5.00001)
    assert (second["label"], second["grade"], second["n_graders"], second["n_blind"]) == ("unclear", "X", 2, 1)
    assert (second["graders"], second["comments"]) == ("Ann: C; Bob: X", "Ann: <b>; Bob: a ring of dust; A2")
    strict = label_table(store.standing(), store.places(), least_graders=2)
    assert strict["label"].to_pylist() == ["unclear", "unclear"]


def test_nothing_graded_is_a_table_without_rows(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    assert label_table(store.standing(), store.places()).num_rows == 0
    assert len({column.name for column in LABEL_COLUMNS}) == len(LABEL_COLUMNS)


def test_the_page_tells_what_columns_mean():
    page = Path(__file__).parents[2].joinpath("docs", "grading.md").read_text()
    rows = [f"| `{column.name}` | {column.dtype} | {column.unit} | {column.description} |" for column in LABEL_COLUMNS]
    assert "\n".join(rows) + "\n" in page
    for grade, meaning in MEANINGS.items():
        assert f"| `{grade.lower()}` | {grade} | {meaning} |\n" in page


def test_the_buttons_tell_what_grades_mean():
    templates = Environment(loader=PackageLoader("scanner.service.pages"), autoescape=True)
    panel = templates.get_template("grading/panel.html.jinja").render(grades=MEANINGS)
    for grade, meaning in MEANINGS.items():
        assert f'title="{meaning[0].upper()}{meaning[1:]} ({grade.lower()})">{grade}</button>' in panel
