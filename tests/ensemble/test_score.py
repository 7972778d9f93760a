import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import logit

from scanner.config import ScoringConfig
from scanner.ensemble.session import Scorer
from scanner.errors import UsageError
from scanner.records import MEMBERS, Flag


def _scores(scorer, cutouts, **changed):
    names = ("vis", "nisp", "sky", "sigma", "bad_fraction", "flags")
    return scorer.score(**{**dict(zip(names, cutouts, strict=True)), **changed})


def test_scores_are_put_together_from_the_parts(bundle, cutouts):
    scorer = Scorer(bundle, "cpu")
    scores = _scores(scorer, cutouts)
    found = bundle.grid.lookup(scores.logits)
    np.testing.assert_array_equal(scores.tsne, found.positions)
    np.testing.assert_array_equal(scores.grid_value, found.value)
    np.testing.assert_array_equal(scores.cell_count, found.cell_count)
    np.testing.assert_array_equal(scores.flags, found.flags)
    np.testing.assert_array_equal(scores.calibrated, bundle.calibration.apply(scores.logits))
    np.testing.assert_array_equal(scores.decision, scores.grid_value >= np.float32(bundle.threshold()))
    np.testing.assert_allclose(scores.probabilities, 1 / (1 + np.exp(-scores.logits.astype(float))), rtol=1e-6)
    assert scores.probabilities.shape == (6, 7)


def test_a_threshold_can_be_asked_for(bundle, cutouts):
    # Table 5 of the paper: 0.5.
    scorer = Scorer(bundle, "cpu", threshold=0.5)
    scores = _scores(scorer, cutouts)
    np.testing.assert_array_equal(scores.decision, scores.grid_value >= 0.5)
    with pytest.raises(ValidationError, match="give one of them"):
        ScoringConfig(beta=0.03, threshold=0.5)


def test_beta_moves_the_threshold(bundle, cutouts):
    eager, strict = Scorer(bundle, "cpu", beta=1e6), Scorer(bundle, "cpu", beta=1e-6)
    assert eager.rule.threshold == bundle.threshold(1e6) < strict.rule.threshold
    assert _scores(eager, cutouts).decision.sum() >= _scores(strict, cutouts).decision.sum()


def test_what_lacks_a_band_is_scored_by_the_members_that_do_without(bundle, cutouts):
    bad = np.zeros((6, 4), dtype=np.float32)
    bad[1, 3], bad[4, 1:], bad[5, 0] = 0.9, 1.0, 0.9
    scorer = Scorer(bundle, "cpu")
    whole, scores = _scores(scorer, cutouts), _scores(scorer, cutouts, bad_fraction=bad)
    seen = {1: ("OU-J", "OU-Y", "OU-VIS"), 4: ("OU-VIS",), 5: ()}
    for row in range(6):
        known = [member in seen.get(row, MEMBERS) for member in MEMBERS]
        assert np.isfinite(scores.logits[row]).tolist() == known
        np.testing.assert_array_equal(scores.logits[row, known], whole.logits[row, known])
        assert bool(scores.flags[row] & Flag.BANDS_MISSING) == (row in (1, 4))
    reference = np.clip(bundle.grid.logits.astype(np.float64), -20, 20)
    for row in (1, 4):
        known = np.isfinite(scores.logits[row])
        alone = bundle.calibration.distilled(known, reference)
        logits = np.nan_to_num(scores.logits[row].astype(np.float64))
        log_odds = alone.intercept + float(np.clip(logits, -20, 20) @ np.array(alone.coefficients))
        at_sky = log_odds + logit(alone.sky_prevalence) - logit(alone.training_prevalence)
        np.testing.assert_allclose(scores.calibrated[row], 1 / (1 + np.exp(-at_sky)), rtol=1e-6)
        assert scores.decision[row] == (np.float32(1 / (1 + np.exp(-log_odds))) >= np.float32(scorer.rule.threshold))
        assert np.isnan(scores.grid_value[row])
        assert np.isnan(scores.tsne[row]).all()
    others = [0, 2, 3]
    for name in ("calibrated", "grid_value", "tsne", "decision"):
        np.testing.assert_array_equal(getattr(scores, name)[others], getattr(whole, name)[others])
    assert scores.flags[5] & Flag.TOO_MANY_BAD_PIXELS
    assert np.isnan(scores.calibrated[5])


