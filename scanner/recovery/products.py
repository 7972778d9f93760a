"""The files of a recovery: record, table, map, and one web page with the curves, which needs no network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scanner import __version__
from scanner.catalogue.export import TableFact, TableHeading, fits_bytes
from scanner.errors import ContentError, InputMissingError
from scanner.interval import Interval
from scanner.records import Float64
from scanner.recovery.completeness import AXES, TOGETHER, Axis, Bin, Cut, PaintedLenses, SmoothModel, bins, edges_of, ladder
from scanner.recovery.lenses import LENSES, PICTURES, Fate, parquet_bytes
from scanner.recovery.purity import (
    STATED,
    Assumptions,
    GradedLenses,
    GradedShare,
    Recognition,
    ScannedRun,
    Yield,
    graded_bins,
    graded_cuts,
    graded_shares,
    list_lengths,
    recall_ratio,
    yields,
)
from scanner.recovery.selection import (
    CARD,
    PAGE,
    SELECTION,
    TABLE,
    SelectionFunction,
    SkyMap,
    card,
    completeness_map,
    completeness_table,
    modelled_lenses,
)
from scanner.report.plots import CANDIDATE, THRESHOLD, figure_png, plot_settings
from scanner.report.self_contained import asset, png_as_webp_uri, template, webp_uri
from scanner.storage import Store

FITS, MAP = "completeness.fits", "map.fits"
#: Why completeness by grade is not known where nothing is said of grades.
NOT_GRADED = "no painted lens was graded"
#: Of the cuts that are drawn, strict to loose.
CUT_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
#: Of fates, in the order in which a lens meets them.
FATE_COLOURS: dict[Fate, str] = {
    "not detected": "#59616b",
    "masked": "#8b1a1a",
    "near an edge": "#cc79a7",
    "not scored": "#e69f00",
    "screened out": "#56b4e9",
    "scored": "#0072b2",
}


def write(
    folder: Store,
    run: ScannedRun,
    assumptions: Assumptions,
    verdicts: Mapping[int, bool] | None = None,
    graded: GradedLenses | str = NOT_GRADED,
) -> SelectionFunction:
    """Make every file of a recovery from its ``lenses.parquet``, and write them beside it, the record last.

    Parameters and errors as those of :func:`made`; and:

    Raises
    ------
    InputMissingError
        There are no painted lenses.
    OutputError
        The folder cannot be written.
    """
    files = made(_read(folder, LENSES), _read(folder, PICTURES), run, assumptions, verdicts, graded)
    for name, file in files.items():
        folder.write(name, file)
    return SelectionFunction.from_bytes(files[SELECTION], folder.where(SELECTION), "make it again")


def _read(folder: Store, name: str) -> bytes:
    try:
        return folder.read(name)
    except FileNotFoundError:
        raise InputMissingError(f"{folder.where(name)}: is not there; 'scanner recovery' makes it.") from None


def made(
    lenses_file: bytes,
    pictures_file: bytes,
    run: ScannedRun,
    assumptions: Assumptions,
    verdicts: Mapping[int, bool] | None = None,
    graded: GradedLenses | str = NOT_GRADED,
) -> dict[str, bytes]:
    """Make every file; the same lenses give the same bytes.

    Parameters
    ----------
    lenses_file
        ``lenses.parquet``.
    pictures_file
        ``pictures.parquet``.
    run
        The run whose tiles were painted.
    assumptions
        The density of lenses on the sky.
    verdicts
        By rank, whether a graded object is a lens.
    graded
        Other painted lenses that people graded, or why there are none.

    Returns
    -------
    dict
        Content by name; the record, :data:`SELECTION`, comes last.

    Raises
    ------
    ContentError
        There are too few lenses, or none that a person could see.
    """
    painted = pa.parquet.read_table(io.BytesIO(lenses_file))
    lenses = PaintedLenses.of(painted)
    if not lenses.is_visible.any():
        raise ContentError(f"none of the {len(lenses)} painted lenses is visible; paint brighter sources, or more lenses.")
    said = dict(sorted((verdicts or {}).items()))
    cuts = ladder(run.n_objects, lenses)
    model = SmoothModel.fit(lenses, cuts)
    counted = bins(lenses, cuts, model)
    recognition: Recognition | None = None
    shares: tuple[GradedShare, ...] = ()
    if isinstance(graded, GradedLenses):
        try:
            recognition = Recognition.fit(graded)
        except ContentError as error:
            graded = str(error)
        else:
            counted += graded_bins(lenses, graded_cuts(cuts), recognition)
            shares = graded_shares(lenses, graded_cuts(cuts), recognition)
    lists = yields(lenses, run, [Cut(kind="top", value=n) for n in list_lengths(run.n_objects)], assumptions, said)
    decided = Cut(kind="candidates")
    sky = completeness_map(lenses, model, decided)
    selection = SelectionFunction(
        scanner_version=__version__,
        run=run,
        assumptions=assumptions,
        verdicts=tuple(said.items()),
        n_painted=len(lenses),
        n_visible=int(lenses.is_visible.sum()),
        fates={str(fate): int(number) for fate, number in zip(*np.unique(lenses.fate, return_counts=True), strict=True)},
        model=model,
        lists=lists,
        decided=yields(lenses, run, [decided], assumptions, said)[0],
        recall_ratios=tuple(recall_ratio(lenses, cut) for cut in cuts if cut.kind in ("candidates", "scored")),
        recognition=recognition,
        graded=shares,
        not_graded=graded if isinstance(graded, str) else "",
        models=modelled_lenses(painted),
        map_order=sky.order,
        lenses_sha256=hashlib.sha256(lenses_file).hexdigest(),
        sha256={},
    )
    table = completeness_table(counted)
    facts = TableHeading(
        "COMPLETENESS",
        f"Share of painted lenses that the run {run.title} finds",
        (
            TableFact("run", "RUN", run.run, "run that was painted"),
            TableFact("bundle", "BUNDLE", run.bundle, "bundle that scored"),
        ),
    )
    files = {
        TABLE: parquet_bytes(table),
        FITS: fits_bytes(table, facts),
        MAP: sky.to_fits(run.title),
        PAGE: render(selection, lenses, counted, sky, found_and_lost(painted, pictures_file)).encode(),
        CARD: card(selection, lenses).encode(),
    }
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, SELECTION: selection.model_copy(update={"sha256": sha256}).to_bytes()}


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: ``caption`` says what is to be seen, ``alt`` the same in a few words."""

    title: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Picture:
    """A painted lens on the page: ``uri`` of its picture, and two lines of what it is and what became of it."""

    uri: str
    what: str
    fate: str


