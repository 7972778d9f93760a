import numpy as np
import pytest
import torch

from scanner.ensemble.preprocessing import resize
from scanner.errors import ContentError, UsageError
from scanner.explain import ascent
from scanner.explain.ascent import ascend, best_of_noise, class_image, deep_dream, kernel_image, noise
from scanner.networks import LENS, NON_LENS


def _smoothed(reached, n):
    return np.convolve(reached, np.ones(n) / n, mode="valid")


def test_the_start_is_one_noise_for_all_channels_and_sides():
    small, large = noise(66, 4, seed=3), noise(200, 2, seed=3)
    assert small.shape == (1, 4, 66, 66)
    assert torch.equal(small[0, 0], small[0, 3])
    np.testing.assert_allclose(large[0, 1], resize(np.random.default_rng(3).random((66, 66)), 200), atol=1e-6)
    assert 0.0 <= small.min() < 0.01 < 0.99 < small.max() <= 1.0


def test_one_step_goes_along_the_gradient_of_finite_differences(tiny_network):
    network = tiny_network(10, seed=7).double()
    start = 0.25 + 0.5 * torch.rand(1, 2, 10, 10, generator=torch.Generator().manual_seed(0)).double()
    found = ascend(start, lambda images: network(images)[:, LENS], rule="plain", learning_rate=0.01, steps=1)
    gradient = (found.images - start.numpy()) / 0.01
    rng = np.random.default_rng(0)
    for channel, y, x in zip(*(rng.integers(0, n, 25) for n in (2, 10, 10)), strict=True):
        step = torch.zeros_like(start)
        step[0, channel, y, x] = 1e-6
        slope = float((network(start + step) - network(start - step))[0, LENS]) / 2e-6
        assert gradient[0, channel, y, x] == pytest.approx(slope, abs=1e-6)
    assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("target", [LENS, NON_LENS])
def test_class_images_raise_their_logit_and_beat_noise(tiny_network, target):
    network = tiny_network(66, seed=1)
    found = class_image(network, target, 66, steps=150)
    reached = found.reached[:, 0]
    assert reached.shape == (151,)
    assert (np.diff(_smoothed(reached, 15)) > 0).all()
    assert reached[-1] > best_of_noise(network, 66)[target] + 1.0
    assert float(network(torch.from_numpy(found.images))[0, target]) == pytest.approx(reached[-1], abs=1e-4)
    assert 0.0 <= found.images.min() <= found.images.max() <= 1.0


def test_both_classes_begin_alike(tiny_network):
    network = tiny_network(66)
    lens, other = (class_image(network, target, 66, steps=1, seed=5).reached[0, 0] for target in (LENS, NON_LENS))
    start = network(noise(66, 2, seed=5))[0]
    assert (lens, other) == pytest.approx((float(start[LENS]), float(start[NON_LENS])), abs=1e-6)


def test_deep_dreams_raise_their_logit_and_stay_near_the_object(tiny_network, noise):
    network, images = tiny_network(30, seed=1), noise(3, 2, 30, 30)
    found = deep_dream(network, images, LENS, steps=60, learning_rate=0.01)
    for reached in found.reached.T:
        assert (np.diff(_smoothed(reached, 6)) > 0).all()
    changed = np.abs(found.images - images.numpy()).max()
    assert 1e-3 < changed < 0.2
    generator = torch.Generator().manual_seed(0)
    by_chance = [(images + changed * (2 * torch.rand(images.shape, generator=generator) - 1)).clamp(0, 1) for _ in range(50)]
    chance = torch.stack([network(some)[:, LENS] for some in by_chance]).max(dim=0).values
    assert (found.reached[-1] > chance.numpy()).all()
    one = deep_dream(network, images[1:2], LENS, steps=60, learning_rate=0.01)
    np.testing.assert_allclose(one.images[0], found.images[1], atol=1e-5)


def test_a_dream_never_falls_whatever_the_rate(tiny_network, noise):
    """Steps that led down are taken back, each image's by itself."""
    network, images = tiny_network(30, seed=1), noise(3, 2, 30, 30)
    for learning_rate in (0.01, 30.0, 1e4):
        found = deep_dream(network, images, LENS, steps=60, learning_rate=learning_rate)
        assert (np.diff(found.reached, axis=0) >= 0).all()
        assert (found.reached[-1] > found.reached[0]).all()
        with torch.no_grad():
            np.testing.assert_allclose(network(torch.from_numpy(found.images))[:, LENS], found.reached[-1], atol=1e-4)
    alone = deep_dream(network, images[1:2], LENS, steps=60, learning_rate=30.0)
    together = deep_dream(network, images, LENS, steps=60, learning_rate=30.0)
    np.testing.assert_allclose(alone.reached[:20, 0], together.reached[:20, 1], atol=1e-3)


@pytest.mark.parametrize("layer", ["0", "4"])
def test_kernel_images_raise_the_mean_of_their_own_feature_map(tiny_network, layer):
    network = tiny_network(66, seed=2)
    found = kernel_image(network, layer, [0, 3], 66, steps=60, learning_rate=0.01)
    for reached in found.reached.T:
        assert (np.diff(_smoothed(reached, 6)) > 0).all()
    until = network[: int(layer) + 1]
    means = until(torch.from_numpy(found.images)).mean(dim=(2, 3))
    assert float(means[0, 0]) == pytest.approx(found.reached[-1, 0], abs=1e-5)
    assert float(means[1, 3]) == pytest.approx(found.reached[-1, 1], abs=1e-5)
    assert means[0, 0] > means[1, 0]
    assert means[1, 3] > means[0, 3]


def test_refuses_kernels_that_are_not_there(tiny_network):
    with pytest.raises(ValueError, match="layer 2 is no convolution; those are 0, 4"):
        kernel_image(tiny_network(66), "2", [0], 66)
    with pytest.raises(ValueError, match="kernels 0 to 3"):
        kernel_image(tiny_network(66), "4", [4], 66)


@pytest.mark.parametrize("rule", ["plain", "adam"])
def test_goes_on_where_it_was_stopped_to_the_bit(tiny_network, noise, tmp_path, monkeypatch, rule):
    network, start, path = tiny_network(30, seed=1), noise(2, 2, 30, 30), tmp_path / "one.pt"

    def rise(**more):
        return ascend(start, lambda images: network(images)[:, LENS], rule=rule, learning_rate=0.01, steps=20, **more)

    def stop(done, total):
        if done == 13:
            raise KeyboardInterrupt

    whole = rise()
    monkeypatch.setattr(ascent, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        rise(checkpoint=path, report=stop)
    later = []
    resumed = rise(checkpoint=path, report=lambda done, total: later.append(done))
    assert later == list(range(13, 21))
    np.testing.assert_array_equal(resumed.images, whole.images)
    np.testing.assert_array_equal(resumed.reached, whole.reached)

    again = rise(checkpoint=path, report=stop)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.reached, whole.reached)


def test_refuses_a_checkpoint_of_other_settings_and_other_files(tiny_network, tmp_path):
    network, path = tiny_network(66), tmp_path / "lens.pt"
    class_image(network, LENS, 66, steps=2, checkpoint=path)
    with pytest.raises(UsageError, match=r"lens\.pt: an image that is being made with other settings"):
        class_image(network, NON_LENS, 66, steps=2, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ContentError, match=r"lens\.pt: damaged, or not a checkpoint"):
        class_image(network, LENS, 66, steps=2, checkpoint=path)
