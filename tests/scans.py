"""Scans of tests that begin no cluster: for what does not depend on one, since its processes take seconds to start."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def _one_after_the_other(jobs, n_jobs, config, steps, on_progress, *, on_gpu):
    from scanner.survey.scan.tile import scan_tile

    for job in jobs:
        yield scan_tile(job, on_progress)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let scans do one tile after the other, here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanner.survey.run.run_on_workers", _one_after_the_other)
        yield
