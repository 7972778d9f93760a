"""What verbs share: options, and what a command writes: text on standard output, log lines on standard error (or JSON)."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import click
from rich.console import Console

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import UsageError, printable


def in_sections(sections: Mapping[str, Sequence[str]]) -> type[click.Command]:
    """Make a command class whose help shows options under headings.

    Parameters
    ----------
    sections
        Heading → names of the parameters (``memory_gb``), in any order; they are shown in that of the command.
    """

    class Sectioned(click.Command):
        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            """Write the options of each heading."""
            options = {str(one.name): one for one in self.get_params(ctx) if isinstance(one, click.Option)}
            told = {name for names in sections.values() for name in names}
            for heading, names in {"Options": [name for name in options if name not in told], **sections}.items():
                with formatter.section(heading):
                    rows = [one.get_help_record(ctx) for name, one in options.items() if name in names]
                    formatter.write_dl([row for row in rows if row is not None])

    return Sectioned


class WholeSentences(click.Group):
    """A group whose help gives the first sentence of every command whole, where click would cut it off at the line's end."""

    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(200)) for name, one in commands if one is not None])


Command = TypeVar("Command", bound=Callable[..., Any])


def tls_options(command: Command) -> Command:
    """Give a verb ``--tls-ca``, ``--tls-cert`` and ``--tls-key``, and ``--insecure`` to do without."""
    command = click.option(
        "--insecure", is_flag=True, help="Listen beyond this machine without TLS: on a network of your own."
    )(command)
    for name, what in (
        ("--tls-key", "This process's private key (PEM)."),
        ("--tls-cert", "This process's certificate (PEM)."),
        ("--tls-ca", "Certificate that signed those of the cluster (PEM); with it, connections are encrypted."),
    ):
        command = click.option(name, help=what)(command)
    return command


provider_option = click.option("--provider", default="auto", show_default=True, help="What runs the networks.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads that score one object; as many at a time as there are cores.",
)


def storage_options(of_run: bool = False) -> Callable[[Command], Command]:
    """Give a verb ``--config``, ``--endpoint`` and ``--anonymous``; its function gets ``storage``.

    Parameters
    ----------
    of_run
        Whether the stores of a run are reached as it did, where nothing else is said.
    """

    def decorated(command: Command) -> Command:
        @wraps(command)
        def with_storage(config_file: Path | None, endpoint: str | None, anonymous: bool | None, **others: Any) -> Any:
            return command(storage=configuration.load_storage(config_file, endpoint, anonymous), **others)

        usual = "the run's; AWS, or AWS_ENDPOINT_URL" if of_run else "AWS, or AWS_ENDPOINT_URL"
        found: Any = with_storage
        for option in (
            click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores."),
            click.option("--endpoint", help=f"URL of an S3-compatible server [default: {usual}]."),
            click.option(
                "--config",
                "config_file",
                type=click.Path(path_type=Path),
                help="TOML file with settings; [storage] counts here.",
            ),
        ):
            found = option(found)
        return cast(Command, found)

    return decorated


endpoint_option = click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")


def storage_of(endpoint: str | None) -> StorageConfig:
    """How object stores are reached: variables (``SCANNER_STORAGE__…``), then the flag."""
    return configuration.load_storage(endpoint=endpoint)


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
