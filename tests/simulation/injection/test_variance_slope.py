import numpy as np
import pytest
from astropy.io import fits

from scanner.records import BandFiles, ImageRef
from scanner.simulation.injection.measured import variance_slope
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import open_mosaic

SLOPE, SKY = 3.1e-4, 0.004


def write(folder, slope):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:400, :400]
    places = [(80 + 80 * i, 80 + 80 * j) for i in range(4) for j in range(4)]
    light = sum(rng.uniform(0.5, 2.0) * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 9.0) for a, b in places)
    rms = np.sqrt(SKY**2 + slope * light)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 200.0, "CRPIX2": 200.0, "CRVAL1": 50.0})
    header.update({"CRVAL2": -20.0, "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600, "MAGZERO": 24.6})
    image = light + rms * rng.standard_normal(light.shape)
    fits.writeto(folder / "image.fits", image.astype(np.float32), header, overwrite=True)
    fits.writeto(folder / "rms.fits", rms.astype(np.float32), overwrite=True)
    files = BandFiles(image=ImageRef(path=str(folder / "image.fits")), rms=ImageRef(path=str(folder / "rms.fits")))
    return files, *(np.array(axis, dtype=float) for axis in zip(*places, strict=True))


def test_the_slope_of_an_rms_map_is_found(tmp_path):
    files, x, y = write(tmp_path, SLOPE)
    with open_mosaic(files, band="VIS") as image:
        assert variance_slope(image, files, x, y, ScratchFolder(None)) == pytest.approx(SLOPE, rel=0.05)
        assert variance_slope(image, files, x[:2], y[:2], ScratchFolder(None)) is None
        bare = files.model_copy(update={"rms": None})
        assert variance_slope(image, bare, x, y, ScratchFolder(None)) is None


def test_a_flat_rms_map_gives_none(tmp_path):
    files, x, y = write(tmp_path, 0.0)
    with open_mosaic(files, band="VIS") as image:
        assert variance_slope(image, files, x, y, ScratchFolder(None)) is None
