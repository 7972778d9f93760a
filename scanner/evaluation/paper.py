"""Tables 5, 6 and 7 of Wilde et al. (2022) as they are printed, a bundle's figures beside the authors'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scanner.config import PAPER_BETA
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.session import EnsembleSession
from scanner.ensemble.threshold import MEMBER_THRESHOLD
from scanner.errors import UsageError
from scanner.evaluation.compare import Comparison
from scanner.evaluation.decisions import decide
from scanner.evaluation.results import Decision
from scanner.evaluation.scores import GRID, ScoredBundle
from scanner.evaluation.tables import NOTHING, Table
from scanner.interval import Interval, wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, CutoutBatch, MemberName

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