def found_and_lost(painted: pa.Table, pictures_file: bytes) -> tuple[list[Picture], list[Picture]]:
    """Painted lenses that the run makes candidates of, and others."""
    shown = pa.parquet.read_table(io.BytesIO(pictures_file))
    rows = {row["target_id"]: row for row in painted.filter(pc.is_in(painted["target_id"], shown["target_id"])).to_pylist()}
    made: tuple[list[Picture], list[Picture]] = ([], [])
    for number, picture in zip(shown["target_id"].to_pylist(), shown["picture"].to_pylist(), strict=True):
        row = rows[number]
        rank = f"rank {row['rank']:,}, p {row['probability']:.2g}" if row["rank"] >= 1 else row["fate"]
        what = f"θ_E {row['theta_e_arcsec']:.2f}″, S/N {row['seen_arc_snr']:.0f}"
        made[0 if row["is_candidate"] else 1].append(Picture(webp_uri(picture), what, rank))
    return made


def render(
    selection: SelectionFunction,
    lenses: PaintedLenses,
    counted: Sequence[Bin],
    sky: SkyMap,
    pictures: tuple[list[Picture], list[Picture]],
) -> str:
    """The page as text, with the plots and pictures inside."""
    with mpl.rc_context(plot_settings()):
        drawings = [
            _curves(selection, lenses, counted),
            _surface(counted, lenses),
            _fates(lenses),
            _lists(selection),
            _sky(sky),
        ]
        if selection.recognition is not None:
            drawings.insert(1, _grades(selection.recognition, lenses, counted))
    tops = {one.n_listed: one for one in selection.lists}
    shown = [tops[min(tops, key=lambda n: abs(n - wanted))] for wanted in (20, 50, 200, 1_000, 10_000, 100_000)]
    return template("recovery").render(
        selection=selection,
        drawings=drawings,
        lists=[*dict.fromkeys(shown), selection.decided],
        ratios=selection.recall_ratios,
        fates=[(fate, selection.fates.get(fate, 0)) for fate in FATE_COLOURS],
        shown_cuts=_shown_cuts(selection),
        pictures=[(title, some) for title, some in zip(("Found", "Lost"), pictures, strict=True) if some],
        style=asset("evaluation.css"),
    )


