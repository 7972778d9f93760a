"""Dies at a chosen step of a write: every call that a store makes of the system, or of an object store, is such a step.

The calls are not listed here: all that are made of the modules ``posix``, ``fcntl``, ``_io`` and ``obstore`` from within
``scanner.storage`` are counted as they happen, but for those that only read; none can be forgotten. To die before a call is to
die after the one before it.

``python -m disturbed.kill_points`` reads orders from standard input, one JSON object a line, and carries each out in a child of
its own: ``{"what": "tile" | "results", "location": …, "endpoint": …, "environment": …, "content": …, "scratch": …, "record": …,
"at": …}``. It answers with the names of the calls made, and whether the child died.
"""

from __future__ import annotations

import _io
import fcntl
import json
import os
import posix
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any

import obstore
import obstore._obstore

import scanner.storage
from scanner.config import StorageConfig
from scanner.records import CommitRecord
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.folder.resume import open_run

#: What leaves no trace. All else is a step, whatever it is.
READING = {"access", "close", "fspath", "fstat", "get_inheritable", "getcwd", "getpid", "getuid", "listdir", "lseek", "lstat"}
READING |= {"readlink", "scandir", "stat", "sysconf", "uname", "urandom", "cpu_count", "register_at_fork", "getenv"}
READING |= {"get", "get_async", "get_range", "get_ranges", "head", "list", "list_with_delimiter", "read", "readinto", "seek"}
WRITING_METHODS = {"write", "flush", "truncate", "__exit__"}
_FUNCTIONS = {
    id(function): f"{module.__name__.removeprefix('_')}.{name}"
    for module in (posix, fcntl, obstore._obstore)
    for name, function in vars(module).items()
    if isinstance(function, BuiltinFunctionType) and name not in READING
}
_FUNCTIONS[id(_io.open)] = "open"
_STORAGE = str(Path(scanner.storage.__file__).parent)


class Steps:
    """Counts steps, and kills the process before one of them."""

    def __init__(self, at: int | None) -> None:
        self.names: list[str] = []
        self._at = at
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, called: object) -> None:
        """Look at what the interpreter is about to do; see :func:`sys.setprofile`."""
        if event != "c_call" or (name := _step(called)) is None or not _within_storage(frame):
            return
        with self._lock:
            if len(self.names) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.names.append(name)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at what this thread does, and those that it starts."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def _step(called: object) -> str | None:
    known = _FUNCTIONS.get(id(called))
    if known is not None or not isinstance(called, BuiltinFunctionType):
        return known
    file, owner = called.__self__, type(called.__self__)
    if called.__name__ not in WRITING_METHODS:
        return None
    is_ours = (owner.__module__ == "_io" and file.writable()) or owner.__module__.startswith("obstore")
    return f"{owner.__name__}.{called.__name__}" if is_ours else None


def _within_storage(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_STORAGE):
            return True
        frame = frame.f_back
    return False


def write_tile(folder: RunFolder, tile_id: str, content: Path, scratch: Path) -> None:
    """Commit a tile made earlier: its files, and its record with the place they get now."""
    with folder.staged_tile(tile_id, scratch) as staging:
        shutil.copytree(content, staging.path, dirs_exist_ok=True)
        record = CommitRecord.from_bytes((content / "commit.json").read_bytes(), content, "make it again")
        (staging.path / "commit.json").write_bytes(record.model_copy(update={"place": staging.place}).to_bytes())


def write_results(location: str, storage: StorageConfig, record: RunRecord, content: Path, scratch: Path) -> None:
    """Open a run as its driver does, and publish results made earlier."""
    with open_run(location, storage, record) as folder, folder.staged_results(record, scratch) as staging:
        shutil.copytree(content, staging, dirs_exist_ok=True)


def _carry_out(order: dict[str, Any], steps: Steps) -> None:
    os.environ.update(order["environment"])
    storage, content, scratch = StorageConfig(endpoint=order["endpoint"]), Path(order["content"]), Path(order["scratch"])
    with steps.watched():
        if order["what"] == "tile":
            write_tile(RunFolder(open_store(order["location"], storage)), content.name, content, scratch)
        else:
            write_results(order["location"], storage, RunRecord.model_validate_json(order["record"]), content, scratch)


def _in_a_child(order: dict[str, Any]) -> dict[str, object]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = Steps(order["at"])
        try:
            _carry_out(order, steps)
        except BaseException as error:
            os.write(writing, json.dumps({"error": repr(error)}).encode())
            os._exit(1)
        os.write(writing, json.dumps({"steps": steps.names}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"died": died, **(json.loads(told) if told else {})}


def main() -> None:
    """Carry out orders until there are no more."""
    for line in sys.stdin:
        print(json.dumps(_in_a_child(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
