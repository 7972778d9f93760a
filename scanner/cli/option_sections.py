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
            """Write the options of each heading."""
            options = {str(one.name): one for one in self.get_params(ctx) if isinstance(one, click.Option)}
            told = {name for names in sections.values() for name in names}
            for heading, names in {"Options": [name for name in options if name not in told], **sections}.items():
                with formatter.section(heading):
                    rows = [one.get_help_record(ctx) for name, one in options.items() if name in names]
                    formatter.write_dl([row for row in rows if row is not None])

    return Sectioned
