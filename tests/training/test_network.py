import pytest
import torch
from torch import nn

from scanner.networks import LENS, NON_LENS, build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS
from scanner.training.twin import (
    LAYOUTS,
    Twin,
    central_weights,
    fold,
    renormalise,
    transplant,
    unfold,
)


def lived_in(member, seed=3):
    """A twin whose statistics, scales and position weights are far from their first values."""
    twin = Twin(member, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in twin.norms:
            norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator) + 0.05)
            norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.3)
            norm.running_mean.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.3)
            norm.running_var.copy_(torch.rand(norm.bias.shape, generator=generator) + 0.2)
        twin.head.position_weight.copy_(torch.randn(twin.head.position_weight.shape, generator=generator))
        twin.head.answer.bias.fill_(0.7)
        twin.head.per_position.bias.copy_(torch.randn(twin.head.per_position.bias.shape, generator=generator))
    return twin.eval()


@pytest.mark.parametrize("member", MEMBERS)
def test_folding_is_exact(member):
    twin = lived_in(member)
    images = torch.rand(3, len(MEMBER_BANDS[member]), MEMBER_PIXELS[member], MEMBER_PIXELS[member])
    with torch.inference_mode():
        expected = twin(images)
        found = fold(twin)(images)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("member", ["OU-VIS", "OU-66"])
def test_the_tied_head_is_written_out_exactly(member):
    twin = lived_in(member)
    network = fold(twin).double()
    side = LAYOUTS[MEMBER_PIXELS[member]].positions
    features = torch.rand(5, twin.head.per_position.in_features, side, side, dtype=torch.float64)
    dense, output = (layer for layer in network if isinstance(layer, nn.Linear))
    found = output(torch.relu(dense(features.flatten(1))))
    expected = torch.zeros(5, dtype=torch.float64)
    for y in range(side):
        for x in range(side):
            hidden = torch.relu(
                features[:, :, y, x] @ twin.head.per_position.weight.double().T + twin.head.per_position.bias.double()
            )
            answer = hidden @ twin.head.answer.weight.double()[0] + twin.head.answer.bias.double()
            expected += twin.head.position_weight[y, x].double() * answer
    torch.testing.assert_close(found[:, LENS] - found[:, NON_LENS], expected, rtol=1e-6, atol=1e-6)
    assert dense.in_features == twin.head.per_position.in_features * side * side
    assert dense.out_features >= side * side * LAYOUTS[MEMBER_PIXELS[member]].hidden


@pytest.mark.parametrize("member", ["OU-VIS", "OU-200", "OU-66", "OU-J"])
def test_a_crop_sees_the_central_positions_of_the_full_image(member):
    side = MEMBER_PIXELS[member]
    crop, stride = LAYOUTS[side].crop_pixels, LAYOUTS[side].crop_stride
    start = (side - crop) // 2 // stride * stride
    twin = lived_in(member)
    with torch.no_grad():
        twin.head.position_weight.copy_(central_weights(LAYOUTS[side].positions))
        # A pixel of padding stands for the surroundings: with kernels of one pixel behind it, nothing differs.
        for number in range(len(twin.convolutions)):
            if (
                twin.convolutions[number].in_channels in (20, 40)
                and twin.convolutions[number].kernel_size == (3, 3)
                and number > 3
            ):
                weight = twin.convolutions[number].weight
                centre = weight[:, :, 1, 1].clone()
                weight.zero_()
                weight[:, :, 1, 1] = centre
    images = torch.rand(2, len(MEMBER_BANDS[member]), side, side)
    with torch.inference_mode():
        full = twin(images)
        cropped = twin(images[:, :, start : start + crop, start : start + crop])
    torch.testing.assert_close(cropped, full, rtol=1e-4, atol=1e-5)


