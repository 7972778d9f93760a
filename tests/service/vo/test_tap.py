"""Queries of the running server, by pyvo and by hand: what comes is what lies there."""

import io
import xml.etree.ElementTree as ET

import httpx
import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import pyvo
from astropy.io.votable import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.query.region import Cone
from scanner.service.vo.tap import EXAMPLES


@pytest.fixture(name="tap", scope="module")
def tap_fixture(server):
    return pyvo.dal.TAPService(f"{server.url}/tap")


@pytest.fixture(name="ask", scope="module")
def ask_fixture(server):
    """Statuses (QUERY_STATUS of the document) and the rows of a query, or of its refusal."""

    def ask(query, method="GET", **parameters):
        parameters = {"LANG": "ADQL", "QUERY": query, **parameters}
        sent = {"params": parameters} if method == "GET" else {"data": parameters}
        answer = server.client.request(method, "/tap/sync", **sent)
        document = parse(io.BytesIO(answer.content), verify="exception")
        infos = [info for resource in document.resources for info in resource.infos if info.name == "QUERY_STATUS"]
        tables = list(document.iter_tables())
        rows = tables[0].to_table(use_names_over_ids=True) if tables else None
        return answer.status_code, [(info.value, info.content) for info in infos], rows

    return ask


@pytest.mark.parametrize("encoding", ["votable", "votable/td", "application/x-votable+xml;serialization=binary2"])
def test_every_column_of_every_object(ask, rows, encoding):
    status, said, found = ask("SELECT * FROM objects ORDER BY rank", RESPONSEFORMAT=encoding)
    assert (status, said) == (200, [("OK", None)])
    assert found.colnames == ["candidate_id", *rows.column_names]
    for field in rows.schema:
        expected = rows[field.name].to_numpy()
        values = np.asarray(np.ma.filled(found[field.name], np.nan) if expected.dtype.kind == "f" else found[field.name])
        np.testing.assert_array_equal(values.astype(expected.dtype), expected, err_msg=field.name)
        assert found[field.name].description == field.metadata[b"description"].decode()
        assert str(found[field.name].unit or "") == field.metadata[b"unit"].decode().replace("pixel", "pix")


def test_pyvo_sync(tap, rows):
    ra, dec, radius = rows["ra"][0].as_py(), rows["dec"][0].as_py(), 0.005
    near = f"1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra}, {dec}, {radius}))"
    found = tap.run_sync(f"SELECT target_id, p_calibrated FROM candidates WHERE {near}")
    inside = Cone(ra, dec, radius).contains(rows["ra"].to_numpy(), rows["dec"].to_numpy()) & rows["is_candidate"].to_numpy()
    assert sorted(found["target_id"].tolist()) == sorted(rows["target_id"].to_numpy()[inside].tolist())
    assert inside.sum() > 0
    assert found.status[0] == "OK"


def test_pyvo_knows_the_tables(tap, rows, served_run):
    schema = pq.read_table(served_run / "tiles.parquet").schema
    (objects,) = [name for name in tap.tables.keys() if name.endswith(".objects")]  # noqa: SIM118
    prefix = objects.removesuffix(".objects")
    names = {f"{prefix}.objects", f"{prefix}.candidates", f"{prefix}.tiles", "ivoa.obscore"}
    names |= {f"tap_schema.{name}" for name in ("schemas", "tables", "columns", "keys", "key_columns")}
    assert set(tap.tables.keys()) == names
    assert [column.name for column in tap.tables[f"{prefix}.tiles"].columns] == schema.names
    columns = {column.name: column for column in tap.tables[objects].columns}
    assert list(columns) == ["candidate_id", '"_healpix_29"', *rows.column_names[1:]]
    assert (columns["ra"].unit, columns["ra"].ucd, columns["ra"].datatype.content) == ("deg", "pos.eq.ra;meta.main", "double")
    told = tap.run_sync(
        f"SELECT column_name, datatype, ucd FROM tap_schema.columns WHERE table_name = '{objects}' ORDER BY column_index"
    )
    assert told["column_name"].tolist() == list(columns)
    assert told["datatype"].tolist() == [column.datatype.content for column in columns.values()]
    assert tap.run_sync(f"SELECT COUNT(*) AS n FROM {objects}")["n"].tolist() == [len(rows)]


def test_capabilities(tap):
    assert tap.maxrec == 20_000
    assert tap.hardlimit == 100_000
    (language,) = tap.get_tap_capability().languages
    assert [version.content for version in language.versions] == ["2.0", "2.1"]
    for function in ("CONTAINS", "CIRCLE", "DISTANCE", "POLYGON"):
        assert language.get_feature("ivo://ivoa.net/std/TAPRegExt#features-adqlgeo", function) is not None
    assert [method.ivo_id for method in tap.upload_methods] == []
    assert len(tap.examples) == len(EXAMPLES)


