"""What a run cost: processor and GPU seconds by stage, per tile, square degree and thousand objects."""

from __future__ import annotations

from collections import defaultdict

from scanner.records import CommitRecord, Record

#: The stage during which a GPU is held.
GPU_STAGE = "score"
#: Not a stage: the whole tile on the clock.
WHOLE_TILE = "tile"


class Spent(Record):
    """Seconds of one processor core, and seconds during which a GPU was held."""

    core_seconds: float
    gpu_seconds: float


class RunCost(Record):
    """The cost ledger of ``run.json``: totals, and what they are a tile, a square degree, a thousand scored objects.

    ``n_screened``: scored objects that only the members of the screen scored. ``sky_area_deg2`` is that of the committed tiles,
    overlaps counted twice, as the work was done twice. ``tile_seconds`` and ``stage_seconds``: on the clock, summed over tiles;
    stages of a tile overlap. ``bytes_read``: of the input files.
    """

    n_tiles: int
    n_objects: int
    n_screened: int = 0
    sky_area_deg2: float
    bytes_read: int
    total: Spent
    per_tile: Spent | None
    per_deg2: Spent | None
    per_1000_objects: Spent | None
    by_stage: dict[str, Spent]
    tile_seconds: float
    stage_seconds: dict[str, float]


class CostLedger:
    """Sums over the commit records of all tiles, from every session of a run; failed attempts left no record."""

    def __init__(self) -> None:
        self._n_tiles = self._n_objects = self._n_screened = self._bytes_read = 0
        self._area = self._gpu = 0.0
        self._core: dict[str, float] = defaultdict(float)
        self._clock: dict[str, float] = defaultdict(float)

    def add(self, commit: CommitRecord) -> None:
        """Count one tile."""
        self._n_tiles += 1
        self._n_objects += commit.n_scored
        self._n_screened += commit.n_screened
        self._bytes_read += commit.bytes_read
        self._area += commit.sky_area_deg2
        self._gpu += commit.gpu_seconds
        for stage, seconds in commit.core_seconds.items():
            self._core[stage] += seconds
        for stage, seconds in commit.seconds.items():
            self._clock[stage] += seconds

    def cost(self) -> RunCost:
        """What was counted so far."""
        core = sum(self._core.values())
        by_stage = {stage: _spent(seconds, self._gpu if stage == GPU_STAGE else 0.0) for stage, seconds in self._core.items()}
        return RunCost(
            n_tiles=self._n_tiles,
            n_objects=self._n_objects,
            n_screened=self._n_screened,
            sky_area_deg2=self._area,
            bytes_read=self._bytes_read,
            total=_spent(core, self._gpu),
            per_tile=_share(core, self._gpu, self._n_tiles),
            per_deg2=_share(core, self._gpu, self._area),
            per_1000_objects=_share(core, self._gpu, self._n_objects / 1000),
            by_stage=dict(sorted(by_stage.items())),
            tile_seconds=round(self._clock.get(WHOLE_TILE, 0.0), 3),
            stage_seconds={stage: round(seconds, 3) for stage, seconds in sorted(self._clock.items()) if stage != WHOLE_TILE},
        )


def one_line(cost: RunCost) -> str:
    """The cost in one sentence, the dearest stages first."""
    if cost.per_tile is None or cost.total.core_seconds == 0:
        return "Cost: nothing was counted."
    shares = [f"a tile {_seconds(cost.per_tile)}"]
    if cost.per_deg2 is not None:
        shares.append(f"a deg² {_seconds(cost.per_deg2)}")
    if cost.per_1000_objects is not None:
        shares.append(f"1,000 objects {_seconds(cost.per_1000_objects)}")
    dearest = sorted(cost.by_stage.items(), key=lambda stage: (-stage[1].core_seconds, stage[0]))[:3]
    stages = ", ".join(f"{stage} {spent.core_seconds / cost.total.core_seconds:.0%}" for stage, spent in dearest)
    return f"Cost: {_seconds(cost.total)} in all ({stages}); {', '.join(shares)}."


def _seconds(spent: Spent) -> str:
    gpu = f" + {_three_digits(spent.gpu_seconds)} GPU-s" if spent.gpu_seconds else ""
    return f"{_three_digits(spent.core_seconds)} core-s{gpu}"


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _share(core: float, gpu: float, parts: float) -> Spent | None:
    return _spent(core / parts, gpu / parts) if parts else None


def _spent(core: float, gpu: float) -> Spent:
    return Spent(core_seconds=round(core, 3), gpu_seconds=round(gpu, 3))
