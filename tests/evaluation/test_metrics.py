import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as roc_curve_of_scikit_learn

from scanner.evaluation import metrics
from scanner.interval import wilson_interval

SCORED = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(SCORED)
def test_auroc_is_that_of_scikit_learn(rows):
    scores, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    assert metrics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    interval = metrics.auroc_interval(scores, labels)
    assert interval.value == pytest.approx(roc_auc_score(labels, scores))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_three_lenses_above_all_others_are_not_known_to_be_perfect():
    found = metrics.auroc_interval(np.arange(400.0), np.arange(400) >= 397)
    assert found == wilson_interval(3, 3)
    assert found.low < 0.5
    assert metrics.auroc_interval(-np.arange(400.0), np.arange(400) >= 397) == wilson_interval(0, 3)


@given(SCORED)
def test_the_roc_curve_is_that_of_scikit_learn(rows):
    scores, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    expected = roc_curve_of_scikit_learn(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(metrics.roc_curve(scores, labels), expected[:2])


@given(SCORED, st.sampled_from([0.01, 0.1, 0.34, 1.0]))
def test_the_threshold_at_a_rate_is_the_best_point_of_the_roc_curve(rows, fpr):
    scores, labels = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    fprs, recalls, _ = roc_curve_of_scikit_learn(labels, scores, drop_intermediate=False)
    threshold = metrics.threshold_at_fpr(scores[~labels], fpr)
    assert np.mean(scores[~labels] >= threshold) <= fpr + 1e-12
    assert np.mean(scores[labels] >= threshold) == pytest.approx(recalls[fprs <= fpr + 1e-12].max())


def test_delong_agrees_with_resampling():
    rng = np.random.default_rng(3)
    labels = rng.random(600) < 0.4
    shared = rng.normal(size=600) + labels
    scores = np.stack([shared + rng.normal(size=600), shared + 0.5 * rng.normal(size=600)])
    areas, covariance = metrics.delong(scores, labels)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 600, 600)
        values.append([metrics.auroc(row[drawn], labels[drawn]) for row in scores])
    resampled = np.array(values)
    np.testing.assert_allclose(areas, [metrics.auroc(row, labels) for row in scores])
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), resampled.std(axis=0), rtol=0.15)
    paired = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert paired == pytest.approx(np.std(resampled[:, 0] - resampled[:, 1]), rel=0.15)


def test_wilson_and_purity():
    assert wilson_interval(0, 20).low == 0
    assert wilson_interval(0, 20).high == pytest.approx(0.161, abs=1e-3)
    assert wilson_interval(10, 20).low == pytest.approx(1 - wilson_interval(10, 20).high)
    assert metrics.purity(0.5, 0.01, 1e-4) == pytest.approx(0.5e-4 / (0.5e-4 + 0.01 * 0.9999))
    assert math.isnan(metrics.purity(0.0, 0.0, 1e-4))


@given(st.integers(1, 200), st.data())
def test_a_share_lies_in_its_interval(n, data):
    interval = wilson_interval(data.draw(st.integers(0, n)), n)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        metrics.auroc(np.arange(3), np.ones(3, bool))
