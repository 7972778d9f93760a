import gzip
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import OutputError, TileError
from scanner.records import BandFiles, ImageRef
from scanner.sky.fits_image import RESIDENT_BYTES
from scanner.sky.local_files import temporary_folder
from scanner.sky.mosaic import celestial_wcs, open_mosaic, outline

REAL = Path(__file__).parents[2] / "../shared/real"


def header(scale=0.1, shape=(60, 80)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs.to_header()


def pixels(shape=(60, 80), seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def write(path, data, kind=fits.PrimaryHDU, **cards):
    hdu = kind(data, header=header(shape=data.shape))
    hdu.header.update(cards)
    hdus = [hdu] if kind is fits.PrimaryHDU else [fits.PrimaryHDU(), hdu]
    fits.HDUList(hdus).writeto(path)
    return path


def refs(path, extension=None, rms=None, flag=None):
    companion = {name: ImageRef(path=str(value)) for name, value in (("rms", rms), ("flag", flag)) if value is not None}
    return BandFiles(image=ImageRef(path=str(path), extension=extension), **companion)


def whole(path, **arguments):
    with open_mosaic(refs(path, **arguments), band="VIS") as mosaic:
        return mosaic.read(0, mosaic.shape[0], 0, mosaic.shape[1])


def refused(path, match, **arguments):
    with pytest.raises(TileError, match=match) as caught:
        open_mosaic(refs(path, **arguments), band="VIS").close()
    message = str(caught.value)
    assert str(Path(path).name) in message
    assert "\n" not in message
    assert message.endswith(".")


def expected_window(data, y0, y1, x0, x1):
    padded = np.full((y1 - y0, x1 - x0), np.nan, np.float32)
    for row in range(max(y0, 0), min(y1, data.shape[0])):
        for column in range(max(x0, 0), min(x1, data.shape[1])):
            padded[row - y0, column - x0] = data[row, column]
    return padded


def test_header_facts_are_read(tmp_path):
    path = write(tmp_path / "vis.fits", pixels(), MAGZERO=24.6, BUNIT="adu")
    with open_mosaic(refs(path), band="VIS") as mosaic:
        assert (mosaic.band, mosaic.shape, mosaic.zero_point, mosaic.unit) == ("VIS", (60, 80), 24.6, "adu")
        assert mosaic.name == str(path)
        np.testing.assert_allclose(mosaic.pixel_scale_arcsec, 0.1, rtol=1e-9)
        np.testing.assert_allclose(mosaic.wcs.all_pix2world(39, 29, 0), [150.0, 2.0])


def test_zero_point_and_unit_may_be_missing(tmp_path):
    with open_mosaic(refs(write(tmp_path / "vis.fits", pixels())), band="VIS") as mosaic:
        assert np.isnan(mosaic.zero_point)
        assert mosaic.unit == ""


@settings(max_examples=150)
@given(y0=st.integers(-90, 90), x0=st.integers(-110, 110), height=st.integers(1, 90), width=st.integers(1, 110))
def test_any_window_is_the_image_padded_with_nan(tmp_path_factory, y0, x0, height, width):
    path = tmp_path_factory.getbasetemp() / "window.fits"
    data = pixels()
    if not path.exists():
        write(path, data)
    with open_mosaic(refs(path), band="VIS") as mosaic:
        window = mosaic.read(y0, y0 + height, x0, x0 + width)
    np.testing.assert_array_equal(window, expected_window(data, y0, y0 + height, x0, x0 + width))
    assert window.dtype == np.dtype("=f4")


@pytest.mark.parametrize("dtype", ["u1", ">i2", "<i4", ">f4", ">f8", "u2", "u4", ">i8"])
def test_pixel_types_and_byte_orders(tmp_path, dtype):
    data = np.random.default_rng(2).integers(0, 200, (60, 80)).astype(dtype)
    read = whole(write(tmp_path / "vis.fits", data))
    np.testing.assert_array_equal(read, data.astype(np.float32))
    assert read.dtype.isnative


def test_scaled_integers_and_blank(tmp_path):
    expected = np.arange(4800, dtype=np.float32).reshape(60, 80) * 0.5 - 3
    hdu = fits.PrimaryHDU(expected.copy(), header=header())
    hdu.scale("int16", bscale=0.5, bzero=-3.0)
    hdu.header["BLANK"] = 17
    hdu.writeto(tmp_path / "vis.fits")
    expected[0, 17] = np.nan
    np.testing.assert_array_equal(whole(tmp_path / "vis.fits"), expected)


def test_what_is_not_finite_is_nan(tmp_path):
    data = pixels()
    data[3, 4:7] = np.inf, -np.inf, np.nan
    expected = np.where(np.isfinite(data), data, np.nan)
    np.testing.assert_array_equal(whole(write(tmp_path / "vis.fits", data)), expected)


def multi_extension(path):
    first, second = pixels(seed=1), pixels(seed=2)
    hdus = [
        fits.PrimaryHDU(),
        fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="TABLE"),
        fits.ImageHDU(np.zeros((2, 3, 4), np.float32), name="CUBE"),
        fits.ImageHDU(first, header=header(), name="VIS_FLUX"),
        fits.ImageHDU(second, header=header(), name="NIR_Y_FLUX"),
    ]
    fits.HDUList(hdus).writeto(path)
    return first, second


def test_extensions_by_name_by_number_and_by_default(tmp_path):
    first, second = multi_extension(tmp_path / "group.fits")
    path = tmp_path / "group.fits"
    np.testing.assert_array_equal(whole(path), first)
    np.testing.assert_array_equal(whole(path, extension="nir_y_flux"), second)
    np.testing.assert_array_equal(whole(path, extension=4), second)
    with open_mosaic(refs(path, extension="VIS_FLUX"), band="VIS") as mosaic:
        assert mosaic.name == f"{path}[VIS_FLUX]"


def test_unknown_and_unfit_extensions_are_refused(tmp_path):
    multi_extension(tmp_path / "group.fits")
    path = tmp_path / "group.fits"
    refused(path, r"no extension 'NIR_Z'; there are 0=PRIMARY, 1=TABLE, 2=CUBE, 3=VIS_FLUX, 4=NIR_Y_FLUX", extension="NIR_Z")
    refused(path, "no extension 9", extension=9)
    refused(path, "'TABLE' holds no two-dimensional image", extension="TABLE")
    refused(path, "'CUBE' holds no two-dimensional image", extension="CUBE")


def test_a_file_without_an_image_is_refused(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    refused(tmp_path / "empty.fits", "holds no two-dimensional image")


@pytest.mark.parametrize("tile_shape", [None, (16, 32)])
def test_rice_compressed_integers_and_floats(tmp_path, tile_shape):
    integers = np.random.default_rng(3).integers(-500, 500, (300, 80)).astype(np.int32)
    hdu = fits.CompImageHDU(integers, header=header(shape=integers.shape), compression_type="RICE_1", tile_shape=tile_shape)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "i.fits")
    with open_mosaic(refs(tmp_path / "i.fits"), band="VIS") as mosaic:
        np.testing.assert_array_equal(mosaic.read(100, 290, -5, 70), expected_window(integers, 100, 290, -5, 70))
        np.testing.assert_array_equal(mosaic.read(-3, 300, 0, 80), expected_window(integers, -3, 300, 0, 80))
        np.testing.assert_array_equal(mosaic.read(1, 2, 0, 80), integers[1:2])
    floats = pixels((300, 80))
    hdu = fits.CompImageHDU(floats, header=header(shape=floats.shape), compression_type="RICE_1", quantize_level=64)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "f.fits.fz")
    np.testing.assert_allclose(whole(tmp_path / "f.fits.fz"), floats, atol=0.02)
    np.testing.assert_array_equal(whole(tmp_path / "f.fits.fz"), fits.getdata(tmp_path / "f.fits.fz", 1))


