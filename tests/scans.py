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
from dataclasses import replace
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from damage import resealed

from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle, content_of, write_bundle
from scanner.ensemble.session import SHAPES


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
            # Unlike a glob, a walk passes over a folder that has its final name by the time it is opened.
            if any(record in files for _, _, files in os.walk(run)):
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


def light_bundle(folder: Path, **changes: Any) -> Bundle:
    """The bundle that ships, but for its seven networks, each of which is a scalar product: it scores everything in no time.

    Once, and without a screen, unless ``changes`` of its content say otherwise.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(17)
    sums = [("vis", 200 * 200), ("nisp", 3 * 66 * 66), ("sky", 4), ("sigma", 4)]
    nodes, constants = [], []
    for name, size in sums:
        weights = (rng.normal(size=(size, 7)) / np.sqrt(size)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"{name}/weights"))
        nodes.append(helper.make_node("Flatten", [name], [f"{name}/flat"], axis=1))
        nodes.append(helper.make_node("MatMul", [f"{name}/flat", f"{name}/weights"], [f"{name}/sum"]))
    nodes.append(helper.make_node("Sum", [f"{name}/sum" for name, _ in sums], ["logits"]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *SHAPES[name]]) for name, _ in sums]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])]
    graph = helper.make_graph(nodes, "light", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    once = {"second_look": None, "augmentation_model": None, "screen": None, "screen_model": None}
    return write_bundle(folder, replace(content_of(bundles.load(None)), name="light", model=model, **once | changes))


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


@cache
def quick_bundle() -> str:
    """A light bundle for all tests of this process that ask nothing of its scores but that they are the same again."""
    return str(light_bundle(Path(_temporary().name) / "light").path)
