"""An evaluation on disk: JSON, plots, and one web page that holds everything.

In: a :class:`~scanner.evaluation.compare.Comparison`, a folder. Out: ``evaluation.json``, the PNG files, and
``evaluation.html``, which needs no network and no other file. Refused: a folder that cannot be written (OutputError).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scanner.atomic_file import write_atomically
from scanner.evaluation.cells import Table
from scanner.evaluation.compare import Comparison
from scanner.evaluation.drawing import Plot
from scanner.evaluation.figures import plots
from scanner.evaluation.tables import tables
from scanner.records import CutoutBatch
from scanner.report import colour, self_contained
from scanner.report.self_contained import asset, png_uri, template

JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"
#: Which plot belongs to which table.
PLOT_OF = {
    "low-fpr": "low-fpr.png",
    "inspected": "inspection.png",
    "table-5": "roc.png",
    "classes": "classes.png",
    "properties": "properties.png",
    "calibration": "calibration.png",
    "source-colours": "source-colours.png",
    "rotations": "rotations.png",
}


@dataclass(frozen=True)
class Section:
    """A table and what is drawn of it; ``folded``: shown on demand, as it is long."""

    table: Table
    plot: Plot | None
    plot_uri: str
    pictures: tuple[tuple[str, str], ...]
    folded: bool


def write_evaluation(comparison: Comparison, out: Path) -> tuple[Path, ...]:
    """Write everything into a folder; the page comes last.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    drawn = plots(comparison)
    files = {JSON_FILE: (comparison.evaluation.model_dump_json(indent=2) + "\n").encode()}
    files |= {plot.name: plot.png for plot in drawn}
    files[PAGE_FILE] = render(comparison, drawn).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return tuple(out / name for name in files)


def render(comparison: Comparison, drawn: tuple[Plot, ...]) -> str:
    """The page as text, with the plots inside."""
    return template("evaluation").render(
        evaluation=comparison.evaluation,
        sections=tuple(_sections(comparison, drawn)),
        style=asset("evaluation.css"),
    )


def _sections(comparison: Comparison, drawn: tuple[Plot, ...]) -> Iterator[Section]:
    by_name = {plot.name: plot for plot in drawn}
    pictures = {"known-lenses": _pictures(comparison.known_lenses), "images": _pictures(comparison.images)}
    for table in tables(comparison.evaluation):
        plot = by_name.get(PLOT_OF.get(table.name, ""))
        uri = "" if plot is None else png_uri(plot.png)
        yield Section(table, plot, uri, pictures.get(table.name, ()), folded=len(table.rows) > 24)


def _pictures(cutouts: Mapping[str, CutoutBatch]) -> tuple[tuple[str, str], ...]:
    """(name, data URI) of the VIS cutout of every image, as a network sees it before padding."""
    return tuple(
        (name, self_contained.data_uri(colour.vis_image(batch.vis[0], batch.sky[0], batch.sigma[0])))
        for name, batch in cutouts.items()
    )
