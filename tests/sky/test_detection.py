from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from scanner.errors import TileError
from scanner.records import BandFiles, Float32, Float64, ImageRef
from scanner.sky import targets
from scanner.sky.mosaic import Mosaic, open_mosaic
from scanner.sky.targets import Detections, Near, detect, measure_background, measure_cells

NOISE = 0.002
REAL = Path(__file__).parents[2].parent / "shared" / "real" / "euclid-group" / "group.fits"
Opener = Callable[[Float32], Mosaic]


@pytest.fixture(name="mosaic_of")
def mosaic_of_fixture(tmp_path: Path) -> Opener:
    def opened(pixels: Float32) -> Mosaic:
        path = tmp_path / f"vis-{len(list(tmp_path.iterdir()))}.fits"
        hdu = fits.PrimaryHDU(pixels)
        scale = 0.1 / 3600
        for i, (kind, value, delta) in enumerate((("RA---TAN", 53.0, -scale), ("DEC--TAN", -28.0, scale)), start=1):
            hdu.header.update(
                {f"CTYPE{i}": kind, f"CRVAL{i}": value, f"CRPIX{i}": 100.0, f"CDELT{i}": delta, f"CUNIT{i}": "deg"}
            )
        hdu.header["MAGZERO"] = 24.6
        hdu.writeto(path)
        return open_mosaic(BandFiles(image=ImageRef(path=str(path))), band="VIS")

    return opened


def blobs(shape: tuple[int, int], x: Float64, y: Float64, flux: Float64, sigma: Float64, seed: int = 0) -> Float32:
    """Round Gaussian sources on noise."""
    pixels = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(NOISE)
    for xi, yi, fi, si in zip(x, y, flux, sigma, strict=True):
        half = int(6 * si) + 2
        rows = np.arange(max(0, int(yi) - half), min(shape[0], int(yi) + half + 1))
        columns = np.arange(max(0, int(xi) - half), min(shape[1], int(xi) + half + 1))
        profile = np.exp(-0.5 * (((columns - xi) ** 2)[None, :] + ((rows - yi) ** 2)[:, None]) / si**2)
        pixels[np.ix_(rows, columns)] += (fi * profile / (2 * np.pi * si**2)).astype(np.float32)
    return pixels


