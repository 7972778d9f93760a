"""The two figures of a run, ``scores.png`` and ``tsne.png``, and the style of all figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from scanner.errors import OutputError

DPI = 150
BINS = 50
LINEAR_EDGES = np.linspace(0.0, 1.0, BINS + 1)
#: Down to one in ten million; what is less counts there.
DECADE_EDGES = np.logspace(-7.0, 0.0, BINS + 1)
INK, QUIET, SCORED, CANDIDATE, THRESHOLD = "#16191d", "#59616b", "#a9b4c0", "#0072b2", "#d55e00"
EMPTY_CELL = "#eceff2"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
}


class ScoreCounts:
    """How many objects have which score, counted part by part: what ``scores.png`` needs of a catalogue of any size."""

    def __init__(self) -> None:
        self.n_scored = self.n_chosen = 0
        #: By score and edges, counts of all that are scored and of the candidates, each (:data:`BINS`,).
        self.grid, self.calibrated, self.calibrated_decades = (np.zeros((2, BINS), dtype=np.int64) for _ in range(3))

    def add(self, grid_value: NDArray[Any], calibrated: NDArray[Any], is_candidate: NDArray[np.bool_]) -> None:
        """Count objects.

        Parameters
        ----------
        grid_value, calibrated
            (N,) scores in [0, 1], NaN where one was not scored.
        is_candidate
            (N,) bool.
        """
        scored = np.isfinite(calibrated)
        for row, those in enumerate((scored, scored & is_candidate)):
            for counts, values, edges in (
                (self.grid, grid_value, LINEAR_EDGES),
                (self.calibrated, calibrated, LINEAR_EDGES),
                (self.calibrated_decades, calibrated, DECADE_EDGES),
            ):
                counts[row] += np.histogram(np.clip(values[those], edges[0], 1.0), edges)[0]
        self.n_scored += int(scored.sum())
        self.n_chosen += int((scored & is_candidate).sum())


def score_distribution(
    path: Path,
    counts: ScoreCounts,
    *,
    threshold: float,
    beta: float | None,
    decides_on: Literal["grid", "calibrated"] = "grid",
) -> None:
    """Draw ``scores.png``: how many objects have which grid value and which calibrated probability.

    Parameters
    ----------
    path
        The PNG file.
    counts
        Of all objects.
    threshold, beta, decides_on
        The score from which an object is a candidate, the beta of the F-beta that chose it (None: no F-beta did), and which
        score that is. With ``"calibrated"`` there is no grid, and no panel for it.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    has_grid = decides_on == "grid"
    with mpl.rc_context(plot_settings()):
        figure = Figure(figsize=(9.0 if has_grid else 5.0, 3.6), dpi=DPI)
        place = {"left": 0.07 if has_grid else 0.125, "right": 0.975, "bottom": 0.135, "top": 0.92, "wspace": 0.08}
        panels = figure.subplots(1, 1 + has_grid, sharey=True, squeeze=False, gridspec_kw=place)[0]
        share = f" ({100 * counts.n_chosen / counts.n_scored:.2g}%)" if counts.n_scored else ""
        candidates = "candidate" if counts.n_chosen == 1 else "candidates"
        panels[0].set_title(f"{counts.n_scored:,} scored objects, {counts.n_chosen:,} {candidates}{share}")
        panels[0].set_ylabel("objects per bin")
        if has_grid:
            _histogram(panels[0], counts.grid, LINEAR_EDGES)
            panels[0].set_xlabel("grid value: lens fraction of the cell")
        # Calibrated for the sky, where one object in thousands is a lens, probabilities live in decades.
        if has_grid:
            _histogram(panels[-1], counts.calibrated_decades, DECADE_EDGES)
        else:
            _histogram(panels[-1], counts.calibrated, LINEAR_EDGES)
        panels[-1].set_xlabel("calibrated lens probability")
        panels[-1].legend(loc="upper right" if has_grid else "center")
        _mark_threshold(panels[0], threshold, beta)
        _save(figure, path)