def test_a_damaged_compressed_image_is_told_when_it_is_read(tmp_path):
    path = write(tmp_path / "vis.fits", np.arange(24000, dtype=np.int32).reshape(300, 80) ** 2 % 9973, fits.CompImageHDU)
    with fits.open(path) as hdus:
        start = hdus[1].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[start : start + 2400] = b"\xff" * 2400  # the table of row offsets
    path.write_bytes(content)
    with (
        open_mosaic(refs(path), band="VIS") as mosaic,
        pytest.raises(TileError, match=r"vis\.fits: the compressed image is damaged near row 0"),
    ):
        mosaic.read(0, 60, 0, 80)


def compress(path):
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def test_gzip_is_decompressed_once_into_the_scratch_folder(tmp_path):
    data = pixels()
    path, scratch = compress(write(tmp_path / "vis.fits", data)), tmp_path / "scratch"
    for _ in range(2):
        with open_mosaic(refs(path), band="VIS", scratch=scratch) as mosaic:
            np.testing.assert_array_equal(mosaic.read(0, 60, 0, 80), data)
        (copy,) = scratch.iterdir()
        stamp = copy.stat().st_mtime_ns
    assert copy.name.endswith("-vis.fits")
    assert copy.stat().st_mtime_ns == stamp
    other = pixels(seed=9)
    path.unlink()
    (tmp_path / "vis.fits").unlink()
    compress(write(tmp_path / "vis.fits", other))
    np.testing.assert_array_equal(whole(path), other)


