"""Options of a command under headings, so that ``--help`` of a verb with many can be read.

In: headings and the names of their options. Out: a class for ``click.command(cls=…)``. Options under no heading come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click


def in_sections(sections: Mapping[str, Sequence[str]]) -> type[click.Command]:
    """Make a command class whose help shows options under headings.

    Parameters
    ----------
    sections
        Heading → names of the parameters (``memory_gb``), in any order; they are shown in that of the command.
    """

    class Sectioned(click.Command):
        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            told = {name for names in sections.values() for name in names}
            named = {"Options": [p.name or "" for p in self.get_params(ctx) if p.name not in told], **sections}
            for heading, names in named.items():
                rows = [row for p in self.get_params(ctx) if p.name in names and (row := p.get_help_record(ctx)) is not None]
                if rows:
                    with formatter.section(heading):
                        formatter.write_dl(rows)

    return Sectioned
