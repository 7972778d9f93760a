"""Web pages that are one file: templates, style and script of this folder, pictures inside.

In: a template's name and what it shows. Out: the page. Refused: what the template shows and was not given.
"""

from __future__ import annotations

import base64
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def template(name: str) -> Template:
    """The template ``<name>.html.jinja``."""
    return _environment().get_template(f"{name}.html.jinja")


def asset(name: str) -> Markup:
    """A style or a script, as it stands in a page."""
    return Markup(resources.files("scanner.report").joinpath("templates", name).read_text(encoding="utf-8"))


def png_uri(content: bytes) -> str:
    """A PNG as a ``data:`` URI, to the byte; see :func:`scanner.report.picture.png_as_webp_uri` for a small one."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("scanner.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
