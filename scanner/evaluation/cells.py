"""How an evaluation is put into words: cells of tables, and which figures lead.

In: records of an evaluation. Out: text, :class:`Table`. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from scanner.evaluation.metrics import Interval
from scanner.evaluation.ranking_results import Pairing, Recall
from scanner.evaluation.resampling import FEW_FALSE
from scanner.evaluation.results import Evaluation
from scanner.simulation.datasets.presets import LENS_CLASSES

FEW_NOTE = f"* the threshold rests on fewer than {FEW_FALSE} non-lenses: the rate itself is hardly known."
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """``name`` is an identifier, ``title`` a line; ``rows`` of as many cells as ``header``; ``note`` says how to read it."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def interval(value: Interval | None, digits: int = 3) -> str:
    """``0.343 [0.311, 0.373]``; a dash where there is none."""
    if value is None:
        return NOTHING
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def small(value: Interval | None) -> str:
    """As :func:`interval`, with two significant digits, for what spans decades."""
    return NOTHING if value is None else f"{value.value:.2g} [{value.low:.2g}, {value.high:.2g}]"


def signed(value: Interval) -> str:
    """As :func:`interval`, with signs, and a mark where zero is outside."""
    mark = " ▲" if value.low > 0 else " ▼" if value.high < 0 else ""
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]{mark}"


def recall(found: Recall, n_negatives: int) -> str:
    """A recall, or that there were too few non-lenses for its rate."""
    if found.recall is None:
        return f"too few: {n_negatives:,} non-lenses"
    return interval(found.recall) + ("*" if found.rests_on_few else "")


def class_label(class_name: str) -> str:
    """Name of a class of non-lenses: what was drawn as a lens may not be one by the definition."""
    return f"{class_name}, below the definition" if class_name in LENS_CLASSES else class_name


def leading_pairings(evaluation: Evaluation) -> tuple[Pairing, ...]:
    """The pairings that inspection was measured for: each set of lenses once."""
    return tuple(dict.fromkeys(found.pairing for found in evaluation.yields))


def combinations(evaluation: Evaluation) -> frozenset[tuple[str, str]]:
    """(bundle, score) of the combination of each bundle, which a scan ranks by."""
    return frozenset((bundle.name, bundle.combined) for bundle in evaluation.bundles)


def lowest_known_rate(evaluation: Evaluation, others: str, rates: Collection[float]) -> float:
    """The lowest rate that ten non-lenses of a set or more decide; the highest where none is."""
    counts = {found.name: found.n_objects - found.n_lenses for found in evaluation.sets}
    known = [fpr for fpr in rates if fpr * counts[others] >= FEW_FALSE]
    return min(known) if known else max(rates)
