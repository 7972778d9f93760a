"""An evaluation on disk: JSON, plots, one web page that needs no network, the tables of Wilde et al. beside a bundle's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanner.atomic_file import write_atomically
from scanner.config import PAPER_BETA
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import MEMBER_THRESHOLD, sigmoid
from scanner.ensemble.session import EnsembleSession
from scanner.errors import UsageError
from scanner.evaluation.compare import Comparison
from scanner.evaluation.decisions import decide
from scanner.evaluation.metrics import LOW_FPRS, roc_curve
from scanner.evaluation.results import Decision, Evaluation, RecallCurve
from scanner.evaluation.scores import GRID, ScoredBundle
from scanner.evaluation.tables import NOTHING, TURNS, Table, class_label, leading_pairings, lowest_known_rate, tables
from scanner.interval import Interval, wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, CutoutBatch, Float64, MemberName
from scanner.report import colour, self_contained
from scanner.report.plots import QUIET, figure_png, plot_settings
from scanner.report.self_contained import asset, png_uri, template

#: The columns of Table 5, and its rows, "when the threshold is set to 0.5", on 100,000 images of EVAL.
MEASURES = ("F-beta", "precision", "recall", "AUROC", "accuracy")
TABLE_5: Mapping[str, tuple[float, ...]] = {
    "OU-66": (0.9727, 0.9758, 0.2180, 0.617, 0.3308),
    "OU-200": (0.9687, 0.9697, 0.4423, 0.695, 0.5143),
    "OU-T-SNE": (0.9423, 0.9431, 0.4846, 0.666, 0.5371),
}
#: The columns of Table 6, and its rows: recall at 0.5. Printed for OU-200 on test data: "0.44.23"; Table 5 has 0.4423.
ORDER: tuple[MemberName, ...] = ("OU-H", "OU-J", "OU-Y", "OU-JYH", "OU-VIS", "OU-66", "OU-200")
TABLE_6: Mapping[str, tuple[float, ...]] = {
    "Train data": (0.4476, 0.3636, 0.2585, 0.3170, 0.2597, 0.3807, 0.4004),
    "Test data": (0.4772, 0.3989, 0.2752, 0.3555, 0.2495, 0.2180, 0.4423),
    "Arcs": (0.0706, 0.5111, 0.4083, 0.7771, 0.1684, 0.6291, 0.7505),
    "Double rings": (0.0908, 0.5393, 0.4667, 0.7461, 0.1618, 0.4742, 0.5567),
}
#: Rows of Table 7: OU-66 and OU-200.
TABLE_7: Mapping[str, tuple[float, float]] = {
    "SL2SJ02176-0513": (0.9993, 0.9852),
    "HSCJ142449-005322": (0.9302, 0.7104),
    "J1148+1930": (1.0000, 0.9953),
    "SDSSJ0946+1006": (0.6873, 0.8228),
}
#: Other names of these lenses; capitals, without blanks and underscores.
ALIASES: Mapping[str, str] = {
    "SL2SJ021737-051329": "SL2SJ02176-0513",
    "SL20SJ02176-0513": "SL2SJ02176-0513",
    "HSCJ142449-5322": "HSCJ142449-005322",
    "EYEOFHORUS": "HSCJ142449-005322",
    "SDSSJ1148+1930": "J1148+1930",
    "COSMICHORSESHOE": "J1148+1930",
    "J0946+1006": "SDSSJ0946+1006",
    "SLACSJ0946+1006": "SDSSJ0946+1006",
    "JACKPOT": "SDSSJ0946+1006",
}
#: Which row of Table 6 a simulated set of compound lenses stands for; all of its systems count, lensed or not.
COMPOUND_ROWS: Mapping[str, str] = {"compound-arc": "Arcs", "double-ring": "Double rings"}
OURS, PAPER, DIFFERENCE = "ours", "paper", "difference"


def paper_tables(comparison: Comparison, open_session: Callable[[Bundle], EnsembleSession]) -> tuple[Table, ...]:
    """Print Tables 5 to 7 for what was compared: those for which sets or images were given.

    Parameters
    ----------
    comparison
        Bundles on labelled sets and known lenses.
    open_session
        Scores the known lenses as their images lie; called once for each bundle, if there are any.

    Raises
    ------
    UsageError
        There is neither a set with both classes, nor one of lenses, nor a lens of Table 7.
    """
    made = (table_5(comparison), table_6(comparison), table_7(comparison, open_session))
    found = tuple(table for table in made if table.rows)
    if not found:
        raise UsageError(
            "--paper: none of the paper's tables can be made; give sets with lenses as --data, or lenses of Table 7 as --known."
        )
    return found


def table_5(comparison: Comparison) -> Table:
    """F-beta, precision, recall, AUROC and accuracy of OU-66, OU-200 and OU-T-SNE at 0.5, and of the latter at F-beta."""
    rows: list[tuple[str, ...]] = []
    for scored in comparison.bundles:
        for name, dataset in comparison.datasets.items():
            if not dataset.truth.is_lens.all() and dataset.truth.is_lens.any() and name in scored.scores:
                for model, threshold, decision in _decisions(scored, name, dataset):
                    own = (decision.f_beta, decision.precision, decision.recall, decision.auroc, decision.accuracy)
                    printed = TABLE_5[model] if threshold == MEMBER_THRESHOLD else None
                    label = model if threshold == MEMBER_THRESHOLD else f"{model} at F-beta, {threshold:.3g}"
                    rows += beside((scored.name, name, label), own, printed)
    missing = [scored.name for scored in comparison.bundles if scored.bundle.grid is None]
    return Table(
        "paper-table-5",
        "Table 5: metrics when the threshold is set to 0.5",
        ("bundle", "set", "model", "", *MEASURES),
        tuple(rows),
        f"β = {PAPER_BETA:g}. The paper: 100,000 images of the Bologna Lens Factory (EVAL), not public. Precision, F-beta "
        "and accuracy hold for the share of lenses in a set; the paper's accuracies are those of 85%, not of its 71%."
        + (f" Without a grid there is no OU-T-SNE: {', '.join(missing)}." if missing else ""),
    )


def _decisions(scored: ScoredBundle, name: str, dataset: LabelledSet) -> Iterator[tuple[str, float, Decision]]:
    def decided(score: str, threshold: float, selected: NDArray[np.bool_]) -> Decision:
        values = scored.scores[name][score]
        return decide(scored.name, name, score, selected, dataset.truth, values=values, threshold=threshold, beta=PAPER_BETA)

    for member in ("OU-66", "OU-200"):
        yield member, MEMBER_THRESHOLD, decided(member, MEMBER_THRESHOLD, scored.scores[name][member] >= 0.0)
    if scored.bundle.grid is not None:
        value = scored.scores[name][GRID].astype(np.float32)
        yield "OU-T-SNE", MEMBER_THRESHOLD, decided(GRID, MEMBER_THRESHOLD, value >= np.float32(MEMBER_THRESHOLD))
        best = scored.bundle.threshold(PAPER_BETA)
        if scored.bundle.manifest.decides_on == "grid" and best != MEMBER_THRESHOLD:
            yield "OU-T-SNE", best, decided(GRID, best, value >= np.float32(best))


def table_6(comparison: Comparison) -> Table:
    """Recall of the seven networks at 0.5. Of compound lenses all systems count, as in the paper, lensed visibly or not."""
    rows: list[tuple[str, ...]] = []
    for scored in comparison.bundles:
        for name, dataset in comparison.datasets.items():
            counted = counted_lenses(dataset)
            if name in scored.scores and counted.any():
                row = _row_of(dataset, scored.bundle)
                own = [
                    wilson_interval(int((scored.scores[name][member][counted] >= 0.0).sum()), int(counted.sum()))
                    for member in ORDER
                ]
                rows += beside((scored.name, row, f"{name}, {counted.sum():,}"), own, TABLE_6[row])
    return Table(
        "paper-table-6",
        "Table 6: recall of the models when the threshold is set to 0.5",
        ("bundle", "", "set, lenses", "", *ORDER),
        tuple(rows),
        "Of arcs and double rings all simulated systems count, lensed visibly or not.",
    )


def counted_lenses(dataset: LabelledSet) -> NDArray[np.bool_]:
    """The rows that Table 6 counts as lenses, (N,) bool."""
    if dataset.preset in COMPOUND_ROWS:
        return np.ones(len(dataset), dtype=np.bool_)
    return np.asarray(dataset.truth.is_lens, dtype=np.bool_)


def _row_of(dataset: LabelledSet, bundle: Bundle) -> str:
    seen = "Train data" if dataset.was_seen_by(bundle.manifest.trained_on) else "Test data"
    return COMPOUND_ROWS.get(dataset.preset, seen)


def table_7(comparison: Comparison, open_session: Callable[[Bundle], EnsembleSession]) -> Table:
    """Outputs of OU-66 and OU-200 for the four known compound lenses, as their images lie."""
    rows: list[tuple[str, ...]] = []
    known = {lens: batch for name, batch in comparison.known_lenses.items() if (lens := lens_of_table_7(name)) is not None}
    for scored in comparison.bundles if known else ():
        session = open_session(scored.bundle)
        for lens, printed in TABLE_7.items():
            if lens in known:
                outputs = outputs_of(session, known[lens])
                own = [Interval(value=outputs[m], low=outputs[m], high=outputs[m]) for m in ("OU-66", "OU-200")]
                rows += beside((scored.name, lens), own, printed, digits=4, exact=True)
    return Table(
        "paper-table-7",
        "Table 7: model predictions on known HST and HSC data",
        ("bundle", "lens", "", "OU-66", "OU-200"),
        tuple(rows),
        "One image each, as it lies. Which band stands for which is the list's choice; Table 2 has the authors'.",
    )


def lens_of_table_7(name: str) -> str | None:
    """Which lens of Table 7 a user's name means, if any."""
    plain = name.upper().replace(" ", "").replace("_", "").replace("–", "-").replace("\N{MINUS SIGN}", "-")
    found = ALIASES.get(plain, plain)
    return found if found in TABLE_7 else None


