"""Simulated crowds: whether votes are weighed rightly, by people whose skill is known here and not there."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from scanner.grading.crowd import (
    BELIEVED,
    BELIEVED_VOTES,
    STATES,
    Votes,
    crowd,
    information,
    known_answers,
    minutes_in_sitting,
    posterior,
    reliability,
    weights,
)
from scanner.grading.grade import GRADES, Entry, Place
from scanner.grading.store import GradeStore
from scanner.labels.table import LabelRow

#: Probability of A, B, C, X for a lens, and for another object.
EXPERT = np.array([[0.55, 0.3, 0.1, 0.05], [0.01, 0.04, 0.15, 0.8]])
NOVICE = np.array([[0.3, 0.3, 0.25, 0.15], [0.1, 0.2, 0.3, 0.4]])
CLICKER = np.full((2, 4), 0.25)
MALICIOUS = EXPERT[::-1]
CROWD = (*[EXPERT] * 2, *[NOVICE] * 4, *[CLICKER] * 2, *[MALICIOUS] * 2)
N, N_KNOWN, PER_OBJECT = 3_000, 300, 5


@pytest.fixture(name="made", scope="module")
def made_fixture():
    """Votes of a crowd on objects of which some are known: truth, what the networks say, what is known, votes."""
    rng = np.random.default_rng(5)
    truth = rng.random(N) < 0.2
    # Log-odds whose probabilities are right: two normal distributions about ±d²/2.
    finder = expit(logit(0.2) + 1.5 * rng.standard_normal(N) + np.where(truth, 1.125, -1.125))
    is_lens = np.where(np.arange(N) < N_KNOWN, truth.astype(float), np.nan)
    objects, graders = np.repeat(np.arange(N), PER_OBJECT), rng.random((N, len(CROWD))).argsort(axis=1)[:, :PER_OBJECT].ravel()
    share = np.array(CROWD)[graders, (~truth[objects]).astype(int)]
    grades = (rng.random((len(objects), 1)) > share.cumsum(axis=1)).sum(axis=1)
    order = rng.permutation(len(objects))
    return truth, finder, is_lens, Votes(objects[order], graders[order], grades[order])


def test_votes_weighed_by_skill_beat_majority_and_networks_and_are_calibrated(made):
    truth, finder, is_lens, votes = made
    judged = np.isnan(is_lens)
    found = posterior(votes, finder, weights(votes, is_lens, len(CROWD))).probability
    perfect = np.log(np.array(CROWD)[:, 0] / np.array(CROWD)[:, 1])
    best = posterior(votes, finder, perfect).probability
    majority = np.bincount(votes.objects, votes.grades <= 1, N)
    auroc = {
        name: roc_auc_score(truth[judged], score[judged])
        for name, score in {"found": found, "best": best, "majority": majority, "finder": finder}.items()
    }
    assert auroc["found"] > auroc["majority"] + 0.1
    assert auroc["found"] > auroc["finder"] + 0.05
    assert auroc["found"] > auroc["best"] - 0.005
    assert log_loss(truth[judged], found[judged]) < log_loss(truth[judged], best[judged]) + 0.02
    for low, high in ((0.02, 0.2), (0.2, 0.8), (0.8, 0.98)):
        inside = judged & (found > low) & (found < high)
        expected, spread = found[inside].sum(), np.sqrt((found[inside] * (1 - found[inside])).sum())
        assert abs(truth[inside].sum() - expected) < 4 * spread


def test_an_offline_referee_who_knows_no_answer_ranks_alike(made):
    """Dawid & Skene (1979) by expectation and maximisation over all votes, from the networks' probabilities."""
    truth, finder, is_lens, votes = made
    guess = finder.copy()
    for _ in range(50):
        share = np.full((len(CROWD), 2, 4), 0.5)
        for column, weight in enumerate((guess, 1 - guess)):
            np.add.at(share[:, column], (votes.graders, votes.grades), weight[votes.objects])
        share /= share.sum(axis=-1, keepdims=True)
        adds = np.log(share[:, 0] / share[:, 1])
        guess = expit(logit(finder) + np.bincount(votes.objects, adds[votes.graders, votes.grades], N))
    judged = np.isnan(is_lens)
    found = posterior(votes, finder, weights(votes, is_lens, len(CROWD))).probability
    assert roc_auc_score(truth[judged], found[judged]) > roc_auc_score(truth[judged], guess[judged]) - 0.01
    assert np.corrcoef(logit(found[judged]), logit(guess[judged]))[0, 1] > 0.97