def embedding_map(
    path: Path,
    x_edges: NDArray[Any],
    y_edges: NDArray[Any],
    lens_fraction: NDArray[Any],
    positions: NDArray[Any],
    *,
    threshold: float,
) -> None:
    """Draw ``tsne.png``: the lens fraction of the training set over the embedding, and where the candidates fell.

    Parameters
    ----------
    path
        The PNG file.
    x_edges, y_edges
        (nx + 1,) and (ny + 1,) cell edges.
    lens_fraction
        (nx, ny) lens fraction of each cell (first axis x), NaN where no training object fell.
    positions
        (N, 2) positions of the candidates; NaN rows are left out.
    threshold
        The grid value from which an object is a candidate, marked on the colour scale.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    places = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
    places = places[np.isfinite(places).all(axis=1)]
    with mpl.rc_context(plot_settings()):
        figure = Figure(figsize=(7.0, 5.8), dpi=DPI)
        axes = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.96, "bottom": 0.13, "top": 0.95})
        axes.set_facecolor(EMPTY_CELL)
        mesh = axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(lens_fraction).T, cmap="cividis", vmin=0.0, vmax=1.0)
        axes.scatter(
            places[:, 0],
            places[:, 1],
            s=34,
            facecolors="none",
            edgecolors=THRESHOLD,
            linewidths=1.3,
            label=f"{len(places):,} candidate{'' if len(places) == 1 else 's'}",
            path_effects=[withStroke(linewidth=2.8, foreground="white")],
        )
        axes.set_aspect("equal")
        axes.set_title("Lens fraction of the training set, and the candidates")
        axes.set_xlabel("t-SNE first coordinate (no unit)")
        axes.set_ylabel("t-SNE second coordinate (no unit)")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.1), borderaxespad=0.0, handletextpad=0.2)
        scale = figure.colorbar(mesh, ax=axes, fraction=0.1, shrink=0.8, pad=0.02)
        scale.set_label("lens fraction of the training objects in a cell (blank: no object)")
        scale.ax.axhline(threshold, color=THRESHOLD, linewidth=2)
        scale.outline.set_visible(False)
        _save(figure, path)


def _mark_threshold(axes: Axes, threshold: float, beta: float | None) -> None:
    axes.axvline(threshold, color=THRESHOLD, linewidth=1.5)
    right = threshold <= 0.5
    axes.annotate(
        f"threshold {threshold:.3f}" + ("" if beta is None else f"\n(F-beta, β = {beta:g})"),
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(6 if right else -6, -3),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        color=THRESHOLD,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _histogram(axes: Axes, counts: NDArray[np.int64], edges: NDArray[Any]) -> None:
    for row, colour, label in ((0, SCORED, "all scored"), (1, CANDIDATE, "candidates")):
        axes.stairs(counts[row], edges, baseline=0.5, fill=True, color=colour, label=label)
    axes.set_xscale("log" if edges[0] > 0 else "linear")
    axes.set_xlim(edges[0], 1.0)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis) if edges[0] > 0 else (axes.yaxis,):
        axis.set_major_formatter(_power_of_ten)
    axes.minorticks_off()
    # The panels share this axis: the one that is drawn last must not cut the other's bars.
    axes.set_ylim(0.5, max(10.0, axes.get_ylim()[1], 3.0 * counts[0].max(initial=1)))


def _power_of_ten(value: float, _: float = 0.0) -> str:
    """Such as 10⁻³, as plain text: what typesets a formula takes longer to begin than the figure to draw."""
    return "10" + str(round(np.log10(value))).translate(_SUPERSCRIPT)


def plot_settings() -> Any:
    """Matplotlib's own defaults with our style over them, so that a user's matplotlibrc changes nothing.

    The same input gives the same bytes with the same version of matplotlib, whatever the user's settings of it. Colours are
    from Okabe & Ito's set and cividis, which colour-blind readers tell apart and which keep their order in grey.
    """
    return {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")} | _STYLE


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, without date or software."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _save(figure: Figure, path: Path) -> None:
    try:
        path.write_bytes(figure_png(figure))
    except OSError as error:
        raise OutputError.of(path, error) from None
