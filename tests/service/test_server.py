import gc
import socket
import warnings

from waiting import LIMIT_S

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
