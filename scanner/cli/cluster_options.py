"""Flags that ``scanner worker`` and ``scanner scheduler`` share: certificates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def tls_options(command: Command) -> Command:
    """Give a verb ``--tls-ca``, ``--tls-cert`` and ``--tls-key``."""
    for name, what in (
        ("--tls-key", "This process's private key (PEM)."),
        ("--tls-cert", "This process's certificate (PEM)."),
        ("--tls-ca", "Certificate that signed those of the cluster (PEM); with it, connections are encrypted."),
    ):
        command = click.option(name, help=what)(command)
    return command
