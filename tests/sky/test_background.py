from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from scanner.records import BandFiles, ImageRef
from scanner.sky.mosaic import Mosaic, open_mosaic
from scanner.sky.targets import cell_statistics, measure_background


def mosaic_of(pixels: np.ndarray, path: Path) -> Mosaic:
    hdu = fits.PrimaryHDU(pixels.astype(np.float32))
    scale = 0.1 / 3600
    for i, (kind, value, delta) in enumerate((("RA---TAN", 53.0, -scale), ("DEC--TAN", -28.0, scale)), start=1):
        hdu.header.update({f"CTYPE{i}": kind, f"CRVAL{i}": value, f"CRPIX{i}": 100.0, f"CDELT{i}": delta, f"CUNIT{i}": "deg"})
    hdu.writeto(path)
    return open_mosaic(BandFiles(image=ImageRef(path=str(path))), band="VIS")


@given(level=st.floats(-100, 100), noise=st.floats(0.01, 10), sources=st.floats(0, 0.05))
def test_statistics_of_a_cell_with_sources(level: float, noise: float, sources: float) -> None:
    generator = np.random.default_rng(5)
    pixels = (level + noise * generator.standard_normal((128, 128))).astype(np.float32)
    pixels.flat[: int(sources * pixels.size)] += np.float32(40 * noise)
    found_level, found_noise = cell_statistics(pixels)
    assert found_level == pytest.approx(level, abs=0.05 * noise + 1e-5)
    assert found_noise == pytest.approx(noise, rel=0.04)


def test_bad_pixels_are_left_out() -> None:
    pixels = np.full((64, 64), np.nan, np.float32)
    assert np.isnan(cell_statistics(pixels)).all()
    pixels[:20] = 3.0
    assert cell_statistics(pixels) == (3.0, 0.0)


def test_a_sloping_sky_is_followed_across_a_hole(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    ny, nx = 1300, 900
    slope = np.linspace(0, 5, ny)[:, None] + np.linspace(0, 2, nx)
    pixels = slope + generator.standard_normal((ny, nx)) * np.linspace(1, 2, nx)
    pixels[500:800, 200:600] = np.nan
    with mosaic_of(pixels, tmp_path / "slope.fits") as mosaic:
        sky = measure_background(mosaic)
    level, noise = sky.at(300, 1000, 0, nx)
    assert level.shape == noise.shape == (700, nx)
    assert level.dtype == noise.dtype == np.float32
    # Inside the outermost cell centres, beyond which the maps are constant; in the hole, the nearest cell stands in.
    error = np.abs(level - slope[300:1000])[:, 150:-150]
    assert error.max() < 0.6
    assert np.median(error) < 0.1
    np.testing.assert_allclose(noise[:, 450], 1.5, rtol=0.05)
    whole, _ = sky.at(0, ny, 0, nx)
    np.testing.assert_array_equal(whole[300:1000], level)


def test_nothing_good(tmp_path: Path) -> None:
    with mosaic_of(np.full((40, 40), np.nan), tmp_path / "nan.fits") as mosaic:
        sky = measure_background(mosaic)
    assert sky.level.shape == (1, 1)
    assert np.isnan(sky.at(0, 40, 0, 40)).all()