def outputs_of(session: EnsembleSession, batch: CutoutBatch) -> dict[MemberName, float]:
    """The softmax lens output of each network for a batch of one."""
    log_odds = session.plain_logits(*fill_bad_pixels(batch), batch.sky, batch.sigma)[0]
    return dict(zip(MEMBERS, sigmoid(log_odds.astype(np.float64)).tolist(), strict=False))


def beside(
    label: tuple[str, ...],
    own: list[Interval] | tuple[Interval | None, ...],
    printed: tuple[float, ...] | None,
    *,
    digits: int = 3,
    exact: bool = False,
) -> list[tuple[str, ...]]:
    """Rows of ours, the paper's and the difference; without a printed row, of ours alone.

    Parameters
    ----------
    label
        First cells of the first row.
    own, printed
        Figures in the same order; None: there is none.
    digits
        Of ours.
    exact
        Ours have no interval.
    """
    blank = ("",) * len(label)

    def shown(value: Interval | None) -> str:
        if value is None:
            return NOTHING
        return f"{value.value:.{digits}f}" + ("" if exact else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]")

    rows = [(*label, OURS, *map(shown, own))]
    if printed is not None:
        rows.append((*blank, PAPER, *(f"{value:.4f}" for value in printed)))
        differences = [
            NOTHING if value is None else f"{value.value - theirs:+.{digits}f}"
            for value, theirs in zip(own, printed, strict=True)
        ]
        rows.append((*blank, DIFFERENCE, *differences))
    return rows


