"""How far the graders of a file agree: all of them together, and every two.

In: the grades that stand. Out: :class:`Agreement`. Nothing is refused; what cannot be said is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from scanner.records import Int64, Record
from scanner.service.grading.grade import GRADES, Entry
from scanner.service.grading.kappa import Estimate, cohen, fleiss


class Pair(Record):
    """Two graders.

    ``table[i][j]``: objects that ``first`` gave grade i and ``second`` grade j, in the order A, B, C, X; ``n`` objects in all.
    ``same``: share of them with the same grade; None where there are none. ``kappa`` counts equal grades, ``weighted`` near
    misses in part (linear weights).
    """

    first: str
    second: str
    n: int
    table: tuple[tuple[int, ...], ...]
    same: float | None
    kappa: Estimate | None
    weighted: Estimate | None


class Agreement(Record):
    """What graders made of the same objects.

    ``graders``: number of grades that stand, by name. ``n_objects`` were graded, ``n_shared`` of them by two or more.
    ``complete``: share of the shared ones that all of their graders gave the same grade. ``kappa``: of Fleiss.
    """

    graders: dict[str, int]
    n_objects: int
    n_shared: int
    complete: float | None
    kappa: Estimate | None
    pairs: tuple[Pair, ...]


def agreement(entries: Iterable[Entry]) -> Agreement:
    """Compare graders.

    Parameters
    ----------
    entries
        The grades that stand, at most one of a grader for an object.
    """
    graded: dict[int, dict[str, int]] = {}
    for entry in entries:
        if entry.grade is not None:
            graded.setdefault(entry.object, {})[entry.grader] = GRADES.index(entry.grade)
    names = sorted({name for of_object in graded.values() for name in of_object})
    votes: Int64 = np.zeros((len(graded), len(GRADES)), dtype=np.int64)
    for row, of_object in enumerate(graded.values()):
        for place in of_object.values():
            votes[row, place] += 1
    shared = votes[votes.sum(axis=1) >= 2]
    return Agreement(
        graders={name: sum(name in of_object for of_object in graded.values()) for name in names},
        n_objects=len(graded),
        n_shared=len(shared),
        complete=float((shared.max(axis=1) == shared.sum(axis=1)).mean()) if len(shared) else None,
        kappa=fleiss(votes),
        pairs=tuple(_pair(first, second, graded) for first, second in combinations(names, 2)),
    )


def _pair(first: str, second: str, graded: dict[int, dict[str, int]]) -> Pair:
    table: Int64 = np.zeros((len(GRADES), len(GRADES)), dtype=np.int64)
    for of_object in graded.values():
        if first in of_object and second in of_object:
            table[of_object[first], of_object[second]] += 1
    n = int(table.sum())
    return Pair(
        first=first,
        second=second,
        n=n,
        table=tuple(tuple(int(count) for count in row) for row in table),
        same=float(np.trace(table)) / n if n else None,
        kappa=cohen(table),
        weighted=cohen(table, "linear"),
    )