def test_a_weight_is_what_known_answers_say_with_a_belief_that_gives_way():
    assert weights(Votes(*[np.zeros(0, dtype=int)] * 3), np.zeros(0), 1)[0] == pytest.approx(np.log(BELIEVED[0] / BELIEVED[1]))
    # Known: three lenses that got A, A, X, and an other that got X; a fifth vote on an unknown object tells nothing.
    votes = Votes(np.arange(5), np.zeros(5, dtype=int), np.array([0, 0, 3, 3, 0]))
    is_lens = np.array([1.0, 1.0, 1.0, 0.0, np.nan])
    of_lenses = (np.array([2, 0, 0, 1]) + BELIEVED_VOTES * BELIEVED[0]) / (3 + BELIEVED_VOTES)
    of_others = (np.array([0, 0, 0, 1]) + BELIEVED_VOTES * BELIEVED[1]) / (1 + BELIEVED_VOTES)
    assert weights(votes, is_lens, 1)[0] == pytest.approx(np.log(of_lenses / of_others))


def test_an_object_is_settled_by_the_vote_that_passes_a_bound_and_stays_so():
    lens, other, still_open = map(STATES.index, ("lens", "other", "open"))
    adds = np.array([[3.0, 1.0, 0.0, -3.0]])
    #   object 0: A A X   object 1: C   object 2: X X   object 3: no vote
    votes = Votes(np.array([0, 1, 2, 0, 2, 0]), np.zeros(6, dtype=int), np.array([0, 2, 3, 0, 3, 3]))
    found = posterior(votes, np.array([0.1, 0.1, 0.1, 1e-7]), adds, above=0.95, below=1e-3)
    assert found.probability == pytest.approx(expit(logit([0.1, 0.1, 0.1, 1e-6]) + np.array([3.0, 0.0, -6.0, 0.0])))
    assert found.state.tolist() == [lens, still_open, other, still_open]
    assert found.late.tolist() == [False, False, False, False, False, True]


def test_settled_objects_save_votes_and_few_are_settled_wrongly(made):
    truth, finder, is_lens, votes = made
    found = posterior(votes, finder, weights(votes, is_lens, len(CROWD)), above=0.95, below=0.01)
    assert 0.2 < found.late.mean() < 0.6
    assert truth[found.state == STATES.index("lens")].mean() > 0.9
    assert truth[found.state == STATES.index("other")].mean() < 0.02


def test_information_of_a_vote():
    assert information(CLICKER) == pytest.approx(0.0)
    assert information(np.eye(2)) == pytest.approx(1.0)
    assert information(MALICIOUS) == pytest.approx(information(EXPERT))
    assert information(EXPERT) > information(NOVICE) > 0


def test_reliability_keeps_an_objects_own_answer_apart(made):
    _, _, is_lens, votes = made
    bins = reliability(votes, is_lens, len(CROWD))
    assert sum(one.n for one in bins) == N_KNOWN
    assert sum(one.lenses.low <= one.predicted <= one.lenses.high for one in bins) >= len(bins) - 1
    # Answers that chance gave teach nothing: what is predicted of each object stays about their share.
    rng = np.random.default_rng(1)
    few = Votes(np.arange(40), np.zeros(40, dtype=int), rng.integers(0, 4, 40))
    by_chance = reliability(few, (rng.random(40) < 0.5).astype(float), 1)
    assert sum(one.n * one.predicted for one in by_chance) / 40 == pytest.approx(0.5, abs=0.15)
    assert reliability(votes, np.where(is_lens == 1.0, 1.0, np.nan), len(CROWD)) == ()


