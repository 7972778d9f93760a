import numpy as np
import pytest

from scanner.ensemble.calibration import sigmoid
from scanner.evaluation.reliability import reliability


def _draw(n, seed=0):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, n)
    return log_odds, rng.random(n) < sigmoid(log_odds)


def test_true_probabilities_are_found_true():
    log_odds, is_lens = _draw(20_000)
    found = reliability("b", "s", log_odds, is_lens, float(is_lens.mean()), at_sky=False)
    assert found.ece.value < 0.015
    inside = [part.observed.low - 0.01 <= part.predicted <= part.observed.high + 0.01 for part in found.bins]
    assert sum(inside) >= len(inside) - 1
    assert sum(part.n for part in found.bins) == 20_000


def test_ece_is_the_mean_error_of_equal_bins():
    log_odds, is_lens = _draw(5000)
    wrong = log_odds + 1.0
    found = reliability("b", "s", wrong, is_lens, float(is_lens.mean()), at_sky=False)
    order = np.argsort(wrong)
    parts = np.array_split(order, 12)
    expected = sum(len(p) * abs(sigmoid(wrong[p]).mean() - is_lens[p].mean()) for p in parts) / 5000
    assert found.ece.value == pytest.approx(expected, abs=2e-3)
    assert found.ece.low <= found.ece.value <= found.ece.high


def test_errors_at_the_sky_are_told_in_decades():
    log_odds, is_lens = _draw(40_000)
    shift = np.log(1e-4) - np.log(is_lens.mean() / (1 - is_lens.mean()))
    true = reliability("b", "s", log_odds + shift, is_lens, 1e-4, at_sky=True)
    tenfold = reliability("b", "s", log_odds + shift + np.log(10), is_lens, 1e-4, at_sky=True)
    assert true.ece_lenses.value < 0.1
    assert tenfold.ece_lenses.value == pytest.approx(1, abs=0.1)
    assert true.at_sky


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="lenses and non-lenses"):
        reliability("b", "s", np.zeros(3), np.ones(3, bool), 0.5, at_sky=False)