def lattice(shape: tuple[int, int], step: int, seed: int) -> tuple[Float64, Float64]:
    """Well separated positions at random sub-pixel phases."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.arange(step, length - step / 2, step, dtype=float) for length in shape), indexing="ij")
    return x.ravel() + generator.uniform(-8, 8, x.size), y.ravel() + generator.uniform(-8, 8, x.size)


def by_rows(found: Detections) -> Float64:
    return np.stack([found.x, found.y, found.area, found.flux], axis=1)


def test_known_sources(mosaic_of: Opener) -> None:
    shape = (700, 500)
    x, y = lattice(shape, 70, 1)
    generator = np.random.default_rng(2)
    flux, sigma = generator.uniform(2, 10, x.size), generator.uniform(2, 4, x.size)
    with mosaic_of(blobs(shape, x, y, flux, sigma)) as mosaic:
        found = detect(mosaic, 1.5)
    assert len(found) == x.size
    nearest = np.hypot(found.x[:, None] - x, found.y[:, None] - y)
    match = nearest.argmin(axis=1)
    assert sorted(match) == list(range(x.size))
    assert nearest.min(axis=1).max() < 0.15
    # Kron apertures of factor 2.5 hold 94% of the light of most profiles (Bertin & Arnouts 1996), more of a Gaussian.
    np.testing.assert_allclose(found.flux, flux[match], rtol=0.06)


def test_strips_make_no_difference(mosaic_of: Opener) -> None:
    shape = (900, 300)
    generator = np.random.default_rng(3)
    n = 250
    x, y = generator.uniform(0, shape[1], n), generator.uniform(0, shape[0], n)
    flux, sigma = 10 ** generator.uniform(-0.5, 1.5, n), generator.uniform(1.5, 5, n)
    pixels = blobs(shape, x, y, flux, sigma)
    pixels[:, 200:203] = np.nan
    with mosaic_of(pixels) as mosaic:
        whole = by_rows(detect(mosaic, 1.5, strip_rows=5000))
        for strip_rows in (61, 256, 449):
            cut = by_rows(detect(mosaic, 1.5, strip_rows=strip_rows))
            assert cut.shape == whole.shape
            # sep shares the faint pixels of blends out by a draw that begins anew with every strip.
            np.testing.assert_allclose(cut[:, :2], whole[:, :2], atol=0.3)
            np.testing.assert_allclose(cut[:, 2:], whole[:, 2:], rtol=0.2)
            assert np.isclose(cut, whole, rtol=1e-5).all(axis=1).mean() > 0.75
            again = by_rows(detect(mosaic, 1.5, strip_rows=strip_rows))
            np.testing.assert_array_equal(again, cut)
    assert len(whole) > 100


def test_near_places_is_found_what_is_found_there_in_the_whole(mosaic_of: Opener) -> None:
    shape, generator = (900, 900), np.random.default_rng(3)
    x, y = generator.uniform(0, 900, (2, 250))
    before = blobs(shape, x, y, 10 ** generator.uniform(-0.5, 1.0, 250), generator.uniform(1.5, 4, 250))
    before[:, 200:203] = np.nan
    # What is painted afterwards, at places far from one another and at an edge, changes the sky of some cells.
    places = np.array([[895.0, 300.0], [450.0, 450.0], [80.0, 700.0], [700.0, 890.0]])
    after = before + (blobs(shape, *places.T, np.full(4, 30.0), np.full(4, 4.0)) - blobs(shape, *np.empty((4, 0))))
    with mosaic_of(before) as old, mosaic_of(after) as new:
        cells = measure_cells(old).renewed(new, *places.T, 40)
        sky = cells.smoothed(shape)
        np.testing.assert_array_equal(sky.level, measure_background(new).level)
        np.testing.assert_array_equal(sky.noise, measure_background(new).noise)
        whole = by_rows(detect(new, 1.5))
        found = by_rows(detect(new, 1.5, near=Near(*places.T, 25.0, sky)))
        close = np.hypot(whole[:, :1] - places[:, 0], whole[:, 1:2] - places[:, 1]).min(axis=1) <= 25.0
    assert 4 <= len(found) == close.sum() < len(whole) / 5
    np.testing.assert_allclose(found, whole[close], rtol=1e-6)


def test_close_pair_is_told_apart(mosaic_of: Opener) -> None:
    pair = np.array([100.0, 114.0]), np.array([100.0, 100.0]), np.array([10.0, 4.0]), np.array([3.0, 3.0])
    with mosaic_of(blobs((200, 200), *pair)) as mosaic:
        found = detect(mosaic, 1.5)
    assert len(found) == 2
    # The neighbour's pixels are left out of the brighter one's ellipse.
    assert found.flux.max() == pytest.approx(10.0, rel=0.1)


def test_photometry_only_where_asked(mosaic_of: Opener) -> None:
    sources = np.array([50.0, 150.0]), np.array([50.0, 150.0]), np.array([0.2, 20.0]), np.array([1.5, 4.0])
    with mosaic_of(blobs((200, 200), *sources)) as mosaic:
        found = detect(mosaic, 1.5, photometry_area=100)
    assert found.area[0] < 100 < found.area[1]
    assert np.isnan(found.flux[0])
    assert found.flux[1] == pytest.approx(20.0, rel=0.05)


def test_pure_noise_and_nothing(mosaic_of: Opener) -> None:
    with mosaic_of(blobs((600, 600), *(np.empty(0),) * 4)) as mosaic:
        assert len(detect(mosaic, 1.5)) <= 1
    with mosaic_of(np.full((50, 50), np.nan, np.float32)) as mosaic:
        assert len(detect(mosaic, 1.5)) == 0
    with mosaic_of(np.zeros((50, 50), np.float32)) as mosaic:
        assert len(detect(mosaic, 1.5)) == 0


def test_noiseless_image(mosaic_of: Opener) -> None:
    pixels = np.zeros((60, 60), np.float32)
    pixels[20:25, 30:35] = 1.0
    with mosaic_of(pixels) as mosaic:
        found = detect(mosaic, 1.5)
    np.testing.assert_allclose([found.x[0], found.y[0]], [32.0, 22.0], atol=1e-6)


def test_too_crowded_says_so(mosaic_of: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_PIXELS_IN_HAND", (100, 200))
    sources = np.array([50.0]), np.array([50.0]), np.array([100.0]), np.array([6.0])
    with mosaic_of(blobs((100, 100), *sources)) as mosaic, pytest.raises(TileError, match=r"vis-0.fits: detection fails \(int"):
        detect(mosaic, 1.5)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_a_real_group_of_galaxies() -> None:
    """Positions against the brightest pixels of the image itself, read with plain astropy."""
    files = BandFiles(image=ImageRef(path=str(REAL), extension="VIS_FLUX"), rms=ImageRef(path=str(REAL), extension="VIS_RMS"))
    with open_mosaic(files, band="VIS") as mosaic:
        found = detect(mosaic, 1.5)
        zero_point = mosaic.zero_point
    with fits.open(REAL) as hdus:
        pixels = hdus["VIS_FLUX"].data.astype(float)
    assert 30 <= len(found) <= 60
    y, x = np.unravel_index(np.argsort(pixels, axis=None)[::-1], pixels.shape)
    galaxy = int(np.argmax((np.abs(x - 150) < 12) & (np.abs(y - 150) < 12)))
    assert np.hypot(found.x - x[galaxy], found.y - y[galaxy]).min() < 1.0
    central = int(np.hypot(found.x - 150, found.y - 150).argmin())
    # Light within 3", sky (0 to 1e-4 here) and the saturated star's wing aside: the Kron magnitude is near it.
    rows, columns = np.mgrid[:300, :300]
    disc = np.hypot(columns - found.x[central], rows - found.y[central]) < 30
    star = np.hypot(columns - 143.85, rows - 182.26) < 25
    assert -2.5 * np.log10(found.flux[central]) == pytest.approx(-2.5 * np.log10(pixels[disc & ~star].sum()), abs=0.3)
    assert zero_point == 24.6