#: One for each bundle.
BUNDLE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^Dv"
#: Of the members, in their order.
MEMBER_COLOURS = ("#b8860b", "#e69f00", "#d55e00", "#8b1a1a", "#56b4e9", "#009e73", "#0072b2", "#cc79a7")
#: Misses, and false alarms, of each real set that are shown.
WRONG_SHOWN = 24
JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"


@dataclass(frozen=True)
class Plot:
    """``name`` is that of the file, ``caption`` says what is to be seen, ``alt`` the same in a few words."""

    name: str
    caption: str
    alt: str
    png: bytes


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
    files = {JSON_FILE: comparison.evaluation.to_bytes()}
    files |= {plot.name: plot.png for plot in drawn.values()}
    files[PAGE_FILE] = render(comparison, drawn).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return tuple(out / name for name in files)


def render(comparison: Comparison, drawn: Mapping[str, Plot]) -> str:
    """The page as text, with the plots inside."""
    return template("evaluation").render(
        evaluation=comparison.evaluation,
        sections=tuple(_sections(comparison, drawn)),
        style=asset("evaluation.css"),
    )


def _sections(comparison: Comparison, drawn: Mapping[str, Plot]) -> Iterator[Section]:
    pictures = {
        "known-lenses": _pictures(comparison.known_lenses),
        "images": _pictures(comparison.images),
        "real": tuple(_real_pictures(comparison)),
    }
    for table in tables(comparison.evaluation):
        plot = drawn.get(table.name)
        uri = "" if plot is None else png_uri(plot.png)
        yield Section(table, plot, uri, pictures.get(table.name, ()), folded=len(table.rows) > 24)


