"""What a model card says of a bundle's figures: sets, tables, nothing else.

In: an evaluation, the card's bundle first. Out: Markdown. Refused: nothing.
"""

from __future__ import annotations

from scanner.evaluation.cells import Table
from scanner.evaluation.results import Evaluation, SetSummary
from scanner.evaluation.tables import tables

#: Tables that are too long for a card; the page has them.
LEFT_OUT = ("members", "properties")
HEADING = "## How well it finds lenses"


def card_section(evaluation: Evaluation) -> str:
    """The measured part of ``MODEL_CARD.md``, from a heading of second level on; ends without a newline."""
    parts = [
        HEADING,
        f"All intervals are 95%. Purity and inspection are stated for one lens in {1 / evaluation.sky_prevalence:,.0f} "
        "objects. Visible lenses: arc S/N above 25 and more than 100 pixels. Everything in this section was measured on "
        "simulated images that no step of training has seen, unless it says so.",
        "\n".join(_set(found, evaluation) for found in evaluation.sets),
    ]
    parts += [_markdown(table) for table in tables(evaluation) if table.name not in LEFT_OUT]
    return "\n\n".join(parts)


def _set(found: SetSummary, evaluation: Evaluation) -> str:
    classes = ", ".join(f"{name} {n:,}" for name, n in sorted(found.classes.items(), key=lambda item: -item[1]))
    trained = f" **{', '.join(found.trained_on)} was trained on it.**" if found.trained_on else ""
    sky = " Its non-lenses stand for the sky." if found.name == evaluation.sky else ""
    return (
        f"- `{found.name}` (preset {found.preset}, SHA-256 {found.sha256[:12]}): {found.n_objects:,} objects, "
        f"{found.n_lenses:,} lenses ({found.n_visible:,} visible). Drawn: {classes}.{sky}{trained}"
    )


def _markdown(table: Table) -> str:
    rows = [table.header, ("---",) * len(table.header), *table.rows]
    # An asterisk alone would begin emphasis.
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("*", "\\*") for cell in row) + " |" for row in rows]
    note = [] if not table.note else ["", table.note.replace("*", "\\*")]
    return "\n".join([f"### {table.title}", "", *lines, *note])
