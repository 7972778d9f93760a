import numpy as np
import pytest
import torch

from scanner.ensemble.preprocessing import ORIENTATIONS, augment, member_input
from scanner.records import MEMBER_PIXELS, MEMBERS
from scanner.training.data import scale_batch
from scanner.training.trainer import Feed, draw_orientations, turn
from scanner.training.twin import LAYOUTS

N = 3


@pytest.fixture(scope="module")
def cutouts():
    rng = np.random.default_rng(4)
    scale = rng.uniform(0.1, 50, (N, 4)).astype(np.float32)
    vis = rng.normal(size=(N, 200, 200)).astype(np.float32) * scale[:, 0, None, None]
    nisp = rng.normal(size=(N, 3, 66, 66)).astype(np.float32) * scale[:, 1:, None, None]
    vis[:, 90:110, 90:110] += 500 * scale[:, 0, None, None]
    nisp[:, :, 30:36, 30:36] += 300 * scale[:, 1:, None, None]
    return vis, nisp, rng.normal(size=(N, 4)).astype(np.float32) * scale, scale


@pytest.mark.parametrize("preprocessing", ["asinh_mad", "minmax"])
@pytest.mark.parametrize("member", MEMBERS)
def test_training_sees_what_the_bundle_will(cutouts, member, preprocessing):
    expected = member_input(member, *cutouts, preprocessing)
    found = Feed(scale_batch(*cutouts, preprocessing), member, MEMBER_PIXELS[member]).read(np.arange(N)).numpy()
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    # Half a unit in the last place of float16 below 2 is 0.0005.
    np.testing.assert_allclose(found, expected, atol=1.1e-3)


@pytest.mark.parametrize("member", ["OU-VIS", "OU-200", "OU-66", "OU-JYH"])
def test_a_window_is_a_part_of_the_full_image(cutouts, member):
    images = scale_batch(*cutouts, "asinh_mad")
    side = MEMBER_PIXELS[member]
    crop = LAYOUTS[side].crop_pixels
    rows = np.array([2, 0])
    full = Feed(images, member, side).read(rows).numpy()
    feed = Feed(images, member, crop)
    found = feed.read(rows, np.array([[2, -1], [-3, 4]])).numpy()
    for window, image, (y, x) in zip(found, full, ((2, -1), (-3, 4)), strict=True):
        y, x = feed.start + y, feed.start + x
        np.testing.assert_allclose(window, image[:, y : y + crop, x : x + crop], atol=1e-6)
    far = feed.read(rows, np.array([[999, 0], [0, -999]])).numpy()
    np.testing.assert_allclose(far[0, :, -1], full[0, :, -1, feed.start : feed.start + crop], atol=1e-6)
    np.testing.assert_allclose(far[1, :, :, 0], full[1, :, feed.start : feed.start + crop, 0], atol=1e-6)
    # Within two pixels of the centre: the window must start where the pooled pixels do.
    assert abs(feed.start + crop / 2 - side / 2) <= 2


def test_every_image_is_turned_by_its_own_orientation():
    images = np.random.default_rng(0).normal(size=(40, 2, 6, 6)).astype(np.float32)
    orientations = draw_orientations(40, (1, 2))
    assert set(orientations) == set(range(ORIENTATIONS))
    found = turn(torch.from_numpy(images), orientations).numpy()
    np.testing.assert_array_equal(found, augment(images, orientations))


def test_orientations_do_not_depend_on_the_label():
    """Label frequencies are equal under each orientation (chi-square with 7 degrees of freedom)."""
    n = 20_000
    is_lens = np.random.default_rng(9).random(n) < 0.3
    counts = np.zeros((2, ORIENTATIONS))
    for step in range(0, n, 100):
        orientations = draw_orientations(100, (0, 0, step))
        for label in (0, 1):
            counts[label] += np.bincount(orientations[is_lens[step : step + 100] == bool(label)], minlength=ORIENTATIONS)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / n
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 0.1% point
    assert np.abs(counts.sum(axis=0) / n - 1 / ORIENTATIONS).max() < 0.01
