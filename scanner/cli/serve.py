"""``scanner serve`` and ``scanner tokens``: runs and surveys over HTTP, and the tokens that let people in."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from scanner.cli import output
from scanner.cli.output import WholeSentences, in_sections
from scanner.errors import OutputError, UsageError
from scanner.grading.grade import NAME, Role
from scanner.processes import sigterm_interrupts
from scanner.service.security import new_token, parse

if TYPE_CHECKING:
    from scanner.service.context import Context
    from scanner.service.settings import ServiceConfig


#: How long a large catalogue is waited for before the address is printed; it goes on being opened afterwards.
OPENING_S = 1.0
BACKLOG = 512

SECTIONS = {
    "Access": ("tokens", "public", "cors", "blind"),
    "Storage": ("recovery", "wait", "cache", "grades", "salt", "endpoint", "anonymous"),
}


@click.command(cls=in_sections(SECTIONS))
@click.argument("out", nargs=-1, required=True)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings (docs/serving.md).")
@click.option("--host", help="Address to bind [default: 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to bind; 0: any free one [default: 8420].")
@click.option("--base-url", help="URL that clients reach it by, where a reverse proxy stands before it.")
@click.option("--tokens", help="File of tokens that 'scanner tokens add' made; without, nobody needs one.")
@click.option("--public", is_flag=True, default=None, help="Let everybody read who can reach this machine.")
@click.option("--cors", multiple=True, help="Origin whose pages may read, e.g. https://example.org; '*': any; may be repeated.")
@click.option("--blind", is_flag=True, default=None, help="Withhold scores from graders until they have graded.")
@click.option("--recovery", multiple=True, help="Folder of 'scanner recovery' of a run, shown with it; may be repeated.")
@click.option("--wait", is_flag=True, default=None, help="Wait for folders that are not there yet, instead of ending.")
@click.option("--cache", help="Folder for files fetched from object stores [default: a temporary one].")
@click.option("--grades", help="File of the grades [default: grades.sqlite].")
@click.option("--salt", multiple=True, help="Run of painted mosaics that campaigns mix in unseen; may be repeated.")
@click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")
@click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores.")
@output.log_format_option
def serve(
    out: tuple[str, ...],
    config_file: Path | None,
    host: str | None,
    port: int | None,
    base_url: str | None,
    tokens: str | None,
    public: bool | None,
    cors: tuple[str, ...],
    blind: bool | None,
    recovery: tuple[str, ...],
    wait: bool | None,
    cache: str | None,
    grades: str | None,
    salt: tuple[str, ...],
    endpoint: str | None,
    anonymous: bool | None,
    log_format: str,
) -> None:
    """Serve the finished runs and surveys in the folders OUT, local paths or s3://…, until told to stop.

    Pages for people at /, JSON at /api/v1, cone search at /scs, TAP at /tap. Nothing in the folders is written to.
    """
    from scanner.service import settings
    from scanner.service.app import context_of

    flags = {
        "http.host": host,
        "http.port": port,
        "http.base_url": base_url,
        "http.cors": cors or None,
        "access.tokens": tokens,
        "access.public": public,
        "grading.blind": blind,
        "grading.path": grades,
        "grading.salt": salt or None,
        "files.recoveries": recovery or None,
        "files.wait": wait,
        "files.cache": cache,
        "storage.endpoint": endpoint,
        "storage.anonymous": anonymous,
    }
    config = settings.load(config_file, flags)
    context = context_of(config, out)
    with _listening(config) as listening, output.log_lines(log_format), sigterm_interrupts():
        _run(context, listening)


def _listening(config: ServiceConfig) -> socket.socket:
    """A socket that takes connections from now on."""
    host, port = config.http.host.strip("[]"), config.http.port
    # Only of sockets that say that they are TCP does asyncio know to send small answers at once: 40 ms otherwise.
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "not an address"
        raise UsageError(f"{host}:{port}: cannot listen there ({reason}); choose another --host or --port.") from None
    return listening


def _run(context: Context, listening: socket.socket) -> None:
    from scanner.service.app import server_of

    server = server_of(context)
    collections = context.collections
    collections.start()
    is_open = collections.wait(OPENING_S)
    if collections.error is not None:
        raise collections.error
    click.echo(
        f"{_what(context) if is_open else 'Opening the catalogue, and serving'} at {_url(context, listening)}; Ctrl-C stops."
    )
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        click.echo("Stopped.")
    finally:
        # Whatever ended it.
        context.close()


def _what(context: Context) -> str:
    n_candidates = sum(one.n_candidates for one in context.collections)
    n_objects = sum(one.catalogue.n_rows for one in context.collections)
    return f"Serving {n_candidates:,} candidates among {n_objects:,} objects"


def _url(context: Context, listening: socket.socket) -> str:
    if context.config.http.base_url:
        return context.config.http.base_url
    host = context.config.http.host.strip("[]")
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"


ROLES: tuple[Role, ...] = get_args(Role)


@click.group(cls=WholeSentences)
def tokens() -> None:
    """Make tokens for 'scanner serve --tokens FILE'."""


@tokens.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="read",
    show_default=True,
    help="What it allows; grade: reading too; lead: reading, and campaigns.",
)
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
