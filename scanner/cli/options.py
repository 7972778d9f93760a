"""Options that verbs share, and how ``--help`` lists many of them under headings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import UsageError


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
