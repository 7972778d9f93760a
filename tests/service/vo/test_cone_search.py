"""Cone searches of the running server: what comes is what lies there."""

import io
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
import pyvo
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.service.context import Parameters
from scanner.service.errors import BadRequestError
from scanner.service.vo.cone import read_search


@pytest.fixture(scope="module")
def sky_of(rows):
    return SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")


def inside(sky_of, ra, dec, radius):
    separation = sky_of.separation(SkyCoord(ra, dec, unit="deg")).deg
    return np.flatnonzero(separation <= radius), separation


@pytest.mark.parametrize("radius", [3 / 3600, 20 / 3600, 0.01, 1.0])
def test_what_lies_in_the_cone_comes_nearest_first(server, rows, sky_of, read, radius):
    ra, dec = rows["ra"][3].as_py() + 1e-4, rows["dec"][3].as_py()
    answer = server.get("/scs", params={"RA": ra, "DEC": dec, "SR": radius, "VERB": 3})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-votable+xml")
    _, table = read(answer.content)
    expected, separation = inside(sky_of, ra, dec, radius)
    expected = expected[np.argsort(separation[expected])]
    assert len(expected) > 0
    assert list(table["target_id"]) == rows["target_id"].take(expected).to_pylist()
    np.testing.assert_allclose(table["separation"], separation[expected] * 3600, atol=1e-4)
    for name in ("ra", "dec", "p_calibrated", "p_ou_200", "known_name", "run", "_healpix_29"):
        np.testing.assert_array_equal(
            np.asarray(table[name]), np.asarray(rows[name].take(expected).to_pylist(), table[name].dtype)
        )
    row = rows.slice(int(expected[0]), 1).to_pylist()[0]
    assert table["candidate_id"][0] == f"{row['run']}/{row['tile_id']}/{row['target_id']}"


def test_columns_by_verbosity_with_units_and_one_main_identifier(server, read, rows):
    columns = {}
    for verbosity in (1, 2, 3):
        document, table = read(server.get("/scs", params={"RA": 53, "DEC": -28, "SR": 1, "VERB": verbosity}).content)
        fields = document.get_first_table().fields
        ucds = [field.ucd for field in fields]
        assert [ucds.count(one) for one in ("meta.id;meta.main", "pos.eq.ra;meta.main", "pos.eq.dec;meta.main")] == [1, 1, 1]
        assert {field.name: str(field.unit) for field in fields if field.name in ("ra", "separation")} == {
            "ra": "deg",
            "separation": "arcsec",
        }
        columns[verbosity] = set(table.colnames)
        assert len(table) == len(rows)
    assert columns[1] < columns[2] < columns[3]
    assert columns[3] == {"candidate_id", "separation", *rows.column_names}


def test_positions_are_said_to_be_icrs(server, read):
    document, _ = read(server.get("/scs?RA=53&DEC=-28&SR=1&VERB=1").content)
    (system,) = document.coordinate_systems
    assert system.system == "ICRS"
    assert {field.name for field in document.get_first_table().fields if field.ref == system.ID} == {"ra", "dec"}


def test_a_radius_of_nothing_asks_for_the_columns(server, read):
    document, table = read(server.get("/scs?ra=53&dec=-28&sr=0").content)
    assert (len(table), "p_calibrated" in table.colnames) == (0, True)
    assert [info.value for info in document.resources[0].infos if info.name == "QUERY_STATUS"] == ["OK"]


def test_more_than_is_wanted_is_told(server, read, rows):
    for most, status in ((2, "OVERFLOW"), (len(rows), "OK"), (10**9, "OK")):
        answer = server.get("/scs", params={"RA": 53, "DEC": -28, "SR": 180, "MAXREC": most})
        document, table = read(answer.content)
        assert len(table) == min(most, len(rows))
        infos = document.resources[0].infos + document.get_first_table().infos
        assert [info.value for info in infos if info.name == "QUERY_STATUS"][-1] == status


def test_names_in_any_case_and_in_a_form(server, read):
    by_query = read(server.get("/scs?Ra=53&dEC=-28&sr=1").content)[1]
    by_form = read(server.client.post("/scs", data={"ra": "53", "DEC": "-28", "sr": "1"}).content)[1]
    assert len(by_query) > 3
    assert list(by_query["candidate_id"]) == list(by_form["candidate_id"])


