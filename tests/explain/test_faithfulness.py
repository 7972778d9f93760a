import numpy as np
import pytest
import torch
from torch import nn

from scanner.explain.maps import curves, faithfulness, gains, in_cells
from scanner.explain.networks import lens_output


def _counter(weights):
    """A network whose log-odds are the sum of the image's pixels, weighted."""
    side = len(weights)
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(side**2, 2)).requires_grad_(False)
    network[0].weight.fill_(1.0), network[0].bias.zero_()
    network[3].weight.copy_(torch.stack([torch.zeros(side**2), torch.as_tensor(weights).flatten()])), network[3].bias.zero_()
    return network.eval()


WEIGHTS = np.random.default_rng(0).normal(0, 1, (6, 6)).astype(np.float32)


def test_curves_are_those_of_covering_by_hand():
    image = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    contribution = WEIGHTS * (image[0, 0].numpy() - float(image.median()))
    order = np.argsort(-contribution.ravel())
    found = curves(_counter(WEIGHTS), image, contribution[None], steps=4, output="log_odds")
    before = float((WEIGHTS * image[0, 0].numpy()).sum())
    covered = before - np.append(0.0, np.cumsum(contribution.ravel()[order]))[[0, 9, 18, 27, 36]]
    np.testing.assert_allclose(found.deletion[0], covered, atol=1e-4)
    uncovered = covered[-1] + np.append(0.0, np.cumsum(contribution.ravel()[order]))[[0, 9, 18, 27, 36]]
    np.testing.assert_allclose(found.insertion[0], uncovered, atol=1e-4)
    np.testing.assert_allclose(found.fraction, [0, 0.25, 0.5, 0.75, 1])


def test_both_ends_are_the_image_and_blank_sky(tiny_network, noise):
    network, images = tiny_network(16), noise(3, 2, 16, 16)
    found = curves(network, images, np.random.default_rng(0).random((3, 8, 8)), steps=7)
    full = lens_output(network, images, "probability").numpy()
    np.testing.assert_allclose(found.deletion[:, 0], full, atol=1e-6)
    np.testing.assert_allclose(found.insertion[:, -1], full, atol=1e-6)
    np.testing.assert_allclose(found.deletion[:, -1], found.insertion[:, 0], atol=1e-6)


def test_the_true_map_is_faithful_its_opposite_is_not_and_a_random_one_is_chance():
    images = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    contribution = WEIGHTS * (images[:, 0].numpy() - images.flatten(1).median(1).values[:, None, None].numpy())
    network = _counter(WEIGHTS)
    true = faithfulness(network, images, contribution, output="log_odds")
    assert true.deletion_gain.low > 0
    assert true.insertion_gain.low > 0
    opposite = faithfulness(network, images, -contribution, output="log_odds")
    assert opposite.deletion_gain.high < 0
    assert opposite.insertion_gain.high < 0
    chance = faithfulness(network, images, np.random.default_rng(3).random(contribution.shape), output="log_odds")
    assert abs(chance.deletion_gain.value) < 0.1 * true.deletion_gain.value
    assert chance.random.deletion.shape == (20, 21)


def test_a_map_against_itself_gains_nothing(tiny_network, noise):
    found = curves(tiny_network(16), noise(5, 2, 16, 16), np.random.default_rng(0).random((5, 4, 4)))
    assert [(gain.low, gain.value, gain.high) for gain in gains(found, found)] == [(0.0, 0.0, 0.0)] * 2


def test_cells_hold_means():
    assert in_cells(np.arange(16.0).reshape(1, 4, 4), 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_refuses_maps_that_do_not_tile(tiny_network, noise):
    with pytest.raises(ValueError, match="does not tile"):
        faithfulness(tiny_network(16), noise(1, 2, 16, 16), np.zeros((1, 5, 5)))
