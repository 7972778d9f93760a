"""How far graders agree beyond chance, and how far to trust whom: kappas, skill from known answers, votes weighted by skill."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, pairwise
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri, rel_entr

from scanner.catalogue.columns import Column
from scanner.grading.grade import AGAINST_A_LENS, FOR_A_LENS, GRADES, SETTLED_ABOVE, SETTLED_BELOW, Entry, Place
from scanner.grading.labels import LABEL_COLUMNS, label_rows
from scanner.interval import CONFIDENCE, Interval, resampled_interval, wilson_interval
from scanner.labels.table import LabelRow
from scanner.records import Float64, Int64, Record
from scanner.sphere import nearest

RESAMPLES = 2000
Weights = Literal["none", "linear"]
#: Chance agreement that is closer to complete than this is complete.
_NOTHING = 1e-12
FEW_OBJECTS = 20
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

    Both intervals are too narrow, or have no width, for fewer than :data:`FEW_OBJECTS` objects and where graders agree on all.
    There they are no narrower than that of the share of agreement alone (Wilson 1927), with agreement by chance as it is.

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
    if n >= FEW_OBJECTS and high - low > _NOTHING:
        return Interval(value=kappa, low=max(-1.0, low), high=min(1.0, high))
    centre, half = observed + _Z**2 / (2 * n), _Z * math.sqrt(observed * (1 - observed) / n + _Z**2 / (4 * n**2))
    ends = [((centre + sign * half) / (1 + _Z**2 / n) - chance) / (1.0 - chance) for sign in (-1, 1)]
    return Interval(value=kappa, low=max(-1.0, min(low, ends[0])), high=min(1.0, max(high, ends[1], kappa)))


#: What is believed of a grader who has not met a known answer: how often which grade is given to a lens, and to another object,
#: as if so many known answers had shown it. It says that people are mostly right, and gives way after a dozen answers.
BELIEVED, BELIEVED_VOTES = np.array([[0.4, 0.3, 0.2, 0.1], [0.05, 0.1, 0.25, 0.6]]), 4.0
#: How near a graded object must lie to one whose answer is known.
KNOWN_ARCSEC = 1.0
#: Of an object that no catalogue knows.
PRIOR = 1e-4
#: The finder's word is never final.
_LEAST, _MOST = 1e-6, 0.99
#: Known answers in each half from which it is asked whether a grader changes.
FEW = 10
#: A sitting ends with a pause this long, and its first part, in which a grader is fresh, after so long: minutes.
PAUSE_MIN, FRESH_MIN = 15.0, 30.0
#: Probabilities that calibration is looked at between.
_BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
State = Literal["lens", "other", "open"]
STATES: tuple[State, ...] = get_args(State)
CROWD_COLUMNS: tuple[Column, ...] = (
    *LABEL_COLUMNS,
    Column("p_finder", "float64", "", "Probability of networks, and of a lens model if there is one", "stat.probability"),
    Column("p_posterior", "float64", "", "Probability of networks, lens model and graders together", "stat.probability"),
    Column("state", "string", "", "lens or other: settled for good by the votes; open: not yet", "meta.code.status"),
    Column("known", "string", "", "lens or other: the answer was known before; empty: it was not", "meta.code.class"),
)
CROWD_SCHEMA: pa.Schema = pa.schema([one.field() for one in CROWD_COLUMNS])


class Skill(Record):
    """What known answers say of a grader.

    ``n_votes``: grades that stand; ``of_lenses``, ``of_others``: how many of the known ones got A, B, C, X.
    ``finds``: share of the known lenses that got A or B; ``rejects``: share of the known others that got X.
    ``bits``: information of one vote on an object that is a lens as likely as not, 0 for who guesses.
    ``early``, ``late``: share of right answers (A or B for a lens, X for another) in the first and the second half of the known
    ones, in the order in which they were given; None below :data:`FEW` in each. ``fresh``, ``tired``: the same of those in the
    first :data:`FRESH_MIN` of a sitting, and later.
    """

    grader: str
    n_votes: int
    of_lenses: tuple[int, ...]
    of_others: tuple[int, ...]
    finds: Interval
    rejects: Interval
    bits: float
    early: Interval | None = None
    late: Interval | None = None
    fresh: Interval | None = None
    tired: Interval | None = None


class Reliability(Record):
    """Known objects whose probability, with each one's own answer kept from its graders' skill, lies between two bounds."""

    low: float
    high: float
    n: int
    predicted: float
    lenses: Interval


class Crowd(Record):
    """What graders know together.

    ``n_votes`` stand for ``n_objects``; ``n_late`` of them came after their object was settled. ``settled``: objects by state.
    ``reliability``: of known objects, taking their share of lenses for what was expected of each.
    """

    skills: tuple[Skill, ...]
    n_objects: int
    n_known: int
    n_votes: int
    n_late: int
    settled: dict[State, int]
    reliability: tuple[Reliability, ...]


@dataclass(frozen=True)
class Votes:
    """Votes in the order in which they were given, (V,) each: row of the object, of the grader, and of the grade."""

    objects: Int64
    graders: Int64
    grades: Int64

    def take(self, which: Any) -> Votes:
        """Select by an index or a mask."""
        return Votes(self.objects[which], self.graders[which], self.grades[which])


@dataclass(frozen=True)
class Posterior:
    """``probability`` (N,) of each object being a lens; ``state`` (N,): row of :data:`STATES`; ``late`` (V,) bool votes."""

    probability: Float64
    state: Int64
    late: NDArray[np.bool_]


def weights(votes: Votes, is_lens: Float64, n_graders: int) -> Float64:
    """What a grade of each grader adds to an object's log-odds, (G, 4).

    The probabilities of grades are those of the known answers and of :data:`BELIEVED`, a Dirichlet distribution's mean.

    Parameters
    ----------
    votes
        All of them.
    is_lens
        (N,) 1 and 0 of known objects, NaN of the others.
    """
    share = _shares(_counts(votes, is_lens, n_graders))
    return np.asarray(np.log(share[:, 0]) - np.log(share[:, 1]))


def _counts(votes: Votes, is_lens: Float64, n_graders: int) -> Int64:
    """Grades of known lenses and of known others, by grader: (G, 2, 4)."""
    answer = is_lens[votes.objects]
    known = np.isfinite(answer)
    counts: Int64 = np.zeros((n_graders, 2, len(GRADES)), dtype=np.int64)
    np.add.at(counts, (votes.graders[known], (answer[known] == 0.0).astype(np.int64), votes.grades[known]), 1)
    return counts


def _shares(counts: Int64) -> Float64:
    """Probability of each grade, given a lens and given another object: (G, 2, 4)."""
    believed = BELIEVED_VOTES * BELIEVED
    return np.asarray((counts + believed) / (counts.sum(axis=-1, keepdims=True) + BELIEVED_VOTES))


def posterior(
    votes: Votes, prior: Float64, adds: Float64, above: float = SETTLED_ABOVE, below: float = SETTLED_BELOW
) -> Posterior:
    """Probabilities after all votes, and which votes came after an object was settled.

    Votes count as independent given what the object is: an object is settled when its probability, vote by vote in the order in
    which they were given, first passes a bound, and stays so. Its probability counts all votes.

    Parameters
    ----------
    votes
        In the order in which they were given.
    prior
        (N,) probability before any vote.
    adds
        Of :func:`weights`.
    above, below
        Bounds beyond which an object is settled. ``below`` takes a vote: what no one has seen stays open.
    """
    log_odds = np.asarray(logit(np.clip(prior, _LEAST, _MOST)), dtype=np.float64)
    added = adds[votes.graders, votes.grades]
    # Votes of an object side by side, each with what stands after it.
    order = np.argsort(votes.objects, kind="stable")
    of, running = votes.objects[order], np.cumsum(added[order])
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    before = np.repeat(running[starts] - added[order][starts], np.diff(np.append(starts, len(of))))
    after = expit(log_odds[of] + running - before)
    lens, other, still_open = map(STATES.index, STATES)
    verdict = np.where(after > above, lens, np.where(after < below, other, still_open))
    state: Int64 = np.full(len(prior), still_open, dtype=np.int64)
    late = np.zeros(len(of), dtype=np.bool_)
    passed = np.flatnonzero(verdict != still_open)
    settled, first = np.unique(of[passed], return_index=True)
    state[settled] = verdict[passed[first]]
    at: Int64 = np.full(len(prior), len(of), dtype=np.int64)
    at[settled] = passed[first]
    late[order] = np.arange(len(of)) > at[of]
    return Posterior(expit(log_odds + np.bincount(votes.objects, added, len(prior))), state, late)


def crowd(
    entries: Iterable[Entry],
    places: Mapping[int, Sequence[Place]],
    finder: Mapping[int, float],
    known: Mapping[int, bool],
    above: float = SETTLED_ABOVE,
    below: float = SETTLED_BELOW,
) -> tuple[Crowd, pa.Table]:
    """Weigh graders and their votes.

    Parameters
    ----------
    entries
        The grades that stand, at most one of a grader for an object.
    places
        The rows that were graded, by object, the last graded first.
    finder
        Probability by networks, and lens models, before any vote, by object; what has none is an average object of the sky.
    known
        Whether an object is a lens, where that is known for certain: painted lenses, confirmed ones, objects that are none.
    above, below
        See :func:`posterior`.

    Returns
    -------
    Crowd, pyarrow.Table
        The record, and a row an object of :data:`CROWD_SCHEMA`, the most probable first.
    """
    standing = sorted((entry for entry in entries if entry.grade is not None), key=lambda entry: entry.number)
    numbers = sorted({entry.object for entry in standing})
    names = sorted({entry.grader for entry in standing})
    row_of, grader_of = ({key: row for row, key in enumerate(keys)} for keys in (numbers, names))
    votes = Votes(
        np.array([row_of[entry.object] for entry in standing], dtype=np.int64),
        np.array([grader_of[entry.grader] for entry in standing], dtype=np.int64),
        np.array([GRADES.index(entry.grade) for entry in standing if entry.grade is not None], dtype=np.int64),
    )
    prior = np.array([finder.get(number, PRIOR) for number in numbers])
    is_lens = np.array([float(known[number]) if number in known else np.nan for number in numbers])
    found = posterior(votes, prior, weights(votes, is_lens, len(names)), above, below)
    rows = label_rows(standing, places)
    table = pa.Table.from_pylist(
        [
            rows[number]
            | {
                "p_finder": prior[row],
                "p_posterior": found.probability[row],
                "state": STATES[found.state[row]],
                "known": "" if np.isnan(is_lens[row]) else "lens" if is_lens[row] else "other",
            }
            for row, number in enumerate(numbers)
        ],
        schema=CROWD_SCHEMA,
    )
    record = Crowd(
        skills=tuple(
            _skill(name, row, votes, is_lens, minutes_in_sitting([entry.given for entry in standing if entry.grader == name]))
            for row, name in enumerate(names)
        ),
        n_objects=len(numbers),
        n_known=int(np.isfinite(is_lens).sum()),
        n_votes=len(standing),
        n_late=int(found.late.sum()),
        settled={state: int((found.state == row).sum()) for row, state in enumerate(STATES)},
        reliability=reliability(votes, is_lens, len(names)),
    )
    return record, table.take(pa.array(np.argsort(-found.probability, kind="stable")))


def known_answers(places: Mapping[int, Sequence[Place]], rows: Sequence[LabelRow]) -> dict[int, bool]:
    """Which graded objects a table knows the answer of, within :data:`KNOWN_ARCSEC`, and whether they are lenses.

    Parameters
    ----------
    places
        The rows that were graded, by object.
    rows
        Of :func:`~scanner.labels.table.read_labels`; those without a place on the sky count for nothing.
    """
    numbers = [number for number, of_object in places.items() for _ in of_object]
    graded = [(place.ra, place.dec) for of_object in places.values() for place in of_object]
    placed = [row for row in rows if np.isfinite(row.ra) and np.isfinite(row.dec)]
    if not graded or not placed:
        return {}
    distance_arcsec, index = nearest(*np.array(graded).T, *np.array([(row.ra, row.dec) for row in placed]).T)
    near = np.flatnonzero(distance_arcsec <= KNOWN_ARCSEC)
    return {numbers[row]: placed[index[row]].is_lens for row in near[np.argsort(-distance_arcsec[near], kind="stable")]}


def minutes_in_sitting(given: Sequence[datetime]) -> Float64:
    """How long a grader had been at it with each vote, in the order in which they were given: minutes since the last pause."""
    times = np.array([one.timestamp() / 60.0 for one in given])
    begins = np.diff(times, prepend=-np.inf) > PAUSE_MIN
    first = np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))
    return np.asarray(times - times[first], dtype=np.float64)


def _both(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[Interval | None, Interval | None]:
    """Shares of two parts; None where one of them is too small."""
    if min(len(one), len(other)) < FEW:
        return None, None
    return wilson_interval(int(one.sum()), len(one)), wilson_interval(int(other.sum()), len(other))


def _skill(name: str, row: int, votes: Votes, is_lens: Float64, minutes: Float64) -> Skill:
    mine = votes.take(votes.graders == row)
    counts = _counts(Votes(mine.objects, np.zeros_like(mine.graders), mine.grades), is_lens, 1)
    lenses, others = (tuple(int(n) for n in of) for of in counts[0])
    says_lens = np.array([grade in FOR_A_LENS for grade in GRADES])
    says_other = np.array([grade in AGAINST_A_LENS for grade in GRADES])
    answer = is_lens[mine.objects]
    is_known = np.isfinite(answer)
    right = np.where(answer[is_known] == 1.0, says_lens[mine.grades[is_known]], says_other[mine.grades[is_known]])
    half = len(right) // 2
    early, late = _both(right[:half], right[half:])
    is_fresh = minutes[is_known] < FRESH_MIN
    fresh, tired = _both(right[is_fresh], right[~is_fresh])
    return Skill(
        grader=name,
        n_votes=len(mine.objects),
        of_lenses=lenses,
        of_others=others,
        finds=wilson_interval(int(counts[0, 0, says_lens].sum()), sum(lenses)),
        rejects=wilson_interval(int(counts[0, 1, says_other].sum()), sum(others)),
        bits=information(_shares(counts)[0]),
        early=early,
        late=late,
        fresh=fresh,
        tired=tired,
    )


def information(share: Float64) -> float:
    """Information of a vote in bits, where lens and other are as likely: Marshall et al. (2016), appendix B, for K grades.

    Parameters
    ----------
    share
        (2, K) probability of each grade, given a lens and given another object.
    """
    mean = share.mean(axis=0)
    return float(0.5 * rel_entr(share, mean).sum() / np.log(2.0))


def reliability(votes: Votes, is_lens: Float64, n_graders: int) -> tuple[Reliability, ...]:
    """What known objects turn out to be, by the probability that votes alone give them.

    An object's own answer is kept from the skill of those who graded it, so that nobody is judged by what he is weighed with.
    """
    rows = np.flatnonzero(np.isfinite(is_lens))
    rows = rows[np.isin(rows, votes.objects)]
    if not len(rows) or len(np.unique(is_lens[rows])) < 2:
        return ()
    counts = _counts(votes, is_lens, n_graders)
    expected, said = float(is_lens[rows].mean()), np.empty(len(rows))
    for place, row in enumerate(rows):
        mine = votes.take(votes.objects == row)
        others = counts[mine.graders].copy()
        others[np.arange(len(mine.graders)), 0 if is_lens[row] else 1, mine.grades] -= 1
        share = _shares(others)[np.arange(len(mine.graders)), :, mine.grades]
        said[place] = expit(logit(expected) + (np.log(share[:, 0]) - np.log(share[:, 1])).sum())
    found = []
    for low, high in pairwise(_BINS):
        inside = (said >= low) & ((said < high) | (high == 1.0))
        if inside.any():
            lenses = wilson_interval(int(is_lens[rows][inside].sum()), int(inside.sum()))
            found.append(
                Reliability(low=low, high=high, n=int(inside.sum()), predicted=float(said[inside].mean()), lenses=lenses)
            )
    return tuple(found)
