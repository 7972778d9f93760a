"""The flags of every verb that opens a session of a bundle's networks: what runs them, and on how many threads."""

from __future__ import annotations

import click

provider_option = click.option("--provider", default="auto", show_default=True, help="What runs the networks.")
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads that score one object; as many at a time as there are cores.",
)
