from types import SimpleNamespace

import numpy as np
import pytest

from scanner.evaluation.decisions import class_rates, recall_curves
from scanner.evaluation.metrics import threshold_at_fpr
from scanner.evaluation.results import Pairing
from scanner.evaluation.scores import ScoredBundle
from scanner.labelled_set import LabelledSet


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
