import socket

import pytest
from waiting import LIMIT_S

from scanner.service.security import CONTENT_SECURITY_POLICY, allowed_hosts, reading_origins
from scanner.service.settings import load


def test_other_names_of_the_loopback_are_refused(server):
    """A page whose name was made to mean 127.0.0.1 reads nothing."""
    answer = server.get("/api/v1/collections", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "misdirected_request")
    for host in ("127.0.0.1", "LOCALHOST:1234", "[::1]:80"):
        assert server.get("/api/v1/collections", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1/api/v1/collections", "evil.example", 200),
        ("HTTP://localhost:80/", "evil.example", 200),
        ("http://localhost?x", "localhost", 200),
        ("http://evil.example/api/v1/collections", "127.0.0.1", 421),
        ("https://evil.example", "127.0.0.1", 421),
    ],
)
def test_a_whole_url_may_be_asked_for_and_its_host_counts(server, target, host, status):
    """RFC 9112, 3.2.2: it was not found."""
    where, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((where, int(port)), timeout=LIMIT_S) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert client.makefile("rb").readline().split()[1] == str(status).encode()


def test_no_other_page_reads_where_nothing_guards_reading(server):
    answer = server.get("/api/v1/collections", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_others_write_nothing(server, listed_ids, headers):
    path = f"/api/v1/grades/{listed_ids[0]}"
    for ask in (server.client.post, server.client.put):
        answer = ask(path, json={"grade": "A"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_our_own_pages_and_programs_may(server):
    for headers in ({"Origin": server.url, "Sec-Fetch-Site": "same-origin"}, {}):
        answer = server.client.put("/api/v1/grades/me", json={"name": "Ada"}, headers=headers)
        assert answer.status_code == 200
        server.client.cookies.clear()


def test_whose_pages_may_read():
    def origins(flags, is_guarded=False):
        return reading_origins(load(None, flags, {}), is_guarded=is_guarded)

    assert origins({}) == ()
    assert origins({}, is_guarded=True) == ("*",)
    assert origins({"http.host": "0.0.0.0"}) == ("*",)
    assert origins({"http.cors": ["https://a.example"]}, is_guarded=True) == ("https://a.example",)


def test_hosts():
    assert allowed_hosts(load(None, {}, {}).http) == {"localhost", "127.0.0.1", "::1"}
    behind = load(None, {"http.base_url": "https://Lens.example.org:444/x", "http.hosts": ["b.example"]}, {})
    assert allowed_hosts(behind.http) == {"localhost", "127.0.0.1", "::1", "lens.example.org", "b.example"}
    assert "*" in allowed_hosts(load(None, {"http.host": "::"}, {}).http)


@pytest.mark.parametrize("prefix", ["", "/lenses"])
def test_behind_a_proxy_that_keeps_its_prefix_or_removes_it(served_run, tmp_path, make_server, prefix):
    flags = {"http.base_url": "https://x.example/lenses", "access.public": True, "grading.path": str(tmp_path / "g.sqlite")}
    with make_server(load(None, flags, {}), served_run) as server:
        headers = {"Host": "x.example"}
        assert server.get(f"{prefix}/api/v1/collections", headers=headers).status_code == 200
        start = server.get(f"{prefix}/", headers=headers)
        assert 'href="/lenses/' in start.text
        assert "https://x.example/lenses/tap" in start.text
        # A slash at the end was redirected to http, to the host of the request, and without the prefix.
        slash = server.client.get(f"{prefix}/tap/capabilities/", headers=headers, follow_redirects=False)
        assert (slash.status_code, slash.headers.get("Location")) == (200, None)
        forged = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Forwarded-Prefix": "/evil"}
        assert "evil" not in server.get(f"{prefix}/tap/capabilities", headers=headers | forged).text
        # Through a proxy anybody comes.
        assert server.client.put(f"{prefix}/api/v1/grades/me", json={"name": "Ada"}, headers=headers).status_code == 403
        own = headers | {"Origin": "https://x.example"}
        assert server.client.post(f"{prefix}/logout", headers=own, follow_redirects=False).status_code == 303
        assert server.client.post(f"{prefix}/logout", headers=headers | {"Origin": "https://y.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/v1/collections", "/nowhere", "/metrics", "/static/x"])
def test_every_answer_tells_browsers_to_run_nothing_else(server, path):
    headers = server.get(path).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"].startswith("private") or path == "/static/x"
    assert "Authorization" in headers["Vary"]