def _pictures(cutouts: Mapping[str, CutoutBatch]) -> tuple[tuple[str, str], ...]:
    """(name, data URI) of the VIS cutout of every image, as a network sees it before padding."""
    return tuple(
        (name, self_contained.data_uri(colour.vis_image(batch.vis[0], batch.sky[0], batch.sigma[0])))
        for name, batch in cutouts.items()
    )


def _real_pictures(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """(name, data URI) of what the first bundle gets wrong among real images, most wrong first: misses, then false alarms."""
    for found in comparison.evaluation.real:
        if found.bundle != comparison.evaluation.bundles[0].name:
            continue
        missed = [lens for lens in reversed(found.lenses) if not lens.passes]
        store = comparison.datasets[found.set].store
        for words, objects in (("missed", missed), ("false alarm", found.alarms)):
            for one in objects[:WRONG_SHOWN]:
                batch = store.read(np.flatnonzero(store.target_id == one.target_id))
                name = f"{words}: {one.label}, target {one.target_id} of {found.set}, log-odds {one.log_odds:.1f}"
                yield name, self_contained.data_uri(colour.vis_image(batch.vis[0], batch.sky[0], batch.sigma[0]))


def plots(comparison: Comparison) -> dict[str, Plot]:
    """Draw everything that was measured, by the name of the table that it belongs to.

    Colours tell bundles apart, from Okabe & Ito's set; networks within a bundle differ in colour and line. What rests on fewer
    than ten non-lenses is drawn hollow or dotted.
    """
    makers: Mapping[str, Callable[[Comparison], Plot | None]] = {
        "low-fpr": low_fpr,
        "inspected": inspection,
        "table-5": roc,
        "properties": properties,
        "classes": classes,
        "calibration": calibration,
        "source-colours": source_colours,
        "rotations": rotations,
    }
    with mpl.rc_context(plot_settings()):
        drawn = {table: maker(comparison) for table, maker in makers.items()}
    return {table: plot for table, plot in drawn.items() if plot is not None}


def low_fpr(comparison: Comparison) -> Plot | None:
    """Recall of visible lenses at the low false-positive rates, by set."""
    evaluation = comparison.evaluation
    pairings = leading_pairings(evaluation)
    found = [
        figures
        for bundle in evaluation.bundles
        for pairing in pairings
        for figures in evaluation.figures
        if (figures.bundle, figures.pairing, figures.score) == (bundle.name, pairing, bundle.combined)
        and (figures.positives, figures.negatives) == ("visible", "all")
    ]
    if not found:
        return None
    sets = [pairing for pairing in pairings if any(figures.pairing == pairing for figures in found)]
    figure = Figure(figsize=(9.0, 1.3 + 0.42 * len(sets)), layout="constrained")
    panels = figure.subplots(1, len(LOW_FPRS), sharey=True, squeeze=False)[0]
    step = 0.7 / len(evaluation.bundles)
    for column, (panel, fpr) in enumerate(zip(panels, LOW_FPRS, strict=True)):
        for figures in found:
            recall = figures.recalls[column]
            number = [summary.name for summary in evaluation.bundles].index(figures.bundle)
            height = sets.index(figures.pairing) + step * (number - (len(evaluation.bundles) - 1) / 2)
            if recall.recall is None:
                panel.text(0.02, height, "too few non-lenses", va="center", color=QUIET, fontsize=7)
                continue
            value, errors = error_bars([recall.recall])
            colour = bundle_colour(evaluation, figures.bundle)
            fill = "white" if recall.rests_on_few else colour
            label = figures.bundle if sets.index(figures.pairing) == 0 else None
            panel.errorbar(value, [height], xerr=errors, fmt=MARKERS[number % 5], color=colour, mfc=fill, ms=5, label=label)
        panel.set(xlim=(0, 1), title=f"FPR {fpr:g}", xlabel="recall of visible lenses")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(sets)), [pairing.lenses for pairing in sets])
    panels[0].set_ylim(len(sets) - 0.4, -0.6)
    if len(evaluation.bundles) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    pool = "their own sets" if evaluation.sky is None else evaluation.sky
    return Plot(
        "low-fpr.png",
        f"Recall of visible lenses by the combined score, where a given share of the non-lenses of {pool} passes; 95% "
        "intervals. Hollow: fewer than ten non-lenses set the threshold.",
        "recall at low false-positive rates by set",
        figure_png(figure),
    )