def test_frozen_layers_do_not_change():
    twin = Twin("OU-66", seed=0)
    twin.freeze(4)
    twin.train()
    before = {key: value.clone() for key, value in twin.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1)
    twin(torch.rand(4, 4, 34, 34)).square().sum().backward()
    optimiser.step()
    changed = {key for key, value in twin.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(f"{part}.{n}.") for key in changed for part in ("convolutions", "norms") for n in range(4))
    assert {"convolutions.4.weight", "norms.4.running_mean", "head.answer.bias"} <= changed


def test_normalisation_scales_stay_positive():
    twin = Twin("OU-J", seed=0)
    with torch.no_grad():
        twin.norms[0].weight.fill_(-1.0)
    twin.constrain()
    assert (twin.norms[0].weight > 0).all()


def test_a_transplanted_twin_begins_as_its_source():
    source, twin = lived_in("OU-VIS"), Twin("OU-200", seed=9).eval()
    transplant(source.state_dict(), "OU-VIS", twin)
    images = torch.rand(2, 4, 68, 68)
    vis = MEMBER_BANDS["OU-200"].index("VIS")
    with torch.inference_mode():
        torch.testing.assert_close(twin(images), source(images[:, vis : vis + 1]), rtol=1e-4, atol=1e-5)
    one = Twin("OU-Y", seed=9)
    transplant(lived_in("OU-66").state_dict(), "OU-66", one)
    y = MEMBER_BANDS["OU-66"].index("Y")
    kernels = lived_in("OU-66").state_dict()["convolutions.0.weight"]
    assert torch.equal(one.state_dict()["convolutions.0.weight"][:, 0], kernels[:, y])
    source.expand()
    transplant(source.state_dict(), "OU-VIS", twin)
    assert twin.tied
    assert torch.equal(twin.state_dict()["norms.3.bias"], source.state_dict()["norms.3.bias"])
    with pytest.raises(ValueError, match="different architectures"):
        transplant(source.state_dict(), "OU-VIS", one)


@pytest.mark.parametrize("member", ["OU-VIS", "OU-66"])
def test_a_folded_network_can_be_unfolded_and_trained_on(member):
    network = fold(lived_in(member))
    twin = Twin(member, seed=1)
    unfold(network, twin)
    assert not twin.tied
    side, bands = MEMBER_PIXELS[member], len(MEMBER_BANDS[member])
    images = torch.rand(6, bands, side, side)
    renormalise(twin, [images[:4], images[4:]])
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(twin.eval()(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fold(twin)(images), expected, rtol=1e-4, atol=1e-4)
        # Statistics of the very images: normalising by the batch gives all but the same (variances are counted n and n - 1).
        twin.dropout.p = 0.0
        trained = twin.train()(images)
    torch.testing.assert_close(trained, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
    for convolution in twin.convolutions:
        norms = convolution.weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 2.0**0.5))


def test_dense_layers_of_any_weights_are_unfolded_as_they_are():
    network = build("OU-66", seed=4).eval()
    twin = Twin("OU-66", seed=1)
    unfold(network, twin)
    assert not twin.tied
    images = torch.rand(3, 4, 66, 66)
    with torch.inference_mode():
        torch.testing.assert_close(fold(twin)(images), network(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("member", ["OU-200", "OU-J"])
def test_expanding_the_head_changes_nothing(member):
    twin = lived_in(member)
    images = torch.rand(2, len(MEMBER_BANDS[member]), MEMBER_PIXELS[member], MEMBER_PIXELS[member])
    with torch.inference_mode():
        tied = twin(images)
        twin.expand()
        torch.testing.assert_close(twin(images), tied, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fold(twin)(images), tied, rtol=1e-5, atol=1e-5)


def test_without_normalisation_only_a_bias_is_learned():
    twin = Twin("OU-J", seed=0, batch_norm=False, tied=False)
    before = twin.state_dict()["norms.0.running_mean"].clone()
    twin.train()(torch.rand(4, 1, 66, 66)).sum().backward()
    assert torch.equal(twin.state_dict()["norms.0.running_mean"], before)
    assert twin.norms[0].weight.grad is None
    assert twin.norms[0].bias.grad is not None
