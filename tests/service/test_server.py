import contextlib
import gc
import socket
import time
import warnings

from waiting import LIMIT_S, wait_for

from scanner.service.settings import load


def test_no_connection_outlives_the_server(served_run, make_server, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.service.app.GRACE_S", 0.3)
    # As for a client who comes while the server is stopping: nobody tells this connection to end.
    monkeypatch.setattr("uvicorn.protocols.http.h11_impl.H11Protocol.shutdown", lambda connection: None)
    config = load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {})
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with make_server(config, served_run) as running:
            host, _, port = running.url.removeprefix("http://").partition(":")
            client = socket.create_connection((host, int(port)), timeout=LIMIT_S)
            assert running.get("/healthz").status_code == 200
        with client:
            assert client.recv(1) == b""
        del running
        gc.collect()
    assert [str(one.message) for one in heard if one.category is ResourceWarning] == []


def test_clients_close_idle_connections_before_the_server_does(server):
    """Closed by the server after 5 s, as httpx does by itself, a connection was reset under a request now and then."""
    assert server._server.config.timeout_keep_alive > 60


def test_clients_that_do_nothing_are_cut(served_run, make_server, tmp_path, monkeypatch):
    """Heads of requests that never end, and answers that nobody takes, kept their connections for ever."""
    monkeypatch.setattr("scanner.service.app.CLIENT_S", 0.5)
    config = load(None, {"grading.path": str(tmp_path / "grades.sqlite"), "limits.requests_per_minute": 0}, {})
    with make_server(config, served_run) as running:
        host, _, port = running.url.removeprefix("http://").partition(":")
        waiting = [socket.create_connection((host, int(port)), timeout=LIMIT_S) for _ in range(20)]
        for number, client in enumerate(waiting):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "[: number * 3])
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
        for client in waiting:
            with client, contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        # Who asks one thing after the other on one connection is not cut.
        for _ in range(6):
            assert running.get("/healthz").status_code == 200
            time.sleep(0.2)
        wait_for("the end of the deaf client's connection", lambda: len(running._server.server_state.connections) <= 1)
        deaf.close()
