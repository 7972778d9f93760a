"""What an evaluation says of biases: the part of :mod:`scanner.evaluation.results` on orientation and colour. Records only.

In: nothing. Out: pydantic records. Refused: unknown keys.
"""

from __future__ import annotations

from typing import Literal

from scanner.evaluation.metrics import Interval
from scanner.records import Record

#: A network is caught when chance gives its shifts less often than this ...
CAUGHT_CHANCE = 1e-3
#: ... and one of them is more than this share of the spread between objects: anything is significant in a large set.
CAUGHT_SHARE = 0.1


class OrientationScore(Record):
    """One score over the eight orientations: scatter, and what averaging its log-odds over them gains."""

    score: str
    scatter_lenses: Interval | None
    scatter_others: Interval | None
    auroc_single: float | None
    auroc_mean: float | None
    gain: Interval | None


class OrientationShift(Record):
    """How far a score moves, on average over ``n`` objects of one kind, when all of them are turned.

    ``shifts``: mean difference of the log-odds to the objects as they are, for orientations 1 to 7 of
    :mod:`scanner.ensemble.augmentation`. ``spread``: standard deviation between the objects as they are. ``chance``: how often
    shifts as large as these come about where no orientation is preferred (Hotelling's T² of all seven).
    """

    score: str
    kind: Literal["lenses", "others"]
    n: int
    shifts: tuple[Interval, ...]
    spread: float
    chance: float

    @property
    def largest(self) -> int:
        """The orientation that moves the score furthest."""
        return max(range(len(self.shifts)), key=lambda i: abs(self.shifts[i].value)) + 1

    @property
    def caught(self) -> bool:
        """Whether the network has learnt an orientation: of the PSF, most likely (Wilde et al. 2022, section 3.2)."""
        return self.chance < CAUGHT_CHANCE and abs(self.shifts[self.largest - 1].value) > CAUGHT_SHARE * self.spread


class OrientationScatter(Record):
    """Dihedral scatter: standard deviation over the eight orientations of the log-odds, mean over ``n`` objects of a set.

    ``shifts``: what is common to all objects of a kind, which scatter alone would hide.
    """

    bundle: str
    set: str
    n: int
    scores: tuple[OrientationScore, ...]
    shifts: tuple[OrientationShift, ...] = ()


class ColourPoint(Record):
    """The same lenses with sources of one colour; ``change``: recall minus that at the curve's first colour, paired."""

    vis_minus_h: float
    recall: Interval
    change: Interval
    log_odds: Interval


class ColourCurve(Record):
    """Recall of ``n`` visible lenses at a threshold, when nothing but the colour of their sources is changed.

    The threshold is that of a false-positive rate ``fpr`` on the non-lenses of ``threshold_set``; the VIS light of the sources
    stays as it is. ``n_false``: non-lenses that set the threshold.
    """

    bundle: str
    score: str
    threshold_set: str
    fpr: float
    n: int
    n_false: int
    points: tuple[ColourPoint, ...]
