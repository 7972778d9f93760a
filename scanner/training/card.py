"""What a new bundle looks like: its model card, made of measured numbers only, and the paper's Figs 6, 9 and 10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanner.ensemble.bundle import CARD_FILE, Bundle, BundleManifest, content_of, write_bundle
from scanner.ensemble.embedding_grid import PAPER_RULE, Embedded
from scanner.errors import OutputError
from scanner.evaluation.metrics import auroc, roc_curve
from scanner.evaluation.page import MEMBER_COLOURS
from scanner.evaluation.promotion import HEADING, card_section, markdown_table, metrics_of
from scanner.evaluation.results import Evaluation
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, VIS_CUTOUT_PIXELS, Float32, Int64, MemberName
from scanner.report.colour import colour_image
from scanner.training import cascade
from scanner.training.assemble import Assembled, Ensemble
from scanner.training.checkpoint import KEPT_IN_WORDS, FitRecord
from scanner.training.data import TrainingData

WHAT_IT_IS = """## What it is

Seven networks of Wilde et al. (2022), OU-66 and OU-200 layer for layer, trained on {images}, with a t-SNE grid and
a logistic calibration on top. It ranks objects for people to look at. A score is no probability that an object on the sky is a
lens: the calibrated one is stated for the prevalence in the manifest, and is as good as the simulation is true."""
SIMULATED, OF_A_SURVEY = "simulated images only", "images of a survey, many with lenses or look-alikes painted in"
LIMITS = """## Limits

- Simulations are not the sky. A published finder trained on simulations alone fell from 92% recall at 100% purity on them to
  50% completeness at 24% purity on Euclid Q1. Expect no better here.
- What it was shown is in the description of its training set below. What it finds by Einstein radius and brightness is measured
  above: where recall is low, such lenses are lost.
