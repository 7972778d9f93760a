"""Tables of the parts: classes and properties, grid, calibration, orientations, single images.

In: an :class:`~scanner.evaluation.results.Evaluation`. Out: :class:`~scanner.evaluation.cells.Table`, without rows where
nothing was measured. Refused: nothing.
"""

from __future__ import annotations

from scanner.evaluation.bias_results import CAUGHT_CHANCE, CAUGHT_SHARE
from scanner.evaluation.cells import FEW_NOTE, NOTHING, Table, class_label, interval, lowest_known_rate, signed, small
from scanner.evaluation.resampling import FEW_FALSE
from scanner.evaluation.results import Evaluation
from scanner.evaluation.scores import POSITIVE_LABELS
from scanner.records import MEMBERS, MemberName

#: The members whose biases are told apart from the combination's: those that see VIS. The JSON has all seven.
LEADING_MEMBERS: tuple[MemberName, ...] = ("OU-VIS", "OU-66", "OU-200")
#: Orientations of :mod:`scanner.ensemble.augmentation` in words.
TURNS = ("none", "90°", "180°", "270°", "mirror", "mirror, 90°", "mirror, 180°", "mirror, 270°")


def classes(evaluation: Evaluation) -> Table:
    """Which non-lenses pass for lenses."""
    # Sets of non-lenses only hold more of each class than the others do.
    pure = {found.name for found in evaluation.sets if not found.n_lenses}
    rows = tuple(
        (
            found.pairing.others,
            found.bundle,
            f"FPR {found.fpr:g} on {found.threshold_set}",
            class_label(rate.class_name),
            f"{rate.n:,}",
            interval(rate.passing, 4),
            interval(rate.auroc),
        )
        for found in evaluation.class_rates
        if not pure or found.pairing.others in pure
        for rate in found.classes
    )
    lenses = evaluation.class_rates[0].pairing.lenses if evaluation.class_rates else ""
    return Table(
        "classes",
        "Non-lenses by class: which pass for lenses",
        ("set", "bundle", "threshold", "class", "objects", "share passing", "AUROC against it"),
        rows,
        f"AUROC of the visible lenses of {lenses} against each class.",
    )


def by_property(evaluation: Evaluation) -> Table:
    """Recall against properties of the lens, at one threshold."""
    rows = tuple(
        (
            str(found.pairing),
            found.bundle,
            f"{found.fpr:g}",
            found.label,
            f"{part.low:g} to {part.high:g}",
            f"{part.n:,}",
            interval(part.recall),
        )
        for found in evaluation.recall_curves
        for part in found.bins
    )
    return Table(
        "properties",
        "Which lenses are found",
        ("set", "bundle", "FPR", "property", "range", "lenses", "recall"),
        rows,
        "All lenses, visible or not; the threshold is held fixed in the intervals.",
    )


def grid_loss(evaluation: Evaluation) -> Table:
    """What the grid loses."""
    rows = tuple(
        (
            str(found.pairing),
            POSITIVE_LABELS[found.positives],
            found.bundle,
            signed(found.difference),
            f"{100 * found.tied:.2f}%",
        )
        for found in evaluation.grid_losses
    )
    return Table(
        "grid-loss",
        "What the grid loses against the calibrated combination of the same seven log-odds",
        ("set", "lenses", "bundle", "AUROC, grid − combination", "pairs tied in the grid"),
        rows,
        "Paired 95% intervals. The grid decides who is a candidate, the combination who ranks first.",
    )


def calibration(evaluation: Evaluation) -> Table:
    """Expected calibration errors."""
    rows = tuple(
        (
            str(found.pairing),
            found.bundle,
            f"{found.prevalence:.3g}" + (" (the sky's)" if found.at_sky else " (its own)"),
            small(found.ece),
            interval(found.ece_lenses, 2),
            f"{100 * found.measured:.0f}%",
        )
        for found in evaluation.reliabilities
    )
    return Table(
        "calibration",
        "Calibration",
        ("set", "bundle", "share of lenses", "ECE", "error in decades, where the lenses are", "of so many lenses"),
        rows,
        "ECE: mean difference of predicted probability and true share; a perfect calibration has one too, from counting. "
        "Decades: of the lenses that are no more probable than any non-lens of the set.",
    )


def orientations(evaluation: Evaluation) -> Table:
    """Dihedral scatter."""
    rows = tuple(
        (
            found.set,
            found.bundle,
            one.score,
            f"{found.n}",
            interval(one.scatter_lenses, 2),
            interval(one.scatter_others, 2),
            NOTHING if one.auroc_single is None else f"{one.auroc_single:.3f}",
            NOTHING if one.gain is None else signed(one.gain),
        )
        for found in evaluation.orientations
        for one in found.scores
    )
    return Table(
        "orientations",
        "The same objects turned and mirrored, eight ways",
        ("set", "bundle", "score", "objects", "scatter, lenses", "scatter, others", "AUROC, one way round", "gain of the mean"),
        rows,
        "Scatter: standard deviation of the log-odds over the eight orientations, mean over the objects.",
    )


