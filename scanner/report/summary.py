"""The facts of a run that its report states."""

from __future__ import annotations

from scanner.records import FailedTile, Record


class RunSummary(Record):
    """One run in numbers.

    ``n_targets`` objects were listed in the ``n_tiles - n_failed`` tiles that worked, ``n_scored`` of them could be scored and
    ``n_candidates`` reached the ``threshold`` on the grid value, which is the best F-beta on the training set at ``beta``.
    ``area_deg2`` is the sky area of the tiles that worked; overlaps count twice.
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
    beta: float
    scanner_version: str
    command: str
    failed_tiles: tuple[FailedTile, ...] = ()
