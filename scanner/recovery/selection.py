"""The selection function of a run as one record, with what its lens models are worth, completeness, and a map of the sky."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from scanner.catalogue.columns import Column
from scanner.errors import ContentError, InputMissingError
from scanner.interval import Interval, resampled_interval, wilson_interval
from scanner.records import Float64, Int64, Record, SealedRecord
from scanner.recovery.completeness import AXES, Bin, Cut, PaintedLenses, SmoothModel
from scanner.recovery.lenses import LENSES
from scanner.recovery.purity import Assumptions, GradedShare, RecallRatio, Recognition, ScannedRun, Yield
from scanner.sphere import cell_numbers
from scanner.storage import Store

#: Relative errors of θ_E within which it counts as measured, and beyond which as missed.
MEASURED, MISSED = 0.05, 0.20
#: Fewer models have no bias and no scatter.
LEAST_MODELS = 5
_RESAMPLES = 2000


class ThetaE(Record):
    """Relative errors of the modelled Einstein radii of ``n`` lenses, with 95% intervals.

    ``bias``: median of (modelled − true) / true. ``scatter``: half of the range between its 16th and 84th percentile; both are
    None for few lenses. ``measured``, ``missed``: shares within :data:`MEASURED` and beyond :data:`MISSED`.
    """

    n: int
    bias: Interval | None
    scatter: Interval | None
    measured: Interval
    missed: Interval


class ModelledLenses(Record):
    """Lens models of visible painted lenses, as the run would have had them.

    ``n_reached`` of ``n_visible`` rank as high as what the run has models of; of these ``n_modelled`` were modelled.
    ``completeness``: share of all visible lenses that would be certified. ``certified``: share of those modelled. ``verdicts``:
    number of models by verdict. ``theta_e``, ``theta_e_certified``: of all models with a mass, and of the certified ones.
    """

    n_visible: int
    n_reached: int
    n_modelled: int
    certified: Interval
    completeness: Interval
    verdicts: dict[str, int]
    theta_e: ThetaE
    theta_e_certified: ThetaE


def modelled_lenses(lenses: pa.Table) -> ModelledLenses | None:
    """What the columns of ``lenses.parquet`` say of lens models; None where no visible lens was modelled."""
    rows = lenses.filter(pa.array(np.asarray(lenses["is_lens"]) & np.asarray(lenses["visible"])))
    verdict = np.array(rows["model_verdict"].to_pylist(), dtype=object)
    is_modelled, is_certified = verdict != "", verdict == "certified"
    n_visible, n_reached, n_modelled = len(rows), int(np.asarray(rows["reaches_models"]).sum()), int(is_modelled.sum())
    if not n_modelled:
        return None
    error = rows["model_theta_e"].to_numpy() / rows["theta_e_arcsec"].to_numpy() - 1.0
    certified = wilson_interval(int(is_certified.sum()), n_modelled)
    return ModelledLenses(
        n_visible=n_visible,
        n_reached=n_reached,
        n_modelled=n_modelled,
        certified=certified,
        completeness=_product(n_reached, n_visible, int(is_certified.sum()), n_modelled),
        verdicts=dict(sorted(Counter(verdict[is_modelled].tolist()).items())),
        theta_e=_theta_e(error[np.isfinite(error)]),
        theta_e_certified=_theta_e(error[is_certified & np.isfinite(error)]),
    )


def _product(n_reached: int, n_visible: int, n_certified: int, n_modelled: int) -> Interval:
    """Share of lenses that reach the models, times that of the modelled ones that are certified.

    Wilson's interval of as many lenses as would have the product's variance.
    """
    if n_modelled == n_reached:
        return wilson_interval(n_certified, n_visible)
    reached, certified = n_reached / n_visible, n_certified / n_modelled
    value = reached * certified
    variance = certified**2 * reached * (1 - reached) / n_visible + reached**2 * certified * (1 - certified) / n_modelled
    n_like = value * (1 - value) / variance if variance else n_modelled
    return wilson_interval(value * n_like, n_like)


def _theta_e(error: Float64) -> ThetaE:
    size = np.abs(error)
    return ThetaE(
        n=len(error),
        bias=_resampled(error, lambda values: np.median(values, axis=-1)),
        scatter=_resampled(error, lambda values: 0.5 * np.diff(np.quantile(values, (0.16, 0.84), axis=-1), axis=0)[0]),
        measured=wilson_interval(int((size < MEASURED).sum()), len(error)),
        missed=wilson_interval(int((size > MISSED).sum()), len(error)),
    )


def _resampled(values: Float64, of: Callable[[Float64], NDArray[Any]]) -> Interval | None:
    if len(values) < LEAST_MODELS:
        return None
    drawn = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
    return resampled_interval(float(of(values)), of(drawn))


SELECTION, TABLE, PAGE, CARD = "selection-function.json", "completeness.parquet", "recovery.html", "card.md"
#: Edges of the card's table: Einstein radius in arcsec, signal-to-noise ratio of visible arcs.
_CARD_RADII, _CARD_SNR = (0.0, 0.8, 1.3, 10.0), (25.0, 100.0, 1e5)
_AGAIN = "give the command 'scanner recovery' again"
#: Lenses of the population that the map averages over in each cell, and cells at once.
_POPULATION, _CELLS_AT_ONCE = 300, 200
#: Orders that a map may have: cells of 3.7 degrees to 1.7 arcmin.
_ORDERS = range(4, 12)
#: A cell of the map has so many painted lenses, in the median.
_LEAST_A_CELL = 20

#: A row of ``completeness.parquet``: the lenses of a bin at a cut.
COMPLETENESS_COLUMNS: tuple[Column, ...] = (
    Column("cut", "string", "", "What counts as found: top, threshold, candidates or scored", "meta.code"),
    Column("cut_value", "float64", "", "Length of the list, or calibrated probability; else 0", "stat.value"),
    Column("axis", "string", "", f"What the bin is of: {', '.join(axis.name for axis in AXES)}", "meta.code"),
    Column("low", "float64", "", "Lower edge, in the axis' unit", "stat.value;stat.min"),
    Column("high", "float64", "", "Upper edge", "stat.value;stat.max"),
    Column("axis_2", "string", "", "Second axis of bins in two; else empty", "meta.code"),
    Column("low_2", "float64", "", "Its lower edge; else NaN", "stat.value;stat.min"),
    Column("high_2", "float64", "", "Its upper edge; else NaN", "stat.value;stat.max"),
    Column("grade", "string", "", "Found are those that people give this grade or a better one; empty: all", "meta.code.class"),
    Column("n_painted", "int64", "", "Painted lenses in the bin", "meta.number"),
    Column("n_found", "int64", "", "Those that the cut finds", "meta.number"),
    Column("completeness", "float64", "", "Their share; with a grade, the expected share of those that get it", "stat.value"),
    Column("completeness_low", "float64", "", "Lower end of Wilson's 95% interval", "stat.value;stat.min"),
    Column("completeness_high", "float64", "", "Upper end of it", "stat.value;stat.max"),
    Column(
        "predicted",
        "float64",
        "",
        "Mean of the smooth model over the bin's lenses; NaN with a grade",
        "stat.value;meta.modelled",
    ),
)
COMPLETENESS_SCHEMA: pa.Schema = pa.schema([column.field() for column in COMPLETENESS_COLUMNS])


class SelectionFunction(SealedRecord):
    """``selection-function.json``: what a run would have found, to be asked without its tiles.

    ``verdicts``: rank and whether it is a lens, of objects that people graded. ``fates``: number of painted lenses by fate.
    ``lists``: yields by length, ``decided``: of the run's candidates. ``recognition``: what people recognise, as they graded
    painted lenses, and ``graded``: completeness by grade that follows; without, ``not_graded`` says why. ``models``: what lens
    models make of painted lenses, None where the run has none. ``lenses_sha256``: of the painted lenses that all rests on.
    """

    format_version: Literal[1] = 1
    scanner_version: str
    run: ScannedRun
    assumptions: Assumptions
    verdicts: tuple[tuple[int, bool], ...]
    n_painted: int
    n_visible: int
    fates: dict[str, int]
    model: SmoothModel
    lists: tuple[Yield, ...]
    decided: Yield
    recall_ratios: tuple[RecallRatio, ...]
    recognition: Recognition | None = None
    graded: tuple[GradedShare, ...] = ()
    not_graded: str = ""
    models: ModelledLenses | None = None
    map_order: int
    lenses_sha256: str
    sha256: dict[str, str]

    def sentences(self) -> str:
        """What it says, in a paragraph for the card of a run."""
        found, ratio = self.decided, self.recall_ratios[0]
        text = (
            f"Of {self.n_visible:,} visible lenses painted into the tiles of {self.run.title}, the run makes candidates of "
            f"{_percent(found.completeness)}."
        )
        if found.n_listed:
            text += (
                f" With {self.assumptions.density_deg2:g} such lenses a square degree, "
                f"{_number(found.n_lenses.value)} [{found.n_lenses.low:,.0f}, {found.n_lenses.high:,.0f}] of its "
                f"{found.n_listed:,} candidates are lenses: a purity of {_percent(found.purity)}."
            )
        if ratio.ratio is not None:
            text += f" The recall of compound lenses is {ratio.ratio.value:.2f} [{ratio.ratio.low:.2f}, {ratio.ratio.high:.2f}]"
            text += " times that of single ones"
            if ratio.alike is not None:
                alike = ratio.alike
                text += f", {alike.value:.2f} [{alike.low:.2f}, {alike.high:.2f}] at like Einstein radius and signal-to-noise"
            text += "."
        return f"{text} {self._by_grade()}{self._by_model()} Intervals are of 95%."

    def _by_model(self) -> str:
        if self.models is None:
            return ""
        made, errors = self.models, self.models.theta_e_certified
        text = f" Lens models certify {_percent(made.completeness)} of the visible lenses ({made.n_modelled:,} were modelled)"
        if errors.bias is not None and errors.scatter is not None:
            text += (
                f"; θ_E of the certified ones has a bias of {errors.bias.value:+.1%} [{errors.bias.low:+.1%}, "
                f"{errors.bias.high:+.1%}] and a scatter of {errors.scatter.value:.1%} [{errors.scatter.low:.1%}, "
                f"{errors.scatter.high:.1%}], is within {MEASURED:.0%} for {_percent(errors.measured)} and more than "
                f"{MISSED:.0%} off for {_percent(errors.missed)}"
            )
        return text + "."

    def _by_grade(self) -> str:
        if self.recognition is None:
            return f"Completeness by grade is not known: {self.not_graded}."
        each = ", ".join(
            f"{one.grade}{' or better' if one.grade != 'A' else ''} {_percent(one.completeness)}"
            for one in self.graded
            if one.cut == self.decided.cut
        )
        return f"Candidates that people would give {each}, as they graded {sum(self.recognition.n_given):,} painted lenses."


def read(folder: Store) -> tuple[SelectionFunction, PaintedLenses]:
    """The selection function of a recovery, and the lenses that it rests on.

    Raises
    ------
    InputMissingError
        There is none.
    ContentError
        It is damaged, or of other lenses.
    """
    selection = _selection(folder)
    content = _content(folder, LENSES)
    if hashlib.sha256(content).hexdigest() != selection.lenses_sha256:
        raise ContentError(f"{folder.where(LENSES)}: is not the table that {SELECTION} was made of; {_AGAIN}.")
    return selection, PaintedLenses.of(pa.parquet.read_table(io.BytesIO(content)))


def read_products(folder: Store) -> tuple[SelectionFunction, pa.Table, bytes]:
    """The selection function of a recovery, its table of completeness and its page, for others to show.

    Raises
    ------
    InputMissingError
        One is not there.
    ContentError
        One is damaged.
    """
    selection = _selection(folder)
    files = {name: _content(folder, name) for name in (TABLE, PAGE)}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != selection.sha256.get(name):
            raise ContentError(f"{folder.where(name)}: is not the file that {SELECTION} names; {_AGAIN}.")
    return selection, pa.parquet.read_table(io.BytesIO(files[TABLE])), files[PAGE]


def _selection(folder: Store) -> SelectionFunction:
    return SelectionFunction.from_bytes(_content(folder, SELECTION), folder.where(SELECTION), _AGAIN)


def _content(folder: Store, name: str) -> bytes:
    try:
        return folder.read(name)
    except FileNotFoundError:
        where = folder.where(name)
        raise InputMissingError(f"{where}: is not there; name the folder that 'scanner recovery' has finished.") from None


def card(selection: SelectionFunction, lenses: PaintedLenses) -> str:
    """A paragraph and a table in Markdown for the card of a bundle: what the run makes candidates of, visible lenses only."""
    names = [axis.name for axis in AXES]
    radius, snr = (lenses.values[:, names.index(name)] for name in ("theta_e", "arc_snr"))
    found = lenses.found(Cut(kind="candidates"))

    def cell(low: float, high: float, least: float, most: float) -> str:
        within = lenses.is_visible & (radius >= low) & (radius < high) & (snr >= least) & (snr < most)
        n = int(within.sum())
        return f"{_percent(wilson_interval(int((within & found).sum()), n))}, n {n:,}" if n else "–"

    faint, bright, most = _CARD_SNR
    columns = ((faint, bright), (bright, most), (0.0, most))
    rows = [
        " | ".join([f"| {low:g}″ to {high:g}″", *(cell(low, high, *limits) for limits in columns)]) + " |"
        for low, high in pairwise(_CARD_RADII)
    ]
    return "\n".join([
        f"# What {selection.run.title} would have found", "",
        f"Run {selection.run.run}, bundle {selection.run.bundle}. {selection.sentences()}", "",
        f"| Einstein radius | S/N {faint:g} to {bright:g} | S/N {bright:g} or more | all visible lenses |", "|---|---|---|---|",
        *rows, "",
        "Share of painted lenses that become candidates [95%, Wilson], and how many were painted.", "",
    ])  # fmt: skip


def completeness_table(counted: Sequence[Bin]) -> pa.Table:
    """Bins as the table of :data:`COMPLETENESS_SCHEMA`."""
    rows = [
        {
            "cut": one.cut.kind, "cut_value": one.cut.value, "axis": one.axis, "low": one.low, "high": one.high,
            "axis_2": one.second or "", "low_2": one.second_low if one.second else math.nan,
            "high_2": one.second_high if one.second else math.nan, "grade": one.grade or "",
            "n_painted": one.n_painted, "n_found": one.n_found,
            "completeness": one.completeness, "completeness_low": one.completeness_low,
            "completeness_high": one.completeness_high, "predicted": math.nan if one.predicted is None else one.predicted,
        }
        for one in counted
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=COMPLETENESS_SCHEMA)


@dataclass(frozen=True)
class SkyMap:
    """Completeness of the painted population at C places of the sky: HEALPix cells of one order, nested.

    ``cells`` (C,) int64. ``value``, ``low``, ``high`` (C,): mean completeness of visible lenses with its 95% interval.
    ``n_painted``, ``n_found`` (C,) int64: visible lenses painted there, and found. ``sky_sigma``, ``psf_fwhm`` (C,): mean VIS
    noise (adu) and seeing (arcsec).
    """

    order: int
    cells: Int64
    value: Float64
    low: Float64
    high: Float64
    n_painted: Int64
    n_found: Int64
    sky_sigma: Float64
    psf_fwhm: Float64

    def to_fits(self, title: str) -> bytes:
        """A HEALPix table of some cells (``INDXSCHM = EXPLICIT``), which astropy, healpy and Aladin read."""
        from astropy.io import fits

        columns = [
            fits.Column("PIXEL", "K", array=self.cells),
            fits.Column("COMPLETENESS", "D", array=self.value),
            fits.Column("COMPLETENESS_LOW", "D", array=self.low),
            fits.Column("COMPLETENESS_HIGH", "D", array=self.high),
            fits.Column("N_PAINTED", "K", array=self.n_painted),
            fits.Column("N_FOUND", "K", array=self.n_found),
            fits.Column("SKY_SIGMA", "D", unit="adu", array=self.sky_sigma),
            fits.Column("PSF_FWHM", "D", unit="arcsec", array=self.psf_fwhm),
        ]
        table = fits.BinTableHDU.from_columns(columns, name="COMPLETENESS")
        for key, value, comment in (
            ("PIXTYPE", "HEALPIX", "HEALPix map"),
            ("ORDERING", "NESTED", "numbering of the cells"),
            ("COORDSYS", "C", "ICRS"),
            ("NSIDE", 2**self.order, "resolution"),
            ("ORDER", self.order, "log2 of NSIDE"),
            ("INDXSCHM", "EXPLICIT", "cells are named by PIXEL"),
            ("OBJECT", "PARTIAL", "part of the sky"),
            ("TITLE", "".join(letter if " " <= letter <= "~" else "?" for letter in title)[:60], "run that was painted"),
        ):
            table.header[key] = (value, comment)
        stream = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream, checksum=False)
        return stream.getvalue()


def completeness_map(lenses: PaintedLenses, model: SmoothModel, cut: Cut) -> SkyMap:
    """What the painted population's completeness would be at the noise and seeing of each place.

    In each cell all lenses of the population (visible ones, :data:`_POPULATION` of them) are taken to lie there: the noise is
    that of the cell, and the arcs' signal-to-noise ratio as much larger or smaller as the noise makes it.
    """
    names = [axis.name for axis in AXES]
    snr, sigma, fwhm = (names.index(name) for name in ("arc_snr", "sky_sigma", "psf_fwhm"))
    rows = np.flatnonzero(lenses.is_visible)
    order = _map_order(lenses.ra[rows], lenses.dec[rows], np.log(lenses.values[rows, sigma]))
    cells, place = np.unique(cell_numbers(lenses.ra[rows], lenses.dec[rows], order), return_inverse=True)
    counts = np.bincount(place)
    found = np.bincount(place, lenses.found(cut)[rows]).astype(np.int64)
    noise, seeing = (np.bincount(place, lenses.values[rows, column]) / counts for column in (sigma, fwhm))
    population = lenses.values[rows][np.linspace(0, len(rows) - 1, min(_POPULATION, len(rows))).astype(np.int64)]
    parts: list[tuple[Float64, Float64, Float64]] = []
    for first in range(0, len(cells), _CELLS_AT_ONCE):
        some = slice(first, first + _CELLS_AT_ONCE)
        n = len(cells[some])
        there = np.tile(population, (n, 1))
        at = np.repeat(noise[some], len(population))
        there[:, snr] *= there[:, sigma] / at
        there[:, sigma], there[:, fwhm] = at, np.repeat(seeing[some], len(population))
        mean = model.mean(cut, there, np.full(n, len(population), dtype=np.int64))
        parts.append((mean.value, mean.low, mean.high))
    value, low, high = (np.concatenate(column) for column in zip(*parts, strict=True))
    return SkyMap(order, cells, value, low, high, counts, found, noise, seeing)


def _map_order(ra: Float64, dec: Float64, noise: Float64) -> int:
    """The coarsest order whose cells hold at most a tenth of the variance of the noise's logarithm.

    Where the noise does not vary, or no order parts it, the finest order of which half of the cells have
    :data:`_LEAST_A_CELL` lenses.
    """
    finest, variance = _ORDERS[0], float(noise.var())
    for order in _ORDERS:
        _, place, counts = np.unique(cell_numbers(ra, dec, order), return_inverse=True, return_counts=True)
        if np.median(counts) < _LEAST_A_CELL:
            break
        finest = order
        mean = np.bincount(place, noise) / counts
        if variance > 1e-4 and float(((noise - mean[place]) ** 2).mean()) < 0.1 * variance:
            break
    return finest


def _number(value: float) -> str:
    """A mean number, to two digits where it is small."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _percent(share: Any) -> str:
    return f"{100 * share.value:.0f}% [{100 * share.low:.0f}%, {100 * share.high:.0f}%]"