@pytest.fixture(name="graded")
def graded_fixture(tmp_path):
    """Forty objects in a file of grades: Ann knows lenses, Bob says the opposite; the even ones are lenses."""
    store = GradeStore(tmp_path / "grades.sqlite")
    for number in range(40):
        place = Place(f"run-1/10/{number}", f"EUCL J{number}", 10.0 + number, -5.0)
        store.give(place, "Ann", "A" if number % 2 == 0 else "X")
        if number < 30:
            store.give(place, "Bob", "X" if number % 2 == 0 else "A")
    return store


def test_who_tires_is_less_often_right_later_in_a_sitting():
    """Two sittings of an hour, a vote a minute: right for half an hour, and then every other time."""
    begun = [datetime(2026, 12, 1, 9, tzinfo=UTC), datetime(2026, 12, 1, 14, tzinfo=UTC)]
    times = [start + timedelta(minutes=minute) for start in begun for minute in range(60)]
    assert minutes_in_sitting(times).tolist() == [*range(60)] * 2
    entries = [
        Entry(number=k, object=k, candidate_id=f"r/1/{k}", grader="Ann", grade="A" if k % 60 < 30 or k % 2 else "X", comment="",
              given=time, catalogue="", blind=True)
        for k, time in enumerate(times)
    ]  # fmt: skip
    places = {k: (Place(f"r/1/{k}", f"EUCL J{k}", 10.0 + k, 0.0),) for k in range(120)}
    (ann,) = crowd(entries, places, {}, dict.fromkeys(range(120), True))[0].skills
    assert (ann.fresh.value, ann.tired.value, ann.early.value, ann.late.value) == (1.0, 0.5, 0.75, 0.75)
    (few,) = crowd(entries[:39], places, {}, dict.fromkeys(range(120), True))[0].skills
    assert (few.fresh, few.tired) == (None, None)


def test_grades_of_a_file_are_weighed(graded):
    places = graded.places()
    rows = [LabelRow(k, "lens", 10.0 + k, -5.0 + 2e-4, is_lens=k % 2 == 0) for k in range(24)]
    rows += [LabelRow(99, "lens", 10.0 + 35, -5.0 + 4e-4, is_lens=True), LabelRow(100, "lens", is_lens=True)]
    known = known_answers(places, rows)
    assert sorted(known.values()) == [False] * 12 + [True] * 12
    found, table = crowd(graded.standing(), places, dict.fromkeys(places, 0.01), known)
    ann, bob = found.skills
    assert (ann.grader, ann.n_votes, ann.of_lenses, ann.of_others) == ("Ann", 40, (12, 0, 0, 0), (0, 0, 0, 12))
    assert (bob.of_lenses, bob.of_others, bob.finds.value) == ((0, 0, 0, 12), (12, 0, 0, 0), 0.0)
    assert (ann.early.value, ann.late.value, bob.early.value) == (1.0, 1.0, 0.0)
    assert ann.bits > bob.bits > 0.3
    assert (found.n_objects, found.n_known, found.n_votes) == (40, 24, 70)
    rows = table.to_pylist()
    # Bob's word against itself: his X of a lens speaks for one.
    assert {row["candidate_id"] for row in rows[:15]} == {f"run-1/10/{k}" for k in range(0, 30, 2)}
    assert [row["p_posterior"] for row in rows] == sorted((row["p_posterior"] for row in rows), reverse=True)
    assert all((row["known"] != "") == (int(row["candidate_id"].rpartition("/")[2]) < 24) for row in rows)
    assert rows[0]["p_finder"] == 0.01
    assert rows[-1]["p_posterior"] < 1e-4
    assert [row["graders"] for row in rows if row["candidate_id"] == "run-1/10/35"] == ["Ann: X"]
    assert GRADES == ("A", "B", "C", "X")
    assert known_answers(places, []) == {}
