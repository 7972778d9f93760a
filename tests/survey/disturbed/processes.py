"""The processes of a run on a standing cluster: a scheduler, its workers and a driver, started and ended as operators do.

Their logs and temporary files have folders of their own, so that whatever they leave behind is seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_ports
from programs import Command, start_scanner
from waiting import LIMIT_S


@dataclass
class Processes:
    """Starts ``scanner`` commands; ``environment`` is added to each one's."""

    folder: Path
    environment: Mapping[str, str]
    started: list[Command] = field(default_factory=list)

    @property
    def temporary(self) -> Path:
        """Where the processes take the system's temporary folder to be."""
        return self.folder / "tmp"

    def start(self, name: str, *words: str) -> Command:
        """Start a command in a session of its own; what it says is appended to ``<name>.log``."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"} | self.environment
        process = start_scanner(words, log=self.folder / f"{name}.log", environment=environment, folder=self.folder)
        self.started.append(process)
        return process

    def log(self, name: str) -> str:
        """All that the commands of a name have said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """Kill what still runs, with the children."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Cluster:
    """A scheduler and workers that are replaced when they are lost."""

    def __init__(self, processes: Processes, n_workers: int) -> None:
        self.processes = processes
        port = str(free_ports(1)[0])
        self.address = f"tcp://127.0.0.1:{port}"
        self._scheduler = processes.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", port)
        self.workers = [self._worker() for _ in range(n_workers)]

    def _worker(self) -> Command:
        return self.processes.start("worker", "worker", self.address)

    def kill(self, number: int) -> None:
        """End a worker as a preempted node does, and put another in its place."""
        os.killpg(self.workers[number].pid, signal.SIGKILL)
        self.workers[number].wait()
        self.workers[number] = self._worker()

    def ask_to_leave(self, number: int) -> Command:
        """Send a worker the signal that precedes a drained node's end, and put another in its place at once."""
        leaving = self.workers[number]
        leaving.send_signal(signal.SIGTERM)
        self.workers[number] = self._worker()
        return leaving

    def leave(self) -> list[int]:
        """Ask every worker, and then the scheduler, to leave; return the exit codes."""
        codes = []
        for leaving in (self.workers, [self._scheduler]):
            for process in leaving:
                process.send_signal(signal.SIGTERM)
            codes += [process.wait(LIMIT_S) for process in leaving]
        return codes


@contextmanager
def running_cluster(processes: Processes, n_workers: int) -> Iterator[Cluster]:
    """A cluster; whatever is left of it is killed at the end."""
    try:
        yield Cluster(processes, n_workers)
    finally:
        processes.end()
