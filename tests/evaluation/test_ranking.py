import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanner.evaluation.compare import pair
from scanner.evaluation.metrics import threshold_at_fpr
from scanner.evaluation.ranking import grid_losses, measure
from scanner.evaluation.results import Pairing, main_pairings

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