@pytest.mark.parametrize(("_", "__", "query"), EXAMPLES)
def test_examples_are_answered(ask, _, __, query):
    assert ask(query)[:2] == (200, [("OK", None)])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_parameters_in_any_case(server, method, rows):
    parameters = {
        "lang": "adql-2.0",
        "Query": "SELECT name FROM candidates WHERE rank = 1",
        "request": "doQuery",
        "format": "CSV",
    }
    answer = server.client.request(method, "/tap/sync", **{"params" if method == "GET" else "data": parameters})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text == f'"name"\n"{rows["name"][0]}"\n'


def test_forms_in_parts(server, rows):
    parts = {"LANG": (None, "ADQL"), "QUERY": (None, "SELECT COUNT(*) FROM objects"), "RESPONSEFORMAT": (None, "tsv")}
    answer = server.client.post("/tap/sync", files=parts)
    assert (answer.status_code, answer.text) == (200, f'"count"\n{len(rows)}\n')


def test_csv_is_exact(server, rows):
    query = "SELECT ra, p_calibrated, is_candidate, target_id FROM objects ORDER BY rank"
    answer = server.get("/tap/sync", params={"QUERY": query, "RESPONSEFORMAT": "csv"})
    read = pyarrow.csv.read_csv(io.BytesIO(answer.content))
    np.testing.assert_array_equal(read["ra"].to_numpy(), rows["ra"].to_numpy())
    np.testing.assert_array_equal(read["p_calibrated"].to_numpy().astype(np.float32), rows["p_calibrated"].to_numpy())
    assert read["target_id"].to_pylist() == rows["target_id"].to_pylist()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_most_rows(ask, rows, method):
    statuses, n = [], len(rows)
    for most, query in ((0, "objects"), (2, "objects"), (n - 1, "objects"), (n, "objects"), (2, "objects WHERE rank < 3")):
        status, said, found = ask(f"SELECT rank FROM {query}", method, MAXREC=most)
        assert status == 200
        statuses.append(([value for value, _ in said], len(found)))
    over = ["OK", "OVERFLOW"]
    assert statuses == [(over, 0), (over, 2), (over, n - 1), (["OK"], n), (["OK"], 2)]
    assert ask("SELECT TOP 2 rank FROM objects", MAXREC=3)[1] == [("OK", None)]


def test_the_services_own_limit(make_server, served_run, tmp_path):
    from scanner.service.settings import load

    config = load(None, {"limits.rows": 4, "grading.path": str(tmp_path / "grades.sqlite")}, {})
    with make_server(config, served_run) as small:
        for parameters in ({}, {"MAXREC": "1000"}):
            answer = small.get("/tap/sync", params={"QUERY": "SELECT rank FROM objects", **parameters})
            document = parse(io.BytesIO(answer.content))
            assert len(document.get_first_table().array) == 4
            assert document.resources[0].infos[-1].value == "OVERFLOW"


