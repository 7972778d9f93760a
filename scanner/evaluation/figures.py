"""The plots of an evaluation.

In: a :class:`~scanner.evaluation.compare.Comparison`. Out: PNG by name, without date or software. Refused: nothing;
what was not measured is not drawn.

Colours tell bundles apart, from Okabe & Ito's set; networks within a bundle differ in colour and line. What rests on fewer than
ten non-lenses is drawn hollow or dotted.
"""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from scanner.evaluation import detail_figures
from scanner.evaluation.cells import leading_pairings
from scanner.evaluation.compare import Comparison
from scanner.evaluation.drawing import MARKERS, Plot, bundle_colour, error_bars, png
from scanner.evaluation.metrics import roc_curve
from scanner.evaluation.resampling import LOW_FPRS
from scanner.evaluation.scores import GRID
from scanner.records import MEMBERS
from scanner.report.plots import QUIET, plot_settings

_MEMBER_COLOURS = ("#b8860b", "#e69f00", "#d55e00", "#8b1a1a", "#56b4e9", "#009e73", "#0072b2")


def plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Draw everything that was measured."""
    makers: tuple[Callable[[Comparison], Plot | None], ...] = (
        low_fpr,
        inspection,
        roc,
        detail_figures.properties,
        detail_figures.classes,
        detail_figures.calibration,
        detail_figures.source_colours,
        detail_figures.rotations,
    )
    with mpl.rc_context(plot_settings()):
        return tuple(plot for plot in (maker(comparison) for maker in makers) if plot is not None)


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
        png(figure),
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
        png(figure),
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
            for name in scored.score_names:
                positive = scored.scores[pairing.lenses][name][truth.is_lens]
                negative = scored.scores[pairing.others][name][~other.is_lens]
                labels = np.arange(len(positive) + len(negative)) < len(positive)
                fpr, recall = roc_curve(np.concatenate([positive, negative]), labels)
                area = evaluation.find(scored.name, pairing, name, "all", "all").auroc.value
                colour = _MEMBER_COLOURS[MEMBERS.index(name)] if name in MEMBERS else "#16191d"
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
        png(figure),
    )
