"""A second look: the mean of eight orientations for whoever stands high, one look for the others."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.preprocessing import ORIENTATIONS, Augmentation, SecondLook, average_orientations, turn
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ContentError
from scanner.evaluation.scores import cache_key
from scanner.records import MEMBERS
from scanner.training.cascade import member_graph

FIRST_MEMBER = Calibration(coefficients=(1.0, 0, 0, 0, 0, 0, 0), intercept=0.0, training_prevalence=0.5, sky_prevalence=0.5)


def corners(vis, nisp, sky, sigma):
    """Log-odds that a turn changes: sums of seven pixels off the centre."""
    return (vis[:, 0, :7] + nisp[:, 0, 0, :7] + sky[:, :1] / sigma[:, :1]).astype(np.float32)


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((n, 9, 9), (n, 3, 7, 7), (n, 4), (n, 4))
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def augmentation(limit, columns=range(7), slope=1.0, intercept=0.0):
    rule = SecondLook(log_odds_above=limit, share=0.1, slope=slope, intercept=intercept)
    return Augmentation(rule, FIRST_MEMBER, np.array(columns))


@given(limit=st.floats(-3, 3), n=st.integers(0, 12), seed=st.integers(0, 99))
def test_whoever_stands_high_gets_the_mean_of_eight(limit, n, seed):
    cutouts = images(n, seed)
    vis, nisp, sky, sigma = cutouts
    found = average_orientations(corners, corners, augmentation(limit), *cutouts)
    once = corners(*cutouts)
    eight = [corners(turn(vis, o), turn(nisp, o), sky, sigma).astype(np.float64) for o in range(ORIENTATIONS)]
    high = FIRST_MEMBER.log_odds(once) >= limit
    np.testing.assert_array_equal(found[~high], once[~high])
    np.testing.assert_allclose(found[high], np.mean(eight, axis=0)[high], rtol=1e-5, atol=1e-5)


def test_only_the_members_that_turn_get_what_their_means_are_worth():
    cutouts = images(5)
    vis, nisp, sky, sigma = cutouts
    found = average_orientations(corners, corners, augmentation(-1e9, (0, 4), slope=1.5, intercept=-0.25), *cutouts)
    eight = [corners(turn(vis, o), turn(nisp, o), sky, sigma).astype(np.float64) for o in range(ORIENTATIONS)]
    for column in range(7):
        once, mean = eight[0][:, column], np.mean(eight, axis=0)[:, column]
        np.testing.assert_allclose(found[:, column], 1.5 * mean - 0.25 if column in (0, 4) else once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "calls"), [(5, [35]), (64, [448]), (65, [231, 224])])
def test_turned_cutouts_of_up_to_64_objects_are_scored_in_one_call(n, calls):
    made = []

    def turned(*arrays):
        made.append(len(arrays[0]))
        return corners(*arrays)

    vis, nisp, sky, sigma = images(n)
    found = average_orientations(corners, turned, augmentation(-1e9), vis, nisp, sky, sigma)
    assert made == calls
    eight = [corners(turn(vis, o), turn(nisp, o), sky, sigma).astype(np.float64) for o in range(ORIENTATIONS)]
    np.testing.assert_allclose(found, np.mean(eight, axis=0), rtol=1e-5, atol=1e-5)


def test_as_a_scan_has_it_is_as_each_orientation_is_scored():
    vis, nisp, sky, sigma = images(6)
    how = augmentation(0.5, (0, 4), slope=1.5, intercept=-0.25)
    turned = [(turn(vis, o), turn(nisp, o), sky, sigma) for o in range(ORIENTATIONS)]
    found = how.as_scanned(np.stack([corners(*one) for one in turned], axis=1))
    assert 0 < (found[..., 0] != corners(*turned[0])[:, None, 0]).sum() < found[..., 0].size
    for orientation, one in enumerate(turned):
        expected = average_orientations(corners, corners, how, *one)
        np.testing.assert_allclose(found[:, orientation], expected, rtol=1e-5, atol=1e-5)


def test_objects_without_log_odds_are_not_looked_at_again():
    calls = []

    def nothing(vis, nisp, sky, sigma):
        calls.append(len(vis))
        return np.full((len(vis), 7), np.nan, dtype=np.float32)

    found = average_orientations(nothing, nothing, augmentation(-100.0), *images(3))
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


@pytest.fixture(scope="module")
def few(half, write_bundle, models, tmp_path_factory):
    """As ``half``, but only OU-VIS and OU-66 turn, and their means are worth more."""
    turning = ("OU-VIS", "OU-66")
    rule = half.bundle.manifest.second_look.model_copy(update={"members": turning, "slope": 1.5, "intercept": 0.2})
    graph = member_graph(models["asinh_mad"], turning)
    out = tmp_path_factory.mktemp("bundles") / "few"
    return replace(half, bundle=write_bundle(out, second_look=rule, augmentation_model=graph))


def test_a_session_turns_only_for_the_members_of_the_rule(few, half, cutouts):
    found, whole = (open_session(one.bundle, "cpu").logits(*cutouts[:4]) for one in (few, half))
    once = open_session(few.bundle, "cpu").plain_logits(*cutouts[:4])
    turn_too = np.isin(MEMBERS, ("OU-VIS", "OU-66"))
    np.testing.assert_array_equal(found[~few.high], once[~few.high])
    np.testing.assert_array_equal(found[:, ~turn_too], once[:, ~turn_too])
    means = whole[np.ix_(few.high, turn_too)].astype(np.float64)
    np.testing.assert_allclose(found[np.ix_(few.high, turn_too)], 1.5 * means + 0.2, rtol=1e-6)
    # The members of the small graph have the bits of the whole.
    session = open_session(few.bundle, "cpu")
    np.testing.assert_array_equal(session.turned_logits(*cutouts[:4])[:, turn_too], once[:, turn_too])
    parallel = open_session(few.bundle, "cpu", parallel=3).logits(*cutouts[:4])
    alone = [session.logits(*(values[i : i + 1] for values in cutouts[:4]))[0] for i in range(6)]
    assert parallel.tobytes() == found.tobytes() == np.stack(alone).tobytes()


def test_members_that_turn_need_their_graph(write_bundle, tmp_path):
    rule = SecondLook(log_odds_above=0.0, share=0.1, members=("OU-VIS",))
    with pytest.raises(ValueError, match=r"augmentation\.onnx is not listed"):
        write_bundle(tmp_path / "none", second_look=rule)
    turned_over = rule.model_copy(update={"members": ("OU-66", "OU-VIS")})
    with pytest.raises(ValueError, match="members of second_look must be different ones in the order"):
        write_bundle(tmp_path / "order", second_look=turned_over, augmentation_model=b"graph")


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
    for orientation in (1, 4, 6):
        turned = turn(vis, orientation), turn(nisp, orientation), sky, sigma
        again = levels(session.plain_logits(*turned)) >= half.bundle.manifest.second_look.log_odds_above
        np.testing.assert_allclose(session.logits(*turned)[again], upright[again], atol=1e-5)


def test_a_scan_ranks_by_the_second_look(half, cutouts):
    scores = Scorer(half.bundle, "cpu").score(*cutouts)
    np.testing.assert_array_equal(scores.logits, open_session(half.bundle, "cpu").logits(*cutouts[:4]))
    np.testing.assert_array_equal(scores.calibrated, half.bundle.calibration.apply(scores.logits))


def test_the_rule_is_part_of_what_log_odds_are_kept_by(half, few, bundle, write_bundle, tmp_path):
    class Set:
        content_key = "0" * 64

    other = write_bundle(tmp_path / "other", second_look=SecondLook(log_odds_above=1e3, share=0.1))
    assert len({cache_key(one, Set()) for one in (bundle, half.bundle, few.bundle, other)}) == 4


def test_a_bundle_without_calibration_takes_no_second_look(write_bundle, tmp_path):
    with pytest.raises((ContentError, ValueError), match="second_look"):
        write_bundle(
            tmp_path / "plain",
            labelled=False,
            calibration=MeanProbability(),
            second_look=SecondLook(log_odds_above=0.0, share=0.1),
        )
