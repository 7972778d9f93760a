"""The figures of an evaluation in the bundle that was measured: a section of its model card, and metrics in its manifest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scanner.ensemble.bundle import CARD_FILE, Bundle, Metric, content_of, write_bundle
from scanner.errors import ContentError, UsageError
from scanner.evaluation.results import Evaluation, SetSummary, main_pairings
from scanner.evaluation.tables import OFF_CARD, Table, tables

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