def inspection(comparison: Comparison) -> Plot | None:
    """Completeness and purity against the number inspected."""
    evaluation = comparison.evaluation
    pairings = leading_pairings(evaluation)
    found = [one for one in evaluation.yields if one.pairing == pairings[0] and one.positives == "visible"]
    if not found:
        return None
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for one in found:
        colour = bundle_colour(evaluation, one.bundle)
        measured = [point for point in one.points if point.n_false > 0]
        number = np.array([point.inspected for point in measured])
        few = np.array([point.rests_on_few for point in measured], dtype=bool)
        for panel, values in zip(
            panels, ([point.completeness for point in measured], [point.purity for point in measured]), strict=True
        ):
            middle, errors = error_bars(values)
            panel.fill_between(number, middle - errors[0], middle + errors[1], color=colour, alpha=0.18, linewidth=0)
            panel.plot(number, np.where(few, middle, np.nan), color=colour, linestyle=":")
            # The line begins at the last point that rests on few, so that there is no gap.
            panel.plot(number, np.where(few & np.append(few[1:], False), np.nan, middle), color=colour, label=one.bundle)
    n_lenses = evaluation.sky_prevalence * 1e6
    panels[1].plot([n_lenses, 1e6], [1, n_lenses / 1e6], color=QUIET, linewidth=0.8, linestyle="--", label="every lens found")
    panels[0].set(ylabel="completeness: share of lenses found", ylim=(0, 1))
    panels[1].set(ylabel="purity: share of lenses inspected", yscale="log", ylim=(n_lenses / 2e6, 1.2))
    for panel in panels:
        panel.set(xscale="log", xlim=(10, 1e6), xlabel="inspected, of a million objects")
        panel.grid(alpha=0.3)
    panels[1].legend(loc="upper right")
    return Plot(
        "inspection.png",
        f"What looking at the best of a million objects yields, if one in {1 / evaluation.sky_prevalence:,.0f} is a visible "
        f"lens: {pairings[0]}. Dotted: fewer than ten non-lenses of the set stand that high; not drawn: none does.",
        "completeness and purity against the number inspected",
        figure_png(figure),
    )


