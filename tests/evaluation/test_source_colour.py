from dataclasses import replace

import numpy as np
import pytest

from scanner.ensemble.session import open_session
from scanner.evaluation.biases import RecolouredLogits, colour_curves, recoloured_logits
from scanner.evaluation.metrics import threshold_at_fpr
from scanner.records import MEMBERS


def test_points_against_counts(scored_pair):
    truths, (good, _) = scored_pair
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(3, 200, 7)) * 2 + np.array([1.0, 0.0, -3.0])[:, None, None]).astype(np.float32)
    curves = colour_curves(good, RecolouredLogits((0.0, 1.0, 2.0), logits), "challenge", truths["challenge"].is_lens)
    assert {(curve.score, curve.fpr) for curve in curves} == {
        (name, fpr) for name in (*MEMBERS, "calibrated") for fpr in (1e-2, 1e-3)
    }
    for curve in curves:
        threshold = threshold_at_fpr(good.scores["challenge"][curve.score][~truths["challenge"].is_lens], curve.fpr)
        number = MEMBERS.index(curve.score) if curve.score in MEMBERS else None
        values = (
            good.bundle.calibration.ranking_score(logits.reshape(-1, 7)).reshape(3, 200)
            if number is None
            else logits[..., number]
        )
        passing = values >= threshold
        assert [point.recall.value for point in curve.points] == pytest.approx(passing.mean(axis=1))
        assert [point.change.value for point in curve.points] == pytest.approx(passing.mean(axis=1) - passing[0].mean())
        assert (curve.points[0].change.low, curve.points[0].change.high) == (0, 0)
        assert curve.n == 200
        assert curve.n_false == round(3000 * curve.fpr)


def test_the_change_is_known_better_than_the_recalls(scored_pair):
    truths, (good, _) = scored_pair
    rng = np.random.default_rng(1)
    one = rng.normal(size=(1, 400, 7)) * 3
    logits = np.concatenate([one, one + 0.05 * rng.normal(size=one.shape)]).astype(np.float32)
    curve = colour_curves(good, RecolouredLogits((0.0, 3.0), logits), "challenge", truths["challenge"].is_lens)[0]
    last = curve.points[-1]
    assert last.change.high - last.change.low < 0.5 * (last.recall.high - last.recall.low)


def test_vis_alone_sees_no_colour(bundle):
    reported = []
    # A second look would come to some colours of a lens only, and all of its members change with it.
    once = replace(bundle, manifest=bundle.manifest.model_copy(update={"second_look": None}))
    found = recoloured_logits(open_session(once, "cpu"), 3, (0.0, 3.0), report=reported.append)
    assert found.logits.shape == (2, 3, 7)
    assert sum(reported) == 6
    vis = MEMBERS.index("OU-VIS")
    changes = np.abs(found.logits[1] - found.logits[0])
    assert changes[:, vis].max() < 0.01
    assert np.delete(changes, vis, axis=1).min() > 0.01
