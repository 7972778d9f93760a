import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn

from scanner.explain.maps import occlusion
from scanner.explain.networks import lens_output
from scanner.networks import LENS, build


def _one_by_one(network, images, square, step, fill, output):
    """Whole passes, one square at a time."""
    starts = range(0, images.shape[-1] - square + 1, step)
    found = np.empty((len(images), len(starts), len(starts)), np.float32)
    with torch.no_grad():
        for n, image in enumerate(images):
            before = lens_output(network, image[None], output)
            for i, top in enumerate(starts):
                for j, left in enumerate(starts):
                    covered = image.clone()
                    covered[:, top : top + square, left : left + square] = fill[n][:, None, None]
                    found[n, i, j] = lens_output(network, covered[None], output) - before
    return found


@pytest.mark.parametrize(("side", "square", "step"), [(14, 1, 1), (14, 2, 2), (15, 3, 2), (18, 5, 1), (17, 17, 1), (19, 4, 5)])
@pytest.mark.parametrize("output", ["log_odds", "probability"])
def test_maps_are_those_of_whole_passes_one_by_one(tiny_network, noise, side, square, step, output):
    network, images = tiny_network(side, seed=side), noise(2, 2, side, side, seed=square)
    fill = torch.tensor([[0.0, 0.0], [0.3, 0.9]])
    found = occlusion(network, images, square=square, step=step, fill=fill, output=output)
    expected = _one_by_one(network, images, square, step, fill, output)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("member", "side", "square", "size"), [("OU-66", 66, 1, 66), ("OU-200", 200, 4, 50)])
def test_the_papers_squares_on_the_papers_networks(noise, member, side, square, size):
    network, image = build(member, seed=3).eval().requires_grad_(False), noise(1, 4, side, side)
    done = []
    found = occlusion(network, image, report=done.append)
    assert found.shape == (1, size, size)
    assert sum(done) == size**2
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, size, (12, 2)), (0, 0), (0, size - 1), (size - 1, size - 1)]
    with torch.no_grad():
        before = lens_output(network, image)
        for i, j in places:
            covered = image.clone()
            covered[..., i * square : (i + 1) * square, j * square : (j + 1) * square] = 0.0
            assert found[0, i, j] == pytest.approx(float(lens_output(network, covered) - before), abs=1e-5)


def test_agrees_with_captum(tiny_network, noise):
    """captum gives every pixel the decrease that covering it makes, for one logit; the output here is a difference of two."""
    network, image = tiny_network(16), noise(1, 2, 16, 16)
    difference = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        difference.weight.copy_(torch.tensor([[-1.0, 1.0]]))
    captum = Occlusion(nn.Sequential(network, difference)).attribute(image, (2, 2, 2), strides=(2, 2, 2), target=0)
    assert LENS == 1
    expected = -captum[0, 0, ::2, ::2].detach().numpy()
    np.testing.assert_allclose(occlusion(network, image, square=2)[0], expected, atol=1e-5)


def test_what_is_lit_for_the_lens_is_negative():
    """A network that counts the light of the left half as lens and of the right half as none."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval().requires_grad_(False)
    network[0].weight.fill_(1.0), network[0].bias.zero_()
    sides = torch.ones(8, 8)
    sides[:, 4:] = -1.0
    network[3].weight.copy_(torch.stack([-sides.flatten(), sides.flatten()])), network[3].bias.zero_()
    found = occlusion(network, torch.ones(1, 1, 8, 8), square=2)[0]
    np.testing.assert_allclose(found, np.repeat([[-8.0, -8.0, 8.0, 8.0]], 4, axis=0), atol=1e-5)


def test_refuses_squares_that_leave_a_rest(tiny_network, noise):
    with pytest.raises(ValueError, match="do not end at the edge of 14"):
        occlusion(tiny_network(14), noise(1, 2, 14, 14), square=4)
    with pytest.raises(ValueError, match="no square for images of 14"):
        occlusion(tiny_network(14), noise(1, 2, 14, 14))


def test_refuses_a_layer_that_it_cannot_follow(noise):
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    with pytest.raises(ValueError, match="not a layer of Tables 3 and 4"):
        occlusion(network, noise(1, 2, 8, 8), square=1)
