"""What the plots of an evaluation have in common: colours, error bars, PNG.

In: figures of matplotlib, intervals. Out: :class:`Plot`, arrays. Refused: nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scanner.evaluation.metrics import Interval
from scanner.evaluation.results import Evaluation
from scanner.records import Float64
from scanner.report.plots import DPI

#: One for each bundle.
BUNDLE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


MARKERS = "os^Dv"


@dataclass(frozen=True)
class Plot:
    """``name`` is that of the file, ``caption`` says what is to be seen, ``alt`` the same in a few words."""

    name: str
    caption: str
    alt: str
    png: bytes


def png(figure: Figure) -> bytes:
    """A figure as PNG, without date or software."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def bundle_colour(evaluation: Evaluation, bundle: str) -> str:
    """The colour of a bundle, the same in every plot."""
    names = [summary.name for summary in evaluation.bundles]
    return BUNDLE_COLOURS[names.index(bundle) % len(BUNDLE_COLOURS)]


def error_bars(values: Sequence[Interval]) -> tuple[Float64, Float64]:
    """Values (n,), and what an error bar adds below and above, (2, n)."""
    middle = np.array([value.value for value in values])
    return middle, np.array([[v.value - v.low for v in values], [v.high - v.value for v in values]])