def test_binary_answers_hold_the_same(server, read, rows):
    where = {"RA": 53, "DEC": -28, "SR": 1, "VERB": 3}
    text = server.get("/scs", params=where | {"RESPONSEFORMAT": "votable;serialization=tabledata"}).content
    binary = server.get("/scs", params=where | {"RESPONSEFORMAT": "application/x-votable+xml;serialization=BINARY2"}).content
    assert (b"<TABLEDATA>" in text, b"<BINARY2>" in binary) == (True, True)
    for name in rows.column_names:
        np.testing.assert_array_equal(np.asarray(read(text)[1][name]), np.asarray(read(binary)[1][name]))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("RA=53&DEC=-28", "SR is missing"),
        ("RA=abc&DEC=-28&SR=1", "RA=abc"),
        ("RA=nan&DEC=-28&SR=1", "RA=nan"),
        ("RA=53&DEC=-98&SR=1", "declination of -98"),
        ("RA=53&DEC=-28&SR=-1", "radius of -1"),
        ("RA=53&DEC=-28&SR=1&VERB=4", "VERB=4"),
        ("RA=53&DEC=-28&SR=1&MAXREC=-1", "MAXREC=-1"),
        ("RA=53&DEC=-28&SR=1&MAXREC=" + "9" * 5000, "MAXREC=999"),
        ("RA=53&RA=54&DEC=-28&SR=1", "RA can be given once"),
        ("RA=53&DEC=-28&SR=1&RESPONSEFORMAT=csv", "RESPONSEFORMAT=csv"),
        ("RA=53&DEC=-28&SR=<script>", "SR=<script>"),
    ],
)
def test_what_makes_no_sense_is_refused_as_a_votable(server, read, query, said):
    answer = server.get(f"/scs?{query}")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (400, "text/xml")
    infos = {info.name: info.value for info in parse(io.BytesIO(answer.content)).resources[0].infos}
    assert infos["QUERY_STATUS"] == "ERROR"
    assert said in infos["Error"]


def test_a_collection_by_its_name(server, read):
    slug = server.context.collections.default.slug
    assert len(read(server.get(f"/scs/{slug}?RA=53&DEC=-28&SR=1").content)[1]) > 3
    answer = server.get("/scs/elsewhere?RA=53&DEC=-28&SR=1")
    assert (answer.status_code, b"no collection of this name" in answer.content) == (404, True)


def test_pyvo_finds_the_same_and_follows_to_the_links(server, rows, sky_of):
    position = SkyCoord(53.0, -28.0, unit="deg")
    found = pyvo.conesearch(f"{server.url}/scs", pos=position, radius=0.1 * u.deg, verbosity=3)
    expected, _ = inside(sky_of, 53.0, -28.0, 0.1)
    assert sorted(found["target_id"]) == sorted(rows["target_id"].take(expected).to_pylist())
    record = found[0]
    links = record.getdatalink()
    assert links.status[0] == "OK"
    assert next(links.bysemantics("#this", include_narrower=False))["ID"] == record["candidate_id"]


def test_pyvo_tells_what_was_refused(server):
    service = pyvo.dal.SCSService(f"{server.url}/scs")
    with pytest.raises(pyvo.DALQueryError, match="radius of 200"):
        service.search(pos=(53.0, -28.0), radius=200.0)


@given(
    st.dictionaries(
        st.sampled_from(["RA", "DEC", "SR", "VERB", "MAXREC", "RESPONSEFORMAT", "x"]), st.text(max_size=20), max_size=7
    )
)
@settings(max_examples=300)
def test_whatever_is_asked_is_read_or_refused(values):
    try:
        wanted = read_search(Parameters(values.items()), 1000)
    except BadRequestError:
        return
    assert 0 <= wanted.max_rows <= 1000
    assert 0 <= wanted.cone.radius_deg <= 180


def test_it_says_what_it_can_do_and_that_it_does(server):
    told = fromstring(server.get("/scs/capabilities").content)
    searches = [one for one in told if one.get("standardID") == "ivo://ivoa.net/std/ConeSearch"]
    slug = server.context.collections.default.slug
    addresses = [one.findtext("interface/accessURL") for one in searches]
    assert addresses == [f"{server.url}/scs?", f"{server.url}/scs/{slug}?"]
    assert all(server.client.get(f"{address}RA=53&DEC=-28&SR=0").status_code == 200 for address in addresses)
    assert b"<vosi:available>true</vosi:available>" in server.get("/scs/availability").content
