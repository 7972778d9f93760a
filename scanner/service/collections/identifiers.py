"""Names of single objects: ``run/tile_id/target_id``, unique wherever objects of several runs meet.

In: such text, or a row of a catalogue. Out: the other. Refused: text of another form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanner.records import TILE_ID_PATTERN

_TILE_ID = re.compile(TILE_ID_PATTERN)
_RUN = re.compile(r"[^/\x00-\x1f\x7f]{1,300}")
#: As numbers are written: another way of writing one would name the same object differently.
TARGET_ID_PATTERN = r"^(?:0|-?[1-9][0-9]{0,18})$"
_TARGET_ID = re.compile(TARGET_ID_PATTERN)
#: SQL of the name of a row.
IDENTIFIER_SQL = "run || '/' || tile_id || '/' || target_id::VARCHAR"


@dataclass(frozen=True)
class CandidateId:
    """Which object: the run that scored it, its tile, and its id there."""

    run: str
    tile_id: str
    target_id: int

    def __str__(self) -> str:
        return f"{self.run}/{self.tile_id}/{self.target_id}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CandidateId:
        """The name of a row of a catalogue."""
        return cls(str(row["run"]), str(row["tile_id"]), int(row["target_id"]))

    @classmethod
    def parse(cls, text: str) -> CandidateId | None:
        """Read a name; None where the text is none."""
        parts = text.split("/")
        if len(parts) != 3:
            return None
        run, tile_id, target = parts
        if not (_RUN.fullmatch(run) and _TILE_ID.fullmatch(tile_id) and _TARGET_ID.fullmatch(target)):
            return None
        target_id = int(target)
        return cls(run, tile_id, target_id) if -(2**63) <= target_id < 2**63 else None