def test_a_passing_folder_lies_below_its_parent_and_goes_with_its_block(tmp_path):
    path, parent = compress(write(tmp_path / "vis.fits", pixels())), tmp_path / "scratch" / "of-many"
    with temporary_folder(str(parent)) as folder:
        with open_mosaic(refs(path), band="VIS", scratch=folder) as mosaic:
            np.testing.assert_array_equal(mosaic.read(0, 60, 0, 80), pixels())
        assert folder.parent == parent
        assert len(list(folder.iterdir())) == 2
    assert list(parent.iterdir()) == []
    with pytest.raises(OutputError, match=r"vis\.fits\.gz: cannot write scratch files"), temporary_folder(str(path)):
        pass


def test_without_a_scratch_folder_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    path = compress(write(tmp_path / "vis.fits", pixels()))
    np.testing.assert_array_equal(whole(path), pixels())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = compress(write(tmp_path / "vis.fits", pixels()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "gzip file is damaged or truncated")
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    refused(path, "gzip file is damaged or truncated")


@contextmanager
def largest_file(size):
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_scratch_folder_is_an_output_error_and_leaves_no_half_file(tmp_path):
    path, scratch = compress(write(tmp_path / "vis.fits", pixels())), tmp_path / "scratch"
    with largest_file(8192), pytest.raises(OutputError, match=r"scratch: cannot write scratch files there \(File too large\)"):
        open_mosaic(refs(path), band="VIS", scratch=scratch)
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    path = compress(write(tmp_path / "vis.fits", pixels()))
    with pytest.raises(OutputError, match="cannot write scratch files"):
        open_mosaic(refs(path), band="VIS", scratch=path / "scratch")


def test_rms_marks_pixels_without_data(tmp_path):
    data, rms = pixels(), np.full((60, 80), 0.5, np.float32)
    rms[10, 10:16] = 1e16, 1e15, 0.0, -1.0, np.nan, np.inf
    expected = data.copy()
    expected[10, 10:16] = np.nan
    read = whole(write(tmp_path / "vis.fits", data), rms=write(tmp_path / "rms.fits", rms))
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("dtype", ["i4", "u2", "u1", "i8"])
def test_flag_bits_of_the_mask_make_pixels_bad(tmp_path, dtype):
    data, flag = pixels(), np.zeros((60, 80), dtype)
    flag[5, :6] = 0, 1, 2, 3, 4, 5
    files = refs(write(tmp_path / "vis.fits", data), flag=write(tmp_path / "flag.fits", flag))
    for mask, bad in ((1, [1, 3, 5]), (6, [2, 3, 4, 5]), (0, []), (2**40, []), (2**40 + 4, [4, 5])):
        with open_mosaic(files, band="VIS", flag_mask=mask) as mosaic:
            read = mosaic.read(-1, 60, -1, 80)
        expected = np.pad(data, ((1, 0), (1, 0)), constant_values=np.nan)
        expected[6, np.array(bad, int) + 1] = np.nan
        np.testing.assert_array_equal(read, expected)


def test_a_compressed_flag_works_too(tmp_path):
    flag = np.zeros((60, 80), np.int32)
    flag[7, 9] = 1
    read = whole(write(tmp_path / "vis.fits", pixels()), flag=write(tmp_path / "flag.fits", flag, fits.CompImageHDU))
    assert np.argwhere(np.isnan(read)).tolist() == [[7, 9]]


def test_companions_of_another_shape_are_refused(tmp_path):
    path = write(tmp_path / "vis.fits", pixels())
    rms = write(tmp_path / "rms.fits", np.ones((60, 81), np.float32))
    with pytest.raises(TileError, match=r"rms\.fits: has \(60, 81\) pixels, but its image .*vis\.fits has \(60, 80\)"):
        open_mosaic(refs(path, rms=rms), band="VIS")


def test_file_urls_are_read_and_others_refused(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    data = pixels()
    path = write(folder / "vis.fits", data)
    np.testing.assert_array_equal(whole(path.as_uri()), data)
    with pytest.raises(TileError, match=r"s3://bucket/vis\.fits: this command reads nothing from s3://"):
        open_mosaic(refs("s3://bucket/vis.fits"), band="VIS")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "none.fits", "is not there")


@pytest.mark.parametrize("content", [b"", b"hello", b"SIMPLE  =                    T" + b" " * 5000, b"\x89PNG" * 1000])
def test_what_is_no_fits_file_is_refused(tmp_path, content):
    (tmp_path / "bad.fits").write_bytes(content)
    refused(tmp_path / "bad.fits", r"not a readable FITS file \([^()]{5,45}\)\.$|holds no two-dimensional image")


@pytest.mark.parametrize("kind", [fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU])
def test_a_truncated_file_is_refused(tmp_path, kind):
    path = write(tmp_path / "vis.fits", pixels((300, 400)), kind)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 20000)
    refused(path, r"the file is truncated \(\d+ bytes, its header asks for \d+\)")


