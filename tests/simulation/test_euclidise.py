import math
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import shift

import scanner
from scanner.cli.main import main
from scanner.errors import TileError
from scanner.simulation import euclidise as sharp
from scanner.simulation.telescope.noise import NATIVE_NOISE_RATIO, SKY_SIGMA, ZERO_POINT
from scanner.simulation.telescope.psf import mean_psf

SCALE, SIDE = 0.05, 401
HST_FWHM = 0.09
#: Where the star is, in pixels of the sharp image: off every grid.
STAR = (212.3, 187.6)


def header(turn=25.0, scale=SCALE, **more):
    angle = math.radians(turn)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.2], [(SIDE + 1) / 2] * 2
    wcs.wcs.cd = scale / 3600 * np.array([[-math.cos(angle), math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    found = wcs.to_header()
    found.update(more)
    return found


def star(flux, fwhm=HST_FWHM, scale=SCALE, at=STAR):
    """A star through a Gaussian PSF, its pixels integrated."""
    sigma = fwhm / scale / math.sqrt(8 * math.log(2))
    axis = np.arange(SIDE)[:, None] + (np.arange(9) - 4) / 9
    x, y = (np.exp(-0.5 * ((axis - place) / sigma) ** 2).mean(axis=1) / (sigma * math.sqrt(2 * math.pi)) for place in at)
    return flux * y[:, None] * x


def pixel_integrated(fwhm, scale=SCALE):
    stamp = star(1.0, fwhm, scale, at=(200, 200))[150:251, 150:251]
    return stamp / stamp.sum()


@pytest.fixture
def sky(tmp_path):
    """A list of one tile: a star of VIS 20 and H 19.5 through HST's PSF, and images of that PSF."""
    for band, magnitude, zero in (("VIS", 20.0, 25.94), ("H", 19.5, 25.95)):
        image = star(10 ** (0.4 * (zero - magnitude)))
        fits.writeto(tmp_path / f"{band}.fits", image.astype(np.float32), header(MAGZERO=zero))
        fits.writeto(tmp_path / f"{band}-psf.fits", pixel_integrated(HST_FWHM).astype(np.float32))
    (tmp_path / "list.txt").write_text("id=one VIS=VIS.fits VIS_PSF=VIS-psf.fits H=H.fits H_PSF=H-psf.fits\n")
    return tmp_path


def place_of_star(wcs):
    ra, dec = WCS(header()).all_pix2world([STAR], 0)[0]
    return wcs.all_world2pix([(ra, dec)], 0)[0]


@pytest.mark.parametrize("band", ["VIS", "H"])
def test_a_star_becomes_euclid_s_psf_at_its_place_with_its_flux(sky, band):
    files = _tile(sky / "list.txt").bands[band]
    image = sharp.read_sharp(files, band)
    grid, shape = sharp.euclid_grid(sharp.read_sharp(_tile(sky / "list.txt").bands["VIS"], "VIS"))
    pixels, gain = sharp.matched(image, band, grid, shape, "star")
    if band != "VIS":
        grid = grid[::3, ::3]
    assert gain < 1.01
    magnitude = 20.0 if band == "VIS" else 19.5
    # Euclid's PSF is so sharp that the sum of its values at 0.1" pixels depends on where the star lies between them.
    assert pixels.sum() == pytest.approx(10 ** (0.4 * (ZERO_POINT[band] - magnitude)), rel=1e-3)
    x, y = place_of_star(grid)
    rows, columns = np.indices(pixels.shape)
    core = np.hypot(columns - x, rows - y) < (12 if band == "VIS" else 6)
    weight = np.where(core, pixels, 0)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.02)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.02)
    # The mean PSF is that of the pixels' own axes: compared with what is drawn on them, turned as the sharp image was.
    expected = _drawn_on_sharp_pixels(band, grid, pixels.shape)
    assert np.abs(pixels / pixels.sum() - expected).max() < 4e-3 * expected.max()


def test_a_galaxy_keeps_its_flux(sky):
    galaxy = star(1000.0, fwhm=0.6)
    fits.writeto(sky / "VIS.fits", galaxy.astype(np.float32), header(MAGZERO=25.94), overwrite=True)
    vis = sharp.read_sharp(_tile(sky / "list.txt").bands["VIS"], "VIS")
    pixels, _ = sharp.matched(vis, "VIS", *sharp.euclid_grid(vis), "galaxy")
    assert pixels.sum() == pytest.approx(1000.0 * 10 ** (0.4 * (ZERO_POINT["VIS"] - 25.94)), rel=1e-4)


def _tile(path):
    from scanner.sky.tile_list import read

    return next(iter(read(path).tiles.values()))


def _drawn_on_sharp_pixels(band, grid, shape):
    """Share of a star's light in every pixel of the grid, whose axes are the sharp image's."""
    x, y = place_of_star(grid)
    fine = 1 if band == "VIS" else 3
    axis = [(np.arange(n * fine) - (fine - 1) / 2) / fine for n in shape]
    dx, dy = (axis[1] - x) * fine, (axis[0] - y) * fine
    light = mean_psf(band).values(dx[None, :], dy[:, None])
    return light.reshape(shape[0], fine, shape[1], fine).sum(axis=(1, 3))


@pytest.mark.parametrize(("band", "depth"), [("VIS", 1.0), ("VIS", 4.0), ("H", 1.0)])
def test_noise_is_euclid_s_as_measured(band, depth):
    rng = np.random.default_rng(2)
    already = 0.6 * SKY_SIGMA[band] * depth**-0.5
    blank = rng.normal(0, already, (300, 300)).astype(np.float32)
    found, before, sigma = sharp.observed_at_depth(blank, band, depth, rng)
    assert before == pytest.approx(already, rel=0.02)
    scatter = 1.4826 * np.median(np.abs(found - np.median(found)))
    expected = SKY_SIGMA[band] * (1.0 if band == "VIS" else NATIVE_NOISE_RATIO) * depth**-0.5
    assert sigma == pytest.approx(expected)
    assert scatter == pytest.approx(expected, rel=0.02)
    if band == "VIS" and depth == 1.0:
        # On real sky 0.0027 to 0.0028 and 0.22 to 0.24: faint galaxies are in it.
        assert 0.0026 < scatter < 0.0029
        fresh, *_ = sharp.observed_at_depth(np.zeros((300, 300), np.float32), band, depth, rng)
        assert np.corrcoef(fresh[:, 1:].ravel(), fresh[:, :-1].ravel())[0, 1] == pytest.approx(0.21, abs=0.015)


def test_noise_is_told_from_a_galaxy_that_fills_the_image():
    rng = np.random.default_rng(6)
    radius = np.hypot(*(np.mgrid[:140, :140] - 70.0))
    galaxy = 0.3 * np.exp(-((radius / 20) ** 0.5)) + 1e-4 * np.arange(140)
    found = sharp.scatter((galaxy + rng.normal(0, 1e-3, (140, 140))).astype(np.float32), 5)
    assert found == pytest.approx(1e-3, rel=0.12)
    assert sharp.scatter(np.full((50, 50), np.nan, np.float32), 5) == 0.0


def test_photons_of_the_light_are_noisy_as_measured():
    bright = np.full((200, 200), 0.5, np.float32)
    found, *_ = sharp.observed_at_depth(bright, "VIS", 1.0, np.random.default_rng(3))
    correlated = found.reshape(20, 10, 20, 10).sum(axis=(1, 3))
    # Sums over many pixels do not feel the correlation of neighbours.
    assert correlated.var() / 100 == pytest.approx(0.965**2 * (0.0041**2 + 2.8e-4 * 0.5), rel=0.15)


def test_a_source_as_noisy_as_euclid_gets_photon_noise_alone():
    rng = np.random.default_rng(4)
    noisy = rng.normal(0, 0.006, (200, 200)).astype(np.float32)
    found, before, sigma = sharp.observed_at_depth(noisy, "VIS", 1.0, rng)
    assert before > sigma
    assert np.std(found) == pytest.approx(0.006, rel=0.05)


def test_bad_pixels_stay_bad_and_others_good(sky):
    image = fits.getdata(sky / "VIS.fits").copy()
    image[60:90, 300:340] = np.nan
    fits.writeto(sky / "VIS.fits", image, header(MAGZERO=25.94), overwrite=True)
    tile = _tile(sky / "list.txt")
    vis = sharp.read_sharp(tile.bands["VIS"], "VIS")
    grid, shape = sharp.euclid_grid(vis)
    pixels, _ = sharp.matched(vis, "VIS", grid, shape, "star")
    where = grid.all_world2pix(WCS(header()).all_pix2world([(320, 75)], 0), 0)[0].round().astype(int)
    assert np.isnan(pixels[where[1], where[0]])
    # Twice the masked area at most: 15 by 20 pixels, and a PSF's width around.
    assert 300 <= np.isnan(pixels).sum() < 700
    x, y = place_of_star(grid).round().astype(int)
    assert np.isfinite(pixels[y - 20 : y + 20, x - 20 : x + 20]).all()


def exit_code(words):
    try:
        return main(words) or 0
    except SystemExit as ended:
        return ended.code


def test_the_command_writes_a_list_that_can_be_scanned_and_goes_on(sky, capsys):
    (sky / "list.txt").write_text(
        (sky / "list.txt").read_text() + "id=two VIS=VIS.fits\nid=three VIS=VIS.fits VIS_PSF=wide.fits\n"
    )
    fits.writeto(sky / "wide.fits", pixel_integrated(0.4).astype(np.float32))
    words = ["simulate", "euclidise", str(sky / "list.txt"), "--out", str(sky / "out")]
    assert exit_code(words) == TileError.exit_code
    told = capsys.readouterr().err
    assert "two: " in told
    assert "VIS.fits: its PSF is not known; add VIS_PSF=FILE to the list or give --fwhm VIS ARCSEC." in told
    assert "is no sharper than Euclid's VIS" in told
    assert len((sky / "out" / "tile-list.txt").read_text().splitlines()) == 1
    first = {path.name: path.read_bytes() for path in (sky / "out" / "one").iterdir()}
    (sky / "list.txt").write_text("id=one VIS=VIS.fits VIS_PSF=VIS-psf.fits H=H.fits H_PSF=H-psf.fits\nid=two VIS=VIS.fits\n")
    assert exit_code([*words, "--fwhm", "VIS", "0.09"]) == 0
    assert {path.name: path.read_bytes() for path in (sky / "out" / "one").iterdir()} == first
    with fits.open(sky / "out" / "one" / "EUC_MER_BGSUB-MOSAIC-NIR-H_one.fits") as found:
        assert found[0].header["MAGZERO"] == ZERO_POINT["H"]
        assert WCS(found[0].header).proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(0.3)
    assert scanner.plan(sky / "out" / "tile-list.txt", targets="detection").failed == ()
    again = [*words, "--seed", "2"]
    assert exit_code(again) == 73
    assert "was made of other images or with other settings" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_bytes(sky):
    one = scanner.euclidise(sky / "list.txt", sky / "a", seed=5, progress=False)
    scanner.euclidise(sky / "list.txt", sky / "b", seed=5, progress=False)
    for made in one.tiles[0].bands.values():
        assert (sky / "a" / "one" / made.image).read_bytes() == (sky / "b" / "one" / made.image).read_bytes()
    shutil.rmtree(sky / "b")


def test_a_psf_off_its_middle_moves_nothing():
    moved = shift(pixel_integrated(HST_FWHM), (0.4, -0.7), order=5)
    middle = sharp.centred(moved / moved.sum())
    axis = np.arange(middle.shape[0]) - middle.shape[0] // 2
    assert middle.sum(axis=0) @ axis == pytest.approx(0, abs=5e-3)
    assert middle.sum(axis=1) @ axis == pytest.approx(0, abs=5e-3)
