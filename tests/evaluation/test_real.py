import numpy as np
import pytest
from scipy.stats import beta

from scanner.evaluation.compare import measure_real
from scanner.evaluation.promotion import judge
from scanner.evaluation.results import Evaluation, RealFigures, RealObject, RealShare
from scanner.evaluation.scores import cache_key, write_array
from scanner.evaluation.tables import real, real_lenses
from scanner.interval import Interval, exact_interval
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS

SEES_VIS_ONLY = np.array([member == "OU-VIS" for member in MEMBERS])


@pytest.fixture
def measured(scored_pair, real_set, tmp_path):
    """The figures of a bundle on the real set, and the log-odds that lay in the cache."""
    truths, (good, _) = scored_pair
    dataset = LabelledSet(real_set)
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(16, 8, 7)) * 0.3 + rng.normal(size=(16, 1, 7)) - 2.0
    logits[:6] += rng.uniform(0, 6, size=(6, 1, 1))
    logits = logits.astype(np.float32)
    write_array(tmp_path / cache_key(good.bundle, dataset) / "turned-16.npy", logits)
    found = measure_real(good, "challenge", ~truths["challenge"].is_lens, "graded", dataset, pytest.fail, tmp_path)
    return good, dataset, logits, found


def test_figures_are_those_counted_by_hand(measured):
    good, _, logits, found = measured
    full, simulated = good.bundle.calibration, good.logits["challenge"]
    alone = full.distilled(SEES_VIS_ONLY, good.bundle.grid.logits)
    assert found.fprs == (1e-2, 1e-3)
    assert found.n_false == (30, 3)
    assert found.n_unjudged == 0
    rule, score, passing = good.bundle.manifest.second_look, {}, {}
    for row in range(16):
        calibration = alone if 4 <= row < 9 else full
        # Orientations that stand high get test-time augmentation by two members, as in a scan.
        seen, turning = logits[row].copy(), [MEMBERS.index("OU-VIS"), MEMBERS.index("OU-66")]
        high = np.flatnonzero(calibration.log_odds(seen) >= rule.log_odds_above)
        seen[np.ix_(high, turning)] = rule.slope * logits[row][:, turning].mean(axis=0) + rule.intercept
        score[row] = calibration.ranking_score(seen.mean(axis=0)[None])[0]
        higher = int(np.sum(calibration.ranking_score(simulated) >= score[row]))
        passing[row] = [higher < n for n in (30, 3)], [higher <= n for n in (30, 3)]
    groups = {"all": range(6), "A": range(4), "B": range(4, 6), "θ_E 1–1.5″": range(6)}
    shares = {(share.kind, share.group): share for share in found.shares}
    assert set(shares) == {("others", "all"), *(("lenses", group) for group in groups)}
    for rows, share in [(rows, shares["lenses", group]) for group, rows in groups.items()] + [
        (range(6, 16), shares["others", "all"])
    ]:
        assert share.n == len(rows)
        for rate, interval in enumerate(share.passing):
            # The n-th highest non-lens itself passes, the next does not.
            least, most = (sum(passing[row][tie][rate] for row in rows) for tie in (0, 1))
            assert least <= round(interval.value * share.n) <= most
    assert [lens.log_odds for lens in found.lenses] == pytest.approx(sorted((score[row] for row in range(6)), reverse=True))
    for lens in found.lenses:
        assert lens.others_above == sum(score[row] > score[lens.target_id] for row in range(6, 16))
        assert lens.label == ("A" if lens.target_id < 4 else "B")
        assert lens.log_odds == pytest.approx(score[lens.target_id])
    wins = np.mean([score[lens] > score[other] for lens in range(6) for other in range(6, 16)])
    assert found.auroc.value == pytest.approx(wins)
    assert 0 < sum(bool(lens.passes) for lens in found.lenses) < 6


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (3, 7), (7, 7), (25, 400)])
def test_exact_interval_is_clopper_pearson(successes, n):
    found = exact_interval(successes, n)
    assert found.value == successes / n
    assert found.low == pytest.approx(0.0 if successes == 0 else beta.ppf(0.025, successes, n - successes + 1))
    assert found.high == pytest.approx(1.0 if successes == n else beta.ppf(0.975, successes + 1, n - successes))