def test_a_file_without_its_last_padding_is_not_truncated(tmp_path):
    data = pixels()
    path = write(tmp_path / "vis.fits", data)
    with fits.open(path) as hdus:
        end = hdus[0].fileinfo()["datLoc"] + data.nbytes
    with path.open("r+b") as file:
        file.truncate(end)
    np.testing.assert_array_equal(whole(path), data)


def test_no_wcs_and_a_broken_wcs_are_refused(tmp_path):
    fits.PrimaryHDU(pixels()).writeto(tmp_path / "none.fits")
    refused(tmp_path / "none.fits", "has no celestial WCS")
    broken = header()
    broken["CDELT1"] = 0.0
    fits.PrimaryHDU(pixels(), header=broken).writeto(tmp_path / "broken.fits")
    refused(tmp_path / "broken.fits", "WCS")
    helioprojective = header()
    helioprojective["CTYPE1"], helioprojective["CTYPE2"] = "HPLN-TAN", "HPLT-TAN"
    fits.PrimaryHDU(pixels(), header=helioprojective).writeto(tmp_path / "sun.fits")
    refused(tmp_path / "sun.fits", "has no celestial WCS")


FRAMES = [{"RADESYS": "FK5", "EQUINOX": 2000.0}, {"RADESYS": "FK5", "EQUINOX": 1975.0}, {"EQUINOX": 2000.0},
          {"RADESYS": "FK4", "EQUINOX": 1950.0}, {"RADESYS": "ICRS"}, {}]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES, ids=str)
@pytest.mark.parametrize("position", [(150.0, 2.0), (0.0, 0.0), (10.0, 90.0)], ids=str)
def test_positions_are_icrs_whatever_the_frame_of_the_header(tmp_path, frame, position):
    """To a tenth of a VIS pixel; FK5 of 2000 is 0.025" away from ICRS, of 1975 a quarter of a degree."""
    cards = frame | {"CRVAL1": position[0], "CRVAL2": position[1], "PC1_2": 0.3, "PC2_1": -0.3}
    path = write(tmp_path / "a.fits", pixels(), RADESYS=None, EQUINOX=None)
    with fits.open(path, mode="update") as file:
        for key in ("RADESYS", "EQUINOX"):
            file[0].header.remove(key)
        file[0].header.update(cards)
        expected = WCS(file[0].header)
    x, y = np.meshgrid([-0.5, 40.0, 79.5], [-0.5, 30.0, 59.5])
    with open_mosaic(refs(path), band="VIS") as mosaic:
        found = SkyCoord(*mosaic.wcs.all_pix2world(x, y, 0), unit="deg")
        corner = [float(word) for word in outline(mosaic.wcs, mosaic.shape).split()[2:4]]
    sky = expected.pixel_to_world(x, y).icrs
    assert found.separation(sky).arcsec.max() < 0.01
    assert SkyCoord(*corner, unit="deg").separation(sky[0, 0]).arcsec < 0.01


