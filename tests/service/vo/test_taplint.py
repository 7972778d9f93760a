"""What STILTS, the VO's own validator, says of the TAP service as a whole."""

import re

import pytest

#: What taplint could not look at, as this service has neither: a table of planned observations, uploads.
NOT_OFFERED = ("F-LOC-NOTP", "F-UPL-NOUP")


def test_taplint_finds_nothing_wrong(server, stilts):
    said = stilts("taplint", f"tapurl={server.url}/tap")
    found = [line for line in said if re.match(r"[EWF]-", line) and not line.startswith(NOT_OFFERED)]
    assert found == []
    (totals,) = [line for line in said if line.startswith("Totals:")]
    assert "Errors: 0; Warnings: 0" in totals


@pytest.mark.parametrize(
    "query",
    ["SELECT * FROM candidates", "SELECT * FROM tiles", "SELECT * FROM ivoa.obscore", "SELECT 1 AS a, NULL FROM objects", "no"],
)
@pytest.mark.parametrize("encoding", ["votable", "votable/td"])
def test_votlint_finds_nothing_wrong(server, votlint, query, encoding):
    votlint(server.get("/tap/sync", params={"QUERY": query, "RESPONSEFORMAT": encoding}).content)
