import numpy as np
import pytest
from sklearn.metrics import fbeta_score, precision_score, recall_score, roc_auc_score

from scanner.evaluation.evaluate import choose, decide, figures_of
from scanner.evaluation.labelled_data import Truth
from scanner.records import MEMBERS
from scanner.training.assemble import embedded_rows
from scanner.training.embedding import combine, embed


@pytest.fixture(scope="module")
def sample():
    """Log-odds of 600 objects whose members know different things, and their truth."""
    rng = np.random.default_rng(2)
    n = 600
    is_lens = rng.random(n) < 0.4
    logits = (rng.normal(size=(n, 7)) + np.outer(2.0 * is_lens - 1, np.linspace(0.2, 1.5, 7))).astype(np.float32)
    visible = is_lens & (rng.random(n) < 0.6)
    names = np.where(is_lens, "lens", rng.choice(["spiral", "companion", "tangential"], n))
    truth = Truth(np.arange(n), is_lens, names, np.where(is_lens, 50, 0).astype(np.float32), visible, np.zeros((n, 2)))
    return logits, truth


def test_choices_of_objects(sample):
    _, truth = sample
    chosen = choose(truth, "visible", "hard")
    assert set(truth.class_name[chosen & ~truth.is_lens]) == {"companion", "tangential"}
    np.testing.assert_array_equal(chosen & truth.is_lens, truth.visible)
    assert choose(truth, "all", "all").all()


def test_figures_are_those_of_scikit_learn(sample):
    logits, truth = sample
    figures = figures_of({"OU-200": logits[:, 6].astype(float)}, truth)
    assert [(f.positives, f.negatives) for f in figures] == [
        ("all", "all"),
        ("visible", "all"),
        ("all", "hard"),
        ("visible", "hard"),
    ]
    for found in figures:
        chosen = choose(truth, found.positives, found.negatives)
        assert found.auroc.value == pytest.approx(roc_auc_score(truth.is_lens[chosen], logits[chosen, 6]))
        assert found.n_positives == truth.is_lens[chosen].sum()
        assert found.n_positives + found.n_negatives == chosen.sum()
        for recall in found.recalls:
            assert recall.n_false == int(recall.fpr * found.n_negatives)


def test_choices_without_objects_are_left_out(sample):
    logits, truth = sample
    easy = ~truth.is_hard_negative
    figures = figures_of({"OU-J": logits[easy, 0].astype(float)}, truth.take(easy))
    assert {f.negatives for f in figures} == {"all"}


def test_decisions_are_those_of_scikit_learn(sample):
    logits, truth = sample
    selected = logits[:, 5] >= 0.5
    found = decide("OU-66", selected, truth, 0.5, beta=0.5)
    assert found.recall.value == pytest.approx(recall_score(truth.is_lens, selected))
    assert found.precision.value == pytest.approx(precision_score(truth.is_lens, selected))
    assert found.f_beta == pytest.approx(fbeta_score(truth.is_lens, selected, beta=0.5))
    assert found.purity == pytest.approx(
        found.recall.value * 1e-4 / (found.recall.value * 1e-4 + found.fpr.value * (1 - 1e-4)), rel=1e-9
    )


def test_a_decision_for_nothing_has_no_precision(sample):
    _, truth = sample
    found = decide("grid", np.zeros(len(truth), bool), truth, 1.0, beta=0.03)
    assert (found.n_selected, found.precision, found.f_beta, found.purity) == (0, None, None, None)
    assert found.recall.value == 0
    assert found == type(found).model_validate_json(found.model_dump_json())


def test_the_combination_beats_its_members(sample):
    logits, truth = sample
    half = np.arange(len(truth)) < 400
    found = combine(logits[half], truth.is_lens[half], logits[~half], truth.is_lens[~half], seed=1)
    labels = truth.is_lens[~half]
    combined = found.calibration.log_odds(logits[~half])
    members = [roc_auc_score(labels, logits[~half, i]) for i in range(len(MEMBERS))]
    assert roc_auc_score(labels, combined) > max(members)
    assert roc_auc_score(labels, found.grid.lookup(logits[~half]).value) > np.median(members)
    assert found.curve.n_lenses == labels.sum()
    # At the prevalence of the sky hardly anything is a lens.
    assert found.calibration.apply(logits[~half]).mean() < 0.1
    assert found.calibration.training_prevalence == labels.mean()


def test_the_embedding_is_reproducible(sample):
    logits, _ = sample
    np.testing.assert_array_equal(embed(logits[:150], seed=3), embed(logits[:150], seed=3))


@pytest.mark.parametrize(("n", "most"), [(5, 1), (10, 1), (25, 3), (200, 8)])
def test_rows_are_embedded_in_every_orientation_before_any_twice(n, most):
    train = np.arange(100, 110)
    rows, orientations = embedded_rows(train, seed=4, n=n)
    assert len(rows) == len(orientations) == min(n, 80)
    assert len(set(zip(rows, orientations, strict=True))) == len(rows)
    times = np.array([(rows == row).sum() for row in train])
    assert times.max() == most
    assert times.max() - times.min() <= 1
