"""What the driver and the workers say to one another when candidates are explained, as JSON.

In and out: small frozen records. Refused: unknown fields, so that a worker of another version refuses a job by name.
"""

from __future__ import annotations

from scanner.config import RunConfig
from scanner.records import Record, Tile


class ExplainJob(Record):
    """Candidates of one tile that are to be explained."""

    run_folder: str
    tile: Tile
    config: RunConfig
    bundle: str
    bundle_fingerprint: str
    target_ids: tuple[int, ...]


class ExplainOutcome(Record):
    """What became of a job: how many candidates are explained, and why the rest are not; ``passing``: worth another attempt."""

    tile_id: str
    n_done: int
    reason: str = ""
    passing: bool = False
