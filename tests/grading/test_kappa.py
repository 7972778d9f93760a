"""Kappas against worked examples of the literature, against definitions counted pair by pair, and their errors against a
derivative taken numerically and against repeated experiments."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scanner.grading.crowd import agreement, agreement_weights, cohen, cohen_error, fleiss
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore

SCHEMES = ["none", "linear"]
tables = st.integers(2, 5).flatmap(lambda k: arrays(np.int64, (k, k), elements=st.integers(0, 30)))
#: Fleiss (1971): 30 patients, six raters, five diagnoses; as in its table 1.
FLEISS_1971 = np.array([
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0], [0, 0, 4, 0, 2],
    [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0],
    [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0], [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6],
    [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0], [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0],
    [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
])  # fmt: skip


def brute_cohen(table, weights):
    """Every object against every other: agreement seen, and agreement of one's grade with the other's of any object."""
    first, second = np.array([pair for pair in np.ndindex(table.shape) for _ in range(table[pair])]).T
    weight = agreement_weights(len(table), weights)
    seen, chance = weight[first, second].mean(), weight[first][:, second].mean()
    return (seen - chance) / (1 - chance)


def brute_fleiss(votes):
    """Every pair of graders of every object."""
    graders = [[grade for grade, count in enumerate(row) for _ in range(count)] for row in votes]
    graders = [of_object for of_object in graders if len(of_object) > 1]
    seen = np.mean([np.mean([a == b for a, b in combinations(of_object, 2)]) for of_object in graders])
    given = np.concatenate(graders)
    chance = np.mean(given[:, None] == given)
    return (seen - chance) / (1 - chance)


def test_two_graders_by_hand():
    # 50 proposals: both yes 20, both no 15, 5 and 10 apart. Seen 0.7, by chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5.
    assert cohen(np.array([[20, 5], [10, 15]])).value == pytest.approx(0.4, abs=1e-12)


def test_the_example_of_fleiss():
    assert fleiss(FLEISS_1971).value == pytest.approx(0.430, abs=0.0005)


@given(tables, st.sampled_from(SCHEMES))
def test_cohen_is_what_counting_pairs_gives(table, weights):
    found = cohen(table, weights)
    if found is None:
        rows, columns = (np.count_nonzero(table.sum(axis=axis)) for axis in (1, 0))
        assert table.sum() == 0 or rows == columns == 1
        return
    assert found.value == pytest.approx(brute_cohen(table, weights), abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1


@given(tables, st.sampled_from(SCHEMES))
def test_the_names_of_the_graders_do_not_matter(table, weights):
    assert cohen(table, weights) is None or cohen(table.T, weights).value == pytest.approx(cohen(table, weights).value)


@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.just(4)), elements=st.integers(0, 3)))
def test_fleiss_is_what_counting_pairs_gives(votes):
    counted = votes[votes.sum(axis=1) > 1]
    found = fleiss(votes, resamples=100)
    if not len(counted) or np.count_nonzero(counted.sum(axis=0)) == 1:
        assert found is None
    else:
        assert found.value == pytest.approx(brute_fleiss(votes), abs=1e-9)
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("weights", SCHEMES)
def test_error_is_that_of_a_numerical_derivative(weights):
    table = np.array([[44, 5, 1, 0], [7, 20, 9, 0], [2, 6, 15, 4], [0, 1, 3, 40]])
    n, share, step = table.sum(), table / table.sum(), 1e-6

    def kappa(p):
        weight = agreement_weights(4, weights)
        chance = p.sum(axis=1) @ weight @ p.sum(axis=0) / p.sum() ** 2
        return ((weight * p).sum() / p.sum() - chance) / (1 - chance)

    slope = np.zeros_like(share)
    for place in np.ndindex(share.shape):
        moved = np.zeros_like(share)
        moved[place] = step
        slope[place] = (kappa(share + moved) - kappa(share - moved)) / (2 * step)
    error = np.sqrt(((share * slope**2).sum() - (share * slope).sum() ** 2) / n)
    assert cohen_error(table, weights) == pytest.approx(error, rel=1e-6)
    found = cohen(table, weights)
    assert (found.high - found.low) / 2 == pytest.approx(1.95996 * error, rel=1e-4)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """400 experiments of 150 objects: 95% intervals miss between 2% and 10% of the time."""
    random = np.random.default_rng(5)
    table = np.array([[0.3, 0.05, 0.0], [0.05, 0.2, 0.1], [0.0, 0.05, 0.25]])
    truth = brute_cohen((table * 100).astype(int), "none")
    # Three graders who see the truth 8 times of 10 and else say anything: kappa 0.64 for any two.
    missed_cohen = missed_fleiss = 0
    for _ in range(400):
        found = cohen(random.multinomial(150, table.ravel()).reshape(3, 3))
        missed_cohen += not found.low <= truth <= found.high
        right = random.integers(0, 4, 150)
        given = np.where(random.random((3, 150)) < 0.8, right, random.integers(0, 4, (3, 150)))
        found = fleiss(np.stack([(given == grade).sum(axis=0) for grade in range(4)], axis=1), resamples=300)
        missed_fleiss += not found.low <= 0.64 <= found.high
    assert 8 <= missed_cohen <= 40
    assert 8 <= missed_fleiss <= 40


def test_what_cannot_be_said():
    assert cohen(np.zeros((4, 4), dtype=np.int64)) is None
    assert cohen(np.diag([9, 0, 0, 0])) is None
    assert fleiss(np.array([[1, 0, 0, 0], [0, 1, 0, 0]])) is None
    assert fleiss(np.array([[3, 0, 0, 0]])) is None


def test_complete_agreement_and_complete_disagreement():
    assert cohen(np.diag([5, 5])).value == 1.0
    assert cohen(np.array([[0, 5], [5, 0]])).value == -1.0
    assert fleiss(np.array([[3, 0], [0, 3]])).value == 1.0


def test_agreement_on_a_few_objects_is_not_certain():
    # 10 of 10 agree: Wilson's interval of the share is 0.722 to 1; by chance it would be 0.5.
    found = cohen(np.diag([5, 5]))
    assert (found.low, found.high) == (pytest.approx((0.7225 - 0.5) / 0.5, abs=1e-3), 1.0)
    found = fleiss(np.array([[3, 0], [0, 3]] * 5))
    assert (found.low, found.high) == (pytest.approx((0.7225 - 0.5) / 0.5, abs=1e-3), 1.0)
    alone = fleiss(np.array([[2, 1, 0, 0]]))
    assert alone.high - alone.low > 1


def test_the_same_votes_give_the_same_interval():
    assert fleiss(FLEISS_1971) == fleiss(FLEISS_1971)


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
