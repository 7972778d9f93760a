"""What the service refuses, and in which form, through the real server."""

import pytest

from scanner.service.settings import load


@pytest.fixture
def limited(served_run, tmp_path, make_server):
    def limited(**limits):
        flags = {f"limits.{name}": value for name, value in limits.items()}
        return make_server(load(None, flags | {"grading.path": str(tmp_path / "grades.sqlite")}, {}), served_run)

    return limited


def test_every_part_says_no_in_its_own_form(server):
    api = server.get("/api/v1/nothing", headers={"Accept": "text/html"})
    assert (api.status_code, api.json()["error"]["code"]) == (404, "not_found")
    page = server.get("/c/nowhere/candidates")
    assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert page.headers["X-Request-ID"] in page.text
    table = server.get("/scs?RA=1&DEC=95&SR=1")
    assert table.headers["Content-Type"].startswith(("text/xml", "application/x-votable+xml"))
    assert "<VOTABLE" in table.text
    method = server.client.delete("/api/v1/collections")
    assert (method.status_code, method.headers["Allow"]) == (405, "GET")


def test_answers_that_take_too_long_are_given_up(limited):
    with limited(seconds=1e-4) as server:
        answer = server.get(f"/api/v1/collections/{server.context.collections.default.slug}/candidates")
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
        assert "longer than 0.0001 s" in answer.json()["error"]["message"]
        table = server.get("/scs?RA=52.9&DEC=-28&SR=0.1")
        assert table.status_code == 408
        assert "<VOTABLE" in table.text
        # What asks no database is answered as ever.
        assert server.get("/healthz").json() == {"status": "ok"}


def test_one_client_may_ask_so_often(limited):
    with limited(requests_per_minute=1, burst=5) as server:
        statuses = [server.get("/api/v1/nothing").status_code for _ in range(6)]
        assert statuses == [404] * 5 + [429]
        refused = server.get("/api/v1/nothing")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.json()["error"]["code"] == "too_many_requests"
        assert server.get("/api/v1/nothing", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 429


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip", "gzip"), ("br, GZip;q=0.5", "gzip"), ("identity", None), ("gzip;q=0", None), ("br, gzip; q=0.00", None)],
)
def test_what_pages_are_made_of_is_compressed_for_who_takes_it(server, accepted, coding):
    path = f"/api/v1/collections/{server.context.collections.default.slug}/candidates"
    answer = server.get(path, headers={"Accept-Encoding": accepted})
    plain = server.get(path, headers={"Accept-Encoding": "identity"})
    assert answer.headers.get("Content-Encoding") == coding
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert answer.content == plain.content
    assert (int(answer.headers["Content-Length"]) < len(plain.content) / 3) == (coding == "gzip")


@pytest.mark.parametrize("path", ["/healthz", "/scs?RA=52.9&DEC=-28&SR=0.1", "/metrics"])
def test_short_answers_and_tables_are_not(server, path):
    assert "Content-Encoding" not in server.get(path, headers={"Accept-Encoding": "gzip"}).headers


def test_until_a_catalogue_is_open_one_is_told_to_come_again(limited, monkeypatch):
    with limited() as server:
        slug = server.context.collections.default.slug
        monkeypatch.setattr(server.context.collections, "_open", {})
        answer = server.get(f"/api/v1/collections/{slug}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert "being opened" in answer.json()["error"]["message"]


def test_the_description_is_complete(server):
    described = server.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert "422" not in operation["responses"], where
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description") or parameter["schema"].get("description"), f"{where}: {parameter['name']}"
            if path.startswith("/api/"):
                (error,) = operation["responses"]["4XX"]["content"].values()
                assert error["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, where
    item = described["components"]["schemas"]["CandidatePage"]["properties"]["items"]["items"]
    assert "Calibrated lens probability" in item["properties"]["p_calibrated"]["description"]
    assert item["properties"]["target_id"]["type"] == ["string", "null"]