def test_tables_say_what_passes_and_what_stands_low(measured):
    *_, found = measured
    evaluation = _evaluation(found)
    table = real(evaluation)
    assert table.header == ("set", "bundle", "objects", "n", "pass at FPR 1e-2", "pass at FPR 1e-3")
    assert [row[2:4] for row in table.rows[:2]] == [("lenses", "6"), ("lenses, A", "4")]
    assert table.rows[-1][2:4] == ("non-lenses", "10")
    assert all(row[5].endswith("*") and not row[4].endswith("*") for row in table.rows)
    assert "3,000 simulated non-lenses of challenge" in table.note
    rows = real_lenses(evaluation).rows
    assert [float(row[4]) for row in rows] == pytest.approx([lens.log_odds for lens in found.lenses], abs=0.01)
    assert {row[5] for row in rows} <= {"none", "1e-2", "1e-3"}
    assert all(row[6].endswith(" of 10") for row in rows)


def _evaluation(*figures):
    counts = {"name": "challenge", "preset": "challenge", "sha256": "0", "n_objects": 3000, "n_lenses": 0, "n_visible": 0}
    bundles = [
        {
            "name": name, "version": "1", "fingerprint": "0" * 64, "model_sha256": "0" * 64, "preprocessing": "asinh_mad",
            "decides_on": "grid", "combined": "calibrated",
        }
        for name in dict.fromkeys(one.bundle for one in figures)
    ]  # fmt: skip
    return Evaluation(
        scanner_version="0",
        sky_prevalence=1e-4,
        sky="challenge",
        sets=[counts | {"classes": {}}],
        bundles=bundles,
        real=figures,
    )


def _figures(bundle, lenses, n_lenses, alarms=(), n_others=400):
    def one(number, label):
        return RealObject(target_id=number, label=label, log_odds=0.0, passes=(1e-2,), others_above=0)

    found = [(Interval(value=len(part) / n, low=0, high=1),) for part, n in ((lenses, n_lenses), (alarms, n_others))]
    shares = [
        RealShare(group="all", kind=kind, n=n, passing=passing)
        for kind, n, passing in zip(("lenses", "others"), (n_lenses, n_others), found, strict=True)
    ]
    return RealFigures(
        bundle=bundle, set="sky", reference="challenge", fprs=(1e-2,), n_false=(30,), n_unjudged=0, shares=shares, auroc=None,
        lenses=tuple(one(number, "A") for number in lenses), alarms=tuple(one(1000 + number, "X") for number in alarms),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("new", "old", "n_lenses", "passes"),
    [
        (((1, 2, 3), ()), ((1, 2, 3), ()), 3, True),
        (((1, 2, 4), ()), ((1, 2, 3), ()), 5, False),  # one lost of few, though another is won
        (((1, 2, 3, 4), ()), ((1, 2, 3), ()), 5, True),
        ((range(1, 60), ()), (range(60), ()), 80, True),  # one lost of many may be chance
        ((range(10, 60), ()), (range(60), ()), 80, False),
        (((1, 2, 3), range(1)), ((1, 2, 3), ()), 3, True),
        (((1, 2, 3), range(20)), ((1, 2, 3), ()), 3, False),  # twenty false alarms more are no chance
        (((1, 2, 3), ()), ((1, 2, 3), range(20)), 3, True),
    ],
)
def test_a_bundle_that_loses_real_lenses_is_not_promoted(new, old, n_lenses, passes):
    figures = [_figures(name, lenses, n_lenses, alarms) for name, (lenses, alarms) in (("new", new), ("old", old))]
    promotion = judge(_evaluation(*figures))
    assert len(promotion.checks) == 2
    assert promotion.passed is passes
