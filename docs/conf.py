"""How the documentation is rendered: ``make docs`` writes it to docs/_build."""

from collections.abc import Iterator

import click

from scanner import __version__
from scanner.cli.main import scanner as command_line

project = "scanner"
author = "The scanner developers"
project_copyright = "The scanner developers, BSD-3-Clause"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"scanner {version}"

# The pages are read on GitHub too: headings have the same anchors there and here.
myst_heading_anchors = 4

napoleon_google_docstring = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
copybutton_prompt_text = "$ "

#: Of the texts of --help, in characters: what fits a page.
WIDTH = {"terminal_width": 88, "max_content_width": 88}
REPOSITORY = "https://github.com/scanner-lenses/scanner/blob/main/"


def setup(app: object) -> None:
    """Write what is written by the program itself, and let links to files that are no pages lead to the repository."""
    app.connect("source-read", _complete)


def _complete(app: object, page: str, source: list[str]) -> None:
    if page == "reference/cli":
        source[0] += "\n".join(_help(command_line, click.Context(command_line, info_name="scanner", **WIDTH)))
    elif "/" not in page:
        source[0] = source[0].replace("](../", f"]({REPOSITORY}")


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    """A heading and the ``--help`` of a command, then of the commands below it."""
    level = "#" * (context.command_path.count(" ") + 2)
    yield f"\n{level} {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            yield from _help(below, click.Context(below, parent=context, info_name=name, **WIDTH))
