"""A second look: the mean of eight orientations for whoever stands high, one look for the others."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.ensemble.augmentation import ORIENTATIONS, SecondLook, average_orientations, turn
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ContentError
from scanner.evaluation.scores import cache_key

FIRST_MEMBER = Calibration(coefficients=(1.0, 0, 0, 0, 0, 0, 0), intercept=0.0, training_prevalence=0.5, sky_prevalence=0.5)


def corners(vis, nisp, sky, sigma):
    """Log-odds that a turn changes: sums of seven pixels off the centre."""
    return (vis[:, 0, :7] + nisp[:, 0, 0, :7] + sky[:, :1] / sigma[:, :1]).astype(np.float32)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((n, 9, 9), (n, 3, 7, 7), (n, 4), (n, 4))
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@given(limit=st.floats(-3, 3), n=st.integers(0, 12), seed=st.integers(0, 99))
def test_whoever_stands_high_gets_the_mean_of_eight(limit, n, seed):
    cutouts = images(n, seed)
    vis, nisp, sky, sigma = cutouts
    found = average_orientations(corners, SecondLook(log_odds_above=limit, share=0.1), FIRST_MEMBER, *cutouts)
    once = corners(*cutouts)
    eight = [corners(turn(vis, o), turn(nisp, o), sky, sigma).astype(np.float64) for o in range(ORIENTATIONS)]
    high = FIRST_MEMBER.log_odds(once) >= limit
    np.testing.assert_array_equal(found[~high], once[~high])
    np.testing.assert_allclose(found[high], np.mean(eight, axis=0)[high], rtol=1e-5, atol=1e-5)


def test_objects_without_log_odds_are_not_looked_at_again():
    calls = []

    def nothing(vis, nisp, sky, sigma):
        calls.append(len(vis))
        return np.full((len(vis), 7), np.nan, dtype=np.float32)

    found = average_orientations(nothing, SecondLook(log_odds_above=-100.0, share=0.1), FIRST_MEMBER, *images(3))
    assert np.isnan(found).all()
    assert calls == [3]


@dataclass(frozen=True)
class Half:
    """A bundle that looks again at three of the six cutouts, and which."""

    bundle: object
    high: object


@pytest.fixture(scope="module")
def half(bundle, write_bundle, cutouts, tmp_path_factory):
    levels = bundle.calibration.log_odds(open_session(bundle, "cpu").logits(*cutouts[:4]))
    rule = SecondLook(log_odds_above=float(np.median(levels)), share=0.1)
    return Half(write_bundle(tmp_path_factory.mktemp("bundles") / "half", second_look=rule), levels >= rule.log_odds_above)


def test_a_session_looks_again_by_its_bundles_rule(half, cutouts):
    vis, nisp, sky, sigma = cutouts[:4]
    session = open_session(half.bundle, "cpu")
    assert half.high.sum() == 3
    eight = [session.plain_logits(turn(vis, o), turn(nisp, o), sky, sigma) for o in range(ORIENTATIONS)]
    expected = np.where(half.high[:, None], np.mean(eight, axis=0, dtype=np.float64), eight[0])
    np.testing.assert_allclose(session.logits(vis, nisp, sky, sigma), expected, atol=1e-5)


def test_a_score_depends_neither_on_its_company_nor_on_threads(half, cutouts):
    session = open_session(half.bundle, "cpu")
    together = session.logits(*cutouts[:4])
    alone = [session.logits(*(values[i : i + 1] for values in cutouts[:4]))[0] for i in range(6)]
    assert np.stack(alone).tobytes() == together.tobytes()
    parallel = open_session(half.bundle, "cpu", parallel=3)
    assert parallel.logits(*cutouts[:4]).tobytes() == together.tobytes()
    assert parallel.core_seconds > 0.0


def test_what_was_looked_at_again_has_no_up(half, cutouts):
    vis, nisp, sky, sigma = (values[half.high] for values in cutouts[:4])
    session = open_session(half.bundle, "cpu")
    upright = session.logits(vis, nisp, sky, sigma)
    levels = half.bundle.calibration.log_odds
    for orientation in range(1, ORIENTATIONS):
        turned = turn(vis, orientation), turn(nisp, orientation), sky, sigma
        again = levels(session.plain_logits(*turned)) >= half.bundle.manifest.second_look.log_odds_above
        np.testing.assert_allclose(session.logits(*turned)[again], upright[again], atol=1e-5)


def test_a_scan_ranks_by_the_second_look(half, cutouts):
    scores = Scorer(half.bundle, "cpu").score(*cutouts)
    np.testing.assert_array_equal(scores.logits, open_session(half.bundle, "cpu").logits(*cutouts[:4]))
    np.testing.assert_array_equal(scores.calibrated, half.bundle.calibration.apply(scores.logits))


def test_the_rule_is_part_of_what_log_odds_are_kept_by(half, bundle, write_bundle, tmp_path):
    class Set:
        content_key = "0" * 64

    other = write_bundle(tmp_path / "other", second_look=SecondLook(log_odds_above=1e3, share=0.1))
    assert len({cache_key(one, Set()) for one in (bundle, half.bundle, other)}) == 3


def test_a_bundle_without_calibration_takes_no_second_look(write_bundle, tmp_path):
    with pytest.raises((ContentError, ValueError), match="second_look"):
        write_bundle(
            tmp_path / "plain",
            labelled=False,
            calibration=MeanProbability(),
            second_look=SecondLook(log_odds_above=0.0, share=0.1),
        )
