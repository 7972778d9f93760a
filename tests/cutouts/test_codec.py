import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scanner.cutouts.store import NAN_CODE, decode, encode, largest_error

PIXELS = arrays(np.float32, (2, 5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.just(np.nan))
LEVEL = arrays(np.float32, (2,), elements=st.floats(-1000, 1000, width=32))
NOISE = arrays(np.float32, (2,), elements=st.floats(2.0**-20, 2.0**20, width=32))


@settings(max_examples=200)
@given(pixels=PIXELS, sky=LEVEL, sigma=NOISE)
def test_the_round_trip_stays_within_the_documented_error(pixels, sky, sigma):
    pixels = np.clip(pixels, -1e14 * sigma.min(), 1e14 * sigma.min()).astype(np.float32)
    back = decode(encode(pixels, sky, sigma), sky, sigma)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(pixels))
    good = np.isfinite(pixels)
    error = np.abs(back.astype(np.float64) - pixels) / sigma[:, None, None].astype(np.float64)
    assert (error <= largest_error(pixels, sky, sigma))[good].all()


@settings(max_examples=50)
@given(pixels=PIXELS, sky=LEVEL, sigma=NOISE)
def test_encoding_what_was_decoded_changes_at_most_a_rounding(pixels, sky, sigma):
    codes = encode(pixels, sky, sigma)
    again = encode(decode(codes, sky, sigma), sky, sigma)
    # Where the sky is a million sigma high, float32 does not resolve a step.
    resolved = 16 * np.abs(sky) * np.finfo(np.float32).eps < sigma / 8
    np.testing.assert_array_equal(codes[resolved], again[resolved])


def test_near_the_sky_the_error_is_a_sixteenth_of_sigma_and_unbiased():
    noise = np.random.default_rng(1).normal(5.0, 0.25, (1, 400, 400)).astype(np.float32)
    sky, sigma = np.array([5.0], np.float32), np.array([0.25], np.float32)
    error = (decode(encode(noise, sky, sigma), sky, sigma) - noise) / 0.25
    assert np.abs(error).max() < 0.0645
    assert abs(error.mean()) < 2e-4
    np.testing.assert_allclose(error.var(), (1 / 8) ** 2 / 12, rtol=0.05)


def test_far_above_the_sky_the_error_is_four_thousandths():
    pixels = np.geomspace(1e3, 1e12, 1000, dtype=np.float32).reshape(1, 20, 50)
    sky, sigma = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert np.abs(decode(encode(pixels, sky, sigma), sky, sigma) / pixels - 1).max() < 0.00392


def test_what_is_not_finite_becomes_nan():
    pixels = np.array([[[np.nan, np.inf, -np.inf, 1.0]]], np.float32)
    codes = encode(pixels, np.zeros(1, np.float32), np.ones(1, np.float32))
    assert (codes[0, 0, :3] == NAN_CODE).all()
    assert np.isnan(decode(codes, np.zeros(1, np.float32), np.ones(1, np.float32))[0, 0, :3]).all()


def test_any_code_of_a_float32_pixel_avoids_the_reserved_one():
    pixels = np.array([[[np.finfo(np.float32).max, -np.finfo(np.float32).max]]])
    codes = encode(pixels, np.zeros(1, np.float32), np.full(1, 1e-30, np.float32))
    assert (codes != NAN_CODE).all()
    assert codes[0, 0, 0] - 128 == 128 - codes[0, 0, 1] > 0
