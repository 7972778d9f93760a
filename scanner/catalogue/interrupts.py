"""Ctrl-C while DuckDB works: in goes a block that queries, out comes the ``KeyboardInterrupt`` that the user caused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the block's queries as it ends Python code.

    DuckDB stops a query at a signal but swallows the ``KeyboardInterrupt`` and raises a ``RuntimeError``, known by its text.
    With several threads it may finish a step of the query before.

    Raises
    ------
    KeyboardInterrupt
        A signal that Python turns into it has interrupted a query.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise
