import json

import numpy as np
import pytest
from astropy.io import fits
from mocpy import MOC

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.query.region import read_moc
from scanner.storage import open_store


@pytest.fixture(name="made")
def made_fixture():
    return MOC.from_string("3/10-12 5/1000 8/7")


@pytest.mark.parametrize("form", ["fits", "json", "ascii"])
def test_every_form(made, tmp_path, form):
    path = tmp_path / "a.moc"
    if form == "json":
        path.write_text(json.dumps(made.serialize("json")))
    elif form == "ascii":
        path.write_text(made.to_string("ascii"))
    else:
        made.save(path, format="fits")
    np.testing.assert_array_equal(read_moc(str(path), StorageConfig()).ranges(), made.to_depth29_ranges)


def test_from_an_object_store(made, s3, tmp_path):
    made.save(tmp_path / "a.fits", format="fits")
    folder = s3.fresh()
    open_store(folder, s3.config).write("a.fits", (tmp_path / "a.fits").read_bytes())
    np.testing.assert_array_equal(read_moc(f"{folder}/a.fits", s3.config).ranges(), made.to_depth29_ranges)


def test_what_is_no_moc(tmp_path):
    with pytest.raises(InputMissingError, match="there is no such file"):
        read_moc(str(tmp_path / "none.fits"), StorageConfig())
    for content in (b"SIMPLE  = nothing", b"{", b"\xff\xfe", b"RA DEC", b""):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ContentError, match=r"bad: is no MOC of the sky in FITS, JSON or ASCII \("):
            read_moc(str(tmp_path / "bad"), StorageConfig())


@pytest.mark.parametrize("text", ["99/1-5", "30/7", '{"99": [1, 2]}', '{"3": [99999]}', '{"30": [1]}', "fits"])
def test_orders_and_cells_that_do_not_exist(made, tmp_path, text):
    """The library takes an order of 99 modulo something, and a cell beyond the sky as it comes."""
    path = tmp_path / "bad.moc"
    path.write_text(text)
    if text == "fits":
        made.save(path, format="fits", overwrite=True)
        with fits.open(path, mode="update") as hdus:
            hdus[1].header["MOCORD_S"] = 99
    with pytest.raises(ContentError, match=r"it has order (99|30), and 29 is the highest|a cell's number is too large"):
        read_moc(str(path), StorageConfig())
