"""The tables of an evaluation, as plain text: on the terminal, on the page and in the model card they are the same.

In: an :class:`~scanner.evaluation.results.Evaluation`. Out: :class:`~scanner.evaluation.cells.Table`, the most important first.
Refused: nothing; what was not measured makes no table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from scanner.evaluation import detail_tables
from scanner.evaluation.cells import FEW_NOTE, Table, combinations, interval, leading_pairings, recall, signed, small
from scanner.evaluation.ranking_results import Figures, Pairing, Positives
from scanner.evaluation.resampling import LOW_FPRS
from scanner.evaluation.results import Evaluation
from scanner.evaluation.scores import NEGATIVE_LABELS, POSITIVE_LABELS

#: Objects looked at, of a million, that the text quotes.
QUOTED = (100.0, 1000.0, 10_000.0)


def tables(evaluation: Evaluation) -> tuple[Table, ...]:
    """All tables that have rows; without the column of the bundle where there is only one."""
    makers: tuple[Callable[[Evaluation], Table], ...] = (
        low_fpr,
        inspected,
        differences,
        paper_table_5,
        paper_table_6,
        detail_tables.classes,
        detail_tables.by_property,
        members,
        hard,
        detail_tables.grid_loss,
        detail_tables.calibration,
        detail_tables.orientations,
        detail_tables.rotations,
        detail_tables.source_colours,
        detail_tables.known_lenses,
        detail_tables.images,
    )
    found = [table for table in (maker(evaluation) for maker in makers) if table.rows]
    return tuple(found if len(evaluation.bundles) > 1 else [_without(table, "bundle") for table in found])


def _without(table: Table, heading: str) -> Table:
    kept = [number for number, name in enumerate(table.header) if name != heading]
    rows = tuple(tuple(row[number] for number in kept) for row in table.rows)
    return replace(table, header=tuple(table.header[number] for number in kept), rows=rows)


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


_RATES = tuple(f"recall at FPR {fpr:.0e}".replace("e-0", "e-") for fpr in LOW_FPRS)


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
            # No non-lens of the set stands that high: what the purity is, it cannot tell.
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
