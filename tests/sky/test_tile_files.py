"""Folders and images named on a command line become tiles."""

import numpy as np
import pytest
from astropy.io import fits

from scanner.config import StorageConfig
from scanner.errors import InputMissingError, UsageError
from scanner.imaging_surveys import EUCLID, SURVEYS, Filter, ImagingSurvey, find_survey
from scanner.records import BANDS, FailedTile
from scanner.sky.tile_files import named_tiles

HERE = StorageConfig()


def image(path, *extensions):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((4, 4), np.float32)
    hdus = [fits.PrimaryHDU(None if extensions else data), *(fits.ImageHDU(data, name=name) for name in extensions)]
    fits.HDUList(hdus).writeto(path)
    return str(path)


def bands(tile):
    return {band: files.image.path.rpartition("/")[2] for band, files in tile.bands.items()}


def test_an_image_is_a_tile_of_vis_alone(tmp_path):
    (tile,) = named_tiles([image(tmp_path / "my mosaic.fits")], HERE)
    assert (tile.tile_id, bands(tile)) == ("my_mosaic", {"VIS": "my mosaic.fits"})


def test_extensions_called_after_filters_are_a_tile(tmp_path):
    names = ("DES_G_BGSUB", "VIS_BGSUB", "VIS_PSF", "VIS_RMS", "NIR_Y_BGSUB", "NIR_Y_RMS", "NIR_H_BGSUB")
    (tile,) = named_tiles([image(tmp_path / "lens.fits", *names)], HERE)
    assert {band: files.image.extension for band, files in tile.bands.items()} == {
        "VIS": "VIS_BGSUB",
        "Y": "NIR_Y_BGSUB",
        "H": "NIR_H_BGSUB",
    }
    assert tile.bands["VIS"].rms.extension == "VIS_RMS"
    assert tile.bands["H"].rms is None


def test_images_of_one_place_are_one_tile_and_others_their_own(tmp_path):
    names = ["a_f814w.fits", "a_f160w.fits", "b_f814w.fits", "other.fits"]
    tiles = named_tiles([image(tmp_path / name) for name in names], HERE, SURVEYS["hst"])
    assert {tile.tile_id: bands(tile) for tile in tiles} == {
        "a": {"VIS": "a_f814w.fits", "J": "a_f160w.fits"},
        "b": {"VIS": "b_f814w.fits"},
        "other": {"VIS": "other.fits"},
    }


def test_weight_maps_are_no_mosaics(tmp_path):
    for name in ("a_f814w_drz", "a_f814w_wht", "a_f160w_drz", "a_f160w_ivm"):
        image(tmp_path / "sky" / f"{name}.fits")
    (tile,) = named_tiles([str(tmp_path / "sky")], HERE, SURVEYS["hst"])
    assert bands(tile) == {"VIS": "a_f814w_drz.fits", "J": "a_f160w_drz.fits"}


def test_a_folder_of_folders_and_a_folder_of_images_without_filters(tmp_path):
    for name in ("one", "two"):
        image(tmp_path / "tiles" / name / "EUC_MER_BGSUB-MOSAIC-VIS_x.fits")
    assert [tile.tile_id for tile in named_tiles([str(tmp_path / "tiles")], HERE)] == ["one", "two"]
    for name in ("p", "q", "q-psf", "q_wht"):
        image(tmp_path / "plain" / f"{name}.fits")
    assert [tile.tile_id for tile in named_tiles([str(tmp_path / "plain")], HERE)] == ["p", "q"]


def test_tiles_of_one_name_get_numbers_and_what_lacks_vis_says_so(tmp_path):
    twice = [image(tmp_path / folder / "a.fits") for folder in ("x", "y")]
    assert [tile.tile_id for tile in named_tiles(twice, HERE)] == ["a", "a-2"]
    (tile,) = named_tiles([image(tmp_path / "z" / "a-NIR-H.fits")], HERE)
    assert isinstance(tile, FailedTile)
    assert "no VIS mosaic" in tile.reason


@pytest.mark.parametrize("name", ["nothing.fits", "empty", "notes.txt"])
def test_what_is_no_image_is_refused_by_its_name(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputMissingError, match=name):
        named_tiles([str(tmp_path / name)], HERE)


def test_the_nearest_filter_stands_for_an_input_and_none_for_two():
    assert EUCLID.filter_of() == {band: band for band in BANDS}
    assert SURVEYS["lsst"].filter_of() == {"VIS": "i", "Y": "y"}
    assert SURVEYS["lsst"].filter_of({"g", "r"}) == {"VIS": "r"}
    assert SURVEYS["hst"].filter_of({"F814W", "F160W"}) == {"VIS": "F814W", "J": "F160W"}
    assert SURVEYS["jwst"].filter_of({"F444W"}) == {}


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=list(SURVEYS))
def test_every_filter_is_found_by_its_own_name_and_no_other(survey):
    for name in survey.filters:
        spelt = {"Y": "NIR-Y", "J": "NIR_J", "H": "NISP-H"}.get(name, name) if survey.name == "euclid" else name
        assert survey.filter_in(f"mosaic_{spelt.lower()}_v2.fits") == name


def test_a_survey_is_a_file_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nprefix = "MINE"\n'
        "[filters.g]\nwavelength_um = 0.7\npixel_scale_arcsec = 0.2\nfwhm_arcsec = 1\ndepth_mag = 24\n"
    )
    one = Filter(wavelength_um=0.7, pixel_scale_arcsec=0.2, fwhm_arcsec=1.0, depth_mag=24.0)
    assert find_survey(str(path)) == ImagingSurvey(name="mine", prefix="MINE", filters={"g": one})
    path.write_text('name = "mine"\nprefix = "not good"\n')
    with pytest.raises(UsageError, match=r"mine\.toml: prefix"):
        find_survey(str(path))
    with pytest.raises(UsageError, match="euclid, roman, lsst"):
        find_survey("sdss")
