import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.explain.networks import disagreement


def test_unsure_but_of_one_mind_and_sure_but_at_odds():
    found = disagreement(np.array([[0.0] * 7, [60.0, 60.0, 60.0, -60.0, -60.0, -60.0, -60.0], [3.0] * 7], np.float32))
    assert found.shared_bits == pytest.approx([1.0, 0.0, 0.2754], abs=1e-3)
    three_of_seven = -(3 / 7 * np.log2(3 / 7) + 4 / 7 * np.log2(4 / 7))
    assert found.disagreement_bits == pytest.approx([0.0, three_of_seven, 0.0], abs=1e-9)
    assert found.votes.tolist() == [7, 3, 7]
    assert found.mean == pytest.approx([0.5, 3 / 7, 0.952574], abs=1e-5)
    assert found.spread == pytest.approx([0.0, np.sqrt(12) / 7, 0.0], abs=1e-7)


@given(st.lists(st.floats(-200, 200, width=32), min_size=7, max_size=7))
def test_both_parts_are_parts_of_one_bit(logits):
    found = disagreement(np.array([logits], np.float32))
    assert found.shared_bits[0] >= -1e-12
    assert 0 <= found.disagreement_bits[0] <= 1
    assert found.shared_bits[0] + found.disagreement_bits[0] <= 1 + 1e-9


def test_what_was_not_scored_stays_unknown():
    found = disagreement(np.array([[np.nan] * 7], np.float32))
    assert np.isnan(found.mean[0])
    assert np.isnan(found.disagreement_bits[0])


def test_refuses_other_than_seven():
    with pytest.raises(ValueError, match="not \\(N, 7\\)"):
        disagreement(np.zeros((2, 6), np.float32))
