import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from scanner.explain.maps import guided_grad_cam, last_feature_maps, shown, strength
from scanner.networks import LENS, build


def _by_hand(network, image, target):
    """Section 5.6 written out: Grad-CAM of "the last convolutional layer with ReLU applied", and guided back-propagation."""
    layers = list(network)
    last = max(number for number, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    assert isinstance(layers[last + 1], nn.ReLU)
    current, maps = image.clone(), None
    for number, layer in enumerate(layers):
        current = layer(current)
        if number == last + 1:
            maps = current = current.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(current[0, target], maps)
    cam = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True))
    cam = functional.interpolate(cam, image.shape[2:], mode="bilinear")

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            ctx.save_for_backward(value)
            return value.clamp(min=0)

        @staticmethod
        def backward(ctx, back):
            (value,) = ctx.saved_tensors
            return back.clamp(min=0) * (value > 0)

    start = image.clone().requires_grad_()
    current = start
    for layer in layers:
        current = Guided.apply(current) if isinstance(layer, nn.ReLU) else layer(current)
    (guided,) = torch.autograd.grad(current[0, target], start)
    return (guided * cam).detach().numpy()


@pytest.mark.parametrize("target", [0, LENS])
def test_is_what_the_two_halves_written_out_give(tiny_network, noise, target):
    network, images = tiny_network(18, seed=3).double(), noise(3, 2, 18, 18).double()
    found = guided_grad_cam(network, images, target=target)
    expected = np.concatenate([_by_hand(network, image[None], target) for image in images])
    assert (np.count_nonzero(expected, axis=(1, 2, 3)) > 20).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_works_on_a_member_and_leaves_it_as_it_was(noise):
    network, image = build("OU-200", seed=2).eval().requires_grad_(False), noise(1, 4, 200, 200)
    before = network(image)
    found = guided_grad_cam(network, image)
    assert found.shape == (1, 4, 200, 200)
    # The target of the authors' notebook, GradCAM_Maker.ipynb: layer 20.
    assert last_feature_maps(network) is network.get_submodule("20")
    assert torch.equal(network(image), before)
    assert not any(layer._forward_hooks or layer._backward_hooks or layer._forward_pre_hooks for layer in network)


def test_shown_are_pixels_of_a_twentieth_of_the_largest_value():
    attribution = np.zeros((2, 2, 4, 4), np.float32)
    attribution[0, 0, 1, 1], attribution[0, 1, 1, 1] = 8.0, -3.0
    attribution[0, 1, 2, 2], attribution[0, 1, 3, 3], attribution[0, 0, 0, 3] = 0.4, 0.39, -9.0
    assert strength(attribution)[0, 2, 2] == pytest.approx(0.05)
    assert sorted(zip(*np.nonzero(shown(attribution)[0]), strict=True)) == [(1, 1), (2, 2)]
    assert not shown(attribution)[1].any()


def test_kernels_that_do_not_respond_do_not_empty_the_map():
    # Kernels 2x and 10 - 9x with equal weight for the lens. At x = 3 they are 6 and -17: the ReLU makes that 6 and 0, and
    # Grad-CAM is 6. Before the ReLU its sum is negative there, and the brightest pixel is missing.
    convolution, dense = nn.Conv2d(1, 2, 1), nn.Linear(2 * 4, 2, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([2.0, -9.0]).reshape(2, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.0, 10.0]))
        dense.weight.copy_(torch.stack([torch.zeros(8), torch.ones(8)]))
    network = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), dense).eval()
    found = guided_grad_cam(network, torch.tensor([[[[1.0, 1.0], [1.0, 3.0]]]]))
    # Guided back-propagation: 2 - 9 where both kernels respond, 2 where the first one does alone.
    np.testing.assert_allclose(found[0, 0], [[-21.0, -21.0], [-21.0, 12.0]])


def test_refuses_a_network_without_convolution():
    with pytest.raises(ValueError, match="no convolution"):
        guided_grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
