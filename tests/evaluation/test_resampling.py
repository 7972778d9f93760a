import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from scanner.evaluation.metrics import recalls_at_fpr, threshold_at_fpr
from scanner.interval import wilson_interval

FPRS = (0.3, 0.05)


def _brute(lenses, others, fpr):
    return np.mean(lenses >= threshold_at_fpr(others, fpr))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_recalls_are_those_above_the_threshold(lenses, others):
    found = recalls_at_fpr(np.array([lenses]), np.array([others]), FPRS, resamples=5)
    for rate, fpr in enumerate(FPRS):
        threshold = threshold_at_fpr(np.array(others, float), fpr)
        assert found.value[0, rate] == pytest.approx(np.mean(np.array(lenses) >= threshold))
        assert found.n_false[0, rate] == np.sum(np.array(others) >= threshold) <= fpr * len(others) + 1e-9


def test_resamples_are_distributed_as_brute_force_ones():
    rng = np.random.default_rng(1)
    lenses, others = rng.normal(1.5, 1, 200), rng.normal(0, 1, 1500)
    found = recalls_at_fpr(lenses[None], others[None], FPRS, resamples=1000)
    brute = [[_brute(rng.choice(lenses, 200), rng.choice(others, 1500), fpr) for fpr in FPRS] for _ in range(1000)]
    np.testing.assert_allclose(found.resampled[0].mean(axis=1), np.mean(brute, axis=0), atol=0.01)
    np.testing.assert_allclose(found.resampled[0].std(axis=1), np.std(brute, axis=0), rtol=0.12)


def test_intervals_cover():
    rng = np.random.default_rng(8)
    truth = 1 - norm.cdf(norm.ppf(0.99) - 1.5)
    covered = 0
    for seed in range(60):
        found = recalls_at_fpr(rng.normal(1.5, 1, 500), rng.normal(0, 1, 1500), (0.01,), resamples=400, seed=seed)
        interval = found.interval(0, 0)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= truth <= interval.high
    # 57 are expected; binomial scatter is 1.7.
    assert covered >= 51


def test_scores_of_the_same_objects_are_paired():
    rng = np.random.default_rng(4)
    lenses, others = rng.normal(1.5, 1, 300), rng.normal(0, 1, 2000)
    found = recalls_at_fpr(np.stack([lenses, 3 * lenses + 1]), np.stack([others, 3 * others + 1]), (0.01,))
    np.testing.assert_array_equal(found.resampled[0], found.resampled[1])


def test_too_few_non_lenses_are_told():
    found = recalls_at_fpr(np.arange(5.0), np.arange(50.0), (0.1, 0.01))
    assert found.n_allowed.tolist() == [5, 0]
    with pytest.raises(ValueError, match="lenses and non-lenses"):
        recalls_at_fpr(np.arange(5.0), np.empty((1, 0)))
    assert math.isclose(found.value[0, 1], 0.0)


def test_none_found_is_not_none_there():
    found = recalls_at_fpr(np.zeros((1, 58)), np.arange(100.0), (0.1,))
    interval = found.interval(0, 0)
    assert (interval.value, interval.low) == (0, 0)
    assert interval.high == pytest.approx(wilson_interval(0, 58).high)
