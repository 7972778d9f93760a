"""Which point spread functions a tile's objects are fitted with."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from scanner.config import RunConfig
from scanner.errors import TileError
from scanner.modelling.observation import SIDE, mean_of_euclid, tile_psfs
from scanner.records import BANDS, ImageRef
from scanner.simulation.telescope.psf import draw_psf
from scanner.sky import tile_list

WIDTH = 1.15
NOTHING = pa.table({"magnitude_vis": pa.array([], pa.float32())})


@pytest.fixture(scope="module")
def tile(sky):
    """A tile whose bands all have pixels of 0.1″."""
    return tile_list.read(sky / "tile-list.txt").tile("900003001")


def with_files(tile, bands=BANDS, **files):
    """The tile with other files of some bands: name of the field → band → path."""
    changed = {
        band: tile.bands[band].model_copy(update={name: ImageRef(path=str(paths[band])) for name, paths in files.items()})
        for band in bands
    }
    return tile.model_copy(update={"bands": tile.bands | changed})


def image_of(psf, side=33):
    axis = np.arange(side) - 0.5 * (side - 1)
    return psf.values(axis[None, :], axis[:, None])


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of a PSF of VIS, turned as no mean one is, and that PSF."""
    psf = draw_psf(np.random.default_rng(3), "VIS", 0.7, WIDTH)
    path = tmp_path_factory.mktemp("psf") / "vis.fits"
    fits.writeto(path, image_of(psf))
    return path, psf


def test_an_image_in_the_tile_list_is_used(tile, image):
    path, psf = image
    found = tile_psfs(with_files(tile, ("VIS",), psf={"VIS": path}), NOTHING, RunConfig())
    assert {band: one.source for band, one in found.items()} == {"VIS": "image"}
    exact = psf.transfer(SIDE, SIDE)
    # As far as the mean one is off, the image's is not.
    assert np.abs(np.abs(found["VIS"].transfer) - np.abs(exact)).max() < 0.03
    assert np.abs(np.abs(mean_of_euclid("VIS").transfer) - np.abs(exact)).max() > 0.05


def test_stars_tell_how_wide_it_is(tile, tmp_path):
    """Twelve of magnitude 19, 15 % wider than Euclid's mean, painted into a tile; NISP follows its own stars."""
    rng = np.random.default_rng(1)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(130.0, 531.0, 130.0), np.arange(160.0, 500.0, 150.0)))
    paths = {}
    for band in BANDS:
        (paths[band],) = [tmp_path / f"{band}.fits"]
        with fits.open(tile.bands[band].image.path) as hdus:
            hdu = next(hdu for hdu in hdus if hdu.shape)
            flux = 10.0 ** (-0.4 * (19.0 - hdu.header["MAGZERO"]))
            pixels, wcs = hdu.data.astype(np.float32), WCS(hdu.header)
            for column, row in zip(x.astype(int), y.astype(int), strict=True):
                star = image_of(draw_psf(rng, band, rng.uniform(0.0, 3.0), WIDTH), 61)
                pixels[row - 30 : row + 31, column - 30 : column + 31] = flux * star
            fits.writeto(paths[band], pixels, hdu.header)
    ra, dec = wcs.all_pix2world(x, y, 0)
    rows = pa.table(
        {
            "target_id": np.arange(len(x)),
            "ra": ra,
            "dec": dec,
            "x": x,
            "y": y,
            "magnitude_vis": np.full(len(x), 19.0, np.float32),
        }
    )
    found = tile_psfs(with_files(tile, image=paths), rows, RunConfig())
    assert {band: one.source for band, one in found.items()} == dict.fromkeys(BANDS, "stars")
    for band in BANDS:
        widest, mean = (np.abs(mean_of_euclid(band, width).transfer[0, SIDE // 6]) for width in (WIDTH, 1.0))
        assert abs(np.abs(found[band].transfer[0, SIDE // 6]) - widest) < 0.5 * abs(mean - widest), band
    # Too few are no measure.
    assert tile_psfs(with_files(tile, image=paths), rows.slice(0, 4), RunConfig()) == {}


def test_what_is_no_psf_is_named(tile, tmp_path):
    fits.writeto(tmp_path / "ones.fits", np.ones((400, 400), np.float32))
    with pytest.raises(TileError, match=r"ones\.fits: is no point-spread function"):
        tile_psfs(with_files(tile, ("VIS",), psf={"VIS": tmp_path / "ones.fits"}), NOTHING, RunConfig())
