import numpy as np
import pytest

from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.explain.object_page import neighbours

RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def grid():
    logits = RNG.normal(0, 4, (300, 7)).astype(np.float32)
    positions = (logits[:, :2] + RNG.normal(0, 0.3, (300, 2))).astype(np.float32)
    return EmbeddingGrid.build(logits, positions, logits[:, 0] > 0, held_out=logits + 0.1, cells=8)


def test_nearest_training_objects_are_those_of_a_sorted_list(grid):
    logits = RNG.normal(0, 4, (5, 7)).astype(np.float32)
    found = neighbours(logits, grid, 6)
    for number, place in enumerate(grid.lookup(logits).positions):
        distance = np.hypot(*(grid.positions - place).T)
        np.testing.assert_array_equal(found.rows[number], np.argsort(distance, kind="stable")[:6])
        np.testing.assert_allclose(found.distance[number], np.sort(distance)[:6], rtol=1e-5)
    np.testing.assert_array_equal(found.logits, grid.logits[found.rows])
    np.testing.assert_array_equal(found.positions, grid.positions[found.rows])
    assert found.distance[:, 0] == pytest.approx(np.zeros(5))
    assert ((found.lens_fraction >= 0) & (found.lens_fraction <= 1)).all()


def test_in_a_labelled_set_the_nearer_in_log_odds_come_first_where_the_map_ties(grid):
    known = grid.logits[7]
    set_logits = np.stack([grid.logits[100], known + 0.02, known + 0.01, known, grid.logits[200]])
    found = neighbours(known[None], grid, 10, among=set_logits)
    assert found.rows.shape == (1, 5)
    assert found.rows[0, :3].tolist() == [3, 2, 1]
    assert found.distance[0, :3] == pytest.approx([0, 0, 0])
    assert found.logit_distance[0, :3] == pytest.approx([0, 0.01 * np.sqrt(7), 0.02 * np.sqrt(7)], abs=1e-5)


def test_refuses_what_was_not_scored(grid):
    with pytest.raises(ValueError, match="finite"):
        neighbours(np.full((1, 7), np.nan, np.float32), grid)
