import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from scanner.evaluation import metrics

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


@given(SCORED, st.sampled_from([0.01, 0.1, 0.34, 1.0]))
def test_recall_at_fpr_is_the_best_point_of_the_roc_curve(rows, fpr):
    scores, labels = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    fprs, recalls, _ = roc_curve(labels, scores, drop_intermediate=False)
    threshold = metrics.threshold_at_fpr(scores[~labels], fpr)
    assert np.mean(scores[~labels] >= threshold) <= fpr + 1e-12
    assert np.mean(scores[labels] >= threshold) == pytest.approx(recalls[fprs <= fpr + 1e-12].max())


def test_delong_agrees_with_resampling():
    rng = np.random.default_rng(3)
    labels = rng.random(600) < 0.4
    scores = rng.normal(size=600) + labels
    interval = metrics.auroc_interval(scores, labels)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 600, 600)
        values.append(metrics.auroc(scores[drawn], labels[drawn]))
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * np.std(values), rel=0.15)


def test_recall_intervals_cover():
    rng = np.random.default_rng(8)
    truth = 1 - 0.5 * (1 + math.erf((2.3263 - 1.5) / math.sqrt(2)))
    covered = 0
    for seed in range(40):
        labels = np.arange(2000) < 500
        scores = rng.normal(size=2000) + 1.5 * labels
        interval = metrics.recall_at_fpr(scores, labels, 0.01, seed=seed)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= truth <= interval.high
    assert covered >= 34


def test_wilson_and_purity():
    assert metrics.wilson(0, 20).low == 0
    assert metrics.wilson(0, 20).high == pytest.approx(0.161, abs=1e-3)
    assert metrics.wilson(10, 20).low == pytest.approx(1 - metrics.wilson(10, 20).high)
    assert metrics.purity(0.5, 0.01, 1e-4) == pytest.approx(0.5e-4 / (0.5e-4 + 0.01 * 0.9999))
    assert math.isnan(metrics.purity(0.0, 0.0, 1e-4))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        metrics.auroc(np.arange(3), np.ones(3, bool))
