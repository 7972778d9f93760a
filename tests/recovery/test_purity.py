"""Purity of lists whose lenses are known, with and without grades."""

from dataclasses import replace

import numpy as np
import pytest
from painted import drawn_sky, painted_table, run_of
from scipy.stats.contingency import relative_risk

from scanner.recovery.completeness import Cut, PaintedLenses
from scanner.recovery.purity import Assumptions, RecallRatio, forecast, list_lengths, recall_ratio, yields

KNOWN_DENSITY = Assumptions(density_deg2=8.0, density_error=0.0)
LENGTHS = (50, 200, 1000)
TOPS = [Cut(kind="top", value=n) for n in LENGTHS]


@pytest.fixture(scope="module")
def sky():
    return drawn_sky(50)


@pytest.fixture(scope="module")
def lenses(sky):
    return PaintedLenses.of(painted_table(51, 6000, sky))


def test_purity_of_ten_skies_is_predicted():
    within = dict.fromkeys(LENGTHS, 0)
    for seed in range(10):
        sky = drawn_sky(100 + seed)
        painted = PaintedLenses.of(painted_table(200 + seed, 3000, sky))
        for n, found in zip(LENGTHS, yields(painted, run_of(sky), TOPS, KNOWN_DENSITY), strict=True):
            within[n] += found.purity.low <= sky.is_lens[:n].mean() <= found.purity.high
    assert min(within.values()) >= 9, within


def test_the_interval_is_no_wider_than_chance(sky, lenses):
    found = yields(lenses, run_of(sky), TOPS, KNOWN_DENSITY)[2]
    # Poisson's error of the number of lenses, and little beside.
    assert found.n_lenses.high - found.n_lenses.low == pytest.approx(3.92 * np.sqrt(found.n_lenses.value), rel=0.15)


@pytest.mark.parametrize("seed", [50, 51, 52])
def test_the_mean_is_density_times_area_times_completeness(seed):
    # Whatever chance has put at the head of the list.
    drawn = drawn_sky(seed)
    found = yields(PaintedLenses.of(painted_table(51, 3000, drawn)), run_of(drawn), TOPS, KNOWN_DENSITY)[2]
    assert found.n_lenses.value == pytest.approx(8.0 * 20.0 * found.completeness.value, rel=0.01)


def test_an_unknown_density_widens_it(sky, lenses):
    known, unknown = (yields(lenses, run_of(sky), TOPS, Assumptions(density_error=error))[2].n_lenses for error in (0.0, 0.3))
    assert unknown.high - unknown.low > 2 * (known.high - known.low)


def test_false_positives_and_lenses_are_the_whole_list(sky, lenses):
    for found in yields(lenses, run_of(sky), [*TOPS, Cut(kind="candidates")], KNOWN_DENSITY):
        assert found.n_lenses.value + found.n_false.value == pytest.approx(found.n_listed)
        assert found.purity.value == pytest.approx(found.n_lenses.value / found.n_listed)


def test_objects_above_a_threshold_are_counted_from_the_steps(sky, lenses):
    for threshold in (0.9, 0.5, 0.07, 0.003):
        found = yields(lenses, run_of(sky), [Cut(kind="threshold", value=threshold)], KNOWN_DENSITY)[0]
        assert found.n_listed == pytest.approx((sky.probability >= threshold).sum(), rel=0.1, abs=2)


def test_what_is_graded_whole_is_known(sky, lenses):
    verdicts = {rank: bool(sky.is_lens[rank - 1]) for rank in range(1, 51)}
    found = yields(lenses, run_of(sky), TOPS[:1], Assumptions(), verdicts)[0]
    n = int(sky.is_lens[:50].sum())
    assert (found.n_graded, found.n_graded_lenses) == (50, n)
    assert found.n_lenses.low == found.n_lenses.high == n


def test_grades_teach_the_density(sky, lenses):
    # Three times too many are assumed, and not believed much.
    wrong = Assumptions(density_deg2=24.0, density_error=0.7)
    truth = int(sky.is_lens[:1000].sum())
    before = yields(lenses, run_of(sky), TOPS, wrong)[2].n_lenses
    verdicts = {rank: bool(sky.is_lens[rank - 1]) for rank in range(101, 401)}
    after = yields(lenses, run_of(sky), TOPS, wrong, verdicts)[2].n_lenses
    assert before.value > 2 * truth
    assert after.value == pytest.approx(truth, rel=0.25)
    assert after.low < truth < after.high
    assert after.high - after.low < 0.6 * (before.high - before.low)


def test_grading_the_head_of_a_list_leans_to_neither_side():
    # All of the best objects are lenses, whatever the density: how far down they reach is what tells.
    bias, within = [], 0
    for seed in range(12):
        sky = drawn_sky(300 + seed)
        painted = PaintedLenses.of(painted_table(400 + seed, 2000, sky))
        verdicts = {rank: bool(sky.is_lens[rank - 1]) for rank in range(1, 61)}
        found, truth = yields(painted, run_of(sky), TOPS, Assumptions(), verdicts)[2].n_lenses, int(sky.is_lens[:1000].sum())
        bias.append(found.value / truth - 1)
        within += found.low <= truth <= found.high
    assert abs(np.mean(bias)) < 0.05
    assert within >= 11


