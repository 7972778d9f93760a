"""What several test packages need: a small sky on disk, drawn once a session, and an S3 server of its own."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

# Before NumPy and PyTorch are loaded, here and in child processes: two processes of tests share two cores, and threads that
# wait for one another spin away what the others need. What a test computes with more threads it asks for itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The bundles of whoever runs the tests are none of theirs.
os.environ["XDG_DATA_HOME"] = "/nonexistent"
# A shell starts what it runs in the background with Ctrl-C ignored, and every child process would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import programs
import pytest
import skips
from hypothesis import HealthCheck, settings
from once import made_once
from ports import free_ports
from scans import in_this_process
from waiting import LIMIT_S

from scanner.config import StorageConfig, load
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles

programs.fork_instead_of_spawning()
REAL = Path(__file__).parents[2] / "shared" / "real"

# The same examples in every run, on a machine of any speed; `make fuzz` looks for new ones.
_ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("ci", max_examples=40, derandomize=True, **_ANY_SPEED)
settings.register_profile("fuzz", max_examples=500, print_blob=True, **_ANY_SPEED)
settings.register_profile("attack", print_blob=True, **_ANY_SPEED)
settings.load_profile("ci")


#: Parts whose files take longest. They begin first, so that what is left at the end is short and both processes share it.
LONG = ("training", "survey", "interface", "explain")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return skips.judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return skips.judged((yield))


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    """Folder of a tile list and three overlapping tiles of 640 px; the second has NISP at 0.3", rotated, the others at 0.1".

    All test processes read it, so nothing may be written there.
    """
    request = TilesRequest(n_tiles=3, size=640, seed=3, overlap=0.3, lenses_per_tile=6, density=0.5)
    return made_once(tmp_path_factory, "sky", lambda folder: draw_tiles(request, folder, 1))


@pytest.fixture(scope="session")
def finished_run_settings():
    """So many objects are decided that there is something to look at; every cutout is kept, as it was, with all its scores."""
    return {
        "scoring.beta": 2.0,
        "scoring.screen": "none",
        "targets.magnitude_limit": 22.0,
        "cutouts.keep": "all",
        "cutouts.codec": "exact",
        "catalogue.sheet_candidates": 1,
    }


@pytest.fixture(scope="session")
def finished_run(sky, finished_run_settings, tmp_path_factory):
    """Folder of a finished run of the three tiles of ``sky``; only to be read."""
    from scanner.survey.run import RunRequest, run_survey

    def run(folder):
        with in_this_process():
            run_survey(RunRequest(f"{sky}/tile-list.txt", str(folder / "out"), load(None, finished_run_settings, {})))

    return made_once(tmp_path_factory, "finished", run) / "out"


@pytest.fixture
def without_workers():
    """Scans of this test begin no cluster."""
    with in_this_process():
        yield


@pytest.fixture(scope="session")
def real():
    """Folder of the real images; the test is skipped where they are not at hand."""
    if not REAL.is_dir():
        pytest.skip(f"the real Euclid images are not at {REAL}")
    return REAL


S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "scanner", "AWS_SECRET_ACCESS_KEY": "scanner-secret"}


@dataclass(frozen=True)
class ObjectStorage:
    """What an S3 server offers: ``bucket`` to those with credentials, ``public`` also to be read by anyone."""

    endpoint: str
    bucket: str = "scanner-tests"
    public: str = "scanner-public"

    @property
    def config(self) -> StorageConfig:
        return StorageConfig(endpoint=self.endpoint)

    def fresh(self, *, public: bool = False) -> str:
        """Location of a folder that nothing lies in."""
        return f"s3://{self.public if public else self.bucket}/{uuid4().hex[:12]}"


class S3Server:
    """A SeaweedFS process on ports of its own; what was written outlives ``kill`` and is there again after ``start``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        parts = ("master", "volume", "filer", "s3", "admin")
        ports = free_ports(2 * len(parts))
        self._ports, self._grpc_ports = (
            dict(zip(parts, ports, strict=False)),
            dict(zip(parts, ports[len(parts) :], strict=True)),
        )
        self.storage = ObjectStorage(f"http://127.0.0.1:{self._ports['s3']}")
        credentials = {"accessKey": S3_CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": S3_CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
        owner = {"name": "owner", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        anyone = {"name": "anonymous", "actions": [f"{action}:{self.storage.public}" for action in ("Read", "List")]}
        (folder / "identities.json").write_text(json.dumps({"identities": [owner, anyone]}))

    def _command(self) -> list[str]:
        ports = [f"-{part}.port={port}" for part, port in self._ports.items()]
        ports += [f"-{part}.port.grpc={port}" for part, port in self._grpc_ports.items()]
        unused = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        sockets = [f"-{part}.localSocket={self.folder / part}" for part in ("s3", "filer")]
        buckets = ["-s3.autoCreateBucket=false", f"-bucket={self.storage.bucket},{self.storage.public}"]
        place = [f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        identities = f"-s3.config={self.folder / 'identities.json'}"
        weed = str(Path(sys.executable).with_name("weed"))
        return [weed, "mini", *place, *ports, *unused, *sockets, *buckets, identities]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        keys = {name.removeprefix("AWS_").lower(): value for name, value in S3_CREDENTIALS.items()}
        url, options = self.storage.endpoint, {"allow_http": True, "timeout": "2s"}
        public, private = (
            S3Store(name, endpoint=url, client_options=options, retry_config={"max_retries": 0}, **keys)
            for name in (self.storage.public, self.storage.bucket)
        )
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                public.put(".probe", b"probe")
                # It answers before it has found the volumes that hold what was written before.
                for listed in private.list():
                    for meta in listed:
                        if meta["size"]:
                            private.get_range(meta["path"], start=0, length=1)
                return
            except (BaseError, FileNotFoundError):
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill the server and remove what it wrote, to where it cannot be told not to write too."""
        self.kill()
        shutil.rmtree(self.folder)
        for part, port in self._grpc_ports.items():
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to an S3 server, unless ``fault`` says otherwise of a request's number, method and path.

    ``busy``: 503 SlowDown. ``clock``: 403 RequestTimeTooSkewed. ``drop``: closes the connection. ``lose``: passes the request
    on and closes the connection.
    ``half``: sends a half of the answer's body. ``silent``: answers when the proxy is closed. ``unconditional``: says
    that a write was done which the server refused on the request's conditions.
    """

    daemon_threads = True

    def __init__(self, storage: ObjectStorage) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = storage.endpoint.removeprefix("http://")
        self.fault: Callable[[int, str, str], str | None] = lambda number, method, path: None
        self.requests: list[str] = []
        self.counting = threading.Lock()
        self.closing = threading.Event()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def config(self, **settings) -> StorageConfig:
        return StorageConfig(endpoint=self.endpoint, **settings)

    def handle_error(self, request, client_address) -> None:
        """Clients that are killed, and connections that are cut, are what this is for."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.counting:
            number = len(self.server.requests)
            self.server.requests.append(f"{self.command} {self.path}")
            fault = self.server.fault(number, self.command, self.path)
        if fault == "silent":
            self.server.closing.wait()
        if fault in ("drop", "silent"):
            self.close_connection = True
            return
        if fault == "busy":
            self._answer(503, [], b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")
            return
        if fault == "clock":
            self._answer(403, [], b"<Error><Code>RequestTimeTooSkewed</Code><Message>Too far from now.</Message></Error>")
            return
        with closing(http.client.HTTPConnection(self.server.upstream, timeout=LIMIT_S)) as upstream:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        if fault == "lose":
            self.close_connection = True
            return
        if fault == "unconditional" and answer.status == 412:
            self._answer(200, [("ETag", '"done"')], b"")
            return
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("transfer-encoding", "connection")]
        self._answer(answer.status, kept, content, half=fault == "half")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers) and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection = half

    def log_message(self, format, *args) -> None:  # noqa: A002
        pass


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    # Not below pytest's folder: paths of Unix sockets must be short.
    server = S3Server(Path(tempfile.mkdtemp(prefix="s3-")))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def faulty_s3(s3):
    """A way to the server of ``s3`` on which requests fail as the test's ``fault`` says."""
    with FaultyProxy(s3) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield proxy
        proxy.closing.set()
        proxy.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def s3():
    """A running S3 server; the environment of this process and its children holds its credentials."""
    with running_s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        yield server.storage


@pytest.fixture
def mortal_s3(monkeypatch):
    """A server that the test may ``kill`` and ``start`` again; see ``storage`` for what it offers."""
    for name, value in S3_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with running_s3_server() as server:
        yield server
