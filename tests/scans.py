"""Scans of tests that are quick: without a cluster, whose processes take seconds to start; without test-time augmentation.

And one disturbance of those that have a cluster.

And without a screen: every object has all its scores, whatever the bundle that ships leaves out.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
from damage import resealed

from scanner.ensemble import bundles


def _one_after_the_other(jobs, n_jobs, config, steps, on_progress=lambda progress: None, *, on_gpu=False):
    for job in jobs:
        yield steps.whole(job, on_progress)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let scans do one tile after the other, here, and the candidates of a run be explained likewise."""
    with pytest.MonkeyPatch.context() as patch:
        for stage in ("survey.run", "survey.rescore", "survey.candidate_stage"):
            patch.setattr(f"scanner.{stage}.run_on_workers", _one_after_the_other)
        yield


@contextmanager
def first_worker_killed(run: Path, record: str) -> Iterator[list[int]]:
    """Kill the workers that this process starts in the block as soon as a file of a name is below a folder; their ids."""
    killed: list[int] = []
    over = threading.Event()
    # A service that another test has begun asks its queries in processes of the same parent.
    others = set(_children())

    def kill() -> None:
        while not killed and not over.wait(0.01):
            if any(run.rglob(record)):
                for pid in set(_children()) - others:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def _children() -> list[int]:
    """Processes that this process began."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return [] if server is None else [process.pid for process in psutil.Process(server).children()]


def write_plain_bundle(folder: Path) -> Path:
    """The bundle that ships, but for test-time augmentation and its screen: all members score everything, once."""
    shutil.copytree(bundles.find(None), folder)
    resealed(folder / "bundle.json", second_look=None, screen=None)
    return folder


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="scanner-plain-bundle-")


@cache
def plain_bundle() -> str:
    """One such bundle for all tests of this process."""
    return str(write_plain_bundle(Path(_temporary().name) / "bundle"))
