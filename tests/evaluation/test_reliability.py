import numpy as np
import pytest

from scanner.ensemble.calibration import sigmoid
from scanner.evaluation.compare import reliability
from scanner.evaluation.results import Pairing

SET = Pairing(lenses="s", others="s")


def _draw(n, seed=0):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, n)
    return log_odds, rng.random(n) < sigmoid(log_odds)


def _measure(log_odds, is_lens, prevalence=None, *, at_sky=False):
    share = float(is_lens.mean()) if prevalence is None else prevalence
    return reliability("b", SET, log_odds[is_lens], log_odds[~is_lens], share, at_sky=at_sky)


def test_true_probabilities_are_found_true():
    log_odds, is_lens = _draw(20_000)
    found = _measure(log_odds, is_lens)
    assert found.ece.value < 0.015
    inside = [part.observed.low - 0.01 <= part.predicted <= part.observed.high + 0.01 for part in found.bins]
    assert sum(inside) >= len(inside) - 1
    assert sum(part.n_lenses for part in found.bins) == is_lens.sum()
    assert sum(part.n_others for part in found.bins) == (~is_lens).sum()


def test_ece_is_the_mean_error_of_equal_bins():
    log_odds, is_lens = _draw(5000)
    wrong = log_odds + 1.0
    found = _measure(wrong, is_lens)
    parts = np.array_split(np.argsort(wrong), 12)
    expected = sum(len(p) * abs(sigmoid(wrong[p]).mean() - is_lens[p].mean()) for p in parts) / 5000
    assert found.ece.value == pytest.approx(expected, abs=2e-3)
    assert found.ece.low < found.ece.value < found.ece.high


def test_the_interval_of_a_small_error_is_about_it():
    """Resampled errors are larger than the measured one; the interval must not be."""
    covered = 0
    for seed in range(20):
        log_odds, is_lens = _draw(1000, seed)
        found = _measure(log_odds, is_lens)
        covered += found.ece.low < found.ece.value < found.ece.high
        assert found.ece.high < 2.2 * found.ece.value
    assert covered == 20


def test_errors_at_the_sky_are_told_in_decades():
    log_odds, is_lens = _draw(40_000)
    shift = np.log(1e-4) - np.log(is_lens.mean() / (1 - is_lens.mean()))
    true = _measure(log_odds + shift, is_lens, 1e-4, at_sky=True)
    tenfold = _measure(log_odds + shift + np.log(10), is_lens, 1e-4, at_sky=True)
    assert true.ece_lenses.value < 0.1
    assert tenfold.ece_lenses.value == pytest.approx(1, abs=0.1)
    assert true.at_sky


def test_lenses_more_probable_than_any_non_lens_say_nothing_of_the_sky():
    lenses = np.concatenate([np.full(60, -9.0), np.full(40, 5.0)])
    found = reliability("b", SET, lenses, np.full(1000, -9.0), 1e-4, at_sky=True)
    assert found.measured == pytest.approx(0.6)
    # 60 of 100 lenses beside all non-lenses: 6e-5, predicted as e^-9 = 1.2e-4.
    assert found.ece_lenses.value == pytest.approx(np.log10(sigmoid(np.array(-9.0)) / 6e-5), abs=1e-3)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="lenses and non-lenses"):
        reliability("b", SET, np.zeros(3), np.empty(0), 0.5, at_sky=False)
