"""The tables of an evaluation as plain text, the same on the terminal, on the page and in the model card."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from scanner.evaluation.metrics import FEW_FALSE, LOW_FPRS
from scanner.evaluation.results import CAUGHT_CHANCE, CAUGHT_SHARE, Evaluation, Figures, Pairing, Positives, Recall
from scanner.evaluation.scores import NEGATIVE_LABELS, POSITIVE_LABELS
from scanner.interval import Interval
from scanner.records import MEMBERS, MemberName
from scanner.simulation.datasets.presets import LENS_CLASSES

#: Tables that the terminal shows; the page and the JSON have all.
ON_TERMINAL = (
    "real",
    "real-lenses",
    "low-fpr",
    "inspected",
    "differences",
    "table-5",
    "table-6",
    "classes",
    "rotations",
    "source-colours",
    "known-lenses",
    "images",
)
#: Tables that are too long for a model card; the page has them.
OFF_CARD = ("members", "properties")
#: Real lenses that a table lists for each set and bundle.
LOWEST_SHOWN = 12
FEW_NOTE = f"* the threshold rests on fewer than {FEW_FALSE} non-lenses: the rate itself is hardly known."
NOTHING = "–"
#: The members whose biases are shown beside the combination's: those that see VIS. The JSON has all seven.
LEADING_MEMBERS: tuple[MemberName, ...] = ("OU-VIS", "OU-66", "OU-200")
#: Orientations of :mod:`scanner.ensemble.preprocessing` in words.
TURNS = ("none", "90°", "180°", "270°", "mirror", "mirror, 90°", "mirror, 180°", "mirror, 270°")
#: Numbers inspected, of a million, that the text quotes.
QUOTED = (100.0, 1000.0, 10_000.0)
_RATES = tuple(f"recall at FPR {fpr:.0e}".replace("e-0", "e-") for fpr in LOW_FPRS)


@dataclass(frozen=True)
class Table:
    """``name`` is an identifier, ``title`` a line; ``rows`` of as many cells as ``header``; ``note`` says how to read it."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(evaluation: Evaluation) -> tuple[Table, ...]:
    """All tables that have rows; without the column of the bundle where there is only one."""
    makers: tuple[Callable[[Evaluation], Table], ...] = (
        real,
        real_lenses,
        low_fpr,
        inspected,
        differences,
        paper_table_5,
        paper_table_6,
        classes,
        by_property,
        members,
        hard,
        grid_loss,
        calibration,
        orientations,
        rotations,
        source_colours,
        known_lenses,
        images,
    )
    found = [table for table in (maker(evaluation) for maker in makers) if table.rows]
    return tuple(found if len(evaluation.bundles) > 1 else [_without(table, "bundle") for table in found])


def _without(table: Table, heading: str) -> Table:
    kept = [number for number, name in enumerate(table.header) if name != heading]
    rows = tuple(tuple(row[number] for number in kept) for row in table.rows)
    return replace(table, header=tuple(table.header[number] for number in kept), rows=rows)


def real(evaluation: Evaluation) -> Table:
    """Real lenses and others that pass at the thresholds which simulated non-lenses set."""
    rows = []
    for found in evaluation.real:
        for share in found.shares:
            kind = ("lenses" if share.kind == "lenses" else "non-lenses") + ("" if share.group == "all" else f", {share.group}")
            cells = [interval(value) + few(n) for value, n in zip(share.passing, found.n_false, strict=True)]
            rows.append((found.set, found.bundle, kind, f"{share.n:,}", *cells))
    first = evaluation.real[0] if evaluation.real else None
    notes = []
    if first is not None:
        counts = {one.name: one.n_objects - one.n_lenses for one in evaluation.sets}
        notes.append(
            f"Shares that pass where that rate of the {counts[first.reference]:,} simulated non-lenses of {first.reference} "
            "does; exact 95% intervals; means over eight orientations."
        )
        notes += [
            f"AUROC of the lenses of {found.set} against its own non-lenses, {found.bundle}: {interval(found.auroc)}."
            for found in evaluation.real
            if found.auroc is not None
        ]
        notes += [
            f"{found.n_unjudged:,} of {found.set} have no band that a member of {found.bundle} sees alone."
            for found in evaluation.real
            if found.n_unjudged
        ]
        notes += [
            f"{name} was trained on {one.name}: its figures there say nothing of new objects."
            for one in evaluation.real_sets
            for name in one.trained_on
        ]
        if any(n < FEW_FALSE for n in first.n_false):
            notes.append(FEW_NOTE)
    rates = tuple(f"pass at FPR {fpr:.0e}".replace("e-0", "e-") for fpr in (first.fprs if first is not None else ()))
    return Table("real", "Real images", ("set", "bundle", "objects", "n", *rates), tuple(rows), " ".join(notes))


