import numpy as np
import pytest

from scanner.evaluation.biases import orientation_scatter, sample_rows
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS


def test_scatter_is_that_of_the_log_odds(bundle, make_truth):
    rng = np.random.default_rng(0)
    is_lens = make_truth(150, 250).is_lens
    own = rng.normal(size=(400, 1, 7)) + is_lens[:, None, None]
    logits = (own + 0.8 * rng.normal(size=(400, 8, 7))).astype(np.float32)
    found = orientation_scatter(bundle, "b", "eval", logits, is_lens)
    assert [one.score for one in found.scores] == [*MEMBERS, "combined"]
    vis = found.scores[4]
    assert vis.scatter_lenses.value == pytest.approx(logits[is_lens][..., 4].std(axis=1, ddof=1).mean(), rel=1e-5)
    # The expectation of a sample standard deviation of eight is 0.965 sigma.
    assert vis.scatter_others.low < 0.8 * 0.965 < vis.scatter_others.high
    assert vis.gain.low > 0
    assert vis.gain.value == pytest.approx(vis.auroc_mean - vis.auroc_single)
    combined = bundle.calibration.ranking_score(logits.reshape(-1, 7)).reshape(400, 8)
    assert found.scores[-1].scatter_lenses.value == pytest.approx(combined[is_lens].std(axis=1, ddof=1).mean())


def test_lenses_only_have_no_auroc(bundle):
    found = orientation_scatter(bundle, "b", "rings", np.zeros((3, 8, 7), np.float32), np.ones(3, bool))
    assert found.scores[0].scatter_others is None
    assert found.scores[0].gain is None
    assert found.scores[0].scatter_lenses.value == 0


def test_half_of_the_sample_are_visible_lenses(sets):
    dataset = LabelledSet(sets["eval"])
    rows = sample_rows(dataset, 10)
    assert len(rows) == 10
    assert (np.diff(rows) > 0).all()
    assert dataset.truth.visible[rows].sum() == 5
    assert len(sample_rows(dataset, 1000)) == dataset.truth.visible.sum() + (~dataset.truth.is_lens).sum()
