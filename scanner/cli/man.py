"""``scanner man``: the manual page of every command, of the texts that ``--help`` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from scanner import __version__
from scanner.atomic_file import write_atomically


class Page(click.HelpFormatter):
    """Writes a command's help as a manual page, in the macros of man(7)."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """How the command is given."""
        self.write(f".SH SYNOPSIS\n.B {_escaped(prog)}\n{_escaped(args)}\n.SH DESCRIPTION\n")

    def write_text(self, text: str) -> None:
        """Paragraphs; one that begins with a backspace keeps its lines, as click has it."""
        for paragraph in text.split("\n\n"):
            lines, as_it_is = paragraph.removeprefix("\b\n"), paragraph.startswith("\b\n")
            self.write(".PP\n" + (f".nf\n{_escaped(lines)}\n.fi\n" if as_it_is else f"{_escaped(' '.join(lines.split()))}\n"))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Options, or commands, and what they mean."""
        for name, meaning in rows:
            self.write(f".TP\n.B {_escaped(name)}\n{_escaped(meaning)}\n")

    def write_paragraph(self) -> None:
        """Nothing: a paragraph begins with its text."""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A heading and what stands below it."""
        self.write(f".SH {_escaped(name.upper())}\n")
        yield


def _escaped(text: str) -> str:
    """Text that troff takes as it is, hyphens that can be copied into a shell included."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """File name and text of the page of a command, then of those of the commands below it."""
    command, name = context.command, context.command_path.replace(" ", "-")
    names = command.list_commands(context) if isinstance(command, click.Group) else []
    page = Page()
    page.write(f'.TH {_escaped(name.upper())} 1 "" "scanner {__version__}" "scanner"\n')
    page.write(f".SH NAME\n{_escaped(name)} \\- {_escaped(command.get_short_help_str(200).rstrip('.'))}\n")
    command.format_help(context, page)
    near = [name.rpartition("-")[0]] if context.parent else []
    if near or names:
        others = ",\n".join(f".BR {_escaped(one)} (1)" for one in [*near, *(f"{name}-{one}" for one in names)])
        page.write(f".SH SEE ALSO\n{others}\n")
    yield f"{name}.1", page.getvalue()
    for one in names:
        assert isinstance(command, click.Group)
        below = command.get_command(context, one)
        assert below is not None
        yield from pages(click.Context(below, parent=context, info_name=one))


@click.command()
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder [default: share/man/man1 of the environment].")
def man(out: Path | None) -> None:
    """Write the manual pages: after that, 'man scanner-run' and its like show the help of each command.

    man finds those in the environment's own folder while its programs are on the PATH.
    """
    from scanner.cli.main import scanner

    folder = Path(sys.prefix) / "share" / "man" / "man1" if out is None else out
    written = list(pages(click.Context(scanner, info_name="scanner", **scanner.context_settings)))
    for name, text in written:
        write_atomically(folder / name, text.encode())
    click.echo(f"{folder}: {len(written)} pages; begin with: man scanner")
