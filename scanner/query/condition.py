"""A condition of a query: SQL and the values of its parameters, never mixed.

In: SQL with a ``?`` for each value. Out: the same, joined with others. Refused: nothing; whoever writes the SQL answers for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Condition:
    """``sql`` is a boolean expression of DuckDB with as many ``?`` as there are ``parameters``, in their order."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Position:
    """The columns (or SQL expressions) of a table's positions: degrees, and HEALPix index of order 29, nested."""

    ra: str = "ra"
    dec: str = "dec"
    healpix: str = "_healpix_29"

    @property
    def unit_vector(self) -> tuple[str, str, str]:
        """The direction as three expressions."""
        ra, dec = f"radians({self.ra})", f"radians({self.dec})"
        return f"(cos({dec}) * cos({ra}))", f"(cos({dec}) * sin({ra}))", f"sin({dec})"


CATALOGUE_POSITION = Position()


def all_of(conditions: Iterable[Condition]) -> Condition:
    """What holds where every condition holds; of none, what always holds."""
    given = tuple(conditions)
    sql = " AND ".join(f"({one.sql})" for one in given) or "true"
    return Condition(sql, tuple(value for one in given for value in one.parameters))
