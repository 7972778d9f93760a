"""Coverage maps of the running server."""

import io

import pytest
from astropy import units as u
from astropy.io import fits
from mocpy import MOC

from scanner.service.errors import NotAcceptableError
from scanner.service.vo.vosi import negotiated


@pytest.fixture(scope="module")
def footprint(served_run):
    return MOC.from_fits(served_run / "footprint.fits")


def test_fits_is_the_runs_own_file(server, served_run):
    answer = server.get("/moc")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/fits")
    assert answer.content == (served_run / "footprint.fits").read_bytes()


def test_every_format_holds_the_same_sky(server, footprint, rows):
    from_json = MOC.from_json(server.get("/moc", headers={"Accept": "application/json"}).json())
    from_text = MOC.from_string(server.get("/moc?format=ascii").text)
    assert from_json == footprint
    assert from_text == footprint
    assert footprint.contains_lonlat(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg).all()


def test_coarser_cells_hold_at_least_as_much(server, footprint, tmp_path):
    for format_ in ("fits", "json"):
        answer = server.get(f"/moc?order=8&format={format_}")
        (tmp_path / "moc.fits").write_bytes(answer.content)
        coarse = MOC.from_fits(tmp_path / "moc.fits") if format_ == "fits" else MOC.from_json(answer.json())
        assert coarse.max_order == 8
        assert footprint.difference(coarse).empty()
    assert MOC.from_json(server.get("/moc?order=29&format=json").json()) == footprint


def test_a_collection_by_its_name_and_an_unknown_one(server):
    slug = server.context.collections.default.slug
    answer = server.get(f"/moc/{slug}")
    assert answer.headers["content-disposition"] == f'inline; filename="{slug}.moc.fits"'
    with fits.open(io.BytesIO(answer.content)) as hdus:
        assert hdus[1].header["COORDSYS"] == "C"
    assert server.get("/moc/elsewhere").status_code == 404


def test_what_a_client_has_is_not_sent_again(server):
    tag = server.get("/moc").headers["etag"]
    again = server.get("/moc", headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert "Accept" in again.headers["vary"].split(", ")
    assert server.get("/moc?format=json", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("format=png", "*/*", 400),
        ("order=30", "*/*", 400),
        ("order=-1", "*/*", 400),
        ("order=²", "*/*", 400),
        ("", "image/png", 406),
    ],
)
def test_what_there_is_not_is_refused(server, query, accept, status):
    assert server.get(f"/moc?{query}", headers={"Accept": accept}).status_code == status


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("*/*", "fits"),
        ("application/json", "json"),
        ("text/plain, application/json", "ascii"),
        ("text/plain;q=0.3, application/json;q=0.9", "json"),
        ("image/png, */*;q=0.1", "fits"),
        ("image/fits", "fits"),
        ("text/*", "ascii"),
        ("application/json;q=wrong", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "fits"),
    ],
)
def test_the_header_chooses(accept, format_):
    assert negotiated(accept) == format_


def test_a_header_that_rules_out_all_is_told():
    with pytest.raises(NotAcceptableError):
        negotiated("image/png, application/json;q=0")
