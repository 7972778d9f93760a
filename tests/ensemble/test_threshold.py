import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import fbeta_score

from scanner.ensemble.calibration import OperatingCurve
from scanner.errors import ContentError


@st.composite
def labelled_sets(draw):
    """Few distinct scores, hence many ties; both classes present."""
    n = draw(st.integers(2, 60))
    scores = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.99, 1.0])))
    labels = draw(hnp.arrays(np.bool_, n))
    labels[0], labels[-1] = True, False
    return scores, labels


def _by_hand(scores, labels, threshold, beta, prevalence):
    selected = scores >= threshold
    recall = (selected & labels).sum() / labels.sum()
    fall_out = (selected & ~labels).sum() / (~labels).sum()
    true, false = prevalence * recall, (1 - prevalence) * fall_out
    precision = true / (true + false)
    value = 0.0 if true == 0 else (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    return value, precision, recall


def _error_by_hand(scores, labels, threshold, beta, prevalence):
    """The delta method with numerical derivatives of equation 3."""

    def value(recall, fall_out):
        true, false = prevalence * recall, (1 - prevalence) * fall_out
        # In the form of counts: finite where nothing is selected.
        return (1 + beta**2) * true / (true + false + beta**2 * prevalence)

    selected, steps = scores >= threshold, []
    rates = [selected[one].mean() for one in (labels, ~labels)]
    for k, one in enumerate((labels, ~labels)):
        smoothed = (selected[one].sum() + 0.5) / (one.sum() + 1)
        step = np.zeros(2)
        # Small beside all terms of the denominator.
        step[k] = 1e-4 * (prevalence * rates[0] + (1 - prevalence) * rates[1] + beta**2 * prevalence)
        slope = (value(*(rates + step)) - value(*(rates - step))) / (2 * step[k])
        steps.append(slope * np.sqrt(smoothed * (1 - smoothed) / one.sum()))
    return np.hypot(*steps)


betas, prevalences = st.sampled_from([0.03, 0.5, 1.0, 2.0, 10.0]), st.sampled_from([None, 1e-4, 0.5])


@given(labelled_sets(), betas, prevalences, st.booleans())
def test_best_threshold_is_that_of_a_brute_force_search(labelled, beta, prevalence, exact):
    scores, labels = labelled
    share = labels.mean() if prevalence is None else prevalence
    best = OperatingCurve.of(scores, labels).best(beta, prevalence, exact=exact)
    tried = {value: _by_hand(scores, labels, value, beta, share) for value in np.unique(scores)}
    assert best.threshold in tried, "a threshold is a score that occurs"
    assert tried[best.threshold] == pytest.approx((best.f_beta, best.precision, best.recall), rel=1e-9)
    assert best.n_selected == (scores >= best.threshold).sum()
    highest = max(value for value, _, _ in tried.values())
    top = min(threshold for threshold, (value, *_) in tried.items() if value > highest * (1 - 1e-12))
    least = highest
    if not exact:
        everything = tried[scores.min()][0]
        least = max(highest - _error_by_hand(scores, labels, top, beta, share), (highest + everything) / 2)
    # Those nearer to the limit than the numerical derivatives are exact may be taken or not.
    assert best.f_beta >= least - 1e-6 * highest
    assert not any(threshold < best.threshold for threshold, (value, *_) in tried.items() if value > least + 1e-6 * highest)


@given(labelled_sets(), betas, prevalences)
def test_no_threshold_takes_everything_unless_it_is_the_best(labelled, beta, prevalence):
    """A tiny set's standard error spans all thresholds."""
    scores, labels = labelled
    curve = OperatingCurve.of(scores, labels)
    lowest = scores.min()
    found = [curve.best(beta, prevalence, exact=exact).threshold == lowest for exact in (True, False)]
    assert found[0] == found[1]


def test_the_standard_error_of_f_beta_is_that_of_resampling():
    """Lenses and non-lenses drawn again, each by themselves: the prevalence is stated, not counted."""
    rng = np.random.default_rng(3)
    labels = np.arange(3000) < 1200
    scores = (rng.normal(size=3000) + 1.5 * labels).round(1)
    curve = OperatingCurve.of(scores, labels)
    for beta in (0.03, 1.0):
        at = int(np.flatnonzero(curve.thresholds >= 1.5)[-1])
        selected = scores >= curve.thresholds[at]
        recall, fall_out = (
            rng.binomial(len(one), one.mean(), 4000) / len(one) for one in (selected[labels], selected[~labels])
        )
        true, false = 0.4 * recall, 0.6 * fall_out
        resampled = (1 + beta**2) * true / (true + false + beta**2 * 0.4)
        assert curve.f_beta_error(beta)[at] == pytest.approx(resampled.std(), rel=0.1)


def test_the_noise_of_the_purest_objects_does_not_decide():
    """One non-lens among the 301 highest says no more than ten among 1,210."""
    scores = np.repeat([1.0, 1.0, 0.9, 0.9, 0.1], [300, 1, 900, 9, 4000])
    labels = np.repeat([True, False, True, False, False], [300, 1, 900, 9, 4000])
    curve = OperatingCurve.of(scores, labels)
    assert curve.best(0.03, exact=True).threshold == 1.0
    assert (curve.best(0.03).threshold, curve.best(0.03).recall) == (0.9, 1.0)


@given(labelled_sets(), st.sampled_from([0.03, 1.0, 2.0]))
def test_f_beta_is_that_of_scikit_learn(labelled, beta):
    scores, labels = labelled
    curve = OperatingCurve.of(scores, labels)
    for threshold, value in zip(curve.thresholds, curve.f_beta(beta), strict=True):
        assert value == pytest.approx(fbeta_score(labels, scores >= threshold, beta=beta, zero_division=0), abs=1e-12)


def test_beta_of_the_paper_weights_precision():
    """Table 5, OU-66: precision 0.9758 and recall 0.2180 give F = 0.9727 at β = 0.03."""
    beta, precision, recall = 0.03, 0.9758, 0.2180
    assert (1 + beta**2) * precision * recall / (beta**2 * precision + recall) == pytest.approx(0.9727, abs=2e-4)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    labels = np.array([True, False, True, True, True, False])
    curve = OperatingCurve.of(scores, labels)
    assert curve.best(0.03).threshold == 0.9
    assert curve.best(0.03).precision == 1.0
    assert curve.best(10.0).threshold == 0.5
    assert curve.best(10.0).recall == 1.0


def test_equal_f_beta_takes_the_lower_threshold():
    curve = OperatingCurve.of(np.array([0.9, 0.8, 0.1]), np.array([True, True, False]))
    assert curve.best(1.0).threshold == 0.8


def test_prevalence_of_the_sky_lowers_the_precision_only():
    scores = np.array([0.9, 0.9, 0.9, 0.2, 0.2])
    labels = np.array([True, True, False, False, True])
    point = OperatingCurve.of(scores, labels).best(0.03, prevalence=1e-3)
    assert point.recall == pytest.approx(2 / 3)
    assert point.precision == pytest.approx(1e-3 * (2 / 3) / (1e-3 * (2 / 3) + 0.999 * 0.5))
    assert point.prevalence == 1e-3


def test_a_curve_survives_its_file(tmp_path):
    rng = np.random.default_rng(0)
    curve = OperatingCurve.of(rng.random(500).round(2), rng.random(500) > 0.3)
    curve.save(tmp_path / "curve.npz")
    again = OperatingCurve.load(tmp_path / "curve.npz")
    for name, values in vars(curve).items():
        np.testing.assert_array_equal(getattr(again, name), values)
    assert (again.n_lenses, again.n_non_lenses) == (curve.n_lenses, curve.n_non_lenses)


def test_what_is_no_curve_is_refused(tmp_path):
    path = tmp_path / "curve.npz"
    for content in (b"", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ContentError, match=r"curve\.npz: not an operating curve"):
            OperatingCurve.load(path)
    np.savez(path, thresholds=np.array([object()], dtype=object), true_positives=[1], false_positives=[1])
    with pytest.raises(ContentError, match="not an operating curve"):
        OperatingCurve.load(path)
    for thresholds, lenses, others in (
        ([1.0, 0.5], [1], [1]),
        ([0.5, 1.0], [1, 2], [1, 2]),
        ([np.nan, 0.5], [1, 2], [1, 2]),
        ([1.0, 0.5], [2, 1], [1, 2]),
        ([1.0, 0.5], [-1, 1], [1, 2]),
        ([1.0, 0.5], [1, 2], [0, 0]),
    ):
        np.savez(path, thresholds=thresholds, true_positives=np.array(lenses), false_positives=np.array(others))
        with pytest.raises(ContentError, match="is no operating curve"):
            OperatingCurve.load(path)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([0.1, np.nan], [True, False], "NaN"),
        ([0.1, 0.2], [True, True], "both classes"),
        ([0.1, 0.2], [False, False], "both classes"),
        ([0.1], [True, False], "one length"),
    ],
)
def test_bad_sets_are_refused(scores, labels, reason):
    with pytest.raises(ValueError, match=reason):
        OperatingCurve.of(np.array(scores), np.array(labels))


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_bad_beta_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        OperatingCurve.of(np.array([0.1, 0.2]), np.array([False, True])).best(beta)
