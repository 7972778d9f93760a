import numpy as np
import pytest
from scipy import stats

from scanner.records import NISP_BANDS
from scanner.simulation.telescope import noise


def lag_one(image):
    return (image[:, 1:] * image[:, :-1]).mean() / (image**2).mean(), (image[1:] * image[:-1]).mean() / (image**2).mean()


def test_vis_noise_has_nearly_the_measured_scatter_and_correlation():
    """Faint galaxies add what is missing to 0.0027-0.0028 and 0.22-0.24."""
    rng = np.random.default_rng(0)
    blank = np.zeros((802, 802), dtype=np.float32)
    found = noise.vis_noise(rng.standard_normal(blank.shape, dtype=np.float32), blank)
    assert found.shape == (800, 800)
    assert found.dtype == np.float32
    assert 0.0026 < found.std() < 0.0029
    assert all(0.19 < value < 0.24 for value in lag_one(found))
    # Over large areas the noise is nearly what the RMS map says.
    blocks = found.reshape(40, 20, 40, 20).sum((1, 3)).std() / 20
    assert blocks == pytest.approx(noise.rms(blank[:1, :1], "VIS")[0, 0], rel=0.12)


def test_tails_of_vis_noise_are_heavy_and_vanish_in_larger_pixels():
    rng = np.random.default_rng(4)
    blank = np.zeros((902, 902), dtype=np.float32)
    found = noise.vis_noise(rng.standard_normal(blank.shape, dtype=np.float32), blank, 1.0, 0.02).astype(np.float64)
    plain = noise.vis_noise(rng.standard_normal(blank.shape, dtype=np.float32), blank)
    assert found.std() == pytest.approx(plain.std(), rel=0.01)
    assert stats.kurtosis(found.ravel()) == pytest.approx(0.45, abs=0.1)
    assert stats.kurtosis(noise.bin3(found).ravel()) < 0.12


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("phase", [0.0, 0.2, 0.5, 0.99])
def test_taps_are_interpolation_and_binning_in_one(native, phase):
    rng = np.random.default_rng(2)
    white = rng.standard_normal((1, 68, 68), dtype=np.float32)
    taps = np.array(noise.binned_taps(phase, native), dtype=np.float32)
    found = noise.binned_scatter(white, np.stack([taps, taps])[None, :, :, None, None])[0]
    if native:
        np.testing.assert_array_equal(found, white[0, :66, :66])
    else:
        at = np.arange(198) / 3.0 + phase
        np.testing.assert_allclose(found, noise.bin3(noise.resampled(white[0], at, at)), atol=2e-6)


@pytest.mark.parametrize("band", NISP_BANDS)
def test_resampled_nisp_sky_is_as_correlated_as_mer_s(band):
    rng = np.random.default_rng(1)
    fine = np.arange(900) / 3.0
    found = []
    for phase in np.linspace(0.02, 0.97, 6):
        white = rng.standard_normal((303, 303), dtype=np.float32)
        own = rng.standard_normal((900, 900), dtype=np.float32)
        found.append(noise.resampled(white, fine + phase, fine + phase, own))
    scale = noise.rms(np.zeros((1, 1), np.float32), band)[0, 0]
    pixels = np.concatenate(found) * scale
    assert 2.2 < scale < 2.7
    assert 0.50 < pixels.std() < 0.62
    assert 0.74 < lag_one(pixels)[1] < 0.84
    binned = noise.bin3(np.stack(found)) * scale
    assert 3.3 < binned.std() < 4.5


def test_native_nisp_noise_is_half_again_as_large():
    assert noise.native_rms(np.zeros((1, 1), np.float32), "Y")[0, 0] == pytest.approx(1.5 * 4.0, rel=0.02)


def test_light_adds_variance_in_proportion():
    image = np.array([[0.0, 1.0]], dtype=np.float32)
    dark, bright = noise.rms(image, "VIS")[0] ** 2
    assert bright - dark == pytest.approx(2.8e-4, rel=1e-4)
    assert noise.rms(np.float32([[-5.0]]), "VIS")[0, 0] == pytest.approx(np.sqrt(dark))


def test_binning_sums_blocks():
    image = np.arange(36.0).reshape(6, 6)
    np.testing.assert_array_equal(noise.bin3(image), image.reshape(2, 3, 2, 3).sum((1, 3)))
