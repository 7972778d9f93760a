"""What the commands that draw have in common: checks of numbers, the number of processes, progress.

In: values of options. Out: values to draw with. Refused: numbers that make no sense (UsageError).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from scanner.errors import UsageError

_PLAIN_SECONDS = 10.0


def processes(value: int | None) -> int:
    """``--workers``, or as many as there are cores.

    Raises
    ------
    UsageError
        Below one.
    """
    if value is None:
        return len(os.sched_getaffinity(0))
    at_least("workers", value, 1)
    return value


def at_least(name: str, value: float, least: float) -> None:
    """Check an option.

    Raises
    ------
    UsageError
        It is below ``least``.
    """
    if not value >= least:
        raise UsageError(f"--{name} must be at least {least:g} (given: {value:g}).")


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time on a terminal; elsewhere a line now and then, on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"drawing {unit}", total=None)

            def move(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield move
    else:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > _PLAIN_SECONDS:
                last = now
                click.echo(f"{done} of {total} {unit}", err=True)

        yield line
