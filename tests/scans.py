"""Scans of tests that begin no cluster: for what does not depend on one, as its processes take seconds to start."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def _one_after_the_other(jobs, n_jobs, config, steps, on_progress=lambda progress: None, *, on_gpu=False):
    for job in jobs:
        yield steps.whole(job, on_progress)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let scans do one tile after the other, here, and the candidates of a run be explained likewise."""
    with pytest.MonkeyPatch.context() as patch:
        for stage in ("survey.run", "explain.stage"):
            patch.setattr(f"scanner.{stage}.run_on_workers", _one_after_the_other)
        yield
