"""What a command writes: text for people on standard output, log lines on standard error (text, or JSON for machines)."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click
from rich.console import Console

from scanner.errors import printable


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise what rich would end the process for, with an exit code that means something else here."""
        raise BrokenPipeError


def standard_output() -> Console:
    """Standard output as it is given: no colouring of numbers, no breaking of lines, and no brackets that mean something."""
    return _Output(highlight=False, soft_wrap=True, markup=False)


#: Files that Docker and Podman put into their containers.
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
LogFormat = Literal["auto", "text", "json"]
#: Where a context keeps the level of the log that was asked for.
_LEVEL = "scanner.cli.output.level"
#: What every record has; the rest came with ``extra``.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

Command = TypeVar("Command", bound=Callable[..., Any])


def _log_level(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_LEVEL] = logging.WARNING if option.name == "quiet" else logging.DEBUG


def is_quiet() -> bool:
    """Whether ``--quiet`` was given to the verb that runs."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_LEVEL) == logging.WARNING


def log_format_option(command: Command) -> Command:
    """Give a verb ``--log-format``, ``--quiet`` and ``--verbose``; its function gets ``log_format``, for :func:`log_lines`."""
    for name, says in (("verbose", "Say more: debugging lines too."), ("quiet", "Warnings and results only: no progress.")):
        command = click.option(f"--{name}", f"-{name[0]}", is_flag=True, expose_value=False, callback=_log_level, help=says)(
            command
        )
    option = click.option(
        "--log-format",
        type=click.Choice(get_args(LogFormat)),
        default="auto",
        help="Lines on standard error: text, or JSON [default: text; JSON in a container].",
    )
    return option(command)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, then what the record's ``extra`` says."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {key: value for key, value in vars(record).items() if key not in STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        return text if text.isprintable() else json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Local time and message; the level where it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        line = f"{self.formatTime(record, '%H:%M:%S')} {level}{printable(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class StandardError(logging.Handler):
    """Writes to what standard error is at the moment: a progress bar may have put itself before it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def in_container() -> bool:
    """Whether this process is a container's, whose standard error machines collect."""
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(Path(mark).exists() for mark in CONTAINER_MARKS)


def is_json(log_format: str) -> bool:
    """Whether log lines of this :data:`LogFormat` are JSON: by itself, only in a container."""
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty() and in_container())


@contextmanager
def log_lines(log_format: str) -> Iterator[None]:
    """Write log lines while the context lasts.

    Parameters
    ----------
    log_format
        A :data:`LogFormat`.
    """
    formatter = JsonLines() if is_json(log_format) else TextLines()
    handler, logger = StandardError(), logging.getLogger("scanner")
    handler.setFormatter(formatter)
    level = logger.level
    logger.addHandler(handler)
    context = click.get_current_context(silent=True)
    logger.setLevel(logging.INFO if context is None else context.meta.get(_LEVEL, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