def real_lenses(evaluation: Evaluation) -> Table:
    """The real lenses that stand lowest."""
    rows = []
    for found in evaluation.real:
        n_others = sum(share.n for share in found.shares if (share.kind, share.group) == ("others", "all"))
        for lens in found.lenses[-LOWEST_SHOWN:]:
            lowest = f"{min(lens.passes):.0e}".replace("e-0", "e-") if lens.passes else "none"
            above = f"{lens.others_above:,} of {n_others:,}" if n_others else NOTHING
            rows.append((found.set, found.bundle, str(lens.target_id), lens.label, f"{lens.log_odds:.2f}", lowest, above))
    return Table(
        "real-lenses",
        f"The real lenses that stand lowest, at most {LOWEST_SHOWN} of a set",
        ("set", "bundle", "target", "label", "log-odds", "lowest FPR at which it passes", "real non-lenses above"),
        tuple(rows),
    )


def low_fpr(evaluation: Evaluation) -> Table:
    """Recall where few non-lenses pass: what a finder of rare objects is worth."""
    combined = combinations(evaluation)
    found = _figures(
        evaluation,
        leading_pairings(evaluation),
        (("visible", "all"), ("all", "all")),
        lambda figures: (figures.bundle, figures.score) in combined,
    )
    pool = "" if evaluation.sky is None else f" Non-lenses are those of {evaluation.sky} for every set."
    return _ranked("low-fpr", "Lenses found where few non-lenses pass", found, "95% intervals." + pool)


def inspected(evaluation: Evaluation) -> Table:
    """Completeness and purity of lists of a length that people can look at."""
    rows = []
    for found in evaluation.yields:
        if found.positives != "visible":
            continue
        points = {point.inspected: point for point in found.points}
        cells = []
        for number in QUOTED:
            point = points[number]
            star = "*" if point.rests_on_few else ""
            # No non-lens of the set stands that high: it does not resolve the purity.
            measured = point.n_false > 0
            cells += (
                [interval(point.completeness) + star, small(point.purity) + star] if measured else ["too few non-lenses"] * 2
            )
        rows.append((str(found.pairing), found.bundle, *cells))
    header = [f"{word}, best {number:,.0f}" for number in QUOTED for word in ("completeness", "purity")]
    return Table(
        "inspected",
        f"Inspecting the best of a million objects, of which {evaluation.sky_prevalence * 1e6:,.0f} are visible lenses",
        ("set", "bundle", *header),
        tuple(rows),
        FEW_NOTE if any(cell.endswith("*") for row in rows for cell in row) else "",
    )


def differences(evaluation: Evaluation) -> Table:
    """The first bundle against the others, on the same objects."""
    combined = combinations(evaluation)
    positives = {found.name: "visible" if found.n_visible else "all" for found in evaluation.sets}
    pairings = set(leading_pairings(evaluation))
    rows = tuple(
        (
            str(found.pairing),
            POSITIVE_LABELS[found.positives],
            f"{found.new} − {found.old}",
            found.score_new if found.score_new == found.score_old else f"{found.score_new} − {found.score_old}",
            "AUROC" if found.fpr is None else f"recall at FPR {found.fpr:g}",
            f"{found.value_new:.3f}",
            f"{found.value_old:.3f}",
            signed(found.difference) + ("*" if found.rests_on_few else ""),
        )
        for found in evaluation.differences
        if (found.positives, found.negatives) == (positives[found.pairing.lenses], "all")
        and found.pairing in pairings
        and {(found.new, found.score_new), (found.old, found.score_old)} <= combined
    )
    note = "Paired intervals; ▲ better, ▼ worse beyond them."
    return Table(
        "differences",
        "Side by side: the first bundle minus the other, on the same objects",
        ("set", "lenses", "bundles", "score", "figure", "new", "old", "difference"),
        rows,
        " ".join((note, FEW_NOTE)) if any(row[-1].endswith("*") for row in rows) else note,
    )