def test_a_grade_beyond_the_run_counts_nowhere(sky, lenses):
    with_it, without = (
        yields(lenses, run_of(sky), TOPS, Assumptions(), verdicts) for verdicts in ({10**9: True, -1: True}, {})
    )
    assert with_it == without


def test_the_ratio_of_recalls_is_that_of_katz(lenses):
    found = recall_ratio(lenses, Cut(kind="candidates"))
    is_found = lenses.is_candidate
    counts = [
        int((is_found & lenses.is_visible & lenses.is_compound).sum()),
        int((lenses.is_visible & lenses.is_compound).sum()),
        int((is_found & lenses.is_visible & ~lenses.is_compound).sum()),
        int((lenses.is_visible & ~lenses.is_compound).sum()),
    ]
    reference = relative_risk(*counts)
    interval = reference.confidence_interval(0.95)
    assert found.ratio.value == pytest.approx(reference.relative_risk)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((interval.low, interval.high))
    # The law makes compound lenses 1.2 less in log-odds.
    assert found.ratio.high < 1.0


def test_like_lenses_are_compared_where_compound_ones_are_brighter():
    rng = np.random.default_rng(3)
    n = 20_000
    bright = rng.random(n) < 0.5
    # Compound lenses are mostly bright, and bright lenses are found; what they are made of plays no part.
    compound = rng.random(n) < np.where(bright, 0.4, 0.1)
    found = rng.random(n) < np.where(bright, 0.8, 0.2)
    values = np.ones((n, 7))
    values[:, 1] = np.where(bright, 150.0, 30.0)
    lenses = PaintedLenses(
        values=values, nominal_snr=values[:, 1],
        rank=np.where(found, 1, -1), probability=np.ones(n), group=np.arange(n), is_visible=np.ones(n, bool),
        is_compound=compound, is_candidate=found, is_scored=found, ra=np.zeros(n), dec=np.zeros(n), fate=np.full(n, "scored"),
    )  # fmt: skip
    ratio = recall_ratio(lenses, Cut(kind="candidates"))
    assert ratio.ratio.low > 1.3
    assert ratio.alike.low < 1.0 < ratio.alike.high
    assert ratio.alike.high - ratio.alike.low < 0.1


def test_mantel_and_haenszels_ratio_of_two_tables():
    # Two strata by hand: (10 of 20 against 30 of 100) and (45 of 50 against 60 of 100).
    counts = {(30.0, True): (10, 20), (30.0, False): (30, 100), (150.0, True): (45, 50), (150.0, False): (60, 100)}
    snr, compound, found = [], [], []
    for (value, flag), (k, n) in counts.items():
        snr += [value] * n
        compound += [flag] * n
        found += [True] * k + [False] * (n - k)
    n = len(snr)
    values = np.ones((n, 7))
    values[:, 1] = snr
    lenses = PaintedLenses(
        values=values, nominal_snr=values[:, 1],
        rank=np.ones(n, int), probability=np.ones(n), group=np.arange(n), is_visible=np.ones(n, bool),
        is_compound=np.array(compound), is_candidate=np.array(found), is_scored=np.ones(n, bool), ra=np.zeros(n),
        dec=np.zeros(n), fate=np.full(n, "scored"),
    )  # fmt: skip
    upper, lower = 10 * 100 / 120 + 45 * 100 / 150, 30 * 20 / 120 + 60 * 50 / 150
    assert recall_ratio(lenses, Cut(kind="candidates")).alike.value == pytest.approx(upper / lower)


def test_where_no_compound_lens_was_painted_there_is_no_recall_of_them(lenses):
    found = recall_ratio(replace(lenses, is_compound=np.zeros(len(lenses), dtype=bool)), Cut(kind="candidates"))
    assert (found.compound, found.ratio, found.alike) == (None, None, None)
    assert RecallRatio.model_validate_json(found.model_dump_json()) == found


def test_nothing_found_has_no_ratio(lenses):
    found = recall_ratio(lenses, Cut(kind="top", value=0))
    assert found.ratio is None
    assert found.alike is None


def test_a_forecast_grows_with_the_area(sky, lenses):
    run = run_of(sky)
    lists = yields(lenses, run, [Cut(kind="top", value=n) for n in list_lengths(run.n_objects)], KNOWN_DENSITY)
    small, large = (forecast(lists, lenses, run, KNOWN_DENSITY, {}, area, 0.5) for area in (100.0, 10_000.0))
    assert small.top == large.top
    assert large.n_lenses.value == pytest.approx(100 * small.n_lenses.value, rel=0.02)
    # Half of the list are lenses, as was asked for, and the hours are those of ten seconds an object.
    assert large.n_lenses.value / large.n_listed.value == pytest.approx(0.5, abs=0.06)
    assert large.hours.value == pytest.approx(large.n_listed.value / 360)
    # Chance counts for less in a large area.
    assert (large.n_lenses.high - large.n_lenses.low) / large.n_lenses.value < 0.1
    assert (small.n_lenses.high - small.n_lenses.low) / small.n_lenses.value > 0.12


def test_a_purity_that_no_list_has_is_said(sky, lenses):
    run = run_of(sky)
    lists = yields(lenses, run, [Cut(kind="top", value=5000)], KNOWN_DENSITY)
    found = forecast(lists, lenses, run, KNOWN_DENSITY, {}, 100.0, 0.9)
    assert found.top is None
    assert found.n_lenses is None
    assert found.best_purity == lists[0].purity.value
