"""The facts of a run that its report states."""

from __future__ import annotations

from typing import Literal

from scanner.records import FailedTile, Record


class RunSummary(Record):
    """One run in numbers.

    ``n_targets`` objects were listed in the ``n_tiles - n_failed`` tiles that worked, ``n_scored`` of them could be scored and
    ``n_candidates`` reached the ``threshold`` on the score that ``decides_on`` names: the grid value, or the calibrated
    probability where the bundle has no grid. ``beta`` is that of the F-beta which chose the threshold; None where the bundle
    was made without labelled objects and none did. ``area_deg2`` is the sky area of the tiles that worked; overlaps count
    twice.
    """

    title: str
    n_tiles: int
    n_failed: int
    n_targets: int
    n_scored: int
    n_candidates: int
    area_deg2: float
    bundle_name: str
    bundle_version: str
    threshold: float
    beta: float | None
    scanner_version: str
    command: str
    decides_on: Literal["grid", "calibrated"] = "grid"
    failed_tiles: tuple[FailedTile, ...] = ()
