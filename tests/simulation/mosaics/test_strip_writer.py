import numpy as np
import pytest
from astropy.io import fits

from scanner.simulation.mosaics.strips import StripWriter


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_strips_make_the_image_that_astropy_reads(tmp_path, dtype):
    image = (np.arange(35 * 17).reshape(35, 17) - 100).astype(dtype)
    cards = fits.Header([("MAGZERO", 24.6, "zero point"), ("BUNIT", "adu")])
    with StripWriter(tmp_path / "a.fits", image.shape, dtype, cards) as writer:
        for first in (0, 8, 16, 24, 32):
            writer.write(image[first : first + 8])
    with fits.open(tmp_path / "a.fits", checksum=False) as file:
        file.verify("exception")
        assert file[0].data.dtype == np.dtype(dtype).newbyteorder(">")
        np.testing.assert_array_equal(file[0].data, image)
        assert file[0].header["MAGZERO"] == 24.6
    assert (tmp_path / "a.fits").stat().st_size % 2880 == 0


def half_written(path):
    with StripWriter(path, (4, 4), np.float32, fits.Header()) as writer:
        writer.write(np.zeros((2, 4)))
        raise RuntimeError


def test_an_unfinished_image_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        half_written(tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


def test_missing_rows_and_wrong_strips_are_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="2 of 4 rows"),
        StripWriter(tmp_path / "a.fits", (4, 4), np.float32, fits.Header()) as writer,
    ):
        writer.write(np.zeros((2, 4)))
    with (
        pytest.raises(ValueError, match="strip"),
        StripWriter(tmp_path / "b.fits", (4, 4), np.float32, fits.Header()) as writer,
    ):
        writer.write(np.zeros((4, 3)))
    assert list(tmp_path.iterdir()) == []
