import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.cutouts.quality import fill_bad_pixels, measure, saturated
from scanner.records import CutoutBatch, Targets


def images(n, seed=0, sky=0.0, sigma=1.0):
    random = np.random.default_rng(seed)
    vis = random.normal(sky, sigma, (n, 200, 200)).astype(np.float32)
    nisp = random.normal(sky, sigma, (n, 3, 66, 66)).astype(np.float32)
    return vis, nisp


def batch_of(vis, nisp, ids=None):
    n = len(vis)
    quality = measure(vis, nisp)
    zeros = np.zeros(n)
    ids = np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, dtype=np.int64)
    targets = Targets(ids, zeros, zeros, zeros, zeros, zeros.astype(np.float32))
    corner = np.zeros(n, dtype=np.int64)
    offset = np.zeros((n, 2), dtype=np.float32)
    flags = np.zeros(n, dtype=np.uint32)
    return CutoutBatch(targets, vis, nisp, corner, corner, offset, quality.bad_fraction, quality.sky, quality.sigma, flags)


def reference(values):
    median = np.median(values.astype(np.float64))
    return median, 1.4826 * np.median(np.abs(values.astype(np.float64) - median))


def test_median_and_mad_are_those_of_numpy_on_the_documented_pixels():
    vis, nisp = images(5, sky=-3.0, sigma=0.2)
    quality = measure(vis, nisp)
    for row in range(5):
        planes = [vis[row, 1::3, 1::3], *nisp[row]]
        expected = np.array([reference(plane.ravel()) for plane in planes])
        np.testing.assert_allclose(quality.sky[row], expected[:, 0], rtol=1e-6)
        np.testing.assert_allclose(quality.sigma[row], expected[:, 1], rtol=1e-6)
    assert (quality.bad_fraction == 0).all()
    assert quality.sky.dtype == quality.sigma.dtype == quality.bad_fraction.dtype == np.float32


def test_bad_pixels_are_counted_and_left_out_of_the_statistics():
    vis, nisp = images(3, sky=10.0)
    clean = measure(vis, nisp)
    vis[1, :50] = np.nan
    nisp[1, 2, :, :33] = np.nan
    quality = measure(vis, nisp)
    np.testing.assert_allclose(quality.bad_fraction[1], [0.25, 0, 0, 0.5], atol=1e-6)
    expected = reference(vis[1, 1::3, 1::3][np.isfinite(vis[1, 1::3, 1::3])])
    np.testing.assert_allclose([quality.sky[1, 0], quality.sigma[1, 0]], expected, rtol=1e-6)
    expected = reference(nisp[1, 2][np.isfinite(nisp[1, 2])])
    np.testing.assert_allclose([quality.sky[1, 3], quality.sigma[1, 3]], expected, rtol=1e-6)
    np.testing.assert_array_equal(quality.sky[[0, 2]], clean.sky[[0, 2]])


def test_a_band_without_a_good_pixel_has_sky_zero_and_sigma_one():
    vis, nisp = images(2)
    vis[0] = np.nan
    quality = measure(vis, nisp)
    assert (quality.bad_fraction[0, 0], quality.sky[0, 0], quality.sigma[0, 0]) == (1.0, 0.0, 1.0)


def test_good_pixels_between_the_sub_lattice_are_used_when_it_has_none():
    vis, nisp = images(1, sky=5.0)
    vis[:, 1::3, 1::3] = np.nan
    quality = measure(vis, nisp)
    np.testing.assert_allclose(quality.sky[0, 0], np.nanmedian(vis), rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 1e-7, -4.0, 3e5])
def test_a_constant_image_has_a_positive_sigma(level):
    quality = measure(np.full((1, 200, 200), level, np.float32), np.full((1, 3, 66, 66), level, np.float32))
    np.testing.assert_array_equal(quality.sky, np.float32(level))
    np.testing.assert_allclose(quality.sigma, max(1e-6 * abs(level), 1e-30), rtol=1e-6)