def roc(comparison: Comparison) -> Plot | None:
    """The ROC curve of every network (Fig. 6 of the paper), on a logarithmic axis."""
    evaluation = comparison.evaluation
    pairings = [p for p in evaluation.pairings if p.lenses == p.others] or list(leading_pairings(evaluation))[:1]
    pairings += [p for p in leading_pairings(evaluation)[:1] if p not in pairings]
    shape = (len(pairings), len(comparison.bundles))
    # One bundle: its panels side by side.
    n_rows, n_columns = shape if shape[1] > 1 else shape[::-1]
    figure = Figure(figsize=(4.2 * n_columns, 3.9 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).reshape(shape)
    for row, pairing in zip(panels, pairings, strict=True):
        truth, other = comparison.datasets[pairing.lenses].truth, comparison.datasets[pairing.others].truth
        for panel, scored in zip(row, comparison.bundles, strict=True):
            members = scored.bundle.manifest.member_names
            for name in scored.score_names:
                positive = scored.scores[pairing.lenses][name][truth.is_lens]
                negative = scored.scores[pairing.others][name][~other.is_lens]
                labels = np.arange(len(positive) + len(negative)) < len(positive)
                fpr, recall = roc_curve(np.concatenate([positive, negative]), labels)
                area = evaluation.find(scored.name, pairing, name, "all", "all").auroc.value
                colour = MEMBER_COLOURS[members.index(name) % len(MEMBER_COLOURS)] if name in members else "#16191d"
                style = ":" if name == GRID else "-"
                width = 1.8 if name == scored.summary.combined else 1.0
                panel.step(
                    np.maximum(fpr, 0.5 / len(negative)),
                    recall,
                    where="post",
                    color=colour,
                    linestyle=style,
                    linewidth=width,
                    label=f"{name} {area:.3f}",
                )
            panel.set(
                xscale="log", xlim=(1 / max(len(negative), 10), 1), ylim=(0, 1), xlabel="false-positive rate", ylabel="recall"
            )
            panel.set_title(f"{scored.name}\n{pairing}", fontsize=9)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7, loc="upper left", title="AUROC", title_fontsize=7)
    return Plot(
        "roc.png",
        "ROC curve of every network, all lenses (Fig. 6 of the paper, on a logarithmic axis: a finder of rare objects works at "
        f"the left). Thick: the combination; dotted: the {GRID}.",
        "ROC curves of every network",
        figure_png(figure),
    )


