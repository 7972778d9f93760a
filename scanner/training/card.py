"""``MODEL_CARD.md``: what a bundle is, made of measured numbers only.

In: the records of the seven runs, the description of the training data, evaluations. Out: Markdown. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scanner.evaluation.metrics import Interval
from scanner.evaluation.results import Decision, Evaluation, Negatives, Positives
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, MemberName
from scanner.training.checkpoint import FitRecord

CHOICES: tuple[tuple[str, Positives, Negatives], ...] = (
    ("all lenses, all non-lenses", "all", "all"),
    ("visible lenses, all non-lenses", "visible", "all"),
    ("visible lenses, look-alikes only", "visible", "hard"),
)

WHAT_IT_IS = """## What it is

Seven networks of Wilde et al. (2022), OU-66 and OU-200 layer for layer, trained from scratch on simulated images only, with a
t-SNE grid and a logistic calibration on top. It ranks objects for people to look at. A score is no probability that an object
on the sky is a lens: the calibrated one is stated for the prevalence in the manifest, and is as good as the simulation is
true."""
LIMITS = """## Limits

- Simulations are not the sky. A published finder trained on simulations alone fell from 92% recall at 100% purity on them to
  50% completeness at 24% purity on Euclid Q1. Expect no better here.
- Trained on galaxy-scale lenses: Einstein radii of 0.5 to 3 arcsec, one deflector with external shear, one source. Clusters,
  lensed quasars and sources at two distances were not shown.
- The members that see NISP only mostly learn what kind of galaxy it is: see the figures against look-alikes.
- One seed a member, minutes on a CPU, not to convergence.
- Recalls at low false-positive rates rest on few objects: how many false positives is in brackets behind each."""
DATA = """Data: {n_objects:,} simulated cutouts, of which {n_train:,} were trained on (84%, less the lenses whose arcs have a
signal-to-noise ratio below {min_arc_snr:g}); 6% chose the best weights, 10% set the calibration and the threshold (F-beta with
β = {beta:g}, which weights precision if β < 1). Preset `{preset}`, preprocessing `{preprocessing}`."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f}% [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _figures(evaluation: Evaluation) -> str:
    parts = []
    for title, positives, negatives in CHOICES:
        rows = []
        for bundle in evaluation.bundles:
            for figures in bundle.figures:
                if (figures.positives, figures.negatives) == (positives, negatives):
                    recalls = [f"{recall.recall} ({recall.n_false})" for recall in figures.recalls]
                    rows.append([bundle.name, figures.score, str(figures.auroc), *recalls])
                    sizes = f"{figures.n_positives:,} lenses, {figures.n_negatives:,} non-lenses"
        if rows:
            header = ["bundle", "score", "AUROC", "recall at FPR 1e-2", "recall at FPR 1e-3"]
            parts.append(f"**{title}** ({sizes})\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def _decision(bundle: str, decision: Decision) -> list[str]:
    return [
        bundle,
        decision.score,
        f"{decision.threshold:.3g}",
        _percent(decision.recall),
        _percent(decision.recall_visible),
        _percent(decision.fpr),
        _percent(decision.precision),
        "–" if decision.f_beta is None else f"{decision.f_beta:.3f}",
        "–" if decision.purity is None else f"{100 * decision.purity:.2f}%",
    ]


def _images(evaluation: Evaluation) -> str:
    rows = []
    for bundle in evaluation.bundles:
        for image in bundle.images:
            numbers = [f"{p:.2f} ± {s:.2f}" for p, s in zip(image.probabilities, image.scatter, strict=True)]
            grid = "–" if image.grid_value is None else f"{image.grid_value:.2f}"
            rows.append([image.name, bundle.name, *numbers, grid, f"{image.calibrated:.2g}"])
    return table(["image", "bundle", *MEMBERS, "grid", "calibrated"], rows)


def _members(records: Mapping[MemberName, FitRecord]) -> str:
    rows = []
    for member in MEMBERS:
        record = records[member]
        rows.append(
            [
                member,
                "+".join(MEMBER_BANDS[member]),
                str(MEMBER_PIXELS[member]),
                str(record.plan.seed),
                record.plan.start_from or "random",
                f"{record.passes:.1f}",
                f"{record.seconds / 60:.1f}",
                f"{record.validation_loss:.3f}",
                f"{record.validation_auroc:.3f}",
                f"{record.validation_auroc_visible:.3f}",
            ]
        )
    header = [
        "member",
        "bands",
        "pixels",
        "seed",
        "passes",
        "minutes, one thread",
        "validation loss",
        "AUROC",
        "AUROC, visible",
    ]
    return table(header, rows)


def model_card(
    name: str,
    version: str,
    description: str,
    records: Mapping[MemberName, FitRecord],
    dataset: str,
    n_objects: int,
    evaluations: Sequence[Evaluation],
    beta: float,
) -> str:
    """Write the card.

    Parameters
    ----------
    name, version, description
        As in the manifest.
    records
        Of the seven runs.
    dataset
        Text of the training set's ``dataset.json``.
    n_objects
        Cutouts in it.
    evaluations
        On held-out data; the bundle first, others to compare with after it.
    beta
        Of the bundle's default threshold.
    """
    plan = records[MEMBERS[0]].plan
    data = DATA.format(
        n_objects=n_objects,
        n_train=plan.n_train,
        min_arc_snr=plan.preset.min_arc_snr,
        beta=beta,
        preset=plan.preset.name,
        preprocessing=plan.preset.preprocessing,
    )
    parts = [
        f"# {name} {version}",
        description,
        WHAT_IT_IS,
        LIMITS,
        "## Training",
        data,
        f"```json\n{dataset.strip()}\n```",
        _members(records),
        "Minutes are wall-clock, on a shared machine. The figures in this table are of the rows that chose the weights; the "
        "ones below are of data that no step has seen.",
    ]
    for evaluation in evaluations:
        rows = [_decision(bundle.name, decision) for bundle in evaluation.bundles for decision in bundle.decisions]
        header = ["bundle", "score", "threshold", "recall", "recall, visible", "FPR", "precision", "F-beta", "purity at 1e-4"]
        classes = ", ".join(f"{name} {n:,}" for name, n in sorted(evaluation.class_counts.items(), key=lambda item: -item[1]))
        parts += [
            f"## Held-out set `{evaluation.dataset}`",
            f"{evaluation.n_objects:,} objects, {evaluation.n_lenses:,} lenses ({evaluation.n_visible:,} visible: arc S/N "
            f"above 25 and more than 100 pixels), {evaluation.n_hard_negatives:,} look-alikes (galaxies with companions, also "
            f"tangential ones). Classes drawn: {classes}. Intervals are 95%.",
            _figures(evaluation),
            "Decisions at fixed thresholds; precision and F-beta at this set's share of lenses, purity at one lens in 10,000:",
            table(header, rows),
        ]
        if any(bundle.images for bundle in evaluation.bundles):
            parts += [
                "### Real images",
                "Member probabilities, mean ± scatter over eight orientations. A handful of images is an anecdote, not a test.",
                _images(evaluation),
            ]
    return "\n\n".join(parts) + "\n"
