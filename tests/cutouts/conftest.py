"""Batches of cutouts with known content, and tiles of point sources on disk."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

from scanner.cutouts.quality import measure
from scanner.records import BandFiles, CutoutBatch, ImageRef, Targets, Tile


def _make_batch(n, seed=0, first_id=0, holes=False):
    random = np.random.default_rng(seed)
    vis = random.normal(0.3, 0.02, (n, 200, 200)).astype(np.float32)
    nisp = random.normal(-1.0, 0.5, (n, 3, 66, 66)).astype(np.float32)
    vis[:, 95:105, 95:105] += random.uniform(0, 20, (n, 1, 1)).astype(np.float32)
    if holes:
        vis[:, :7] = np.nan
        nisp[:, 1, 3:5] = np.nan
    quality = measure(vis, nisp)
    targets = Targets(
        target_id=np.arange(first_id, first_id + n, dtype=np.int64) - 2**62,
        ra=random.uniform(0, 360, n),
        dec=random.uniform(-90, 90, n),
        x=random.uniform(100, 19000, n),
        y=random.uniform(100, 19000, n),
        magnitude=random.uniform(18, 23, n).astype(np.float32),
    )
    return CutoutBatch(
        targets=targets,
        vis=vis,
        nisp=nisp,
        x0=random.integers(-100, 19000, n),
        y0=random.integers(-100, 19000, n),
        offset=random.uniform(-1, 1, (n, 2)).astype(np.float32),
        bad_fraction=quality.bad_fraction,
        sky=quality.sky,
        sigma=quality.sigma,
        flags=random.integers(0, 256, n).astype(np.uint32),
    )


@pytest.fixture
def make_batch():
    return _make_batch


def sky(scale, crpix, angle=0.0, ra=150.0, dec=2.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = crpix
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.pc = [[cos, -sin], [sin, cos]]
    return wcs


def point_sources(wcs, shape, scale, fwhm_arcsec, ra, dec, flux=1000.0):
    """Gaussian point sources integrated over the pixels; each takes 61 pixels around it."""
    image = np.zeros(shape, np.float64)
    width = fwhm_arcsec / 2.3548 / scale * np.sqrt(2)
    for x, y in zip(*wcs.all_world2pix(ra, dec, 0), strict=True):
        corner_x, corner_y = round(float(x)) - 30, round(float(y)) - 30
        profiles = [
            np.diff(0.5 * erf((np.arange(62) + first - 0.5 - centre) / width))
            for centre, first in ((y, corner_y), (x, corner_x))
        ]
        stamp = flux * np.outer(*profiles)
        rows = slice(max(corner_y, 0), max(min(corner_y + 61, shape[0]), 0))
        columns = slice(max(corner_x, 0), max(min(corner_x + 61, shape[1]), 0))
        image[rows, columns] += stamp[
            rows.start - corner_y : rows.stop - corner_y, columns.start - corner_x : columns.stop - corner_x
        ]
    return image


#: WCS and shape of the NISP bands in each of the three cases, on a VIS tile of ``size`` pixels.
GEOMETRIES = {
    "bin": lambda size: (sky(0.1, [size / 2 + 0.5] * 2), (size, size), 0.1),
    "slice": lambda size: (sky(0.3, [(size / 2 + 2) / 3 + 0.5, (size / 2 - 1) / 3 + 0.5]), (size // 3, size // 3), 0.3),
    "warp": lambda size: (sky(0.3, [size / 6 + 20.9, size / 6 + 20.3], angle=2.7), (size // 3 + 40, size // 3 + 40), 0.3),
}


class MadeTile:
    """A tile of noiseless point sources on disk, one target on each."""

    def __init__(self, folder, case, size=1500, n=49, fwhm=(0.17, 0.48), seed=0, margin=130):
        random = np.random.default_rng(seed)
        side = int(np.sqrt(n))
        grid = np.linspace(margin, size - margin, side)
        x, y = (axis.ravel() + random.uniform(-3, 3, n) for axis in np.meshgrid(grid, grid))
        self.vis_wcs = sky(0.1, [size / 2 + 0.5] * 2)
        ra, dec = self.vis_wcs.all_pix2world(x, y, 0)
        ids = random.permutation(n).astype(np.int64)
        self.targets = Targets(ids, ra, dec, x, y, np.full(n, np.nan, np.float32))
        self.nisp_wcs, nisp_shape, self.nisp_scale = GEOMETRIES[case](size)
        self.images = {"VIS": point_sources(self.vis_wcs, (size, size), 0.1, fwhm[0], ra, dec)}
        for band, flux in (("Y", 1000.0), ("J", 2000.0), ("H", 3000.0)):
            self.images[band] = point_sources(self.nisp_wcs, nisp_shape, self.nisp_scale, fwhm[1], ra, dec, flux)
        self.folder = folder
        self.tile = self.write()

    def write(self):
        bands = {}
        for band, image in self.images.items():
            header = (self.vis_wcs if band == "VIS" else self.nisp_wcs).to_header()
            header["MAGZERO"], header["BUNIT"] = 24.0 + len(bands), "adu"
            path = self.folder / f"{band}.fits"
            fits.PrimaryHDU(image.astype(np.float32), header=header).writeto(path, overwrite=True)
            bands[band] = BandFiles(image=ImageRef(path=str(path)))
        return Tile(tile_id="1", bands=bands)


@pytest.fixture
def make_tile(tmp_path):
    def make(case, **arguments):
        return MadeTile(tmp_path, case, **arguments)

    return make
