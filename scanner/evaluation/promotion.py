"""The figures of an evaluation in its bundle, and the gate: whether a bundle may take the place of another as the default."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from scanner.atomic_file import write_atomically
from scanner.ensemble.bundle import CARD_FILE, Bundle, Metric, content_of, write_bundle
from scanner.ensemble.bundles import DEFAULT_FILE, DefaultBundle
from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.errors import ContentError, UsageError
from scanner.evaluation.metrics import FEW_FALSE
from scanner.evaluation.results import Difference, Evaluation, ImageScore, Positives, RealFigures, SetSummary, main_pairings
from scanner.evaluation.scores import GRID, POSITIVE_LABELS
from scanner.evaluation.tables import OFF_CARD, Table, signed, tables
from scanner.interval import CONFIDENCE, Interval, exact_interval, normal_interval
from scanner.records import Record

HEADING = "## How well it finds lenses"
TITLE = re.compile(r"\A# .*")
#: From the heading to the next one of second level, or the end.
SECTION = re.compile(rf"^{re.escape(HEADING)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def with_figures(bundle: Bundle, evaluation: Evaluation, version: str, out: Path) -> Bundle:
    """Write a bundle anew, with other figures.

    Parameters
    ----------
    bundle
        Its networks, grid, calibration and thresholds stay as they are.
    evaluation
        On held-out data, this bundle first.
    version
        Version of the new bundle: bundles that differ need different versions.
    out
        Folder; a bundle that is there already is replaced, also ``bundle`` itself.

    Raises
    ------
    UsageError, ContentError
        See :func:`check_room`.
    OutputError
        The folder cannot be written, or is something else than a bundle.
    """
    check_room(bundle, version)
    content = content_of(bundle)
    section = card_section(evaluation)
    card = SECTION.sub(lambda _: f"{section}\n\n", content.texts[CARD_FILE]).rstrip() + "\n"
    card = TITLE.sub(lambda _: f"# {content.name} {version}", card)
    texts = {**content.texts, CARD_FILE: card}
    return write_bundle(out, replace(content, version=version, metrics=metrics_of(evaluation), texts=texts))


def check_room(bundle: Bundle, version: str) -> None:
    """Refuse what :func:`with_figures` would, before anything is measured.

    Raises
    ------
    UsageError, ContentError
        The bundle has this version already; its card has no section for figures.
    """
    manifest = bundle.manifest
    if version == manifest.version:
        raise UsageError(f"{bundle.location}: is {manifest.name} {version} already; name another as --card FOLDER VERSION.")
    if SECTION.search(content_of(bundle).texts.get(CARD_FILE, "")) is None:
        raise ContentError(
            f"{bundle.location}: has no {CARD_FILE} with a section '{HEADING.lstrip('# ')}' to put figures into; "
            "make the bundle with 'scanner train bundle'."
        )


def metrics_of(evaluation: Evaluation) -> tuple[Metric, ...]:
    """The main figures of the first bundle of an evaluation, as a manifest lists them: visible lenses, one pairing a set."""
    own = [figures for figures in evaluation.figures if figures.bundle == evaluation.bundles[0].name]
    main = main_pairings([figures.pairing for figures in own], evaluation.sky)
    found = []
    for figures in own:
        if figures.pairing not in main or (figures.positives, figures.negatives) != ("visible", "all"):
            continue
        name = f"{figures.pairing}: {figures.positives} lenses, {figures.negatives} non-lenses"
        recalls = {f"recall_at_fpr_{recall.fpr:g}": recall.recall for recall in figures.recalls}
        for metric, interval in {"auroc": figures.auroc, **recalls}.items():
            if interval is not None:
                found.append(
                    Metric(
                        set=name,
                        member=figures.score,
                        metric=metric,
                        n_pos=figures.n_positives,
                        n_neg=figures.n_negatives,
                        **interval.model_dump(),
                    )
                )
    return tuple(found)


def card_section(evaluation: Evaluation) -> str:
    """The measured part of ``MODEL_CARD.md``, from a heading of second level on; ends without a newline."""
    parts = [
        HEADING,
        f"All intervals are 95%. Purity and inspection are stated for one lens in {1 / evaluation.sky_prevalence:,.0f} "
        "objects. Visible lenses: arc S/N above 25 and more than 100 pixels. Everything in this section was measured on "
        "simulated or painted images that no step of training has seen, unless it says so; real images come first.",
        "\n".join(_set(found, evaluation) for found in (*evaluation.real_sets, *evaluation.sets)),
    ]
    parts += [_section(table) for table in tables(evaluation) if table.name not in OFF_CARD]
    return "\n\n".join(parts)


def _set(found: SetSummary, evaluation: Evaluation) -> str:
    classes = ", ".join(f"{name} {n:,}" for name, n in sorted(found.classes.items(), key=lambda item: -item[1]))
    trained = f" **{', '.join(found.trained_on)} was trained on it.**" if found.trained_on else ""
    sky = " Its non-lenses stand for the sky." if found.name == evaluation.sky else ""
    return (
        f"- `{found.name}` (preset {found.preset}, SHA-256 {found.sha256[:12]}): {found.n_objects:,} objects, "
        f"{found.n_lenses:,} lenses ({found.n_visible:,} visible). Drawn: {classes}.{sky}{trained}"
    )


def _section(table: Table) -> str:
    note = [] if not table.note else ["", table.note.replace("*", "\\*")]
    return "\n".join([f"### {table.title}", "", markdown_table(table.header, table.rows), *note])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without a line end."""
    # An asterisk alone would begin emphasis.
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in row) + " |"
        for row in (header, ["---"] * len(header), *rows)
    )


