"""``scanner tokens``: makes the tokens by which ``scanner serve`` knows who asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import click

from scanner.errors import OutputError, UsageError
from scanner.service.security.tokens import NAME, Role, new_token, parse

ROLES: tuple[Role, ...] = get_args(Role)


@click.group()
def tokens() -> None:
    """Make tokens for 'scanner serve --tokens FILE'."""


@tokens.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="read", show_default=True, help="What it allows; grade: reading too.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), default=Path("tokens.txt"), show_default=True)
def add(name: str, role: Role, file: Path) -> None:
    """Make a token for NAME, print it, and add its hash to the file. To take a token back, remove its line."""
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r}: give a name of up to 40 letters, digits, spaces and ._-, with a letter or digit at its ends."
        )
    token, line = new_token(name, role)
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        parse(before, str(file))
        # Nobody else need know who has tokens.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as lines:
            lines.write(("" if before.endswith("\n") or not before else "\n") + f"{line}\n")
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not a file of tokens; name another.") from None
    except OSError as error:
        raise OutputError.of(file, error) from None
    click.echo(token)
    click.echo(f"This token of {name} is not kept anywhere: hand it over now. Its hash is in {file}.", err=True)
