import numpy as np
import pytest
from openTSNE import TSNE
from sklearn.metrics import roc_auc_score

from scanner.ensemble.embedding_grid import GridRule
from scanner.labelled_set import Truth
from scanner.records import MEMBERS
from scanner.training.assemble import cells_for, combine, embed, embedded_rows


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


def test_the_paper_embeds_probabilities(sample):
    # "the output of each model for the lens class is combined into a seven-element vector" (section 3.3): softmax outputs.
    logits, _ = sample
    rule = GridRule(embeds="probabilities")
    found = embed(logits[:120], rule, seed=3)
    outputs = 1 / (1 + np.exp(-logits[:120].astype(np.float64)))
    expected = TSNE(perplexity=30, random_state=3, n_jobs=1).fit(outputs)
    np.testing.assert_allclose(found, expected, atol=0.5)
    assert np.abs(found - embed(logits[:120], seed=3)).max() > 2


def test_few_objects_are_embedded_by_one_thread(sample, monkeypatch):
    # Two wait for one another twenty times as long as they work.
    logits, _ = sample
    asked = []

    class Recorded(TSNE):
        def __init__(self, *, n_jobs, **settings):
            asked.append(n_jobs)
            super().__init__(n_jobs=n_jobs, **settings)

    monkeypatch.setattr("openTSNE.TSNE", Recorded)
    embed(logits[:60], seed=3, threads=2)
    assert asked == [1]


def test_figure_9_shows_every_row_at_its_own_place(sample):
    # Two objects of the same log-odds have two places in the embedding, and the look-up knows one.
    logits, truth = sample
    logits = logits.copy()
    logits[1] = logits[0]
    found = combine(logits[:400], truth.is_lens[:400], logits[400:], truth.is_lens[400:], seed=1)
    np.testing.assert_array_equal(found.positions, embed(logits[:400], seed=1))
    assert len(np.unique(found.positions, axis=0)) == 400


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


def test_fewer_rows_get_larger_cells():
    assert [cells_for(n) for n in (45_000, 90_000, 11_250, 4)] == [100, 100, 50, 2]
