from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, fbeta_score, precision_score, recall_score, roc_auc_score

from scanner.evaluation.compare import pair
from scanner.evaluation.decisions import class_rates, decide, decisions, grid_losses, inspect, measure, recall_curves
from scanner.evaluation.metrics import threshold_at_fpr
from scanner.evaluation.results import Pairing, main_pairings
from scanner.evaluation.scores import ScoredBundle
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS


def test_a_decision_is_that_of_scikit_learn(make_truth, make_logits):
    truth = make_truth(120, 300)
    values = make_logits(truth)[:, 5].astype(float)
    selected = values >= 0.5
    found = decide("b", "eval", "OU-66", selected, truth, values=values, threshold=0.5, beta=0.5)
    labels = truth.is_lens
    assert found.recall.value == pytest.approx(recall_score(labels, selected))
    assert found.precision.value == pytest.approx(precision_score(labels, selected))
    assert found.f_beta.value == pytest.approx(fbeta_score(labels, selected, beta=0.5))
    assert found.accuracy.value == pytest.approx(accuracy_score(labels, selected))
    assert found.auroc.value == pytest.approx(roc_auc_score(labels, values))
    fpr = np.mean(selected[~labels])
    assert found.purity.value == pytest.approx(1e-4 * found.recall.value / (1e-4 * found.recall.value + (1 - 1e-4) * fpr))
    for figure in (found.f_beta, found.purity, found.accuracy, found.precision):
        assert figure.low < figure.value < figure.high
    assert found == type(found).model_validate_json(found.model_dump_json())


def test_the_interval_of_f_beta_is_that_of_resampling(make_truth, make_logits):
    truth = make_truth(150, 300)
    values = make_logits(truth)[:, 5].astype(float)
    selected = values >= 0.0
    found = decide("b", "eval", "OU-66", selected, truth, values=values, threshold=0.5, beta=1.0)
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(kind), kind.sum()) for kind in (truth.is_lens, ~truth.is_lens)])
        resampled.append(fbeta_score(truth.is_lens[rows], selected[rows], beta=1.0))
    assert found.f_beta.high - found.f_beta.low == pytest.approx(np.subtract(*np.quantile(resampled, [0.975, 0.025])), rel=0.2)


def test_no_false_positive_seen_is_not_a_purity_of_one(make_truth):
    truth = make_truth(100, 100)
    found = decide("b", "s", "grid", truth.is_lens, truth, values=truth.is_lens * 1.0, threshold=1.0, beta=0.03)
    assert found.purity.value == 1.0
    assert found.purity.low < 0.01


def test_nothing_selected_has_no_precision(make_truth):
    truth = make_truth(20, 30)
    found = decide("b", "s", "grid", np.zeros(50, bool), truth, values=np.arange(50.0), threshold=1.0, beta=0.03)
    assert (found.n_selected, found.precision, found.f_beta, found.purity) == (0, None, None, None)
    assert found.recall.value == 0


def test_sets_of_one_class_have_what_can_be_measured(scored_pair):
    truths, bundles = scored_pair
    found = decisions(bundles, truths)
    assert len(found) == 2 * 2 * (len(MEMBERS) + 1)
    sky = [decision for decision in found if decision.set == "challenge"]
    assert all(d.recall is None and d.auroc is None and d.fpr is not None for d in sky)
    first = found[0]
    assert (first.set, first.score, first.threshold) == ("eval", "OU-J", 0.5)
    logits = bundles[0].logits["eval"][truths["eval"].is_lens, 0]
    assert first.recall.value == pytest.approx(np.mean(logits >= 0))


OWN, SKY = Pairing(lenses="eval", others="eval"), Pairing(lenses="eval", others="challenge")


@pytest.fixture(scope="module")
def measured(scored_pair):
    truths, bundles = scored_pair
    return measure(bundles, truths, (OWN, SKY))


