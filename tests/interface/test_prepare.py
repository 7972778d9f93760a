"""From a user's words to tiles: which image stands for what, and what ``scanner run`` makes of folders and images."""

import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import scanner
from scanner.cli.main import main
from scanner.errors import InputMissingError, OutputError, UsageError
from scanner.imaging_surveys import SURVEYS
from scanner.interface.prepare import FETCHED, by_band, prepare, sources
from scanner.interface.scan import run_request
from scanner.sky import tile_list
from scanner.storage import open_store


def image(path, *extensions, size=120, scale=0.2):
    path.parent.mkdir(parents=True, exist_ok=True)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [size / 2 + 0.5] * 2
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    header = wcs.to_header()
    header["BUNIT"] = "nJy"
    data = np.random.default_rng(size).normal(size=(size, size)).astype(np.float32)
    if extensions:
        hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(np.abs(data), header, name=name) for name in extensions)]
    else:
        hdus = [fits.PrimaryHDU(data, header)]
    fits.HDUList(hdus).writeto(path)
    return str(path)


def test_images_are_sorted_by_their_filters_and_find_their_companions(tmp_path):
    companions = ("p1_i_RMS.fits", "p1_i-psf.fits", "p1_i_wht.fits", "p2_wht_i.fits")
    for name in ("p1_i.fits", "p2_i_drz.fits", "p1_y.fits", "p1_u.fits", *companions):
        image(tmp_path / name)
    image(tmp_path / "p3_i.fits", "SCI", "ERR")
    found = sources(tmp_path, SURVEYS["lsst"], {})
    places = [(one.band, one.files.image.path.rpartition("/")[2]) for one in found]
    assert places == [("VIS", "p1_i.fits"), ("Y", "p1_y.fits"), ("VIS", "p2_i_drz.fits"), ("VIS", "p3_i.fits")]
    first, last = found[0].files, found[-1].files
    assert first.rms.path.endswith("p1_i_RMS.fits")
    assert first.psf.path.endswith("p1_i-psf.fits")
    assert last.rms.extension == "ERR"
    assert [one.weight and one.weight.path.rpartition("/")[2] for one in found] == [None, None, "p2_wht_i.fits", None]
    assert {one.zero_point for one in found} == {31.4}


def test_what_stands_for_nothing_is_said(tmp_path):
    path = image(tmp_path / "plain.fits")
    with pytest.raises(UsageError, match=r"plain\.fits: no filter of hst .* VIS=plain\.fits"):
        sources(path, SURVEYS["hst"], {})
    assert sources({"VIS": path}, SURVEYS["hst"], {})[0].zero_point is None
    with pytest.raises(InputMissingError, match="nowhere"):
        sources(tmp_path / "nowhere.fits", SURVEYS["hst"], {})
    assert by_band(["VIS=a.fits", "y=b*.fits", "c.fits"]) == (["c.fits"], {"VIS": ["a.fits"], "Y": ["b*.fits"]})


def test_images_of_an_object_store_make_the_bytes_of_local_ones(s3, tmp_path, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a_i.fits", "deep/exp1_i.fits"):
        fits.writeto(tmp_path / "in" / name.replace("_i", "_i_wht"), np.ones((120, 120), np.float32))
        image(tmp_path / "in" / name)
    place = s3.fresh()
    for file in sorted((tmp_path / "in").rglob("*.fits")):
        open_store(place, s3.config).write(file.relative_to(tmp_path / "in").as_posix(), file.read_bytes())
    here = prepare(tmp_path / "in", tmp_path / "here" / "sky", survey="lsst")
    there = prepare(place, tmp_path / "there" / "sky", survey="lsst", endpoint=s3.endpoint)
    for file in [one for one in here.parent.rglob("*") if one.suffix in (".fits", ".txt")]:
        assert (there.parent / file.relative_to(here.parent)).read_bytes() == file.read_bytes()
    assert len(list(there.parent.rglob("*.fits"))) == 3
    assert not (there.parent / FETCHED).exists()
    assert fits.getheader(there.parent / "sky-0000-0000" / "VIS.fits")["NIMAGES"] == 2
    # The same again finds the tile made, and an image that has changed since does not fit it.
    prepare(place, tmp_path / "there" / "sky", survey="lsst", endpoint=s3.endpoint)
    with fits.open(tmp_path / "in" / "a_i.fits", mode="update") as hdus:
        hdus[0].data[:] *= 1.5
    open_store(place, s3.config).write("a_i.fits", (tmp_path / "in" / "a_i.fits").read_bytes())
    with pytest.raises(OutputError, match="other images or settings"):
        prepare(place, tmp_path / "there" / "sky", survey="lsst", endpoint=s3.endpoint)
    with pytest.raises(SystemExit):
        main(["prepare", f"VIS={place}/*_z.fits", "--endpoint", s3.endpoint, "--out", str(tmp_path / "other")])
    assert f"scanner: {place}/*_z.fits: there is no such image" in capsys.readouterr().err


def test_the_command_makes_a_list_that_is_scanned_as_it_is(tmp_path, capsys):
    image(tmp_path / "in" / "a_i.fits")
    image(tmp_path / "in" / "b_i.fits", size=100)
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(tmp_path / "in"), "--survey", "lsst", "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert "1 tile; scan with: scanner run" in capsys.readouterr().out
    (tile,) = tile_list.read(tmp_path / "out" / "tile-list.txt").tiles.values()
    header = fits.getheader(tile.bands["VIS"].image.path)
    assert (header["NIMAGES"], header["MAGZERO"], header["BUNIT"]) == (2, 23.9, "uJy")
    assert tile.bands["VIS"].flag is not None
    assert scanner.prepare(tmp_path / "in", tmp_path / "out", survey="lsst").name == "tile-list.txt"


def test_a_run_of_folders_and_images_has_a_list_beside_it(tmp_path, monkeypatch):
    first, second = image(tmp_path / "a" / "x.fits"), image(tmp_path / "b" / "y.fits")
    monkeypatch.chdir(tmp_path)
    request = run_request(first)
    assert (request.out, request.tile_list) == ("a/x-scan", "a/x-scan-tiles.txt")
    assert list(tile_list.read(request.tile_list).tiles) == ["x"]
    request = run_request((first, second), "out")
    assert list(tile_list.read(request.tile_list).tiles) == ["x", "y"]
    assert run_request("a").out == "a-scan" or run_request("a").out == "./a-scan"


def test_a_survey_reads_the_folders_of_a_list_by_its_names(tmp_path):
    image(tmp_path / "t" / "t_i.fits")
    image(tmp_path / "t" / "t_y.fits")
    (tmp_path / "list.txt").write_text("t\n")
    request = run_request(tmp_path / "list.txt", survey="lsst")
    (tile,) = tile_list.read(request.tile_list).tiles.values()
    assert list(tile.bands) == ["VIS", "Y"]
    assert request.config.targets.survey.prefix == "LSST"


@pytest.mark.parametrize("method", ["interp", "adaptive", "exact"])
def test_what_the_extra_brings_is_named_where_it_is_missing(monkeypatch, tmp_path, method):
    monkeypatch.setitem(sys.modules, "reproject", None)
    with pytest.raises(UsageError, match=rf"^resampling by {method} needs reproject; pip install '.*\[prepare\]'\.$"):
        scanner.prepare(image(tmp_path / "f814w.fits"), tmp_path / "out", survey="hst", method=method)
    assert not (tmp_path / "out").exists()
