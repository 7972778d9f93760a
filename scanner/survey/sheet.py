"""The contact sheet of a run: candidates, their cutouts, and why the networks say what they say where that is known.

In: the rows to be shown, the run. Out: ``candidates.html``. Refused: see :mod:`scanner.survey.candidate_cutouts`.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from scanner.config import RunConfig
from scanner.records import Tile
from scanner.report import contact_sheet
from scanner.report.summary import RunSummary
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.folder import explanations
from scanner.survey.folder.ledger import RunFolder


def write_sheet(
    path: Path,
    folder: RunFolder,
    tiles: tuple[Tile, ...],
    config: RunConfig,
    bundle_fingerprint: str,
    shown: pa.Table,
    summary: RunSummary,
) -> None:
    """Write the contact sheet.

    Parameters
    ----------
    path
        The HTML file.
    folder, tiles, config, bundle_fingerprint
        The run; strips of explanations are drawn where its settings ask for them, of its own bundle only.
    shown
        The rows to show, ranked.
    summary
        The facts of the run.
    """
    strips = [None] * len(shown) if config.explain.which == "none" else _strips(folder, bundle_fingerprint, shown)
    contact_sheet.write(path, shown, candidate_cutouts(shown, folder, tiles, config), summary, strips)


def _strips(folder: RunFolder, bundle_fingerprint: str, shown: pa.Table) -> list[bytes | None]:
    """PNG of each row's explanation; None where there is none."""
    found = []
    for tile_id, target_id in zip(shown["tile_id"].to_pylist(), shown["target_id"].to_pylist(), strict=True):
        known = explanations.read(folder, tile_id, target_id)
        is_own = known is not None and known.bundle_fingerprint == bundle_fingerprint
        found.append(explanations.strip(folder, known) if known is not None and is_own else None)
    return found