def test_an_answer_that_ends_early_says_so(make_server, served_run, tmp_path):
    """With DALI's QUERY_STATUS where its form has one; else the connection breaks."""
    from scanner.service.settings import load

    config = load(None, {"limits.answer_mb": 1, "limits.memory_mb": 8000, "grading.path": str(tmp_path / "grades.sqlite")}, {})
    long = f"SELECT {', '.join([' || '.join(['name'] * 18)] * 500)} FROM objects"
    with make_server(config, served_run) as small:
        for encoding in ("votable", "votable/td"):
            answer = small.client.post("/tap/sync", data={"QUERY": long, "RESPONSEFORMAT": encoding})
            document = parse(io.BytesIO(answer.content), verify="exception")
            assert len(document.get_first_table().array) > 0
            last = document.resources[0].infos[-1]
            assert (answer.status_code, last.name, last.value) == (200, "QUERY_STATUS", "ERROR")
            assert last.content == "The answer is longer than 1 MB; ask for fewer rows or columns."
        with pytest.raises(httpx.RemoteProtocolError):
            small.client.post("/tap/sync", data={"QUERY": long, "RESPONSEFORMAT": "csv"})
        job = small.client.post("/tap/async", data={"QUERY": long, "PHASE": "RUN", "LANG": "ADQL"}).headers["location"]
        while small.client.get(job, params={"WAIT": "5"}).text.count("EXECUTING</uws:phase>"):
            pass
        assert "The answer is longer than 1 MB" in small.client.get(f"{job}/error").text


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"QUERY": "SELECT ra FROM nothing"}, "line 1, column 16: there is no table nothing"),
        ({"QUERY": "SELECT ra FROM objects WHERE"}, "line 1, column 29: a value is expected"),
        ({"QUERY": "SELECT 9223372036854775807 + rank FROM objects"}, "larger than a column can hold"),
        ({"QUERY": "SELECT CAST(name AS INTEGER) FROM objects", "FORMAT": "csv"}, "cannot be cast"),
        ({}, "QUERY is missing"),
        ({"QUERY": "SELECT ra FROM objects", "LANG": "SQL"}, "LANG=SQL"),
        ({"QUERY": "SELECT ra FROM objects", "MAXREC": "-1"}, "MAXREC=-1"),
        ({"QUERY": "SELECT ra FROM objects", "MAXREC": "many"}, "MAXREC=many"),
        ({"QUERY": "SELECT ra FROM objects", "RESPONSEFORMAT": "pdf"}, "RESPONSEFORMAT=pdf"),
        ({"QUERY": "SELECT ra FROM objects", "REQUEST": "getCapabilities"}, "REQUEST"),
        ({"QUERY": "SELECT ra FROM tap_upload.t", "UPLOAD": "t,http://localhost/t.vot"}, "UPLOAD is not supported"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refusals_are_votables(server, method, parameters, says):
    answer = server.client.request(method, "/tap/sync", **{"params" if method == "GET" else "data": parameters})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/x-votable+xml")
    document = parse(io.BytesIO(answer.content), verify="exception")
    (info,) = document.resources[0].infos
    assert (info.name, info.value) == ("QUERY_STATUS", "ERROR")
    assert says in info.content


def test_availability(server):
    said = ET.fromstring(server.get("/tap/availability").content)
    assert said.findtext("{http://www.ivoa.net/xml/VOSIAvailability/v1.0}available") == "true"


def test_tables_that_are_not_there(server):
    assert server.get("/tap/tables/ivoa.obscore").status_code == 200
    assert server.get("/tap/tables/nothing").status_code == 404
    minimal = ET.fromstring(server.get("/tap/tables?detail=min").content)
    assert len(minimal.findall(".//table")) == 9
    assert minimal.findall(".//column") == []
    assert server.get("/tap", follow_redirects=True).content == server.get("/tap/capabilities").content


def test_observations_lead_to_the_data(tap, candidate_ids, served_run):
    found = tap.run_sync("SELECT * FROM ivoa.obscore WHERE access_url IS NOT NULL AND s_fov < 0.1")
    assert sorted(found["obs_publisher_did"].tolist()) == sorted(candidate_ids)
    links = found.getrecord(0).getdatalink()
    assert "#cutout" in {link.semantics for link in links}
    assert {link["ID"] for link in links} == {found["obs_publisher_did"][0]}
    tiles = tap.run_sync("SELECT obs_id, s_region, s_ra, s_dec FROM ivoa.obscore WHERE access_url IS NULL")
    scanned = pq.read_table(served_run / "tiles.parquet")
    assert sorted(tiles["s_region"].tolist()) == sorted(scanned["s_region"].to_pylist())


def test_observations_near_a_position(tap, rows):
    ra, dec = rows["ra"][0].as_py(), rows["dec"][0].as_py()
    near = f"CONTAINS(POINT('ICRS', s_ra, s_dec), CIRCLE('ICRS', {ra!r}, {dec!r}, 0.001)) = 1"
    found = tap.run_sync(f"SELECT target_name FROM ivoa.obscore WHERE {near} AND target_name IS NOT NULL")
    inside = Cone(ra, dec, 0.001).contains(rows["ra"].to_numpy(), rows["dec"].to_numpy()) & rows["is_candidate"].to_numpy()
    assert sorted(found["target_name"].tolist()) == sorted(rows["name"].filter(inside).to_pylist())


def test_rows_lead_to_links(tap, candidate_ids):
    found = tap.run_sync("SELECT TOP 1 candidate_id, ra FROM candidates ORDER BY rank")
    assert found["candidate_id"].tolist() == candidate_ids[:1]
    assert len(found.getrecord(0).getdatalink()) > 1


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=8), st.text(max_size=8))
def test_hostile_parameters(server, query, maxrec, form):
    for text in (query, f"SELECT '{query}' FROM objects WHERE name <> '{query}'"):
        answer = server.client.post("/tap/sync", data={"QUERY": text, "MAXREC": maxrec, "RESPONSEFORMAT": form})
        assert answer.status_code in (200, 400)
        assert b"Traceback" not in answer.content