def rotations(evaluation: Evaluation) -> Table:
    """Whether a network has learnt an orientation."""
    rows = tuple(
        (
            found.set,
            found.bundle,
            one.score,
            one.kind,
            f"{one.n:,}",
            signed(one.shifts[one.largest - 1]),
            TURNS[one.largest],
            f"{one.spread:.2f}",
            f"{one.chance:.2g}",
            "CAUGHT" if one.caught else "–",
        )
        for found in evaluation.orientations
        for one in found.shifts
        if one.score in (*LEADING_MEMBERS, "combined") or one.caught
    )
    return Table(
        "rotations",
        "Do all objects move alike when they are turned?",
        ("set", "bundle", "score", "of", "objects", "largest mean shift", "by", "spread", "chance", "trap"),
        rows,
        "Shift of the log-odds against the objects as they are. A network that was trained with one class turned and the other "
        f"not is CAUGHT: chance gives its shifts in less than {CAUGHT_CHANCE:g} of cases, and one of them is more than "
        f"{CAUGHT_SHARE:g} of the spread between objects.",
    )


def source_colours(evaluation: Evaluation) -> Table:
    """Recall of the same lenses with sources of other colours, at the lowest rate that is known."""
    combined = {bundle.combined for bundle in evaluation.bundles}
    curves = evaluation.colour_curves
    fpr = lowest_known_rate(evaluation, curves[0].threshold_set, {curve.fpr for curve in curves}) if curves else 0.0
    rows = tuple(
        (
            curve.bundle,
            curve.score,
            f"{curve.fpr:g} on {curve.threshold_set}" + ("*" if curve.n_false < FEW_FALSE else ""),
            f"{curve.n:,}",
            f"{point.vis_minus_h:.1f}",
            interval(point.recall),
            signed(point.change),
            interval(point.log_odds, 2),
        )
        for curve in curves
        if curve.score in {*LEADING_MEMBERS, *combined} and curve.fpr == fpr
        for point in curve.points
    )
    return Table(
        "source-colours",
        "The same lenses with bluer and redder sources",
        ("bundle", "score", "FPR", "lenses", "VIS - H of the source", "recall", "change", "log-odds"),
        rows,
        "Visible lenses; only the NISP light of their sources changes. Change: recall minus that of the bluest, on the same "
        "lenses. OU-VIS sees no colour." + (f" {FEW_NOTE}" if any(row[2].endswith("*") for row in rows) else ""),
    )


def known_lenses(evaluation: Evaluation) -> Table:
    """The user's known lenses."""
    return _single(evaluation, known=True)


def images(evaluation: Evaluation) -> Table:
    """Single real images."""
    return _single(evaluation, known=False)


def _single(evaluation: Evaluation, *, known: bool) -> Table:
    found = evaluation.known_lenses if known else evaluation.images
    shown: tuple[MemberName, ...] = ("OU-66", "OU-VIS", "OU-200")
    numbers = [MEMBERS.index(name) for name in shown]
    rows = []
    for image in found:
        above = NOTHING
        if image.above is not None:
            above = f"{100 * sum(image.above) / len(image.above):.2g}% of {image.n_compared:,}"
        members_of = [f"{image.probabilities[number]:.3f} ± {image.scatter[number]:.3f}" for number in numbers]
        grid = NOTHING if image.grid_value is None else f"{image.grid_value:.3f}"
        bad = " ".join(f"{100 * share:.0f}" for share in image.bad_fraction)
        rows.append((image.name, image.bundle, *members_of, grid, f"{image.calibrated:.2g}", image.judge or "all", above, bad))
    reference = next((image.compared_with for image in found if image.compared_with), None)
    notes = ["Mean ± scatter over eight orientations; what an image does not cover is padded with noise of its own σ."]
    if reference is not None:
        notes.append(f"Non-lenses are those of {reference}.")
    if any(image.judge for image in found):
        notes.append(
            "Bands that are not there are duplicated, as in the paper, which gives colours that no lens has; such an image is "
            "judged by the member that sees only what is there."
        )
    return Table(
        "known-lenses" if known else "images",
        "Known lenses (Table 7 of the paper)" if known else "Single images",
        (
            "image",
            "bundle",
            *shown,
            "grid",
            "calibrated",
            "judged by",
            "non-lenses that score higher",
            "padded % (VIS Y J H)",
        ),
        tuple(rows),
        " ".join(notes),
    )