def test_a_plain_mean_is_that_of_the_members_that_see_an_object(write_bundle, cutouts, tmp_path):
    plain = write_bundle(tmp_path / "plain", labelled=False)
    bad = np.tile(np.float32([0, 1, 0, 0]), (6, 1))
    scores = _scores(Scorer(plain, "cpu"), cutouts, bad_fraction=bad)
    seen = [MEMBERS.index(member) for member in ("OU-J", "OU-H", "OU-VIS")]
    np.testing.assert_allclose(scores.calibrated, scores.probabilities[:, seen].mean(axis=1), rtol=1e-6)
    assert np.isnan(np.delete(scores.logits, seen, axis=1)).all()


def test_too_many_bad_pixels_are_not_scored(bundle, cutouts):
    bad = np.zeros((6, 4), dtype=np.float32)
    bad[1, 0], bad[4, 3], bad[5, 2] = 0.3, 0.6, 0.25
    flags = np.full(6, Flag.MASKED_PIXELS, dtype=np.uint32)
    scorer = Scorer(bundle, "cpu", max_bad_fraction=0.25, require_all_bands=True)
    scores, clean = _scores(scorer, cutouts, bad_fraction=bad, flags=flags), _scores(scorer, cutouts)
    left_out = np.array([False, True, False, False, True, False])
    assert np.isnan(scores.logits[left_out]).all()
    for values in (scores.tsne, scores.grid_value, scores.calibrated, scores.probabilities):
        np.testing.assert_array_equal(np.isnan(values).reshape(6, -1).any(axis=1), left_out)
    assert (scores.flags[left_out] == Flag.MASKED_PIXELS | Flag.TOO_MANY_BAD_PIXELS).all()
    assert not scores.decision[left_out].any()
    assert (scores.cell_count[left_out] == 0).all()
    np.testing.assert_array_equal(scores.logits[~left_out], clean.logits[~left_out])
    assert flags.tolist() == [Flag.MASKED_PIXELS] * 6, "the caller's flags are left alone"


def test_nothing_left_to_score(bundle, cutouts):
    scores = _scores(Scorer(bundle, "cpu"), cutouts, bad_fraction=np.ones((6, 4), dtype=np.float32))
    assert np.isnan(scores.logits).all()
    assert not scores.decision.any()
    empty = _scores(Scorer(bundle, "cpu"), tuple(values[:0] for values in cutouts))
    assert empty.logits.shape == (0, 7)
    assert empty.decision.shape == (0,)


def test_pixels_that_overflow_cost_one_object(write_bundle, cutouts, tmp_path):
    scorer = Scorer(write_bundle(tmp_path / "minmax", preprocessing="minmax"), "cpu")
    vis = cutouts[0].copy()
    vis[2, 5, 5], vis[2, 5, 6] = 3e38, -3e38
    scores = _scores(scorer, cutouts, vis=vis)
    assert np.isnan(scores.grid_value).tolist() == [False, False, True, False, False, False]
    assert scores.flags[2] & Flag.TOO_MANY_BAD_PIXELS
    np.testing.assert_array_equal(np.delete(scores.logits, 2, 0), np.delete(_scores(scorer, cutouts).logits, 2, 0))


def test_without_a_grid_the_mean_probability_ranks_and_decides(write_bundle, cutouts, tmp_path):
    plain = write_bundle(tmp_path / "plain", labelled=False)
    scores = _scores(Scorer(plain, "cpu"), cutouts)
    assert np.isnan(scores.grid_value).all()
    assert np.isnan(scores.tsne).all()
    assert (scores.cell_count == 0).all()
    np.testing.assert_allclose(scores.calibrated, scores.probabilities.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(scores.decision, scores.calibrated >= 0.5)
    assert (scores.flags == 0).all()
    with pytest.raises(UsageError, match="beta"):
        Scorer(plain, "cpu", beta=0.5)
