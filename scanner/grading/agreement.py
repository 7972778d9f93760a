"""How far graders agree beyond chance: the kappas of Cohen and of Fleiss, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.special import ndtri

from scanner.grading.grade import GRADES, Entry
from scanner.interval import CONFIDENCE, Interval, resampled_interval
from scanner.records import Float64, Int64, Record

RESAMPLES = 2000
Weights = Literal["none", "linear"]
#: Chance agreement that is closer to complete than this is complete.
_NOTHING = 1e-12
FEW = 20
_Z = float(ndtri(0.5 + CONFIDENCE / 2))
#: Resamples that are drawn at once, each a number for every object.
_TOGETHER = 100


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
    kappa: Interval | None
    weighted: Interval | None


class Agreement(Record):
    """What graders made of the same objects.

    ``graders``: number of grades that stand, by name. ``n_objects`` were graded, ``n_shared`` of them by two or more.
    ``complete``: share of the shared ones that all of their graders gave the same grade. ``kappa``: of Fleiss.
    """

    graders: dict[str, int]
    n_objects: int
    n_shared: int
    complete: float | None
    kappa: Interval | None
    pairs: tuple[Pair, ...]


def agreement(entries: Iterable[Entry]) -> Agreement:
    """Compare graders.

    Cohen (1960, 1968) compares two graders; its large-sample error is that of Fleiss, Cohen & Everitt (1969). Weights count how
    far apart two grades are: 1 on the diagonal, and with ``linear`` weights A against B is half as bad as A against C. Fleiss
    (1971) is for any number of graders; here objects may have different numbers of them, from two on: the agreement of an
    object is the share of its pairs of graders who agree, objects count equally, and the shares of the grades are those of all
    grades given. Its interval is from resampled objects.

    Both intervals are too narrow, or have no width, for fewer than :data:`FEW` objects and where graders agree on all. There
    they are no narrower than what the share of agreement alone tells (Wilson 1927), with the agreement by chance as it is.

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


def cohen(table: Int64, weights: Weights = "none") -> Interval | None:
    """Cohen's kappa of two graders; None where it is undefined: no object, or complete agreement by chance alone.

    Parameters
    ----------
    table
        (K, K) objects that the first grader gave the row's grade and the second the column's.
    weights
        ``linear``: near misses count in part.
    """
    n = int(table.sum())
    if n == 0:
        return None
    observed, chance = _agreements(table / n, agreement_weights(len(table), weights))
    if 1.0 - chance < _NOTHING:
        return None
    kappa, half = (observed - chance) / (1.0 - chance), _Z * cohen_error(table, weights)
    return _interval(kappa, kappa - half, kappa + half, observed, chance, n)


def cohen_error(table: Int64, weights: Weights = "none") -> float:
    """Large-sample standard error of :func:`cohen`: Fleiss, Cohen & Everitt (1969), equation 13."""
    n, weight = int(table.sum()), agreement_weights(len(table), weights)
    share = table / n
    observed, chance = _agreements(share, weight)
    kappa = (observed - chance) / (1.0 - chance)
    mean = (weight @ share.sum(axis=0))[:, None] + (share.sum(axis=1) @ weight)[None, :]
    spread = float((share * (weight - mean * (1.0 - kappa)) ** 2).sum()) - (kappa - chance * (1.0 - kappa)) ** 2
    return math.sqrt(max(0.0, spread) / n) / (1.0 - chance)


def fleiss(votes: Int64, *, resamples: int = RESAMPLES) -> Interval | None:
    """Fleiss' kappa of any number of graders; None where it is undefined, as :func:`cohen`.

    Parameters
    ----------
    votes
        (N, K) graders who gave each of N objects each of K grades; objects with fewer than two graders do not count.
    resamples
        Of the objects. Draws in which all grades are the same are left out.
    """
    counted = votes[votes.sum(axis=1) >= 2]
    if not len(counted):
        return None
    n_graders = counted.sum(axis=1)
    agreeing = (counted * (counted - 1)).sum(axis=1) / (n_graders * (n_graders - 1))
    observed, chance = (float(part[0]) for part in _fleiss(np.ones((1, len(counted))), agreeing, counted))
    if 1.0 - chance < _NOTHING:
        return None
    generator = np.random.default_rng(0)
    drawn: list[Float64] = []
    for _ in range(0, resamples, _TOGETHER):
        times = generator.multinomial(len(counted), np.full(len(counted), 1.0 / len(counted)), _TOGETHER)
        seen, by_chance = _fleiss(times, agreeing, counted)
        defined = 1.0 - by_chance > _NOTHING
        drawn.append((seen[defined] - by_chance[defined]) / (1.0 - by_chance[defined]))
    kappa = (observed - chance) / (1.0 - chance)
    found = resampled_interval(kappa, np.append(np.concatenate(drawn), kappa))
    return _interval(kappa, found.low, found.high, observed, chance, len(counted))


def _fleiss(times: Float64 | Int64, agreeing: Float64, votes: Int64) -> tuple[Float64, Float64]:
    """Agreement that is seen and that by chance, (R,) each, where each object counts ``times`` (R, N)."""
    of_grade = times @ votes
    chance = ((of_grade / of_grade.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return times @ agreeing / times.sum(axis=1), chance


def agreement_weights(n_grades: int, weights: Weights) -> Float64:
    """How much two grades agree, (K, K): 1 where they are the same, and with linear weights less the farther they are apart."""
    if weights == "none":
        return np.eye(n_grades)
    place = np.arange(n_grades)
    return np.asarray(1.0 - np.abs(place[:, None] - place) / max(1, n_grades - 1))


def _agreements(share: Float64, weight: Float64) -> tuple[float, float]:
    """Agreement that is seen, and that by chance."""
    return float((weight * share).sum()), float(share.sum(axis=1) @ weight @ share.sum(axis=0))


def _interval(kappa: float, low: float, high: float, observed: float, chance: float, n: int) -> Interval:
    """A kappa of ``n`` objects with its interval, widened where they are few or alike."""
    if n >= FEW and high - low > _NOTHING:
        return Interval(value=kappa, low=max(-1.0, low), high=min(1.0, high))
    centre, half = observed + _Z**2 / (2 * n), _Z * math.sqrt(observed * (1 - observed) / n + _Z**2 / (4 * n**2))
    ends = [((centre + sign * half) / (1 + _Z**2 / n) - chance) / (1.0 - chance) for sign in (-1, 1)]
    return Interval(value=kappa, low=max(-1.0, min(low, ends[0])), high=min(1.0, max(high, ends[1], kappa)))
