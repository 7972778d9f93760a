"""The gate: whether a bundle may take the place of another as the default."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from scanner.atomic_file import write_atomically
from scanner.ensemble.augmentation import ORIENTATIONS
from scanner.ensemble.bundles import DEFAULT_FILE, DefaultBundle
from scanner.errors import UsageError
from scanner.evaluation.results import Difference, Evaluation, ImageScore, Positives
from scanner.evaluation.scores import GRID, POSITIVE_LABELS
from scanner.evaluation.tables import Table, signed
from scanner.interval import CONFIDENCE, Interval, normal_interval
from scanner.records import Record


class Check(Record):
    """One figure of both bundles; ``difference``: how much better the new one is, with an interval that holds with all."""

    what: str
    figure: str
    new: float
    old: float
    difference: Interval

    @property
    def passed(self) -> bool:
        """Whether the new bundle is not worse beyond the interval."""
        return self.difference.high >= 0.0


class Promotion(Record):
    """The verdict on a bundle, and its reasons."""

    new: str
    old: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return all(check.passed for check in self.checks)


def judge(evaluation: Evaluation) -> Promotion:
    """Compare the first bundle of an evaluation with the second.

    On every set the orders in which a scan would rank its objects are compared on the same objects: AUROC, and recall at every
    false-positive rate that ten non-lenses or more decide. Where both have a grid, which decides who is a candidate, its AUROC
    is compared too, but not its threshold, which is a choice. On every real image: by how many non-lenses score higher, in each
    of the eight orientations. Many figures are compared, so each interval is widened until all of them hold at once with 95%
    (Bonferroni): of equally good bundles, one in forty is refused. A bundle that is worse beyond its interval in a single
    figure is refused.

    Raises
    ------
    UsageError
        One of them was trained on one of the sets.
    """
    new, old = evaluation.bundles[0], evaluation.bundles[1]
    for found in evaluation.sets:
        for name in found.trained_on:
            raise UsageError(f"{found.name}: {name} was trained on it; judge by sets that neither bundle has seen.")
    differences = list(_differences(evaluation))
    pairs = list(_pairs(evaluation.images, new.name, old.name)) + list(_pairs(evaluation.known_lenses, new.name, old.name))
    confidence = 1.0 - (1.0 - CONFIDENCE) / max(1, len(differences) + len(pairs))
    checks = [_check_figure(found, confidence) for found in differences]
    checks += [_check_image(*pair, confidence) for pair in pairs]
    return Promotion(new=new.name, old=old.name, checks=tuple(checks))


def _differences(evaluation: Evaluation) -> Iterator[Difference]:
    new, old = (bundle.combined for bundle in evaluation.bundles[:2])
    has_visible = {found.name: found.n_visible > 0 for found in evaluation.sets}
    for found in evaluation.differences:
        positives: Positives = "visible" if has_visible[found.pairing.lenses] else "all"
        ranks = (found.score_new, found.score_old) == (new, old) and not found.rests_on_few
        decides = (found.score_new, found.fpr) == (GRID, None)
        chosen = (found.old, found.positives, found.negatives) == (evaluation.bundles[1].name, positives, "all")
        if chosen and (ranks or decides):
            yield found


def _pairs(images: tuple[ImageScore, ...], new: str, old: str) -> Iterator[tuple[ImageScore, ImageScore]]:
    older = {image.name: image for image in images if image.bundle == old}
    for image in images:
        if image.bundle == new:
            yield image, older[image.name]


def _check_figure(found: Difference, confidence: float) -> Check:
    figure = "AUROC" if found.fpr is None else f"recall at FPR {found.fpr:g}"
    if found.score_new == GRID:
        figure += " of the grid"
    return Check(
        what=f"{found.pairing}, {POSITIVE_LABELS[found.positives]}",
        figure=figure,
        new=found.value_new,
        old=found.value_old,
        difference=normal_interval(found.difference.value, found.error, confidence),
    )


def _check_image(new: ImageScore, old: ImageScore, confidence: float) -> Check:
    # Where no non-lens scores higher, half a one does: the set does not resolve what is rarer.
    ranks = [np.log10(np.maximum(image.above or (1.0,), 0.5 / max(image.n_compared, 1))) for image in (new, old)]
    gains = ranks[1] - ranks[0]
    half = float(student.ppf(0.5 + confidence / 2, ORIENTATIONS - 1) * gains.std(ddof=1)) / math.sqrt(ORIENTATIONS)
    gain = float(gains.mean())
    return Check(
        what=f"image {new.name}",
        figure="decades of non-lenses above",
        new=float(ranks[0].mean()),
        old=float(ranks[1].mean()),
        difference=Interval(value=gain, low=gain - half, high=gain + half),
    )


def reasons(promotion: Promotion) -> Table:
    """The checks as a table, the failed ones first."""
    ordered = sorted(promotion.checks, key=lambda check: check.passed)
    return Table(
        "promotion",
        f"{promotion.new} over {promotion.old}",
        ("", "on", "figure", "new", "old", "difference"),
        tuple(
            (
                "ok" if check.passed else "WORSE",
                check.what,
                check.figure,
                f"{check.new:.3f}",
                f"{check.old:.3f}",
                signed(check.difference),
            )
            for check in ordered
        ),
        f"{len(ordered)} figures on the same objects; the intervals hold all at once with {CONFIDENCE:.0%}.",
    )


def installed_name(bundle: Path, models: Path) -> str:
    """Name of an installed bundle's folder.

    Raises
    ------
    UsageError
        The bundle is not in ``models``.
    """
    path = bundle.resolve()
    if path.parent != models.resolve():
        raise UsageError(f"{bundle}: is not in {models}, where bundles that are used by name lie; copy it there first.")
    return path.name


def make_default(name: str, models: Path) -> Path:
    """Write ``default.json``.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    path = models / DEFAULT_FILE
    write_atomically(path, DefaultBundle(bundle=name).to_bytes())
    return path
