"""How a training run went: one row a validation, as Parquet and as the paper's Figs 4 and 5.

In: :class:`HistoryRow`. Out: ``history.parquet`` with units and meanings in the fields' metadata, ``accuracy.png`` and
``loss.png``, with a dot where the validation loss of the last stage was lowest. Refused (OutputError): folders that cannot be
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from scanner.atomic_file import write_atomically
from scanner.errors import OutputError
from scanner.records import Record

HISTORY, ACCURACY_PLOT, LOSS_PLOT = "history.parquet", "accuracy.png", "loss.png"


class HistoryRow(Record):
    """One validation. Losses are class-weighted means, training ones since the last row and in training mode."""

    stage: str = Field(description="stage of the preset")
    step: int = Field(description="steps of the optimiser in this stage")
    epoch: float = Field(description="passes over the training rows, from the start of the run")
    seconds: float = Field(description="time spent, from the start of the run, in s")
    learning_rate: float = Field(description="of the last step")
    train_loss: float = Field(description="mean cross-entropy of the training batches since the last row")
    train_accuracy: float = Field(description="share of them classified correctly at 0.5")
    validation_loss: float = Field(description="mean cross-entropy of the validation rows")
    validation_accuracy: float = Field(description="share of them classified correctly at 0.5")
    auroc: float = Field(description="of all validation rows, lenses with faint arcs included")
    auroc_visible: float = Field(description="of the validation rows without lenses whose arcs nobody could see")

    def described(self) -> str:
        """One line for people."""
        return (
            f"{self.stage} {self.epoch:6.2f} passes  loss {self.train_loss:.4f}  validation {self.validation_loss:.4f}  "
            f"AUROC {self.auroc:.3f}, visible {self.auroc_visible:.3f}  {self.seconds:.0f} s"
        )


def write_history(folder: Path, rows: Sequence[HistoryRow]) -> None:
    """Write ``history.parquet``, all rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema(
        pa.field(name, types[field.annotation], nullable=False, metadata={"description": field.description or ""})
        for name, field in HistoryRow.model_fields.items()
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema), sink)
    write_atomically(folder / HISTORY, sink.getvalue().to_pybytes())


def best_row(rows: Sequence[HistoryRow]) -> HistoryRow:
    """The row of the lowest validation loss of the last stage, whose weights a run ends with."""
    return min((row for row in rows if row.stage == rows[-1].stage), key=lambda row: row.validation_loss)


def plot_history(folder: Path, rows: Sequence[HistoryRow], title: str) -> None:
    """Draw ``accuracy.png`` and ``loss.png`` against the passes over the training rows.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    best = best_row(rows)
    for file_name, quantity in ((ACCURACY_PLOT, "accuracy"), (LOSS_PLOT, "loss")):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        for part, colour in (("train", "#d55e00"), ("validation", "#0072b2")):
            values = [getattr(row, f"{part}_{quantity}") for row in rows]
            axes.plot([row.epoch for row in rows], values, color=colour, marker=".", label=part.replace("train", "training"))
            axes.plot(best.epoch, getattr(best, f"{part}_{quantity}"), "o", color=colour, markersize=8)
        for before, after in pairwise(rows):
            if before.stage != after.stage:
                axes.axvline(before.epoch, color="#a9b4c0", linewidth=0.8, linestyle=":")
        axes.set(title=f"{title}: {quantity}", xlabel="passes over the training set", ylabel=quantity)
        axes.legend(frameon=False)
        try:
            figure.savefig(folder / file_name, dpi=120, metadata={"Software": None})
        except OSError as error:
            raise OutputError.of(folder / file_name, error) from None