def test_a_noiseless_source_on_zero_sky_has_a_sigma_of_its_own_scale():
    vis, nisp = np.zeros((1, 200, 200), np.float32), np.zeros((1, 3, 66, 66), np.float32)
    vis[0, 90:110, 90:110] = 7.0
    quality = measure(vis, nisp)
    assert quality.sky[0, 0] == 0
    np.testing.assert_allclose(quality.sigma[0, 0], 1.2533 * vis[0, 1::3, 1::3].mean(), rtol=1e-5)


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=40)
    | st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).standard_cauchy(4356)),
    scale=st.floats(1e-20, 1e5),
)
def test_statistics_agree_with_numpy_whatever_the_values(values, scale):
    nisp = (np.resize(values, (1, 1, 66, 66)) * scale).astype(np.float32).repeat(3, axis=1)
    quality = measure(np.zeros((1, 200, 200), np.float32), nisp)
    sky, sigma = reference(nisp[0, 0].ravel())
    largest = float(np.abs(nisp).max())
    np.testing.assert_allclose(quality.sky[0, 1:], sky, rtol=1e-5, atol=1e-37)
    if sigma > max(1e-6 * abs(sky), 1e-30):
        np.testing.assert_allclose(quality.sigma[0, 1:], sigma, rtol=1e-5, atol=1e-6 * abs(sky) + 1e-12 * largest)
    assert (quality.sigma > 0).all()


def star(vis, row, x, y, peak):
    vis[row, y - 1 : y + 2, x - 1 : x + 2] = peak


def test_saturated_needs_a_bright_source_off_centre_that_outshines_the_centre():
    vis, nisp = images(5)
    star(vis, 0, 20, 30, 50_000.0)
    star(vis, 1, 100, 100, 50_000.0)
    star(vis, 2, 20, 30, 1_000.0)
    star(vis, 3, 20, 30, 50_000.0)
    star(vis, 3, 100, 100, 20_000.0)
    nisp[4, 1, 5, 5] = 30_000.0
    assert saturated(vis, nisp, measure(vis, nisp)).tolist() == [True, False, False, False, True]


def test_a_masked_star_is_not_saturated():
    vis, nisp = images(1)
    vis[0, 20:60, 20:60] = np.nan
    assert not saturated(vis, nisp, measure(vis, nisp)).any()
    vis[0, 150, 150] = 1e5
    assert saturated(vis, nisp, measure(vis, nisp)).all()


def test_holes_are_filled_with_noise_of_the_right_level_and_nothing_else_changes():
    vis, nisp = images(2, sky=100.0, sigma=3.0)
    vis[1, :, 100:] = np.nan
    nisp[1, 0, 40:] = np.nan
    batch = batch_of(vis, nisp, ids=[7, -570040238507752998])
    filled_vis, filled_nisp = fill_bad_pixels(batch)
    assert np.isfinite(filled_vis).all()
    assert np.isfinite(filled_nisp).all()
    np.testing.assert_array_equal(filled_vis[:, :, :100], vis[:, :, :100])
    np.testing.assert_allclose(filled_vis[1, :, 100:].mean(), 100, atol=0.1)
    np.testing.assert_allclose(filled_vis[1, :, 100:].std(), 3, rtol=0.03)
    assert np.isnan(vis[1, 0, 150])


def test_the_fill_depends_on_the_object_not_on_its_batch():
    vis, nisp = images(3)
    vis[:, :20] = np.nan
    together = fill_bad_pixels(batch_of(vis, nisp, ids=[5, 6, 7]))
    alone = fill_bad_pixels(batch_of(vis[1:2], nisp[1:2], ids=[6]))
    np.testing.assert_array_equal(together[0][1], alone[0][0])
    assert not np.array_equal(together[0][0, :20], together[0][1, :20])


def test_clean_batches_are_not_copied():
    vis, nisp = images(2)
    filled_vis, filled_nisp = fill_bad_pixels(batch_of(vis, nisp))
    assert filled_vis is vis
    assert filled_nisp is nisp
