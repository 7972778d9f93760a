"""What a run would do, before it does anything: tiles, objects, bytes, time.

In: a tile list and a configuration. Out: a :class:`RunPlan`. Nothing is written. Refused: an empty or malformed list, a bad
bundle (before any tile is opened); a tile that cannot be opened is listed as failed, as it would be in the run.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from scanner.config import RunConfig
from scanner.cutouts.extract import open_tile
from scanner.ensemble.score import Scorer
from scanner.errors import TileError
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, FailedTile, Record, Tile
from scanner.sky.targets import list_targets
from scanner.survey.engine import worker_count
from scanner.survey.fingerprint import bytes_of_tile
from scanner.survey.keep import kept_fraction

#: Bytes of one stored object of all four bands, by codec (measured by ``benchmarks/storing.py``).
STORED_BYTES = {"exact": 190_000, "compact": 37_000}


#: Share of the objects counted as candidates where nothing is known yet.
CANDIDATE_FRACTION = 0.01


class TilePlan(Record):
    """One tile of a planned run."""

    tile_id: str
    alignment: str
    target_source: str
    n_seen: int
    n_targets: int
    input_bytes: int
    sky_area_deg2: float


class RunPlan(Record):
    """A planned run; ``seconds`` is an estimate from a short measurement of scoring on this machine."""

    tiles: tuple[TilePlan, ...]
    failed: tuple[FailedTile, ...]
    workers: int
    objects_per_second: float

    @property
    def n_targets(self) -> int:
        """Objects that would be scored."""
        return sum(tile.n_targets for tile in self.tiles)

    @property
    def input_bytes(self) -> int:
        """Bytes of the input files."""
        return sum(tile.input_bytes for tile in self.tiles)

    @property
    def seconds(self) -> float:
        """Expected duration."""
        return self.n_targets / (self.objects_per_second * self.workers)

    def stored_bytes(self, config: RunConfig) -> int:
        """Bytes of cutouts that would be kept."""
        fraction = max(kept_fraction(config.cutouts.keep), CANDIDATE_FRACTION if config.cutouts.keep != "none" else 0.0)
        return round(self.n_targets * fraction * STORED_BYTES[config.cutouts.codec])


def plan(tiles: tuple[Tile, ...], config: RunConfig, scorer: Scorer) -> RunPlan:
    """Open every tile's headers, count its targets and time the scorer.

    Targets from a catalogue or a grid are counted exactly; with detection the mosaic has to be read once.
    """
    planned: list[TilePlan] = []
    failed: list[FailedTile] = []
    for tile in tiles:
        try:
            planned.append(_plan_tile(tile, config))
        except TileError as error:
            failed.append(FailedTile(tile_id=tile.tile_id, reason=str(error)))
    return RunPlan(
        tiles=tuple(planned),
        failed=tuple(failed),
        workers=worker_count(config.engine, len(planned)),
        objects_per_second=_scoring_rate(scorer),
    )


def _plan_tile(tile: Tile, config: RunConfig) -> TilePlan:
    scratch = Path(config.engine.scratch) if config.engine.scratch else None
    with open_tile(tile, config.cutouts, scratch) as images:
        selection = list_targets(tile, images.vis, config.targets)
        return TilePlan(
            tile_id=tile.tile_id,
            alignment=images.alignment.case,
            target_source=selection.source,
            n_seen=selection.n_seen,
            n_targets=len(selection.targets),
            input_bytes=bytes_of_tile(tile),
            sky_area_deg2=images.sky_area_deg2,
        )


def _scoring_rate(scorer: Scorer, n_objects: int = 16) -> float:
    noise = np.random.default_rng(0)
    vis = noise.standard_normal((n_objects, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), np.float32)
    nisp = noise.standard_normal((n_objects, 3, NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), np.float32)
    sky, sigma = np.zeros((n_objects, 4), np.float32), np.ones((n_objects, 4), np.float32)
    bad, flags = np.zeros((n_objects, 4), np.float32), np.zeros(n_objects, np.uint32)
    scorer.score(vis[:2], nisp[:2], sky[:2], sigma[:2], bad[:2], flags[:2])
    start = time.perf_counter()
    scorer.score(vis, nisp, sky, sigma, bad, flags)
    return n_objects / (time.perf_counter() - start)
