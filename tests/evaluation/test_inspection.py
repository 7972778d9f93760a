import numpy as np
import pytest

from scanner.evaluation.ranking import inspect


def _brute(positive, negative, prevalence, inspected):
    """Completeness by drawing a list of weighted objects."""
    values = np.concatenate([positive, negative])
    weights = np.concatenate(
        [np.full(len(positive), prevalence / len(positive)), np.full(len(negative), (1 - prevalence) / len(negative))]
    )
    order = np.argsort(-values, kind="stable")
    listed = np.cumsum(weights[order]) * 1e6
    found = np.cumsum((order < len(positive))[:]) / len(positive)
    return np.interp(inspected, np.append(0, listed), np.append(0, found))


@pytest.mark.parametrize("n_others", [500, 20_000])
def test_completeness_is_that_of_a_weighted_list(n_others):
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(2, 1, 400), rng.normal(0, 1, n_others)
    numbers = np.array([30.0, 300, 3000, 30_000, 300_000, 1e6])
    points = inspect(positive, negative, 1e-3, inspected=numbers)
    expected = _brute(positive, negative, 1e-3, numbers)
    # Beyond the first thousand non-lenses the list is only known to a per cent of its length.
    np.testing.assert_allclose([point.completeness.value for point in points], expected, atol=0.003)
    for point in points:
        assert point.purity.value == pytest.approx(point.completeness.value * 1000 / point.inspected)
        assert point.completeness.low <= point.completeness.value <= point.completeness.high
    assert points[-1].completeness.value == pytest.approx(1)
    assert points[-1].purity.value == pytest.approx(1e-3)


def test_equal_scores_are_in_random_order():
    point = inspect(np.zeros(10), np.zeros(90), 0.1, inspected=np.array([250_000.0]))[0]
    assert point.completeness.value == pytest.approx(0.25)
    assert point.purity.value == pytest.approx(0.1)


def test_non_lenses_above_a_place_are_counted():
    negative = np.arange(1000.0)
    points = inspect(np.full(5, 2000.0), negative, 1e-4, inspected=np.array([50.0, 20_000.0]))
    assert [point.n_false for point in points] == [0, 19]
    assert points[0].completeness.value == pytest.approx(0.5)
    assert [point.rests_on_few for point in points] == [True, False]


def test_intervals_are_those_of_resampling():
    rng = np.random.default_rng(6)
    positive, negative = rng.normal(1.5, 1, 300), rng.normal(0, 1, 3000)
    numbers = np.array([10_000.0, 100_000.0])
    points = inspect(positive, negative, 1e-4, inspected=numbers)
    brute = [_brute(rng.choice(positive, 300), rng.choice(negative, 3000), 1e-4, numbers) for _ in range(400)]
    for point, values in zip(points, np.array(brute).T, strict=True):
        width = np.subtract(*np.quantile(values, [0.975, 0.025]))
        assert point.completeness.high - point.completeness.low == pytest.approx(width, rel=0.2)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="lenses and non-lenses"):
        inspect(np.empty(0), np.ones(3), 1e-4)
