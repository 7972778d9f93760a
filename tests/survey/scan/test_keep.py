import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.survey.scan.output import kept_fraction, kept_rows

IDS = np.arange(-50_000, 50_000, dtype=np.int64)
NONE = np.zeros(len(IDS), bool)


@pytest.mark.parametrize(("keep", "expected"), [("all", 1.0), ("none", 0.0), ("sample:0.1", 0.1), ("sample:0.75", 0.75)])
def test_share_of_consecutive_ids(keep, expected):
    assert kept_rows(keep, IDS, NONE).mean() == pytest.approx(expected, abs=0.005)
    assert kept_fraction(keep) == expected


def test_a_sample_is_nested_and_holds_the_candidates():
    candidates = IDS % 1000 == 0
    small, large = kept_rows("sample:0.1", IDS, candidates), kept_rows("sample:0.2", IDS, candidates)
    assert (small <= large).all()
    assert small[candidates].all()


def test_candidates_only():
    candidates = IDS % 7 == 0
    np.testing.assert_array_equal(kept_rows("candidates", IDS, candidates), candidates)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=50), st.randoms())
def test_a_sample_does_not_depend_on_the_order(ids, random):
    shuffled = ids.copy()
    random.shuffle(shuffled)
    chosen = {i for i, kept in zip(ids, kept_rows("sample:0.5", np.array(ids), np.zeros(len(ids), bool)), strict=True) if kept}
    again = {
        i
        for i, kept in zip(shuffled, kept_rows("sample:0.5", np.array(shuffled), np.zeros(len(ids), bool)), strict=True)
        if kept
    }
    assert chosen == again
