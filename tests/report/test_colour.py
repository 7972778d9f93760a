from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from scanner.report import colour

from .conftest import gaussian, make_batch

SKY = np.zeros(4, np.float32)
SIGMA = np.ones(4, np.float32)


def centroid(image: np.ndarray) -> tuple[float, float]:
    rows, cols = np.indices(image.shape)
    return float((cols * image).sum() / image.sum()), float((rows * image).sum() / image.sum())


def is_hatch(image: np.ndarray) -> np.ndarray:
    channels = image if image.ndim == 3 else image[..., None]
    grey = (channels == channels[..., :1]).all(axis=-1)
    return grey & np.isin(channels[..., 0], [colour.HATCH_DARK, colour.HATCH_LIGHT])


def test_upsampling_puts_a_source_where_vis_has_it() -> None:
    rng = np.random.default_rng(5)
    for x, y in rng.uniform(70, 130, (40, 2)):
        # NISP pixel i is centred on VIS pixel 3 i + 2; 0.45" FWHM.
        nisp = gaussian(66, (x - 2) / 3, (y - 2) / 3, 0.45 / 2.355 / 0.3)
        assert centroid(colour.upsample(nisp)) == pytest.approx((x, y), abs=0.02)


def test_upsampling_keeps_surface_brightness() -> None:
    assert colour.upsample(np.full((66, 66), 3.25)) == pytest.approx(np.full((200, 200), 3.25))


@pytest.mark.parametrize(("x", "y"), [(99.5, 99.5), (101.3, 96.8), (80.0, 121.7)])
def test_colours_of_the_composite_are_centred_to_a_tenth_of_a_pixel(x: float, y: float) -> None:
    vis = 3e3 * gaussian(200, x, y, 1.8)
    nisp = np.stack([3e3 * gaussian(66, (x - 2) / 3, (y - 2) / 3, 0.64)] * 3)
    image = colour.colour_image(vis.astype(np.float32), nisp.astype(np.float32), SKY, SIGMA).astype(float)
    for channel in np.moveaxis(image, -1, 0):
        assert centroid(channel) == pytest.approx((x, y), abs=0.1)


def test_composite_in_black_and_white_is_the_vis_image() -> None:
    batch = make_batch(1)
    vis = colour.vis_image(batch.vis[0], batch.sky[0], batch.sigma[0]).astype(float)
    rgb = colour.colour_image(batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0]).astype(float)
    assert np.abs(rgb @ colour.LUMA - vis).max() <= 1.0


def test_red_sources_are_orange_and_blue_ones_blue() -> None:
    source = 2e3 * gaussian(200, 99.5, 99.5, 5.0)
    nisp = gaussian(66, 32.5, 32.5, 1.7)
    for factor, redder in ((2e4, True), (1e2, False)):
        image = colour.colour_image(source.astype(np.float32), np.stack([factor * nisp] * 3).astype(np.float32), SKY, SIGMA)
        red, _, blue = image[99, 104].astype(int)
        assert (red > blue + 20) if redder else (blue > red + 20)


def test_nisp_image_shows_h_red_and_y_blue() -> None:
    nisp = np.zeros((3, 66, 66), np.float32)
    nisp[0, 10, 10], nisp[1, 20, 20], nisp[2, 30, 30] = 40, 40, 40
    image = colour.nisp_image(nisp, SKY, SIGMA)
    assert [int(np.argmax(image[i, i])) for i in (10, 20, 30)] == [2, 1, 0]


@pytest.mark.parametrize("gain", [1e-3, 7.0])
def test_pictures_do_not_depend_on_the_unit(gain: float) -> None:
    batch = make_batch(1)
    vis, nisp, sky, sigma = batch.vis[0], batch.nisp[0], batch.sky[0], batch.sigma[0]
    scale = np.float32(gain)
    scaled = vis * scale, nisp * scale, sky * scale, sigma * scale
    for first, second in (
        (colour.vis_image(vis, sky, sigma), colour.vis_image(scaled[0], *scaled[2:])),
        (
            colour.colour_image(vis, nisp, sky, sigma),
            colour.colour_image(*scaled),
        ),
        (colour.nisp_image(nisp, sky, sigma), colour.nisp_image(*scaled[1:])),
    ):
        assert np.abs(first.astype(int) - second).max() <= 1


def test_missing_pixels_are_hatched_and_missing_colour_is_grey() -> None:
    batch = make_batch(1)
    vis, nisp, sky, sigma = batch.vis[0].copy(), batch.nisp[0].copy(), batch.sky[0], batch.sigma[0]
    vis[:40] = np.nan
    nisp[1, :, 50:] = np.nan
    assert is_hatch(colour.vis_image(vis, sky, sigma))[:40].all()
    assert {colour.HATCH_DARK, colour.HATCH_LIGHT} == set(np.unique(colour.vis_image(vis, sky, sigma)[:40]))
    composite = colour.colour_image(vis, nisp, sky, sigma)
    assert is_hatch(composite)[:40].all()
    without_j = composite[40:, 151:]
    assert (without_j == without_j[..., :1]).all()
    assert is_hatch(colour.nisp_image(nisp, sky, sigma))[:, 50:].all()
    assert not is_hatch(colour.nisp_image(nisp, sky, sigma))[25:40, 25:40].any()


def test_a_cutout_without_pixels_is_all_hatch() -> None:
    vis, nisp = np.full((200, 200), np.nan, np.float32), np.full((3, 66, 66), np.nan, np.float32)
    assert is_hatch(colour.vis_image(vis, SKY, SIGMA)).all()
    assert is_hatch(colour.colour_image(vis, nisp, SKY, SIGMA)).all()
    assert is_hatch(colour.nisp_image(nisp, SKY, SIGMA)).all()


def test_the_real_lens_is_golden_within_its_frame(real: Path) -> None:
    with fits.open(real / "euclid-q1-102018665" / "102018665_NEG570040238507752998.fits") as hdus:
        bands = [hdus[name].data.astype(np.float32) for name in ("VIS_BGSUB", "NIR_Y_BGSUB", "NIR_J_BGSUB", "NIR_H_BGSUB")]
    vis, *nisp = (np.pad(band, 50, constant_values=np.nan) for band in bands)
    binned = np.stack([band[1:199, 1:199].reshape(66, 3, 66, 3).sum(axis=(1, 3)) for band in nisp])
    sky = np.array([np.nanmedian(vis), *np.nanmedian(binned, axis=(1, 2))], np.float32)
    scatter = [np.nanmedian(np.abs(band - level)) for band, level in zip([vis, *binned], sky, strict=True)]
    image = colour.colour_image(vis, binned, sky, 1.4826 * np.array(scatter, np.float32))
    assert is_hatch(image)[:50].all()
    peak = np.unravel_index(np.nanargmax(np.where(np.isfinite(vis), vis, 0)), vis.shape)
    rows, cols = np.indices(vis.shape)
    near = np.hypot(rows - peak[0], cols - peak[1]) < 6
    red, green, blue = image[near].mean(axis=0)
    assert np.hypot(peak[0] - 99.5, peak[1] - 99.5) < 3
    assert red > green + 10 > blue + 40