def _drawing(title: str, caption: str, alt: str, figure: Figure) -> Drawing:
    return Drawing(title, caption, alt, png_as_webp_uri(figure_png(figure)))


def _shown_cuts(selection: SelectionFunction) -> list[Cut]:
    """What is drawn: a short list, a long one, the candidates, and all that is scored."""
    tops = [one.cut for one in selection.model.fitted if one.cut.kind == "top"]
    chosen = [min(tops, key=lambda cut: abs(np.log(cut.value / wanted))) for wanted in (200, 2_000)]
    return list(dict.fromkeys([*chosen, Cut(kind="candidates"), Cut(kind="scored")]))


def _curves(selection: SelectionFunction, lenses: PaintedLenses, counted: Sequence[Bin]) -> Drawing:
    """Completeness against each axis: counted in bins, and the smooth model's mean over the lenses of the bin."""
    axes = [axis for axis in AXES if any(one.axis == axis.name for one in counted)]
    columns = 3
    figure = Figure(figsize=(9.6, 2.7 * -(-len(axes) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(axes) // columns), columns, sharey=True, squeeze=False)
    for panel, axis in zip(panels.flat, axes, strict=False):
        for cut, colour in zip(_shown_cuts(selection), CUT_COLOURS, strict=False):
            of_axis = [one for one in counted if (one.axis, one.second, one.cut, one.grade) == (axis.name, None, cut, None)]
            middle = _points(panel, of_axis, lenses, axis, colour, str(cut))
            panel.plot(middle, [one.predicted for one in of_axis], color=colour, linewidth=1.2)
        _framed(panel, axis)
    for panel in list(panels.flat)[len(axes) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel("completeness")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return _drawing(
        "Completeness",
        "Share of painted lenses that are found, by what they are and where they lie. Points: counted, with 95% intervals "
        "(Wilson); lines: the smooth model's mean over the lenses of each bin. All painted lenses count, invisible ones too.",
        "completeness against properties of lenses",
        figure,
    )


def _points(panel: Axes, of_axis: Sequence[Bin], lenses: PaintedLenses, axis: Axis, colour: str, label: str) -> Float64:
    """Draw bins of one axis with their intervals, each at the median of its lenses, which is returned, (B,)."""
    values = lenses.values[:, AXES.index(axis)]
    middle = np.array([np.median(values[(values >= one.low) & (values < one.high)]) for one in of_axis])
    share, low, high = np.array([(one.completeness, one.completeness_low, one.completeness_high) for one in of_axis]).T
    bars = np.maximum([share - low, high - share], 0.0)
    panel.errorbar(middle, share, yerr=bars, fmt="o", color=colour, ms=4, linewidth=1, label=label)
    return middle


def _framed(panel: Axes, axis: Axis) -> None:
    panel.set(xlabel=axis.label, ylim=(0, 1))
    if axis.name == "arc_snr":
        panel.set_xscale("log")
    else:
        panel.locator_params(axis="x", nbins=5)
    panel.grid(alpha=0.3)


def _grades(recognition: Recognition, lenses: PaintedLenses, counted: Sequence[Bin]) -> Drawing:
    """Completeness of candidates by the grade that people would give them."""
    axes = [axis for axis in AXES if axis.name in TOGETHER]
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True)
    for panel, axis in zip(panels, axes, strict=True):
        for grade, colour in zip((None, *STATED[::-1]), CUT_COLOURS[::-1], strict=True):
            of_axis = [
                one
                for one in counted
                if (one.axis, one.second, one.cut.kind, one.grade) == (axis.name, None, "candidates", grade)
            ]
            label = "candidates" if grade is None else "grade A" if grade == "A" else f"grade {grade} or better"
            middle = _points(panel, of_axis, lenses, axis, colour, label)
            panel.plot(middle, [one.completeness for one in of_axis], color=colour, linewidth=1.2)
        _framed(panel, axis)
    panels[0].set_ylabel("completeness")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    a, b, c, x = recognition.n_given
    return _drawing(
        "Grades",
        "Share of painted lenses that become candidates and that people would then give a grade, as they did to other painted "
        f"lenses that they met unseen: {a:,} A, {b:,} B, {c:,} C, {x:,} X. Bars: 95%, from both samples.",
        "completeness by grade",
        figure,
    )


def _surface(counted: Sequence[Bin], lenses: PaintedLenses) -> Drawing:
    """Completeness of candidates by Einstein radius and signal-to-noise ratio together."""
    first, second = (next(axis for axis in AXES if axis.name == name) for name in TOGETHER)
    x_edges, y_edges = edges_of(first, lenses), edges_of(second, lenses)
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    panel = figure.subplots()
    shares = np.full((len(y_edges) - 1, len(x_edges) - 1), np.nan)
    for one in counted:
        if one.second is None or one.cut.kind != "candidates":
            continue
        row, column = y_edges.index(one.second_low), x_edges.index(one.low)
        shares[row, column] = one.completeness
        text = f"{one.completeness:.2f}\n{one.n_painted:,}"
        panel.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7,
                   color="white" if one.completeness < 0.55 else "black")  # fmt: skip
    panel.set_facecolor("#eceff2")
    mesh = panel.pcolormesh(np.ma.masked_invalid(shares), cmap="cividis", vmin=0, vmax=1)
    panel.set_xticks(range(len(x_edges)), [f"{edge:g}" for edge in x_edges])
    panel.set_yticks(range(len(y_edges)), [f"{edge:g}" for edge in y_edges])
    panel.set(xlabel=first.label, ylabel=second.label)
    figure.colorbar(mesh, ax=panel, pad=0.02).set_label("completeness of candidates")
    return _drawing(
        "Einstein radius and signal-to-noise ratio together",
        "Share of painted lenses that become candidates; below it the number painted. Blank: none was painted.",
        "completeness by Einstein radius and signal-to-noise ratio",
        figure,
    )


def _fates(lenses: PaintedLenses) -> Drawing:
    """What becomes of lenses before they are scored, against their signal-to-noise ratio."""
    axis = next(axis for axis in AXES if axis.name == "arc_snr")
    values, edges = lenses.values[:, AXES.index(axis)], edges_of(axis, lenses)
    figure = Figure(figsize=(6.8, 3.2), layout="constrained")
    panel = figure.subplots()
    bottom = np.zeros(len(edges) - 1)
    totals = np.maximum(np.histogram(values, edges)[0], 1)
    for fate, colour in FATE_COLOURS.items():
        shares = np.histogram(values[lenses.fate == fate], edges)[0] / totals
        if shares.any():
            panel.bar(np.arange(len(shares)) + 0.5, shares, width=0.92, bottom=bottom, color=colour, label=fate)
        bottom += shares
    panel.set_xticks(range(len(edges)), [f"{edge:g}" for edge in edges])
    panel.set(xlabel=axis.label, ylabel="share of painted lenses", ylim=(0, 1))
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _drawing(
        "What becomes of them",
        "The fate of painted lenses. What the screen ended has a rank too, though rarely a high one.",
        "fates of painted lenses against signal-to-noise ratio",
        figure,
    )


def _lists(selection: SelectionFunction) -> Drawing:
    """Purity, number of lenses and completeness against the length of the list."""
    lists = selection.lists
    number = np.array([one.n_listed for one in lists])
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, part, label in zip(
        panels, ("purity", "n_lenses", "completeness"), ("purity", "lenses in the list", "completeness"), strict=True
    ):
        values: list[Interval] = [getattr(one, part) for one in lists]
        panel.fill_between(number, [v.low for v in values], [v.high for v in values], color=CANDIDATE, alpha=0.2, linewidth=0)
        panel.plot(number, [v.value for v in values], color=CANDIDATE)
        _mark(panel, selection.decided)
        panel.set(xscale="log", xlabel="best objects by rank", ylabel=label, ylim=(0, None if part == "n_lenses" else 1))
        panel.grid(alpha=0.3)
    graded = f", {len(selection.verdicts):,} graded objects as people say" if selection.verdicts else ""
    return _drawing(
        "Lists by rank",
        f"What the best objects of the run hold, with {selection.assumptions.density_deg2:g} visible lenses a square degree "
        f"(relative error {selection.assumptions.density_error:.0%}){graded}; bands: 95%, chance included. Line: the run's "
        "candidates.",
        "purity, number of lenses and completeness against the length of the list",
        figure,
    )


def _mark(panel: Axes, decided: Yield) -> None:
    if decided.n_listed:
        panel.axvline(decided.n_listed, color=THRESHOLD, linewidth=1)


def _sky(sky: SkyMap) -> Drawing:
    """The map: cells where lenses were painted, by completeness."""
    import astropy.units as u
    from astropy_healpix import HEALPix
    from matplotlib.collections import PolyCollection

    healpix = HEALPix(nside=2**sky.order, order="nested")
    corners = [angle.to_value(u.deg) for angle in healpix.boundaries_lonlat(sky.cells, step=1)]
    ra, dec = corners[0], corners[1]
    # A field at 0 h is drawn in one piece.
    ra = (ra - ra[0, 0] + 180.0) % 360.0 - 180.0 + ra[0, 0]
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    panel = figure.subplots()
    cells = PolyCollection(
        list(np.stack([ra, dec], axis=-1)), array=sky.value, cmap="cividis", edgecolors="face", linewidths=0.3
    )
    # What varies little is shown as little.
    middle = float(np.median(sky.value))
    reach = max(0.05, float(np.abs(sky.value - middle).max()))
    cells.set_clim(max(0.0, middle - reach), min(1.0, middle + reach))
    panel.add_collection(cells)
    panel.set(
        xlim=(ra.max(), ra.min()), ylim=(dec.min(), dec.max()), xlabel="right ascension (deg)", ylabel="declination (deg)"
    )
    panel.locator_params(axis="x", nbins=4)
    panel.set_aspect(1.0 / max(0.05, float(np.cos(np.radians(dec.mean())))))
    panel.set_facecolor("#eceff2")
    figure.colorbar(cells, ax=panel, pad=0.02).set_label("completeness of candidates, visible lenses")
    return _drawing(
        "Map",
        f"Completeness of the painted population at the noise and seeing of each place; HEALPix order {sky.order} (map.fits). "
        "Blank: nothing was painted there.",
        "map of completeness",
        figure,
    )
