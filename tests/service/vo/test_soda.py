"""Cutouts of the running server."""

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scanner.errors import UsageError
from scanner.service.context import Parameters
from scanner.service.errors import BadRequestError
from scanner.service.vo.soda import PARAMETERS, CutoutRequest, read_request


def test_every_candidate_stands_where_its_cutouts_wcs_says(server, rows, candidate_ids):
    """Within a tenth of a pixel in each band, and offset from the middle as the catalogue has it."""
    candidates = [row for row in rows.to_pylist() if row["is_candidate"]]
    for row, identifier in zip(candidates, candidate_ids, strict=True):
        answer = server.get("/cutout", params={"ID": identifier})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/fits")
        with fits.open(io.BytesIO(answer.content)) as hdus:
            assert (hdus[0].header["OBJECT"], hdus[0].header["RA"], hdus[0].header["DEC"]) == (
                row["name"],
                row["ra"],
                row["dec"],
            )
            offset = np.array([row["offset_x"], row["offset_y"]])
            for band, middle, step in (("VIS", 99.5, 1), ("Y", 32.5, 3), ("J", 32.5, 3), ("H", 32.5, 3)):
                place = WCS(hdus[band].header).all_world2pix(row["ra"], row["dec"], 0)
                np.testing.assert_allclose(place, middle + offset / step, atol=0.1)


def test_names_are_those_of_files(server, rows, candidate_ids):
    answer = server.get("/cutout", params={"id": candidate_ids[0], "format": "png", "band": "colour"})
    name = rows["name"][0].as_py().replace(" ", "_")
    assert answer.headers["content-disposition"] == f'inline; filename="{name}_colour.png"'


@pytest.mark.parametrize(("band", "size"), [("VIS", (200, 200)), ("colour", (200, 200)), ("H", (66, 66)), ("all", (600, 200))])
@pytest.mark.parametrize("format_", ["png", "webp"])
def test_pictures(server, candidate_ids, band, size, format_):
    answer = server.get("/cutout", params={"ID": candidate_ids[0], "FORMAT": format_, "BAND": band})
    assert answer.headers["content-type"] == f"image/{format_}"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == size


def test_a_picture_of_colour_alone_needs_no_format(server, candidate_ids):
    assert server.get(f"/cutout?ID={candidate_ids[0]}&BAND=colour").headers["content-type"] == "image/png"
    answer = server.get(f"/cutout?ID={candidate_ids[0]}&BAND=colour&FORMAT=fits")
    assert (answer.status_code, answer.text.startswith("UsageError: BAND=colour: is a picture")) == (400, True)


def test_what_a_client_has_is_not_sent_again(server, candidate_ids):
    address = f"/cutout?ID={candidate_ids[0]}&FORMAT=webp&BAND=VIS"
    first = server.get(address)
    assert first.headers["cache-control"] == "private, max-age=86400"
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = server.get(address, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert server.get(address, headers={"If-None-Match": '"other"'}).content == first.content
    assert server.get(f"{address}&ZOOM=2", headers={"If-None-Match": tag}).status_code == 200
    head = server.client.head(address)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


def test_nothing_left_is_no_content(server, candidate_ids):
    for nothing in ("CIRCLE=10 10 0.1", "POS=CIRCLE 10 10 0.1", "BAND=5 6"):
        answer = server.get(f"/cutout?ID={candidate_ids[0]}&{nothing}")
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "UsageError: Name an object"),
        ("ID=x", 404, "UsageError: There is no object of this id"),
        ("ID=run/tile/5", 404, "UsageError: There is no object of this id"),
        ("ID=..%2F..%2Fetc/passwd/5", 404, "UsageError: There is no object of this id"),
        ("ID={id}&BAND=Z", 400, "UsageError: BAND=Z"),
        ("ID={id}&FORMAT=gif", 400, "UsageError: FORMAT=gif"),
        ("ID={id}&ZOOM=99", 400, "UsageError: ZOOM=99"),
        ("ID={id}&SIZE=0", 400, "UsageError: SIZE=0"),
        ("ID={id}&WHITE=1&BLACK=2", 400, "UsageError: black at 2 sigma"),
        ("ID={id}&CIRCLE=1 2", 400, "UsageError: CIRCLE=1 2"),
        ("ID={id}&CIRCLE=1 2 3&POS=CIRCLE 1 2 3", 400, "UsageError: CIRCLE and POS"),
        ("ID={id}&POS=POLYGON 1 2 3 4 5 6", 400, "UsageError: POS=POLYGON"),
        ("ID={id}&CIRCLE=1 2 3&CIRCLE=1 2 4", 400, "MultiValuedParamNotSupported: CIRCLE"),
        ("ID={id}&ID=x", 400, "MultiValuedParamNotSupported: ID"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(server, candidate_ids, query, status, said):
    answer = server.get(f"/cutout?{query.format(id=candidate_ids[0])}")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith(said)
    assert answer.text.count("\n") == 1


def test_forms_are_read_and_other_bodies_refused(server, candidate_ids):
    posted = server.client.post("/cutout", data={"ID": candidate_ids[0], "BAND": "H"})
    assert posted.content == server.get(f"/cutout?ID={candidate_ids[0]}&BAND=H").content
    answer = server.client.post("/cutout", json={"ID": candidate_ids[0]})
    assert (answer.status_code, "is no form" in answer.text) == (400, True)


@given(
    st.dictionaries(st.sampled_from([one.name for one in PARAMETERS]), st.text(max_size=15) | st.floats().map(str), max_size=8)
)
@settings(max_examples=300)
def test_whatever_is_asked_is_read_or_refused(values):
    try:
        wanted = read_request(Parameters(values.items()))
    except (UsageError, BadRequestError):
        return
    assert isinstance(wanted, CutoutRequest)
    assert wanted.zoom <= 8
