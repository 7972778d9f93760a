"""``scanner evaluate``: measure bundles on a labelled dataset, side by side."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from scanner.atomic_file import write_atomically
from scanner.errors import UsageError
from scanner.evaluation.comparison import compare_bundles
from scanner.evaluation.labelled_data import Dataset
from scanner.evaluation.results import Evaluation
from scanner.evaluation.roc_plot import write_roc_plot
from scanner.records import MEMBERS

#: What the text table shows, in this order; the JSON has all.
_CHOICES = (
    ("all lenses against all non-lenses", "all", "all"),
    ("visible lenses against all non-lenses", "visible", "all"),
    ("visible lenses against look-alikes (companions)", "visible", "hard"),
)


@click.command()
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Dataset that none of the bundles was trained on.")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Tile list; the centre of each tile is scored eight ways round."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for evaluation.json and roc.png [default: none written].")
@click.option("--beta", type=float, help="β of the F-beta threshold [default: the bundle's].")
@click.option("--provider", default="auto", show_default=True, help="What runs the networks.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the session.")
def evaluate(
    bundles: tuple[Path, ...],
    data: Path,
    images: Path | None,
    out: Path | None,
    beta: float | None,
    provider: str,
    threads: int,
) -> None:
    """Measure BUNDLES (default: the one that ships with scanner) on a labelled dataset.

    AUROC and recall at low false-positive rates with 95% intervals, for every network, the grid, the ranking of a scan (grid,
    then calibrated) and the calibrated combination.
    """
    if beta is not None and not beta > 0:
        raise UsageError(f"--beta must be more than 0 (given: {beta:g}).")
    dataset = Dataset(data)
    paths: tuple[Path | None, ...] = bundles or (None,)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scoring", total=len(dataset) * len(paths))
        comparison = compare_bundles(
            paths,
            dataset,
            images=images,
            provider=provider,
            threads=threads,
            beta=beta,
            report=lambda name, n: progress.update(task, advance=n, description=name),
        )
    print_evaluation(Console(highlight=False), comparison.evaluation)
    if out is not None:
        write_atomically(out / "evaluation.json", (comparison.evaluation.model_dump_json(indent=2) + "\n").encode())
        write_roc_plot(comparison, out / "roc.png")
        click.echo(f"{out}: evaluation.json, roc.png")


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the tables of figures, decisions and images."""
    console.print(
        f"{evaluation.dataset}: {evaluation.n_objects} objects, {evaluation.n_lenses} lenses "
        f"({evaluation.n_visible} visible), {evaluation.n_hard_negatives} look-alikes"
    )
    for title, positives, negatives in _CHOICES:
        table = Table(title=title, title_justify="left")
        for heading in ("bundle", "score", "AUROC", "recall at FPR 1e-2", "recall at FPR 1e-3"):
            table.add_column(heading)
        for bundle in evaluation.bundles:
            for figures in bundle.figures:
                if (figures.positives, figures.negatives) == (positives, negatives):
                    recalls = [f"{recall.recall} ({recall.n_false})" for recall in figures.recalls]
                    table.add_row(bundle.name, figures.score, str(figures.auroc), *recalls)
                    table.caption = (
                        f"{figures.n_positives} lenses, {figures.n_negatives} non-lenses; in brackets: false positives"
                    )
        if table.row_count:
            console.print(table)
    _print_decisions(console, evaluation)
    if any(bundle.images for bundle in evaluation.bundles):
        _print_images(console, evaluation)


def _print_decisions(console: Console, evaluation: Evaluation) -> None:
    table = Table(title="decisions at fixed thresholds", title_justify="left")
    for heading in ("bundle", "score", "threshold", "recall", "FPR", "precision", "F-beta", "purity at 1e-4"):
        table.add_column(heading)
    for bundle in evaluation.bundles:
        for decision in bundle.decisions:
            table.add_row(
                bundle.name,
                decision.score,
                f"{decision.threshold:.3g}",
                str(decision.recall),
                str(decision.fpr),
                "–" if decision.precision is None else str(decision.precision),
                "–" if decision.f_beta is None else f"{decision.f_beta:.3f}",
                "–" if decision.purity is None else f"{decision.purity:.2g}",
            )
    console.print(table)


def _print_images(console: Console, evaluation: Evaluation) -> None:
    table = Table(title="single images, mean ± scatter over eight orientations", title_justify="left")
    for heading in ("image", "bundle", "OU-66", "OU-VIS", "OU-200", "grid", "calibrated"):
        table.add_column(heading)
    for bundle in evaluation.bundles:
        for image in bundle.images:
            numbers = dict(zip(MEMBERS, zip(image.probabilities, image.scatter, strict=True), strict=True))
            shown = [f"{numbers[member][0]:.2f} ± {numbers[member][1]:.2f}" for member in ("OU-66", "OU-VIS", "OU-200")]
            grid = "–" if image.grid_value is None else f"{image.grid_value:.2f}"
            table.add_row(image.name, bundle.name, *shown, grid, f"{image.calibrated:.2g}")
    console.print(table)