def properties(comparison: Comparison) -> Plot | None:
    """Recall against the properties of lenses."""
    evaluation = comparison.evaluation
    if not evaluation.recall_curves:
        return None
    pairing = evaluation.recall_curves[0].pairing
    curves = [curve for curve in evaluation.recall_curves if curve.pairing == pairing]
    fpr = lowest_known_rate(evaluation, pairing.others, {curve.fpr for curve in curves})
    # What has two values needs no axis.
    variables = list(dict.fromkeys(curve.variable for curve in curves if curve.variable != "red_source"))
    if not variables:
        return None
    columns = min(3, len(variables))
    rows = -(-len(variables) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, variable in zip(panels.flat, variables, strict=False):
        for curve in curves:
            if (curve.variable, curve.fpr) == (variable, fpr):
                _steps(panel, curve, bundle_colour(evaluation, curve.bundle))
        panel.set(ylim=(0, 1), xlabel=next(curve.label for curve in curves if curve.variable == variable))
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(variables) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel(f"recall at FPR {fpr:g}")
    if len(evaluation.bundles) > 1:
        panels.flat[0].legend(fontsize=7)
    return Plot(
        "properties.png",
        f"Which lenses are found: {pairing}, all lenses, combined score at a false-positive rate of {fpr:g}; 95% intervals. "
        "Outermost bins reach further than drawn.",
        "recall against properties of the lenses",
        figure_png(figure),
    )


def _steps(panel: Axes, curve: RecallCurve, colour: str) -> None:
    """One recall for every bin, at its middle; the outermost, which reach far, no further off than bins inside are wide."""
    lows, highs = np.array([[part.low, part.high] for part in curve.bins]).T
    width = float(np.median(highs - lows))
    centres = (np.maximum(lows, highs - width) + np.minimum(highs, lows + width)) / 2
    centres[0] = max(centres[0], highs[0] - width / 2)
    centres[-1] = min(centres[-1], lows[-1] + width / 2)
    values, errors = error_bars([part.recall for part in curve.bins])
    panel.errorbar(centres, values, yerr=errors, fmt="o-", color=colour, ms=4, linewidth=1, label=curve.bundle)


def classes(comparison: Comparison) -> Plot | None:
    """How often each class of non-lenses passes."""
    evaluation = comparison.evaluation
    # Sets of non-lenses only hold more of each class than the others do.
    pure = {found.name for found in evaluation.sets if not found.n_lenses}
    rates = [rate for rate in evaluation.class_rates if not pure or rate.pairing.others in pure]
    if not rates:
        return None
    fpr = lowest_known_rate(evaluation, rates[0].threshold_set, {rate.fpr for rate in rates})
    rates = [rate for rate in rates if rate.fpr == fpr]
    sets = list(dict.fromkeys(rate.pairing.others for rate in rates))
    figure = Figure(figsize=(min(4.4 * len(sets) + 0.6, 12), 4.2), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        here = [rate for rate in rates if rate.pairing.others == name]
        order = [found.class_name for found in here[0].classes]
        for number, rate in enumerate(here):
            by_class = {found.class_name: found for found in rate.classes}
            values, errors = error_bars([by_class[class_name].passing for class_name in order])
            heights = np.arange(len(order)) + 0.6 / len(here) * (number - (len(here) - 1) / 2)
            colour = bundle_colour(evaluation, rate.bundle)
            panel.errorbar(values, heights, xerr=errors, fmt=MARKERS[number % 5], color=colour, ms=4, label=rate.bundle)
        panel.axvline(fpr, color=QUIET, linewidth=0.8, linestyle="--")
        panel.set_yticks(range(len(order)), [class_label(class_name) for class_name in order], fontsize=7)
        panel.set_ylim(len(order) - 0.4, -0.6)
        panel.set_xscale("symlog", linthresh=fpr / 10)
        panel.set(xlim=(0, 1), xlabel="share that passes", title=name)
        panel.grid(axis="x", alpha=0.3)
    if len(evaluation.bundles) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Plot(
        "classes.png",
        f"Non-lenses that pass for lenses, by class, at the threshold of a false-positive rate of {fpr:g} (dashed) on "
        f"{rates[0].threshold_set if evaluation.sky else 'each set'}; 95% intervals.",
        "share of each class of non-lenses that passes",
        figure_png(figure),
    )


def calibration(comparison: Comparison) -> Plot | None:
    """Reliability at the prevalence of a set and at the sky's."""
    evaluation = comparison.evaluation
    if not evaluation.reliabilities:
        return None
    name = evaluation.reliabilities[0].pairing.lenses
    found = [one for one in evaluation.reliabilities if one.pairing.lenses == name]
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, at_sky in zip(panels, (False, True), strict=True):
        for one in found:
            if one.at_sky != at_sky:
                continue
            # Logarithms need both; where no non-lens is as probable, the set says nothing of the sky.
            bins = [part for part in one.bins if not at_sky or (part.n_lenses > 0 and part.n_others > 0)]
            values, errors = error_bars([part.observed for part in bins])
            predicted = [part.predicted for part in bins]
            colour = bundle_colour(evaluation, one.bundle)
            figure_of = one.ece_lenses if at_sky else one.ece
            label = f"{one.bundle}: {'decades off ' if at_sky else 'ECE '}{figure_of.value:.2g}"
            panel.errorbar(predicted, values, yerr=errors, fmt="o-", color=colour, ms=4, linewidth=1, label=label)
        low = 1e-7 if at_sky else 0.0
        panel.plot([low, 1], [low, 1], color=QUIET, linewidth=0.8, linestyle="--")
        panel.set(xlabel="predicted probability", ylabel="share of lenses", xlim=(low, 1), ylim=(low, 1))
        panel.set_title(
            "at one lens in " + f"{1 / evaluation.sky_prevalence:,.0f}" if at_sky else "at the set's share of lenses"
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="upper left")
    panels[1].set(xscale="log", yscale="log")
    return Plot(
        "calibration.png",
        f"Calibration on {name}: predicted probability against the share of lenses among objects of like probability; 95% "
        "intervals. Right: both classes weighted to the sky's share of lenses, as far up as there are non-lenses.",
        "reliability of the calibrated probability",
        figure_png(figure),
    )


def source_colours(comparison: Comparison) -> Plot | None:
    """Recall of the same lenses against the colour of their sources."""
    evaluation = comparison.evaluation
    if not evaluation.colour_curves:
        return None
    first = evaluation.colour_curves[0]
    fpr = lowest_known_rate(evaluation, first.threshold_set, {curve.fpr for curve in evaluation.colour_curves})
    shown = {bundle.name: (bundle.combined, "OU-200", "OU-VIS") for bundle in evaluation.bundles}
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    panel = figure.subplots()
    for curve in evaluation.colour_curves:
        if curve.fpr != fpr or curve.score not in shown[curve.bundle]:
            continue
        style = ("-", "--", ":")[shown[curve.bundle].index(curve.score)]
        values, errors = error_bars([point.recall for point in curve.points])
        panel.errorbar(
            [point.vis_minus_h for point in curve.points],
            values,
            yerr=errors,
            fmt=f"o{style}",
            color=bundle_colour(evaluation, curve.bundle),
            ms=4,
            linewidth=1,
            label=f"{curve.bundle}, {curve.score}",
        )
    panel.set(ylim=(0, 1), xlabel="VIS - H of the source (AB mag)", ylabel=f"recall at FPR {fpr:g}")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    return Plot(
        "source-colours.png",
        f"The same {first.n:,} visible lenses, only the NISP light of their sources changed; thresholds of a "
        f"false-positive rate of {fpr:g} on {first.threshold_set}; 95% intervals. OU-VIS sees no colour.",
        "recall against the colour of the source",
        figure_png(figure),
    )


def rotations(comparison: Comparison) -> Plot | None:
    """How far the combination moves when all objects are turned."""
    evaluation = comparison.evaluation
    found = [(scatter, shift) for scatter in evaluation.orientations for shift in scatter.shifts if shift.score == "combined"]
    if not found:
        return None
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    panel = figure.subplots()
    places = np.arange(1, len(TURNS))
    for number, (scatter, shift) in enumerate(found):
        values, errors = error_bars(shift.shifts)
        panel.errorbar(
            places + 0.12 * (number - (len(found) - 1) / 2),
            values,
            yerr=errors,
            fmt="o" if shift.kind == "lenses" else "s",
            mfc=None if shift.kind == "lenses" else "none",
            color=bundle_colour(evaluation, scatter.bundle),
            ms=4,
            linewidth=1,
            label=f"{scatter.bundle}, {shift.n} {shift.kind}",
        )
    panel.axhline(0, color=QUIET, linewidth=0.8)
    panel.set_xticks(places, TURNS[1:], fontsize=8)
    panel.set_ylabel("mean shift of the log-odds")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=7)
    return Plot(
        "rotations.png",
        f"Mean change of the combined log-odds when all objects of {found[0][0].set} are turned; 95% intervals. A network that "
        "learnt an orientation moves all objects alike.",
        "mean shift of the log-odds by orientation",
        figure_png(figure),
    )


def bundle_colour(evaluation: Evaluation, bundle: str) -> str:
    """The colour of a bundle, the same in every plot."""
    names = [summary.name for summary in evaluation.bundles]
    return BUNDLE_COLOURS[names.index(bundle) % len(BUNDLE_COLOURS)]


def error_bars(values: Sequence[Interval]) -> tuple[Float64, Float64]:
    """Values (n,), and what an error bar adds below and above, (2, n)."""
    middle = np.array([value.value for value in values])
    return middle, np.array([[v.value - v.low for v in values], [v.high - v.value for v in values]])