def test_every_figure_is_brute_force(scored_pair, measured):
    truths, bundles = scored_pair
    by_name = {scored.name: scored for scored in bundles}
    figures, _ = measured
    for found in figures[:: len(figures) // 40]:
        scores = by_name[found.bundle].scores
        lenses, others = truths[found.pairing.lenses], truths[found.pairing.others]
        chosen = lenses.visible if found.positives == "visible" else lenses.is_lens
        positive = scores[found.pairing.lenses][found.score][chosen]
        hard = np.isin(others.class_name, ["companion", "near_lens", "elliptical"])
        negative = scores[found.pairing.others][found.score][~others.is_lens & (hard if found.negatives == "hard" else True)]
        labels = np.arange(len(positive) + len(negative)) < len(positive)
        assert found.auroc.value == pytest.approx(roc_auc_score(labels, np.concatenate([positive, negative])))
        for recall in found.recalls:
            if recall.recall is None:
                assert recall.fpr * len(negative) < 1
            else:
                assert recall.recall.value == pytest.approx(np.mean(positive >= threshold_at_fpr(negative, recall.fpr)))


def test_rates_that_the_sky_cannot_measure_are_left_open(measured):
    found = next(f for f in measured[0] if f.pairing == SKY and f.negatives == "all")
    assert [recall.recall is None for recall in found.recalls] == [False, False, True]
    assert [recall.rests_on_few for recall in found.recalls] == [False, True, True]


def test_differences_are_those_of_the_figures(measured):
    figures, differences = measured
    for found in differences:
        both = []
        for bundle, score in ((found.new, found.score_new), (found.old, found.score_old)):
            one = next(
                f
                for f in figures
                if (f.bundle, f.score, f.pairing, f.positives, f.negatives)
                == (bundle, score, found.pairing, found.positives, found.negatives)
            )
            rates = {recall.fpr: recall.recall for recall in one.recalls}
            both.append((one.auroc if found.fpr is None else rates[found.fpr]).value)
        assert found.difference.value == pytest.approx(both[0] - both[1])
        assert found.difference.low <= found.difference.value <= found.difference.high
    clear = [d for d in differences if d.score_new == "calibrated" and d.fpr is None and d.negatives == "all"]
    assert all(d.difference.low > 0 for d in clear)


def test_what_the_grid_loses(scored_pair, measured):
    truths, bundles = scored_pair
    losses = grid_losses(bundles[:1], truths, (OWN,))
    assert [found.positives for found in losses] == ["visible", "all"]
    for found in losses:
        areas = {f.score: f.auroc.value for f in measured[0] if _choice(f) == (found.bundle, OWN, found.positives, "all")}
        assert found.difference.value == pytest.approx(areas["grid"] - areas["calibrated"])
        assert found.difference.low < found.difference.value < found.difference.high
        truth, grid = truths["eval"], bundles[0].scores["eval"]["grid"]
        lenses = truth.is_lens & truth.visible if found.positives == "visible" else truth.is_lens
        assert found.tied == pytest.approx(np.mean(grid[lenses][:, None] == grid[~truth.is_lens]))


def _choice(figures):
    return figures.bundle, figures.pairing, figures.positives, figures.negatives


def test_lenses_of_every_set_meet_the_sky_and_mixed_sets_themselves(make_truth):
    truths = {"eval": make_truth(5, 5), "rings": make_truth(4, 0), "hard": make_truth(0, 9), "challenge": make_truth(0, 9)}
    found = pair(truths, "challenge")
    assert [str(pairing) for pairing in found] == [
        "eval",
        "eval against hard",
        "eval against challenge",
        "rings against challenge",
    ]
    assert [str(p) for p in main_pairings(found, "challenge")] == ["eval against challenge", "rings against challenge"]
    without = pair({name: truths[name] for name in ("rings", "eval")}, None)
    assert [str(pairing) for pairing in without] == ["rings against eval", "eval"]
    assert [str(p) for p in main_pairings(without, None)] == ["eval", "rings against eval"]


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


def test_classes_pass_as_often_as_they_score_above_the_sky(scored_pair):
    truths, bundles = scored_pair
    found = class_rates(bundles, truths, "eval", "challenge")
    assert {(rate.pairing.others, rate.threshold_set) for rate in found} == {("eval", "challenge"), ("challenge", "challenge")}
    for rate in found:
        scored = next(b for b in bundles if b.name == rate.bundle)
        threshold = threshold_at_fpr(scored.combined["challenge"], rate.fpr)
        truth, values = truths[rate.pairing.others], scored.combined[rate.pairing.others]
        for one in rate.classes:
            chosen = ~truth.is_lens & (truth.class_name == one.class_name)
            assert one.n == chosen.sum()
            assert one.passing.value == pytest.approx(np.mean(values[chosen] >= threshold))
        shares = [one.passing.value for one in rate.classes]
        assert shares == sorted(shares, reverse=True)


def test_without_a_sky_each_set_has_its_own_threshold(scored_pair):
    truths, bundles = scored_pair
    found = class_rates(bundles[:1], {"eval": truths["eval"]}, "eval", None)
    assert {rate.threshold_set for rate in found} == {"eval"}
    assert {rate.fpr for rate in found} == {0.01}


def test_recall_by_property_is_that_of_the_lenses_in_each_bin(bundle, sets, make_truth, make_logits):
    """The truth table of a real set, with scores that only its lenses of high S/N have."""
    datasets = {"eval": LabelledSet(sets["eval"])}
    truth = make_truth(60, 200)
    snr = np.where(truth.is_lens, np.arange(260) * 2.0, np.nan)
    columns = {"arc_snr": snr, "theta_e_arcsec": np.where(truth.is_lens, 1.1, np.nan)}
    stand_in = SimpleNamespace(truth=truth, column=columns.get)
    scored = ScoredBundle(
        bundle,
        SimpleNamespace(name="b", combined="calibrated"),
        {},
        {"eval": {"calibrated": np.nan_to_num(snr)}},
    )
    pairing = Pairing(lenses="eval", others="eval")
    curves = recall_curves((scored,), {"eval": stand_in}, (pairing,))
    assert {curve.variable for curve in curves} == {"arc_snr", "theta_e"}
    by_snr = next(c for c in curves if c.variable == "arc_snr" and c.fpr == 0.01)
    assert [(part.low, part.high, part.n) for part in by_snr.bins] == [(25, 50, 12), (50, 100, 25), (100, 200, 10)]
    assert datasets["eval"].column("theta_e_arcsec")[0] == pytest.approx(1.1)
    assert datasets["eval"].column("red_source").tolist()[:2] == [1.0, 0.0]
    assert datasets["eval"].column("no_such_column") is None