#: In a set of real cutouts with no more lenses than this, none that passed may be lost.
FEW_LENSES = 20


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
    of the eight orientations. On every set of real cutouts: which lenses pass, and which others do not, at the thresholds of
    those rates; in a set of at most :data:`FEW_LENSES` lenses none that passed at the highest rate may be lost. Many figures
    are compared, so each interval is widened until all of them hold at once with 95%
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
    real = list(_real(evaluation, new.name, old.name))
    confidence = 1.0 - (1.0 - CONFIDENCE) / max(1, len(differences) + len(pairs) + len(real))
    checks = [_check_figure(found, confidence) for found in differences]
    checks += [_check_image(*pair, confidence) for pair in pairs]
    checks += [_check_real(*one, confidence) for one in real]
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
    half = float(stdtrit(ORIENTATIONS - 1, 0.5 + confidence / 2) * gains.std(ddof=1)) / math.sqrt(ORIENTATIONS)
    gain = float(gains.mean())
    return Check(
        what=f"image {new.name}",
        figure="decades of non-lenses above",
        new=float(ranks[0].mean()),
        old=float(ranks[1].mean()),
        difference=Interval(value=gain, low=gain - half, high=gain + half),
    )


def _real(
    evaluation: Evaluation, new: str, old: str
) -> Iterator[tuple[RealFigures, RealFigures, float, Literal["lenses", "others"]]]:
    """(new, old, false-positive rate, what is counted) of every set of real cutouts."""
    older = {found.set: found for found in evaluation.real if found.bundle == old}
    for found in evaluation.real:
        if found.bundle == new:
            for fpr, n_false in zip(found.fprs, found.n_false, strict=True):
                if n_false >= FEW_FALSE:
                    kinds = dict.fromkeys(share.kind for share in found.shares)
                    yield from ((found, older[found.set], fpr, kind) for kind in kinds)


def _check_real(new: RealFigures, old: RealFigures, fpr: float, kind: Literal["lenses", "others"], confidence: float) -> Check:
    """Compare which objects of a set pass; of those that only one of the bundles lets pass, half are either's by chance."""
    n = next(share.n for share in new.shares if (share.kind, share.group) == (kind, "all"))
    passed = [
        {one.target_id for one in (found.lenses if kind == "lenses" else found.alarms) if fpr in one.passes}
        for found in (new, old)
    ]
    better, worse = len(passed[0] - passed[1]), len(passed[1] - passed[0])
    if kind == "others":
        better, worse = worse, better
    value = (better - worse) / n
    if kind == "lenses" and n <= FEW_LENSES and fpr == max(new.fprs):
        # So few were chosen because none may be lost: that others are won makes up for nothing.
        difference = Interval(value=value, low=-worse / n, high=-worse / n if worse else value)
    elif better + worse == 0:
        difference = Interval(value=0.0, low=0.0, high=0.0)
    else:
        share = exact_interval(better, better + worse, confidence)
        low, high = ((better + worse) * (2.0 * end - 1.0) / n for end in (share.low, share.high))
        difference = Interval(value=value, low=low, high=high)
    shares = [len(one) / n for one in passed]
    if kind == "others":
        shares = [1.0 - one for one in shares]
    what = "real lenses that pass" if kind == "lenses" else "real non-lenses that do not pass"
    return Check(what=f"{new.set}, {what}", figure=f"share at FPR {fpr:g}", new=shares[0], old=shares[1], difference=difference)


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


def installed_name(bundle: Path, *models: Path) -> str:
    """Name of the folder of a bundle that lies in one of the folders ``models``.

    Raises
    ------
    UsageError
        The bundle is in none of them.
    """
    path = bundle.resolve()
    if path.parent not in [folder.resolve() for folder in models]:
        raise UsageError(
            f"{bundle}: is not where bundles that are used by name lie; copy it there: "
            f"mkdir -p {models[0]} && cp -r {bundle} {models[0]}"
        )
    return path.name


def make_default(name: str, models: Path) -> Path:
    """Write ``default.json``.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    path = models / DEFAULT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, DefaultBundle(bundle=name).to_bytes())
    return path
