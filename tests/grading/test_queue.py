"""What to grade next: each reason alone, their mix, and what the queue never does."""

import numpy as np
import pytest
from pydantic import ValidationError

from scanner.grading.queue import REASONS, Mix, next_objects

ONLY = {reason: Mix(**{name: float(name == reason) for name in REASONS}) for reason in REASONS}
NONE_GRADED = np.zeros(6, dtype=bool)
PROBABILITY = np.array([0.9, 0.02, np.nan, 0.55, 0.3, 0.9])


def test_most_probable_first_and_never_what_was_not_scored():
    assert next_objects(PROBABILITY, NONE_GRADED, ONLY["probable"], 9, 0).rows.tolist() == [0, 5, 3, 4, 1]


def test_most_uncertain_first():
    assert next_objects(PROBABILITY, NONE_GRADED, ONLY["uncertain"], 3, 0).rows.tolist() == [3, 4, 0]


def test_what_was_graded_or_does_not_belong_is_not_queued():
    graded = np.array([True, False, False, False, False, False])
    among = np.array([True, True, True, True, False, True])
    for reason in ("probable", "uncertain", "random"):
        rows = next_objects(PROBABILITY, graded, ONLY[reason], 9, 0, among=among).rows
        assert set(rows) == ({1, 2, 3, 5} if reason == "random" else {1, 3, 5})


def test_different_is_farthest_from_graded_and_queued_ones_in_all_spaces():
    line = np.array([[0.0], [1.0], [np.nan], [9.0], [4.0], [0.1]], dtype=np.float32)
    graded = np.array([True, False, False, False, False, False])
    found = next_objects(PROBABILITY, graded, ONLY["different"], 3, 0, spaces=(line,))
    assert found.rows.tolist() == [3, 4, 1]  # 9 from the graded one; then 4, which is 4 from 0 and 5 from 9; then 1
    # A second space in which object 1 lies far off: both count.
    other = np.array([[0.0], [9.0], [0.0], [1.0], [1.0], [2.0]], dtype=np.float32)
    assert next_objects(PROBABILITY, graded, ONLY["different"], 1, 0, spaces=(line, other, other)).rows.tolist() == [1]


def test_nothing_is_different_without_a_space_and_the_others_share_its_weight():
    assert next_objects(PROBABILITY, NONE_GRADED, ONLY["different"], 2, 0).rows.tolist() == [0, 5]


def test_the_mix_is_kept_and_the_control_is_drawn_from_all():
    n = 20_000
    rng = np.random.default_rng(3)
    probability = rng.random(n) ** 8
    places = rng.normal(size=(n, 3)).astype(np.float32)
    mix = Mix(probable=2.0, uncertain=1.0, different=0.5, random=1.5)
    queue = next_objects(probability, np.zeros(n, dtype=bool), mix, 1000, 7, spaces=(places,))
    assert len(set(queue.rows.tolist())) == 1000
    share = np.bincount(queue.reasons, minlength=4) / 1000
    assert np.abs(share - np.array([0.4, 0.2, 0.1, 0.3])).max() < 0.05  # 3 sigma
    control = queue.rows[queue.reasons == REASONS.index("random")]
    assert abs(np.mean(control) / n - 0.5) < 0.06
    assert np.median(probability[control]) == pytest.approx(np.median(probability), abs=0.005)
    again = next_objects(probability, np.zeros(n, dtype=bool), mix, 1000, 7, spaces=(places,))
    assert np.array_equal(queue.rows, again.rows)
    assert np.array_equal(queue.reasons, again.reasons)


def test_a_reason_without_objects_gives_way():
    unscored = np.full(4, np.nan)
    mix = Mix(probable=1.0, uncertain=0.0, different=0.0, random=1.0)
    queue = next_objects(unscored, np.zeros(4, dtype=bool), mix, 4, 0)
    assert sorted(queue.rows) == [0, 1, 2, 3]
    assert {REASONS[reason] for reason in queue.reasons} == {"random"}


@pytest.mark.parametrize("wrong", [{"random": -1.0}, {"probable": float("nan")}, dict.fromkeys(REASONS, 0.0)])
def test_a_mix_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        Mix(**wrong)
