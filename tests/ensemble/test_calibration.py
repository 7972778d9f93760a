import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize

from scanner.ensemble.calibration import EQUAL_OBJECTS, LOGIT_LIMIT, AnyCalibration, Calibration, MeanProbability, fit

SIMPLE = Calibration(coefficients=(1, 0, 0, 0, 0, 0, 0), intercept=0.5, training_prevalence=0.5, sky_prevalence=0.5)


def _drawn(n, prevalence, seed=0):
    """Log-odds of which the first alone is informative, with exactly known posterior odds."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < prevalence
    logits = rng.normal(size=(n, 7))
    logits[:, 0] += 2.0 * labels
    return logits, labels


def test_without_a_shift_it_is_the_logistic_function():
    logits = np.zeros((3, 7))
    logits[:, 0] = [-2.0, 0.0, 3.0]
    expected = 1 / (1 + np.exp(-(logits[:, 0] + 0.5)))
    np.testing.assert_allclose(SIMPLE.apply(logits), expected, rtol=1e-6)
    assert SIMPLE.apply(logits).dtype == np.float32


@given(st.floats(1e-6, 0.999), st.floats(-15, 15))
def test_odds_scale_with_the_prior_odds(prevalence, logit):
    shifted = SIMPLE.model_copy(update={"sky_prevalence": prevalence})
    row = np.array([[logit, 0, 0, 0, 0, 0, 0]])
    before, after = SIMPLE.log_odds(row)[0], shifted.log_odds(row)[0]
    assert after - before == pytest.approx(np.log(prevalence / (1 - prevalence)), abs=1e-9)
    assert shifted.log_odds(row, prevalence=0.5)[0] == before


def test_fit_recovers_the_posterior_odds_and_the_sky():
    logits, labels = _drawn(40_000, 0.72)
    fitted = fit(logits, labels, sky_prevalence=0.1)
    # For two unit Gaussians 2 apart the log-odds are 2 x - 2 plus the prior odds.
    assert fitted.coefficients[0] == pytest.approx(2.0, abs=0.06)
    assert np.abs(fitted.coefficients[1:]).max() < 0.05
    assert fitted.intercept == pytest.approx(np.log(0.72 / 0.28) - 2.0, abs=0.08)
    assert fitted.training_prevalence == pytest.approx(labels.mean())
    sky_logits, sky_labels = _drawn(40_000, 0.1, seed=1)
    assert fitted.apply(sky_logits).mean() == pytest.approx(sky_labels.mean(), abs=0.01)


@pytest.mark.parametrize("n", [60, 2000])
def test_fit_is_the_best_of_those_that_are_not_negative(n):
    rng = np.random.default_rng(n)
    labels = rng.random(n) < 0.4
    # Correlated members, of which one says less about lenses than about the noise of the others.
    noise = rng.normal(size=(n, 1))
    logits = rng.normal(size=(n, 7)) + noise + np.linspace(0.0, 1.5, 7) * labels[:, None]
    fitted = fit(logits, labels, sky_prevalence=0.1)
    mean, spread = logits.mean(axis=0), logits.std(axis=0)

    def loss(weights):
        log_odds = (logits - mean) / spread @ weights[:7] + weights[7]
        alike = EQUAL_OBJECTS * ((weights[:7] - weights[:7].mean()) ** 2).sum() + (weights[:7] ** 2).sum()
        return np.logaddexp(0.0, np.where(labels, -log_odds, log_odds)).sum() + 0.5 * alike

    best = minimize(loss, np.zeros(8), bounds=[(0, None)] * 7 + [(None, None)], options={"ftol": 1e-15, "gtol": 1e-8})
    np.testing.assert_allclose(fitted.coefficients, best.x[:7] / spread, atol=2e-4)
    assert fitted.intercept == pytest.approx(best.x[7] - best.x[:7] / spread @ mean, abs=1e-3)
    # Without the bound the first members would count against a lens.
    assert fitted.coefficients[0] == 0.0 or n == 60
    assert minimize(loss, np.zeros(8)).x[0] < 0.0 or n == 60


def test_few_objects_do_not_tell_members_apart():
    few, many = (np.array(fit(*_drawn(n, 0.5), sky_prevalence=0.1).coefficients) for n in (60, 40_000))
    assert few[1:].min() > 0.02 > np.median(many[1:])
    assert few[0] < 0.7 < 1.9 < many[0]


def test_classes_that_do_not_overlap_have_finite_coefficients():
    labels = np.arange(40) < 20
    fitted = fit(np.where(labels, 30.0, -30.0)[:, None] * np.ones(7), labels, sky_prevalence=0.1)
    assert 0.0 < min(fitted.coefficients) <= max(fitted.coefficients) < 1.0


def test_a_wild_log_odds_is_limited():
    row = np.zeros((2, 7))
    row[:, 0] = [LOGIT_LIMIT, 1e30]
    assert SIMPLE.apply(row)[0] == SIMPLE.apply(row)[1]


def test_the_same_object_scores_the_same_in_any_batch():
    logits, _ = _drawn(1000, 0.5)
    calibration = fit(*_drawn(500, 0.5, seed=3), sky_prevalence=1e-4)
    together = calibration.apply(logits)
    np.testing.assert_array_equal(together, np.concatenate([calibration.apply(row[None]) for row in logits]))


def test_mean_probability_is_the_mean_of_the_sigmoids():
    logits = np.random.default_rng(0).normal(scale=4, size=(20, 7))
    expected = (1 / (1 + np.exp(-logits))).mean(axis=1)
    np.testing.assert_allclose(MeanProbability().apply(logits), expected, rtol=1e-6)
    assert MeanProbability().apply(np.array([[-900.0] * 7, [900.0] * 7])).tolist() == [0.0, 1.0]


def test_what_is_not_scored_stays_nan():
    logits = np.full((1, 7), np.nan)
    assert np.isnan(SIMPLE.apply(logits)).all()
    assert np.isnan(MeanProbability().apply(logits)).all()


def test_json_tells_the_two_kinds_apart():
    adapter = TypeAdapter(AnyCalibration)
    for calibration in (SIMPLE, MeanProbability()):
        assert adapter.validate_json(calibration.model_dump_json()) == calibration
    with pytest.raises(ValidationError):
        adapter.validate_json('{"kind": "isotonic"}')
    with pytest.raises(ValidationError):
        SIMPLE.model_validate({**SIMPLE.model_dump(), "coefficients": (1.0,) * 6})


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        fit(np.zeros((4, 7)), np.ones(4, dtype=bool), sky_prevalence=0.1)
