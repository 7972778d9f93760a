import logging
import re

import pytest
from waiting import wait_for

from scanner.service.settings import load


@pytest.fixture
def line_of(caplog):
    """What the access log says of an answer; it does so when the answer is on its way."""
    caplog.set_level(logging.INFO, "scanner.service.access")

    def find(answer):
        def lines():
            return [line for line in caplog.records if getattr(line, "request_id", None) == answer.headers["X-Request-ID"]]

        return wait_for("the line", lines)[0]

    return find


def test_answer_and_log_line_have_the_same_id(server, line_of):
    answers = [server.get("/api/v1/collections?a=%0A1") for _ in range(2)]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 2
    line = line_of(answers[0])
    assert (line.getMessage(), line.route, line.query) == ("GET /api/v1/collections 200", "/api/v1/collections", "a=%0A1")
    assert line.bytes > 0


def test_no_path_ends_the_line_or_orders_the_terminal_about(server, line_of):
    answer = server.get("/c/%0A%1b%5b31m%e2%80%a8x")
    assert line_of(answer).getMessage() == "GET /c/%0A%1B%5B31m%E2%80%A8x 404"


def test_a_proxys_id_is_kept_if_it_is_one(server):
    assert server.get("/healthz", headers={"X-Request-ID": "from-the_proxy-1"}).headers["X-Request-ID"] == "from-the_proxy-1"
    for other in ("short", "x" * 65, 'a"b{}<script>', "ä" * 9):
        answer = server.get("/healthz", headers={"X-Request-ID": other.encode()})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-ID"])


def test_errors_carry_it_too(server):
    answer = server.get("/api/v1/collections/nowhere")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "status": 404,
            "code": "not_found",
            "message": "There is no collection of this name; /api/v1/collections lists them.",
            "request_id": answer.headers["X-Request-ID"],
        }
    }


def test_what_nobody_foresaw_is_told_to_the_log_alone(served_run, tmp_path, make_server, monkeypatch, caplog):
    config = load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {})
    with make_server(config, served_run) as server:
        secret = served_run / "secret"
        monkeypatch.setattr("scanner.service.api.candidates._density", lambda *_: secret.read_bytes())
        slug = server.context.collections.default.slug
        answer = server.get(f"/api/v1/collections/{slug}/sky")
    assert answer.status_code == 500
    assert str(served_run) not in answer.text
    assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"]
    failure = next(record for record in caplog.records if record.exc_info)
    assert answer.headers["X-Request-ID"] in failure.getMessage()
    assert failure.exc_info[0] is FileNotFoundError


def test_metrics_count_requests_by_route(served_run, tmp_path, make_server):
    config = load(None, {"grading.path": str(tmp_path / "grades.sqlite"), "limits.body_kb": 1}, {})
    with make_server(config, served_run) as server:
        slug = server.context.collections.default.slug
        for name in (slug, "a", "b"):
            server.get(f"/api/v1/collections/{name}/sky")
        server.client.request("BREW", "/nowhere/at/all")
        assert server.client.post("/login", content=b"x" * 2000).status_code == 413
        page = server.get("/metrics").text

    def metric(name):
        return float(re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)[1])

    route = 'route="/api/v1/collections/{slug}/sky"'
    assert metric(f'scanner_service_requests_total{{method="GET",{route},status="200"}}') == 1
    assert metric(f'scanner_service_requests_total{{method="GET",{route},status="404"}}') == 2
    assert metric('scanner_service_requests_total{method="other",route="none",status="404"}') == 1
    assert metric(f"scanner_service_request_seconds_count{{{route}}}") == 3
    assert metric('scanner_service_refused_total{reason="size"}') == 1
    assert metric('scanner_service_refused_total{reason="rate"}') == 0
    assert metric(f'scanner_service_candidates{{collection="{slug}"}}') == server.context.collections.default.n_candidates
    assert metric("scanner_service_ready") == 1
    assert "nowhere" not in page
