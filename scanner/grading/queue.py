"""What to grade next: the most probable, the most uncertain, what differs most from what was graded, and a random control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from scanner.records import Float32, Float64, Int64, Record

Reason = Literal["probable", "uncertain", "different", "random"]
#: Why an object is in the queue; :attr:`Queue.reasons` counts in this order.
REASONS: tuple[Reason, ...] = get_args(Reason)
#: So many of the most probable objects may be called different: the oddest of a whole sky are defects of the images.
POOL = 5000
#: Pairs from which the typical distance within a space is taken.
_PAIRS = 2000
#: Graded objects whose distances from the pool are taken at once: 20 MB.
_BLOCK = 1000


class Mix(Record):
    """How often each reason chooses the next object; the weights need not add up to 1.

    ``random`` is the control: drawn from all objects alike, it says what the others miss. By default these are few, as in
    simulations (``benchmarks/looks.py``) nothing finds lenses in fewer looks than rank.
    """

    probable: float = Field(default=0.75, ge=0.0, allow_inf_nan=False)
    uncertain: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)
    different: float = Field(default=0.05, ge=0.0, allow_inf_nan=False)
    random: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_a_weight(self) -> Mix:
        if not any(self.weights):
            raise ValueError("a mix needs a weight above 0")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """In the order of :data:`REASONS`."""
        return tuple(getattr(self, reason) for reason in REASONS)


DEFAULT_MIX = Mix()


@dataclass(frozen=True)
class Queue:
    """``rows`` (K,) of the objects in the order in which to show them; ``reasons`` (K,): indices into :data:`REASONS`."""

    rows: Int64
    reasons: Int64


def next_objects(
    probability: Float64,
    graded: NDArray[np.bool_],
    mix: Mix,
    n: int,
    seed: int,
    spaces: Sequence[Float32] = (),
    among: NDArray[np.bool_] | None = None,
) -> Queue:
    """Choose what to grade next.

    Each place in the queue draws a reason by the weights of the mix, and takes the object that is best for that reason and is
    neither graded nor queued before. Equal arguments give an equal queue. Without ``spaces`` nothing is different: the weight
    goes to the others. Where a reason finds no more objects, the next of :data:`REASONS` takes its place.

    Parameters
    ----------
    probability
        (N,) of each object being a lens, before any vote or after those that it has; NaN where it was not scored: then only
        the control may choose it.
    graded
        (N,) what needs no more grades, and what difference is measured from.
    mix, n, seed
        Weights of the reasons; length of the queue at most; of the drawing.
    spaces
        (N, D) each, places of all objects in the t-SNE embedding or by the features of a network. Distances are taken to the
        nearest graded or queued object, in units of the typical distance between objects of that space, and added up over the
        spaces; NaN adds nothing.
    among
        (N,) what may be queued at all; None: everything.
    """
    free = ~graded if among is None else among & ~graded
    rng = np.random.default_rng(seed)
    candidates = np.flatnonzero(free & np.isfinite(probability))
    # Ties by row: as ranks are.
    by_probability = candidates[np.argsort(-probability[candidates], kind="stable")]
    by_doubt = candidates[np.argsort(np.abs(probability[candidates] - 0.5), kind="stable")]
    weights = np.array(mix.weights)
    if not spaces:
        weights[REASONS.index("different")] = 0.0
    if not weights.any():
        weights[REASONS.index("probable")] = 1.0
    drawn = rng.choice(len(REASONS), size=n, p=weights / weights.sum())
    by_chance = rng.permutation(np.flatnonzero(free))
    pool = _Pool(by_probability[:POOL], np.flatnonzero(graded), spaces)
    taken: set[int] = set()
    orders = {"probable": iter(by_probability), "uncertain": iter(by_doubt), "random": iter(by_chance)}

    def best(reason: Reason) -> int | None:
        if reason == "different":
            return pool.farthest()
        return next((int(row) for row in orders[reason] if int(row) not in taken), None)

    chosen: list[tuple[int, int]] = []
    for first in drawn:
        others = (reason for reason in range(len(REASONS)) if reason != first and weights[reason])
        for reason in (int(first), *others):
            row = best(REASONS[reason])
            if row is not None:
                chosen.append((row, reason))
                taken.add(row)
                pool.queue(row)
                break
    rows, reasons = np.array(chosen, dtype=np.int64).reshape(-1, 2).T
    return Queue(rows, reasons)


class _Pool:
    """Rows that may be chosen for their difference, with the distance of each from what was graded or queued."""

    def __init__(self, rows: Int64, graded: Int64, spaces: Sequence[Float32]) -> None:
        self._rows = rows
        self._place = {int(row): place for place, row in enumerate(rows)}
        self._is_free = np.ones(len(rows), dtype=np.bool_)
        self._spaces = [(space, _typical_distance(_places(space, rows))) for space in spaces]
        self._mine = [_places(space, rows) / unit for space, unit in self._spaces]
        #: Queued, and not measured from yet: many at once are quicker.
        self._new: list[int] = []
        #: Squared distance from the nearest of those, per space: infinite as long as there are none.
        self._squared: Float32 = np.full((len(spaces), len(rows)), np.inf, dtype=np.float32)
        for start in range(0, len(graded), _BLOCK):
            self._near(graded[start : start + _BLOCK])

    def queue(self, row: int) -> None:
        """Take an object for graded from now on."""
        if row in self._place:
            self._is_free[self._place[row]] = False
        self._new.append(row)

    def farthest(self) -> int | None:
        """The row that lies farthest from all that was graded or queued; of equals, and at the start, the most probable."""
        if not self._is_free.any():
            return None
        self._near(np.array(self._new, dtype=np.int64))
        self._new.clear()
        distance = np.sqrt(np.where(np.isfinite(self._squared), self._squared, 0.0)).sum(axis=0)
        return int(self._rows[np.argmax(np.where(self._is_free, distance, -1.0))])

    def _near(self, rows: Int64) -> None:
        for squared, mine, (space, unit) in zip(self._squared, self._mine, self._spaces, strict=True):
            new = _places(space, rows) / unit
            new = new[np.isfinite(new).all(axis=1)]
            if len(new) and len(mine):
                between = (mine**2).sum(axis=1)[:, None] + (new**2).sum(axis=1) - 2.0 * mine @ new.T
                np.fmin(squared, np.maximum(between, 0.0).min(axis=1), out=squared)


def _places(space: Float32, rows: Int64) -> Float32:
    return np.asarray(space[rows], dtype=np.float32)


def _typical_distance(places: Float32) -> float:
    """Median distance between random pairs of (N, D) places; 1 where there is none."""
    known = places[np.isfinite(places).all(axis=1)]
    if len(known) < 2:
        return 1.0
    one, other = np.random.default_rng(0).integers(0, len(known), (2, _PAIRS))
    distance = np.linalg.norm(known[one[one != other]] - known[other[one != other]], axis=1)
    return float(np.median(distance)) or 1.0
