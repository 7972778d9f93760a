"""Who may do what, asked of the real server."""

import base64

import pytest

from scanner.service.security import new_token
from scanner.service.settings import load

READER, READER_LINE = new_token("Rita", "read")
GRADER, GRADER_LINE = new_token("Gwen", "grade")


@pytest.fixture(scope="module")
def guarded(served_run, tmp_path_factory, make_server):
    """A server that asks for tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens.txt"
    tokens.write_text(f"{READER_LINE}\n{GRADER_LINE}\n")
    config = load(None, {"access.tokens": str(tokens), "grading.path": str(folder / "grades.sqlite")}, {})
    with make_server(config, served_run) as server:
        yield server


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def basic(name, password):
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


@pytest.mark.parametrize(
    "path", ["/api/v1/collections", "/scs?RA=1&DEC=2&SR=3", "/metrics", "/openapi.json", "/cutout?ID=a/b/1"]
)
def test_nothing_is_told_without_a_token(guarded, path):
    for headers in (
        {},
        bearer("scn_wrong"),
        basic("Rita", "wrong"),
        {"Authorization": "Basic ???"},
        {"Cookie": "scanner_token=x"},
    ):
        answer = guarded.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].split()[0] == ("Basic" if path.startswith(("/scs", "/cutout")) else "Bearer")
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "headers", [bearer(READER), basic("anything", READER), basic("", READER), {"Cookie": f"scanner_token={READER}"}]
)
def test_a_token_opens_whichever_way_it_comes(guarded, headers):
    assert guarded.get("/api/v1/collections", headers=headers).json()["collections"][0]["n_objects"] > 0


def test_the_description_says_how_a_token_is_sent(guarded, server):
    described = guarded.get("/openapi.json", headers=bearer(READER)).json()
    assert {scheme["scheme"] for scheme in described["components"]["securitySchemes"].values()} == {"bearer", "basic"}
    assert len(described["security"]) == 2
    assert "security" not in server.get("/openapi.json").json()


def test_readers_do_not_grade(guarded, listed_ids):
    path = f"/api/v1/grades/{listed_ids[0]}"
    refused = guarded.client.post(path, json={"grade": "A"}, headers=bearer(READER))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    given = guarded.client.post(path, json={"grade": "A"}, headers=bearer(GRADER))
    assert given.status_code == 200
    assert given.json()["history"][0]["grader"] == "Gwen"


def test_browsers_are_shown_where_to_give_the_token(guarded):
    answer = guarded.get("/c/any/candidates", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/c/any/candidates")
    assert guarded.get("/login?next=/").status_code == 200
    shared = guarded.get("/c/any/candidates?cone=1+2+3&min_score=.5", follow_redirects=False)
    assert shared.headers["Location"] == "/login?next=/c/any/candidates%3Fcone%3D1%2B2%2B3%26min_score%3D.5"


def test_a_browser_gets_a_cookie_that_scripts_cannot_read(guarded):
    answer = guarded.client.post("/login", data={"token": READER, "next": "/c/x/candidates?a=1"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/c/x/candidates?a=1")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    refused = guarded.client.post("/login", data={"token": "scn_wrong"})
    assert (refused.status_code, refused.headers.get("Set-Cookie")) == (401, None)
    gone = guarded.client.post("/logout", headers={"Cookie": f"scanner_token={READER}"}, follow_redirects=False)
    assert "Max-Age=0" in gone.headers["Set-Cookie"]
    guarded.client.cookies.clear()


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\r\nX: y"]
)
def test_login_leads_nowhere_else(guarded, place):
    answer = guarded.client.post("/login", data={"token": READER, "next": place}, follow_redirects=False)
    assert answer.headers["Location"] == "/"
    guarded.client.cookies.clear()


def test_pages_of_other_sites_may_read_with_a_token_of_their_own(guarded):
    answer = guarded.get("/api/v1/collections", headers=bearer(READER) | {"Origin": "https://aladin.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    asked = {"Origin": "https://aladin.example", "Access-Control-Request-Method": "GET"}
    preflight = guarded.client.options("/scs", headers=asked | {"Access-Control-Request-Headers": "authorization"})
    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
    assert guarded.client.options("/scs", headers=asked | {"Access-Control-Request-Method": "PUT"}).status_code == 400
