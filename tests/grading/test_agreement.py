import numpy as np
import pytest

from scanner.grading.agreement import agreement, cohen, fleiss
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore

GIVEN = {"Ann": "AABCXXA", "Bob": "ABBXXX", "Cyd": "  CCX"}


@pytest.fixture
def found(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    for grader, grades in GIVEN.items():
        for number, grade in enumerate(grades):
            if grade != " ":
                store.give(Place(f"run-1/10/{number}", "", 10.0 + number, 0.0), grader, grade)
    # Changed and taken back: what stands is compared, not what was once said.
    store.give(Place("run-1/10/0", "", 10.0, 0.0), "Bob", "X")
    store.undo(Place("run-1/10/0", "", 10.0, 0.0), "Bob")
    return agreement(store.standing())


def test_counts(found):
    assert found.graders == {"Ann": 7, "Bob": 6, "Cyd": 3}
    assert (found.n_objects, found.n_shared) == (7, 6)
    # Same by all who saw it: objects 0, 4, 5 of the six.
    assert found.complete == pytest.approx(0.5)


def test_tables_of_every_two(found):
    assert [(pair.first, pair.second, pair.n) for pair in found.pairs] == [
        ("Ann", "Bob", 6),
        ("Ann", "Cyd", 3),
        ("Bob", "Cyd", 3),
    ]
    ann_and_bob, ann_and_cyd, _ = found.pairs
    assert ann_and_bob.table == ((1, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2))
    assert ann_and_bob.same == pytest.approx(4 / 6)
    assert ann_and_cyd.table == ((0, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    assert ann_and_bob.kappa == cohen(np.array(ann_and_bob.table))
    assert ann_and_bob.weighted == cohen(np.array(ann_and_bob.table), "linear")
    # Their differences are all between neighbours: a weighted kappa forgives them in part.
    assert ann_and_bob.weighted.value > ann_and_bob.kappa.value


def test_all_together(found):
    votes = [[2, 0, 0, 0], [1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 2, 1], [0, 0, 0, 3], [0, 0, 0, 2], [1, 0, 0, 0]]
    assert found.kappa == fleiss(np.array(votes))
    assert found.kappa.low < found.kappa.value < found.kappa.high


def test_nobody_and_one_alone(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    assert agreement(store.standing()).model_dump() == {
        "graders": {}, "n_objects": 0, "n_shared": 0, "complete": None, "kappa": None, "pairs": (),
    }  # fmt: skip
    store.give(Place("run-1/10/1", "", 1.0, 0.0), "Ann", "A")
    alone = agreement(store.standing())
    assert (alone.graders, alone.n_objects, alone.n_shared, alone.kappa, alone.pairs) == ({"Ann": 1}, 1, 0, None, ())
