"""Programs that tests run: on the PATH, where ``make test`` puts them, and ``scanner`` itself, forked with its imports done."""

import atexit
import importlib
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from multiprocessing import connection, forkserver, popen_forkserver, popen_spawn_posix, resource_tracker, util
from pathlib import Path
from typing import Any, NoReturn

import pytest

_ENVIRONMENT = Path(sys.prefix)
#: In this order: what is installed on the machine comes first.
PLACES = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        *(str(_ENVIRONMENT / folder) for folder in ("bin", "prometheus/usr/bin", "checkov/bin")),
    ]
)


def find(*names: str) -> str | None:
    """Path of the first of these programs that is there."""
    return next((found for name in names if (found := shutil.which(name, path=PLACES))), None)


def needed(*names: str, target: str) -> str:
    """Path of the first of these programs that is there; without one the test is skipped.

    ``target``: of the Makefile, which fetches it.
    """
    found = find(*names)
    if found is None:
        pytest.skip(f"{names[0]} is not there: 'make {target}' fetches it")
    return found


#: What a scan and its workers import sooner or later; Dask asks for the version of pandas.
_WARM = (
    *("distributed", "matplotlib.backends.backend_agg", "onnxruntime", "pandas"),
    *("scanner.cli.cluster", "scanner.cli.run", "scanner.cli.simulate", "scanner.survey.finish"),
    *("scanner.survey.scan.tile", "scanner.survey.workers.standing", "scanner.survey.workers.worker"),
)


class _ForkedPopen(popen_forkserver.Popen):
    """Starts a process where ``multiprocessing`` would spawn one: forked from a process that has the imports behind it."""

    method = "spawn"

    def __init__(self, process_obj: Any) -> None:
        target = process_obj._target
        process_obj._target = partial(_begin, dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, ()), target)
        try:
            super().__init__(process_obj)
        finally:
            process_obj._target = target


def _begin(environment: Mapping[str, str], blocked: set[int], target: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Run a process' function with what a spawned one inherits."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return target(*args, **settings)


def fork_instead_of_spawning() -> None:
    """Let processes that this one spawns save two seconds of imports each."""
    popen_spawn_posix.Popen = _ForkedPopen  # type: ignore[misc,assignment]
    forkserver.set_forkserver_preload(list(_WARM))
    # As the processes of queries have it, which are forked from the same.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"


class Command:
    """A ``scanner`` command that was forked; used as :class:`subprocess.Popen` is. ``pid``: also that of its session."""

    def __init__(self, status: int) -> None:
        #: Where the process says who it is, and the template how it ended.
        self._status = status
        (self.pid,) = struct.unpack("i", os.read(status, 4))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative for the number of a signal; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, once it has ended."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("scanner", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, and not to its children."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            (self.returncode,) = struct.unpack("i", os.read(self._status, 4))
            os.close(self._status)
        return self.returncode


@cache
def _template() -> socket.socket:
    """The way to a process that has imported what a scan imports, and forks one for each command."""
    ours, theirs = socket.socketpair()
    # Not a file: a process that a command spawns would import it as its parent's `__main__`.
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import programs"
    command = [sys.executable, "-c", f"{program}; programs.fork_commands({theirs.fileno()})"]
    template = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=os.environ | {"OMP_NUM_THREADS": "1"})
    theirs.close()

    def end() -> None:
        ours.close()
        template.wait()

    atexit.register(end)
    return ours


def start_scanner(words: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path) -> Command:
    """Start ``scanner`` in a session of its own, as a process that has its imports behind it: a second of processor time less.

    It begins in ``folder`` and knows no environment but ``environment``; what it says is appended to ``log``. Where the first
    word is ``-c``, it is the Python program of the second that runs, with the others in ``sys.argv``.
    """
    request = pickle.dumps((list(words), str(folder), dict(environment)))
    ours, theirs = os.pipe()
    with log.open("ab") as output:
        template = _template()
        socket.send_fds(template, [struct.pack("i", len(request))], [output.fileno(), theirs])
        template.sendall(request)
    os.close(theirs)
    return Command(ours)


def fork_commands(requests: int) -> None:
    """Fork a process for each command that is asked for, until nobody can ask any more; returns in none of them."""
    for name in _WARM:
        importlib.import_module(name)
    # A thread that held a lock would leave it locked in every process that is forked.
    assert threading.active_count() == 1
    asked = socket.socket(fileno=requests)
    children: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready = select.select([asked, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 512)
            while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                status = children.pop(ended[0])
                with suppress(BrokenPipeError):
                    os.write(status, struct.pack("i", os.waitstatus_to_exitcode(ended[1])))
                os.close(status)
        if asked in ready:
            size, fds, _, _ = socket.recv_fds(asked, 4, 2)
            if not size:
                return
            output, status = fds
            request = b""
            while len(request) < struct.unpack("i", size)[0]:
                request += asked.recv(1 << 16)
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _run(pickle.loads(request), output, status, unneeded=[asked.detach(), woken, wake, *children.values()])
            children[child] = status
            os.close(output)


def _run(request: tuple[list[str], str, dict[str, str]], output: int, status: int, unneeded: list[int]) -> NoReturn:
    """Be ``scanner`` from now on."""
    from scanner.__main__ import main

    words, folder, environment = request
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    for standard in (1, 2):
        os.dup2(output, standard)
    os.write(status, struct.pack("i", os.getpid()))
    for fd in (output, status, *unneeded):
        os.close(fd)
    sys.argv = ["scanner", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource_tracker._resource_tracker, "ensure_running", lambda: None)
        patch.setattr(util, "spawnv_passfds", _forked)
        # No file, which a command that is killed would leave.
        patch.setattr(connection, "arbitrary_address", lambda family: f"\0scanner-tests-{os.getpid()}")
        forkserver.ensure_running()
    fork_instead_of_spawning()
    if words[:1] == ["-c"]:
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        main()
    sys.exit()


def _forked(_: Any, command: Sequence[str], fds: Sequence[int]) -> int:
    """Fork the process from which others are forked, now that there are no threads yet."""
    if pid := os.fork():
        return pid
    for link in Path("/proc/self/fd").iterdir():
        if (fd := int(link.name)) > 2 and fd not in fds:
            with suppress(OSError):
                os.close(fd)
    try:
        exec(command[-1], {})
    finally:
        os._exit(0)