- The members that see NISP only mostly learn what kind of galaxy it is: see the figures against look-alikes.
- One seed a member.
- Recalls at low false-positive rates rest on few objects: their number is stated with them."""
DATA = """{n_objects:,} cutouts, of which {n_train:,} were trained on ({train:.0%}, less the lenses whose arcs have a
signal-to-noise ratio below {min_arc_snr:g}); {validation:.0%} chose the best weights, {calibration:.0%} set the calibration
and the thresholds. The default threshold {chosen} at β = {beta:g}, which weights precision if β < 1. Preset
`{preset}`, preprocessing `{preprocessing}`."""
EXACT = "maximises F-beta"
WITHIN_ONE_ERROR = "is the lowest whose F-beta is within a standard error of the highest"
BEGINNINGS = {"random": "random", "copy": "{}", "bundle": "bundle {:.12}"}
ROC_PLOT, EMBEDDING_PLOT, GROUPS_PLOT = "roc.png", "embedding.png", "groups.png"
LENS_COLOUR, OTHER_COLOUR = "#0072b2", "#d55e00"
#: Groups that are marked and shown, and objects of each.
GROUPS, EXAMPLES = 6, 8


def publish(bundle: Bundle, ensemble: Ensemble, data: TrainingData, evaluation: Evaluation | None) -> Bundle:
    """Write the measured figures and the model card into a bundle that :func:`assemble` made.

    Parameters
    ----------
    bundle, ensemble, data
        The bundle and what it was made of.
    evaluation
        On held-out data, this bundle first; None: the card says that nothing was measured.

    Raises
    ------
    OutputError
        The bundle's folder cannot be written.
    """
    images = OF_A_SURVEY if any(dataset.fields for dataset in data.datasets) else SIMULATED
    card = model_card(bundle.manifest, ensemble.records, data.description, len(data), evaluation, images)
    metrics = () if evaluation is None else metrics_of(evaluation)
    return write_bundle(bundle.path, replace(content_of(bundle), metrics=metrics, texts={CARD_FILE: card}))


def model_card(
    manifest: BundleManifest,
    records: Mapping[MemberName, FitRecord],
    dataset: str,
    n_objects: int,
    evaluation: Evaluation | None,
    images: str = SIMULATED,
) -> str:
    """Write the card.

    Parameters
    ----------
    manifest
        Of the bundle.
    records
        Of the runs; members that have none stay what they are in the bundle that they come from.
    dataset
        Text of the training set's ``dataset.json``.
    n_objects
        Cutouts in it.
    evaluation
        On held-out data; the bundle first, others to compare with after it. None: nothing was measured.
    images
        What it was trained on, in a few words.
    """
    plan = next(iter(records.values())).plan
    data = DATA.format(
        n_objects=n_objects,
        n_train=plan.n_train,
        train=plan.preset.shares.train,
        validation=plan.preset.shares.validation,
        calibration=plan.preset.shares.calibration,
        min_arc_snr=plan.preset.min_arc_snr,
        chosen=EXACT if manifest.grid == PAPER_RULE else WITHIN_ONE_ERROR,
        beta=manifest.thresholds[0].beta if manifest.thresholds else float("nan"),
        preset=plan.preset.name,
        preprocessing=manifest.preprocessing,
    )
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.description,
        *([] if manifest.licence is None else [f"Licence of the weights: {manifest.licence}."]),
        WHAT_IT_IS.format(images=images),
        *([] if manifest.second_look is None else [cascade.augmentation_in_short(manifest.second_look)]),
        LIMITS,
        _measured(evaluation),
        *([] if manifest.screen is None else [cascade.screen_section(manifest.screen, manifest.screen.lost)]),
        "## Training",
        data,
        _members(manifest, records),
        "Minutes are wall-clock. The figures in this table are of the validation rows, which chose the weights; the ones "
        "above are of data that no step has seen.",
        f"```json\n{dataset.strip()}\n```",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _members(manifest: BundleManifest, records: Mapping[MemberName, FitRecord]) -> str:
    rows = []
    for member, record in records.items():
        plan = record.plan
        rows.append(
            [
                member,
                "+".join(MEMBER_BANDS[member]),
                str(MEMBER_PIXELS[member]),
                str(plan.seed),
                BEGINNINGS[plan.beginning].format(plan.begins_as),
                f"{record.passes:.1f}",
                f"{record.seconds / 60:.1f}",
                f"{record.device} × {record.threads}",
                KEPT_IN_WORDS[record.kept],
                f"{record.validation_loss:.3f}",
                f"{record.validation_auroc:.3f}",
                f"{record.validation_auroc_visible:.3f}",
            ]
        )
    header = ["member", "bands", "pixels", "seed", "begins as", "passes", "minutes", "on", "weights"]
    table = markdown_table([*header, "loss", "AUROC", "AUROC, visible"], rows)
    kept = [f"- {entry.name} as it was: {entry.source}" for entry in manifest.members if entry.name not in records]
    return "\n\n".join([table, *(["\n".join(kept)] if kept else [])])


def _measured(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return f"{HEADING}\n\nNothing was measured yet: 'scanner evaluate' does, and --card puts it here."
    return card_section(evaluation)


def draw_assembled(assembled: Assembled, data: TrainingData, folder: Path) -> None:
    """Draw all three figures into ``folder``."""
    draw_roc(folder / ROC_PLOT, assembled)
    assert assembled.bundle.grid is not None
    embedded = assembled.bundle.grid.rule.embeds
    groups = group_objects(assembled.positions, GROUPS)
    draw_embedding(folder / EMBEDDING_PLOT, assembled.positions, assembled.train_labels, groups, embedded)
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
            axes.plot(
                *roc_curve(logits[:, number], labels),
                style,
                color=MEMBER_COLOURS[number % len(MEMBER_COLOURS)],
                linewidth=1.2,
                label=label,
            )
    axes.plot([0, 1], [0, 1], color="#a9b4c0", linewidth=0.8)
    axes.set(xlabel="false-positive rate", ylabel="recall", title="Members on calibration rows (dashed: training rows)")
    axes.legend(title="AUROC", frameon=False, loc="lower right")
    _save(figure, path)


def draw_embedding(
    path: Path, positions: Float32, labels: NDArray[np.bool_], groups: Int64, embedded: Embedded = "log-odds"
) -> None:
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
    axes.set(title=f"t-SNE of the seven {embedded} of {len(positions):,} training objects", xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper right")
    _save(figure, path)


def group_objects(positions: Float32, n: int) -> Int64:
    """Assign embedded objects (N, 2) to ``n`` groups by k-means, (N,) int64, the largest group 0."""
    from sklearn.cluster import KMeans

    found = KMeans(n, n_init=4, random_state=0).fit_predict(positions)
    order = np.argsort(-np.bincount(found, minlength=n), kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    return np.asarray(rank[found], dtype=np.int64)


def draw_groups(path: Path, data: TrainingData, rows: Int64, groups: Int64) -> None:
    """Draw objects of each group in colour (Fig. 10), a row a group, with the group's share of lenses.

    All are parts of one image: axes of their own for each of fifty take seconds to draw.
    """
    n_groups, side, step = int(groups.max()) + 1, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS + 30
    figure = _figure(1.25 * EXAMPLES, 1.4 * n_groups)
    axes = figure.add_subplot()
    axes.axis("off")
    shown = np.full((n_groups * step, EXAMPLES * step, 3), 255, dtype=np.uint8)
    generator = np.random.default_rng(0)
    for group in range(n_groups):
        of_group, top = rows[groups == group], group * step + 30
        chosen = np.sort(generator.choice(np.unique(of_group), min(EXAMPLES, len(np.unique(of_group))), replace=False))
        for number, (row, (batch, vis, nisp)) in enumerate(zip(chosen, data.batches(chosen, 1), strict=True)):
            left = number * step
            image = colour_image(vis[0], nisp[0], batch.sky[0], batch.sigma[0])
            # Their rows begin at the bottom, those of the whole at the top.
            shown[top : top + side, left : left + side] = image[::-1]
            title = "lens" if data.labels.is_lens[row] else "–"
            axes.text(left + side / 2, top - 4, title, fontsize=7, ha="center", va="bottom")
        share = data.labels.is_lens[of_group].mean()
        axes.text(-16, top + side / 2, f"{group + 1}\n{share:.0%}", ha="right", va="center")
    axes.imshow(shown, interpolation="nearest")
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
