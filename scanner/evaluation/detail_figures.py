"""Plots of the parts: which lenses are found, which non-lenses pass, calibration.

In: a :class:`~scanner.evaluation.compare.Comparison`. Out: :class:`~scanner.evaluation.drawing.Plot`; None where nothing was
measured. Refused: nothing.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scanner.evaluation.cells import class_label, lowest_known_rate
from scanner.evaluation.compare import Comparison
from scanner.evaluation.detail_results import RecallCurve
from scanner.evaluation.detail_tables import TURNS
from scanner.evaluation.drawing import MARKERS, Plot, bundle_colour, error_bars, png
from scanner.report.plots import QUIET


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
        png(figure),
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
        png(figure),
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
        png(figure),
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
        png(figure),
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
        png(figure),
    )