def paper_table_5(evaluation: Evaluation) -> Table:
    """Decisions at fixed thresholds on sets with both classes."""
    rows = tuple(
        (
            found.set,
            found.bundle,
            found.score,
            f"{found.threshold:.3g}",
            interval(found.f_beta),
            interval(found.precision),
            interval(found.recall),
            interval(found.auroc),
            interval(found.accuracy),
            interval(found.fpr, 4),
            small(found.purity),
        )
        for found in evaluation.decisions
        if found.auroc is not None
    )
    betas = ", ".join(dict.fromkeys(f"{found.beta:g}" for found in evaluation.decisions))
    return Table(
        "table-5",
        "Decisions at fixed thresholds (Table 5 of the paper)",
        (
            "set",
            "bundle",
            "score",
            "threshold",
            "F-beta",
            "precision",
            "recall",
            "AUROC",
            "accuracy",
            "FPR",
            "purity on the sky",
        ),
        rows,
        f"Networks at 0.5, the bundle at its own threshold; β = {betas}. Precision, F-beta and accuracy hold for the share of "
        f"lenses in the set; purity for one lens in {1 / evaluation.sky_prevalence:,.0f} objects.",
    )


def paper_table_6(evaluation: Evaluation) -> Table:
    """Recall of every network on every set with lenses."""
    rows = []
    columns: tuple[str, ...] = ()
    for bundle in evaluation.bundles:
        for summary in evaluation.sets:
            found = [
                d for d in evaluation.decisions if (d.bundle, d.set) == (bundle.name, summary.name) and d.recall is not None
            ]
            if found:
                columns = tuple(decision.score for decision in found[:-1])
                trained = " (trained on)" if bundle.name in summary.trained_on else ""
                rows.append(
                    (bundle.name, summary.name + trained, f"{summary.n_lenses:,}", *(interval(d.recall) for d in found))
                )
    return Table(
        "table-6",
        "Recall of every network (Table 6 of the paper)",
        ("bundle", "set", "lenses", *columns, "bundle's decision"),
        tuple(rows),
        "All lenses; networks at 0.5, the bundle at its own threshold.",
    )


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


def members(evaluation: Evaluation) -> Table:
    """Every score of every bundle, visible lenses against all non-lenses of all pairings."""
    found = _figures(evaluation, evaluation.pairings, (("visible", "all"),), lambda figures: True)
    return _ranked("members", "Every score", found)


def hard(evaluation: Evaluation) -> Table:
    """The combinations against look-alikes only."""
    combined = combinations(evaluation)
    found = _figures(
        evaluation,
        evaluation.pairings,
        (("visible", "hard"),),
        lambda figures: (figures.bundle, figures.score) in combined,
    )
    return _ranked("hard", f"Against {NEGATIVE_LABELS['hard']} only", found)


def _ranked(name: str, title: str, found: Iterable[Figures], note: str = "") -> Table:
    rows = tuple(
        (
            str(figures.pairing),
            f"{figures.n_positives:,} {POSITIVE_LABELS[figures.positives]}, {figures.n_negatives:,} others",
            figures.bundle,
            figures.score,
            *(recall(rate, figures.n_negatives) for rate in figures.recalls),
            interval(figures.auroc),
        )
        for figures in found
    )
    starred = any(cell.endswith("*") for row in rows for cell in row)
    return Table(
        name,
        title,
        ("set", "objects", "bundle", "score", *_RATES, "AUROC"),
        rows,
        " ".join(part for part in (note, FEW_NOTE if starred else "") if part),
    )


def _figures(
    evaluation: Evaluation,
    pairings: Iterable[Pairing],
    choices: Iterable[tuple[Positives, str]],
    keep: Callable[[Figures], bool],
) -> Iterator[Figures]:
    for pairing in pairings:
        for choice in choices:
            for found in evaluation.figures:
                if found.pairing == pairing and (found.positives, found.negatives) == choice and keep(found):
                    yield found


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


def interval(value: Interval | None, digits: int = 3) -> str:
    """``0.343 [0.311, 0.373]``; a dash where there is none."""
    if value is None:
        return NOTHING
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def few(n_false: int) -> str:
    """The mark of a rate that rests on few non-lenses."""
    return "*" if n_false < FEW_FALSE else ""


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
