"""A slice of what benchmarks/fuzz_service.py sends ten thousand of."""

from itertools import islice
from pathlib import Path

import hostile
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scanner.service.settings import load

#: Requests of this test; the rest are the benchmark's.
N_HOSTILE = 400
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def attacked(served_run, tmp_path_factory, make_server):
    """A server without limits to the rate, so that every request gets through."""
    grades = tmp_path_factory.mktemp("attacked") / "grades.sqlite"
    config = load(None, {"grading.path": str(grades), "limits.requests_per_minute": 0, "limits.seconds": 20}, {})
    with make_server(config, served_run) as server:
        yield server


def state(folder):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_hostile_requests_get_nothing_and_break_nothing(attacked, served_run, listed_ids, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state(served_run)
    run, tile_id, target_id = listed_ids[0].split("/")
    slug = attacked.context.collections.default.slug
    there = {"slug": slug, "run": run, "run_id": run, "tile_id": tile_id, "target_id": target_id}
    secrets = (str(served_run), str(Path(hostile.__file__).parents[1]), "root:x:0", "Traceback", "site-packages")
    host, port = attacked.url.removeprefix("http://").split(":")
    described = attacked.get("/openapi.json").json()
    for request in islice(hostile.requests(1, described, there), N_HOSTILE):
        faults = list(hostile.faults(request, hostile.answer((host, int(port)), request), secrets))
        assert not faults, (faults, request.sent[:2000])
    assert attacked.get(f"/api/v1/collections/{slug}/candidates/{listed_ids[0]}").status_code == 200
    assert state(served_run) == before
    assert list(tmp_path.iterdir()) == []


def test_the_description_is_true(attacked):
    schema = schemathesis.openapi.from_url(f"{attacked.url}/openapi.json")
    for operation in (result.ok() for result in schema.get_all_operations()):

        @settings(max_examples=5, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case):
            case.validate_response(case.call(), checks=CHECKS)

        conforms()
