"""What a new bundle looks like: the paper's Figs 6, 9 and 10.

In: an assembled bundle and its data. Out, in a folder: ``roc.png`` (each member on rows it was trained on and on rows it was
not), ``embedding.png`` (the embedding, lenses and non-lenses, its largest groups marked), ``groups.png`` (objects of each
group). Refused (OutputError): folders that cannot be written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanner.errors import OutputError
from scanner.evaluation.metrics import auroc, roc_curve
from scanner.records import MEMBERS, Float32, Int64
from scanner.report.colour import colour_image
from scanner.training.assemble import Assembled
from scanner.training.data import TrainingData

ROC_PLOT, EMBEDDING_PLOT, GROUPS_PLOT = "roc.png", "embedding.png", "groups.png"
LENS_COLOUR, OTHER_COLOUR = "#0072b2", "#d55e00"
MEMBER_COLOURS = ("#999999", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00")
#: Groups that are marked and shown, and objects of each.
GROUPS, EXAMPLES = 6, 8


def draw_assembled(assembled: Assembled, data: TrainingData, folder: Path) -> None:
    """Draw all three figures into ``folder``."""
    draw_roc(folder / ROC_PLOT, assembled)
    grid = assembled.bundle.grid
    assert grid is not None
    positions = grid.lookup(assembled.train_logits).positions
    groups = group_objects(positions, GROUPS)
    draw_embedding(folder / EMBEDDING_PLOT, positions, assembled.train_labels, groups)
    draw_groups(folder / GROUPS_PLOT, data, assembled.train, groups)


def draw_roc(path: Path, assembled: Assembled) -> None:
    """Draw the ROC curves of the members (Fig. 6): dashed on rows they were trained on, solid on the calibration rows."""
    figure = _figure(6.0, 5.2)
    axes = figure.add_subplot()
    for number, member in enumerate(MEMBERS):
        for logits, labels, style in (
            (assembled.train_logits, assembled.train_labels, "--"),
            (assembled.held_out_logits, assembled.held_out_labels, "-"),
        ):
            label = f"{member}: {auroc(logits[:, number], labels):.3f}" if style == "-" else None
            axes.plot(*roc_curve(logits[:, number], labels), style, color=MEMBER_COLOURS[number], linewidth=1.2, label=label)
    axes.plot([0, 1], [0, 1], color="#a9b4c0", linewidth=0.8)
    axes.set(xlabel="false-positive rate", ylabel="recall", title="Members on calibration rows (dashed: training rows)")
    axes.legend(title="AUROC", frameon=False, loc="lower right")
    _save(figure, path)


def group_objects(positions: Float32, n: int, seed: int = 0) -> Int64:
    """Assign embedded objects (N, 2) to ``n`` groups by k-means, (N,) int64, the largest group 0."""
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init=4, random_state=seed).fit_predict(positions)
    order = np.argsort(-np.bincount(found, minlength=n), kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    return np.asarray(rank[found], dtype=np.int64)


def draw_embedding(path: Path, positions: Float32, labels: NDArray[np.bool_], groups: Int64) -> None:
    """Draw the embedding (Fig. 9): lenses, non-lenses, and the numbers of the groups at their medians."""
    figure = _figure(6.4, 6.0)
    axes = figure.add_subplot()
    size = float(np.clip(20_000 / len(positions), 0.3, 8.0))
    order = np.random.default_rng(0).permutation(len(positions))
    colours = np.where(labels, LENS_COLOUR, OTHER_COLOUR)[order]
    axes.scatter(positions[order, 0], positions[order, 1], s=size, c=colours.tolist(), linewidths=0, alpha=0.6)
    for group in range(int(groups.max()) + 1):
        x, y = np.median(positions[groups == group], axis=0)
        box = {"boxstyle": "circle", "facecolor": "white", "edgecolor": "#16191d", "alpha": 0.9}
        axes.text(x, y, str(group + 1), ha="center", va="center", fontsize=11, bbox=box)
    for label, colour in (("lens", LENS_COLOUR), ("non-lens", OTHER_COLOUR)):
        axes.scatter([], [], s=24, c=colour, label=label)
    axes.set(title=f"t-SNE of the seven log-odds of {len(positions):,} training objects", xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper right")
    _save(figure, path)


def draw_groups(path: Path, data: TrainingData, rows: Int64, groups: Int64, seed: int = 0) -> None:
    """Draw objects of each group in colour (Fig. 10), a row a group, with the group's share of lenses."""
    n_groups = int(groups.max()) + 1
    figure = _figure(1.25 * EXAMPLES, 1.4 * n_groups)
    panels = figure.subplots(n_groups, EXAMPLES, squeeze=False)
    generator = np.random.default_rng(seed)
    for group in range(n_groups):
        of_group = rows[groups == group]
        chosen = np.sort(generator.choice(np.unique(of_group), min(EXAMPLES, len(np.unique(of_group))), replace=False))
        images = [
            (colour_image(vis[i], nisp[i], batch.sky[i], batch.sigma[i]), bool(data.labels.is_lens[row]))
            for (batch, vis, nisp), part in zip(data.batches(chosen, 1), np.split(chosen, len(chosen)), strict=True)
            for i, row in enumerate(part)
        ]
        for axes in panels[group]:
            axes.axis("off")
        for axes, (image, is_lens) in zip(panels[group], images, strict=False):
            axes.imshow(image, origin="lower", interpolation="nearest")
            axes.set_title("lens" if is_lens else "–", fontsize=7, pad=1)
        share = data.labels.is_lens[of_group].mean()
        panels[group][0].text(
            -0.08, 0.5, f"{group + 1}\n{share:.0%}", transform=panels[group][0].transAxes, ha="right", va="center"
        )
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, metadata={"Software": None})
    except OSError as error:
        raise OutputError.of(path, error) from None
