"""The standard output of a command, for people.

In: nothing. Out: :func:`standard_output`. Refused: nothing; that the reader has gone is left to :mod:`scanner.cli.main`.
"""

from __future__ import annotations

from rich.console import Console


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise what rich would end the process for, with an exit code that means something else here."""
        raise BrokenPipeError


def standard_output() -> Console:
    """Standard output as it is given: no colouring of numbers, no breaking of lines, and no brackets that mean something."""
    return _Output(highlight=False, soft_wrap=True, markup=False)