def test_a_projection_that_cannot_be_turned_into_icrs_stays_as_it_is(tmp_path):
    """The centre of this projection lies 14 degrees from the image: a tile of it is resampled, a single cutout refused."""
    cards = {"RADESYS": "FK5", "EQUINOX": 1975.0, "CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "LONPOLE": 0.0, "CRPIX1": -5e5}
    path = write(tmp_path / "a.fits", pixels(), **cards)
    with open_mosaic(refs(path), band="VIS") as mosaic:
        assert not mosaic.in_icrs
        assert mosaic.wcs.wcs.ctype[0] == "RA---CAR"
    with pytest.raises(TileError, match=r"its positions are FK5 of equinox 1975\.0, not ICRS; resample it"):
        celestial_wcs(fits.getheader(path), (60, 80), str(path))


def test_a_real_image_without_wcs_is_refused():
    path = REAL / "jackpot" / "slacs0946+1006.fits"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    refused(path, "has no celestial WCS")


def test_a_mosaic_of_nan_is_refused_and_one_good_pixel_suffices(tmp_path):
    data = np.full((300, 80), np.nan, np.float32)
    with (
        open_mosaic(refs(write(tmp_path / "nan.fits", data)), band="H") as mosaic,
        pytest.raises(TileError, match=r"nan\.fits: the H mosaic holds not one good pixel"),
    ):
        mosaic.good_fraction()
    data[101, 7] = 1.0
    with open_mosaic(refs(write(tmp_path / "one.fits", data)), band="H") as mosaic:
        assert mosaic.good_fraction() == 0.0


def test_good_fraction_counts_masked_pixels(tmp_path):
    data = pixels((320, 100))
    data[:, :25] = np.nan
    with open_mosaic(refs(write(tmp_path / "vis.fits", data)), band="VIS") as mosaic:
        assert mosaic.good_fraction() == 0.75


def resident_file_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssFile line")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts resident pages in /proc")
def test_reading_a_large_mosaic_does_not_keep_it_in_memory(tmp_path):
    path = write(tmp_path / "vis.fits", np.zeros((60, 80), np.float32))
    card = path.read_bytes()[:2880]
    rows, columns = 8000, 10000
    card = card.replace(b"NAXIS1  =                   80", b"NAXIS1  =                10000")
    card = card.replace(b"NAXIS2  =                   60", b"NAXIS2  =                 8000")
    with path.open("wb") as file:
        file.write(card)
        file.truncate(2880 + -(-4 * rows * columns // 2880) * 2880)
    with open_mosaic(refs(path), band="VIS") as mosaic:
        assert mosaic.shape == (rows, columns)
        before, most = resident_file_bytes(), 0
        for row in range(0, rows, 200):
            for column in range(0, columns, 100):
                mosaic.read(row, row + 200, column, column + 100)
            most = max(most, resident_file_bytes())
    assert most - before < RESIDENT_BYTES + 16e6


@pytest.mark.parametrize("band", ["VIS", "NIR_Y", "NIR_J", "NIR_H"])
def test_real_euclid_images(band):
    path = REAL / "euclid-group" / "group.fits"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    files = BandFiles(
        image=ImageRef(path=str(path), extension=f"{band}_FLUX"), rms=ImageRef(path=str(path), extension=f"{band}_RMS")
    )
    data, rms, cards = (
        fits.getdata(path, f"{band}_FLUX"),
        fits.getdata(path, f"{band}_RMS"),
        fits.getheader(path, f"{band}_FLUX"),
    )
    with open_mosaic(files, band="VIS") as mosaic:
        read = mosaic.read(0, 300, 0, 300)
        assert mosaic.zero_point == cards["MAGZERO"]
        np.testing.assert_allclose(mosaic.pixel_scale_arcsec, 0.1, rtol=1e-6)
        np.testing.assert_allclose(mosaic.wcs.all_pix2world(0, 0, 0), [53.0, -27.0], atol=1.0)
    np.testing.assert_array_equal(read, np.where(rms < 1e15, data, np.nan))
