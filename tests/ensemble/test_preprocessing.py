import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import transform

from scanner.ensemble.preprocessing import (
    ASINH_OFFSET,
    ASINH_RANGE,
    member_input,
    resize_matrix,
    scale_asinh_mad,
    scale_minmax,
)
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS


@pytest.mark.parametrize(("n_in", "n_out"), [(200, 66), (66, 200), (66, 66), (101, 50), (7, 40), (30, 29)])
def test_resize_matrix_is_skimage_resize(n_in, n_out):
    image = np.random.default_rng(3).normal(size=(n_in, n_in)) * 50.0
    matrix = resize_matrix(n_in, n_out)
    reference = transform.resize(image, (n_out, n_out), order=1)
    assert np.abs(matrix @ image @ matrix.T - reference).max() <= 1e-6


@given(st.integers(1, 60), st.integers(1, 60))
def test_resizing_keeps_a_constant_and_makes_no_negative_weight(n_in, n_out):
    matrix = resize_matrix(n_in, n_out)
    assert matrix.shape == (n_out, n_in)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)


def test_same_size_is_the_identity():
    np.testing.assert_array_equal(resize_matrix(66, 66), np.eye(66))


def test_minmax_spans_zero_to_one_per_image_and_band():
    images = np.array([[[[1.0, 3.0], [2.0, 5.0]], [[-1.0, 0.0], [0.0, 1.0]]]])
    scaled = scale_minmax(images)
    np.testing.assert_allclose(scaled, [[[[0, 0.5], [0.25, 1]], [[0, 0.5], [0.5, 1]]]])


def test_minmax_of_a_constant_image_is_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(scale_minmax(np.full((1, 3, 3), 7.5)), 0.0)


def test_asinh_at_the_sky_at_its_clips_and_by_hand():
    image = np.array([[[10.0, 10.0 + 2.0 * 2], [10.0 - 400.0, 1e9]]])
    scaled = scale_asinh_mad(image, np.array([10.0]), np.array([2.0]))[0]
    assert scaled[0, 0] == pytest.approx(ASINH_OFFSET / ASINH_RANGE)
    assert scaled[0, 1] == pytest.approx((np.log(1 + np.sqrt(2)) + 1.44) / 8.35)
    assert scaled[1, 0] == pytest.approx((np.arcsinh(-2.0) + 1.44) / 8.35)
    assert scaled[1, 1] == pytest.approx((np.arcsinh(500.0) + 1.44) / 8.35)
    assert scaled.min() + 0.001 >= 0
    assert scaled.max() <= 1.001


@given(st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_asinh_does_not_see_gain_or_offset(gain, offset):
    image = np.random.default_rng(0).normal(1.0, 20.0, size=(1, 8, 8))
    sky, sigma = np.array([1.0]), np.array([0.7])
    changed = scale_asinh_mad(gain * image + offset, gain * sky + offset, gain * sigma)
    np.testing.assert_allclose(changed, scale_asinh_mad(image, sky, sigma), atol=1e-6)


@pytest.mark.parametrize("preprocessing", ["minmax", "asinh_mad"])
@pytest.mark.parametrize("name", MEMBERS)
def test_member_input_has_the_bands_of_the_member_in_the_published_order(name, preprocessing):
    rng = np.random.default_rng(1)
    vis, nisp = rng.normal(size=(2, 200, 200)), rng.normal(size=(2, 3, 66, 66))
    sky, sigma = rng.normal(size=(2, 4)), rng.uniform(0.5, 2.0, size=(2, 4))
    seen = member_input(name, vis, nisp, sky, sigma, preprocessing)
    side = MEMBER_PIXELS[name]
    assert seen.shape == (2, len(MEMBER_BANDS[name]), side, side)
    for channel, band in enumerate(MEMBER_BANDS[name]):
        column = {"VIS": 0, "Y": 1, "J": 2, "H": 3}[band]
        image = vis if band == "VIS" else nisp[:, column - 1]
        matrix = resize_matrix(image.shape[-1], side)
        if preprocessing == "minmax":
            expected = scale_minmax(matrix @ image @ matrix.T)
        else:
            expected = matrix @ scale_asinh_mad(image, sky[:, column], sigma[:, column]) @ matrix.T
        np.testing.assert_allclose(seen[:, channel], expected, atol=1e-12)


@pytest.mark.parametrize("name", MEMBERS)
def test_minmax_spans_zero_to_one_whatever_the_side(name):
    rng = np.random.default_rng(2)
    seen = member_input(name, rng.normal(size=(1, 200, 200)), rng.normal(size=(1, 3, 66, 66)), None, None, "minmax")
    np.testing.assert_array_equal(seen.min(axis=(2, 3)), 0.0)
    np.testing.assert_array_equal(seen.max(axis=(2, 3)), 1.0)


def test_a_constant_cutout_stays_constant_through_the_resize():
    seen = member_input("OU-66", np.full((1, 200, 200), 0.2), np.full((1, 3, 66, 66), -3.1), None, None, "minmax")
    np.testing.assert_array_equal(seen, 0.0)


def test_unknown_preprocessing_is_refused():
    with pytest.raises(ValueError, match="minmax, asinh_mad"):
        member_input("OU-J", np.zeros((1, 2, 2)), np.zeros((1, 3, 2, 2)), np.zeros((1, 4)), np.ones((1, 4)), "sqrt")
