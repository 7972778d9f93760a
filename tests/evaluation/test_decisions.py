import numpy as np
import pytest
from sklearn.metrics import accuracy_score, fbeta_score, precision_score, recall_score, roc_auc_score

from scanner.evaluation.decisions import decide, decisions
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
