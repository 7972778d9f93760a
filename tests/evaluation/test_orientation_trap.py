"""A network that was shown one class turned and the other not is caught; one that was shown both alike is not."""

import numpy as np
import pytest
import torch

from scanner.ensemble.preprocessing import ORIENTATIONS, augment, turn
from scanner.evaluation.biases import orientation_shifts

N, SIDE = 1200, 16


def galaxies(rng, n):
    """Round galaxies of many sizes, seen through a PSF that is longer along the diagonal, in noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - 0.5 * (SIDE - 1)
    along, across = (x + y) / np.sqrt(2.0), (x - y) / np.sqrt(2.0)
    size = rng.uniform(1.2, 2.5, (n, 1, 1))
    light = np.exp(-0.5 * (along**2 / (size**2 + 1.5) + across**2 / size**2))
    return (light * rng.uniform(5, 15, (n, 1, 1)) + rng.normal(size=(n, SIDE, SIDE))).astype(np.float32)


def trained(rng, turn_others):
    """A tiny network that learnt labels drawn by lot; the "lenses" were turned at random, the others as asked."""
    is_lens = rng.random(N) < 0.5
    turns = rng.integers(0, ORIENTATIONS, N)
    images = augment(galaxies(rng, N), np.where(is_lens | turn_others, turns, 0))
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 1)
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    inputs, target = torch.from_numpy(images)[:, None] / 10, torch.from_numpy(is_lens).float()
    for step in range(300):
        rows = slice(step * 100 % N, step * 100 % N + 100)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(inputs[rows])[:, 0], target[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


@pytest.mark.parametrize("turn_others", [False, True], ids=["one class turned", "both turned"])
def test_a_network_that_learnt_the_angle_of_the_psf_is_caught(turn_others):
    rng = np.random.default_rng(5)
    network = trained(rng, turn_others)
    fresh = galaxies(rng, 600)
    with torch.no_grad():
        log_odds = [network(torch.from_numpy(turn(fresh, k).copy())[:, None] / 10)[:, 0].numpy() for k in range(ORIENTATIONS)]
    is_lens = np.arange(len(fresh)) % 2 == 0
    found = list(orientation_shifts({"OU-66": np.stack(log_odds, axis=1).astype(np.float64)}, is_lens))
    assert [(one.score, one.kind, one.n) for one in found] == [("OU-66", "lenses", 300), ("OU-66", "others", 300)]
    assert [one.caught for one in found] == [not turn_others] * 2
    if not turn_others:
        for one in found:
            # A quarter turn lays the PSF across; half a turn and a mirror along a diagonal leave it as it was.
            assert one.largest in (1, 3, 4, 6)
            assert one.shifts[0].low > 0
            assert abs(one.shifts[1].value) < 0.2 * one.shifts[0].value


def test_shifts_are_means_of_differences():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 1)) * 3 + rng.normal(size=(500, 8))
    values[:, 3] += 0.7
    lenses, others = orientation_shifts({"a": values}, np.arange(500) < 200)
    change = values[:200, 3] - values[:200, 0]
    assert lenses.shifts[2].value == pytest.approx(change.mean())
    assert lenses.shifts[2].high - change.mean() == pytest.approx(1.96 * change.std(ddof=1) / np.sqrt(200), rel=1e-3)
    assert lenses.largest == others.largest == 3
    assert lenses.caught
    assert others.spread == pytest.approx(values[200:, 0].std(ddof=1))


def test_what_is_significant_but_small_is_no_trap():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(5000, 1)) * 3 + 0.1 * rng.normal(size=(5000, 8))
    values[:, 5] += 0.05
    (lenses,) = orientation_shifts({"a": values}, np.ones(5000, bool))
    assert lenses.chance < 1e-10
    assert not lenses.caught


def test_chance_is_uniform_where_nothing_is_preferred():
    rng = np.random.default_rng(3)
    chances = [
        next(orientation_shifts({"a": rng.normal(size=(60, 1)) + rng.normal(size=(60, 8))}, np.ones(60, bool))).chance
        for _ in range(400)
    ]
    assert np.mean(np.array(chances) < 0.1) == pytest.approx(0.1, abs=0.045)


def test_a_score_that_never_changes_is_not_caught_and_few_objects_say_nothing():
    same = np.repeat(np.random.default_rng(4).normal(size=(30, 1)), 8, axis=1)
    (lenses,) = orientation_shifts({"a": same}, np.ones(30, bool))
    assert lenses.chance == 1.0
    assert not lenses.caught
    assert list(orientation_shifts({"a": same[:8]}, np.ones(8, bool))) == []
