"""What the engine costs: its memory and its pace with ten thousand empty tiles, and what it adds to the work of real ones.

    python benchmarks/engine.py [--empty 10000] [--workers 2] [--tiles 24] [--objects 64 | --step ARCSEC] [--repeats 3]

First, tiles whose work is nothing, on worker processes of this machine, so that driver and scheduler are one process: its
resident set before, at its peak and at the end, and tiles per second. Then the same little tiles scanned by a plain loop over
the same function and by the engine with one worker, in turn: seconds on the clock and of processors between the first tile's
end and the last one's, so that neither pays for starting; the best of some repeats, since other work may share the machine.
The start is told apart. With ``--step`` the tiles are three larger ones, scanned on a grid of this step: work of seconds each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

TESTS = Path(__file__).parents[1] / "tests" / "survey"
sys.path.insert(0, str(TESTS))

from disturbed.little_tiles import write_little_tiles  # noqa: E402
from made_records import commit_record  # noqa: E402

from scanner import config as configuration  # noqa: E402
from scanner.config import RunConfig  # noqa: E402
from scanner.records import BANDS, BandFiles, ImageRef, Tile  # noqa: E402
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles  # noqa: E402
from scanner.survey import run as survey_run  # noqa: E402
from scanner.survey.messages import TileJob, TileOutcome, TileProgress  # noqa: E402
from scanner.survey.run import RunRequest, run_survey  # noqa: E402
from scanner.survey.scan.tile import scan_tile  # noqa: E402
from scanner.survey.workers.engine import run_on_workers  # noqa: E402
from scanner.survey.workers.steps import Steps  # noqa: E402

SETTINGS = {
    "targets.magnitude_limit": "none",
    "targets.min_area_pixels": 0,
    "cutouts.batch_size": 8,
    "engine.workers": 1,
    "engine.parallel_scores": 1,
}
MEGABYTE = 1e6


def nothing(job: TileJob, on_progress: Callable[[TileProgress], None]) -> TileOutcome:
    """The outcome of a tile without any work; as large as a real one."""
    on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=5000, n_targets=5000))
    return TileOutcome(
        commit=commit_record(
            tile_id=job.tile.tile_id,
            input_files={f"{band}.{role}": "0" * 32 for band in BANDS for role in ("image", "rms", "flag")},
            sha256={f"cutouts.zarr/{number}/c/0/0/0": "0" * 64 for number in range(24)},
            seconds={"open": 1.0, "cut": 1.0, "score": 1.0},
        )
    )


EMPTY = Steps(
    outcome=TileOutcome,
    doing="scanning",
    prepare=lambda job, scores: job.bundle_fingerprint,
    whole=nothing,
    cut=lambda job, on_progress: None,
    score=lambda job, cut, on_progress: nothing(job, on_progress),
)


def empty_jobs(number: int, config: RunConfig) -> Iterator[TileJob]:
    for tile in range(number):
        tile_id = str(100_000_000 + tile)
        path = f"/data/euclid/q1/MER/{tile_id}/EUC_MER_BGSUB-MOSAIC-{{}}_TILE{tile_id}-ABCDEF_20260101T000000.0Z_00.00.fits"
        bands = {band: BandFiles(image=ImageRef(path=path.format(band))) for band in BANDS}
        yield TileJob(
            tile=Tile(tile_id=tile_id, bands=bands),
            run_folder="/data/run",
            config=config,
            provider="cpu",
            bundle="/data/bundle",
            config_fingerprint="0" * 32,
            bundle_fingerprint="0" * 64,
        )


class Resident:
    """Watches this process's resident set."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak = self.now()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """In MB."""
        return float(self._process.memory_info().rss) / MEGABYTE

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.05)


def measure_empty(number: int, workers: int) -> None:
    config = configuration.load(None, {"engine.workers": workers}, {})
    resident = Resident()
    imported, start = resident.now(), 0.0
    started = cpu = 0.0
    for done, outcome in enumerate(run_on_workers(empty_jobs(number, config), number, config, EMPTY)):
        assert outcome.commit is not None, outcome
        if done == 0:
            start, started, cpu = time.perf_counter(), resident.now(), time.process_time()
        if done in (number // 10, number // 2):
            print(f"  {done:6,} tiles: {resident.now():.0f} MB resident")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{number:,} empty tiles on {workers} workers: {number / seconds:.0f} tiles/s")
    print(f"  {1000 * cpu / number:.2f} ms of the processor a tile in driver and scheduler, one process")
    print(f"  resident: {imported:.0f} MB before, {started:.0f} MB at the first tile, {resident.now():.0f} MB at the end")
    print(f"  peak {resident.peak:.0f} MB: grown by {resident.peak - started:.0f} MB")


@dataclass
class Pace:
    """Seconds a tile between the first tile's end and the last one's; ``started``: seconds to the first tile's end."""

    started: float
    clock: float
    processors: float


def timed(scan: Callable[..., Iterable[TileOutcome]], tiles: Path, out: Path, flags: dict[str, object]) -> Pace:
    """Run a survey with some loop in the engine's place; how long its tiles took."""
    stamps: list[tuple[float, float]] = []

    def stamped(*given: object, **named: object) -> Iterator[TileOutcome]:
        for outcome in scan(*given, **named):
            stamps.append((time.perf_counter(), processor_seconds()))
            yield outcome

    survey_run.run_on_workers = stamped
    start = time.perf_counter()
    run_survey(RunRequest(str(tiles), str(out), configuration.load(None, SETTINGS | flags, {})))
    steps = len(stamps) - 1
    return Pace(stamps[0][0] - start, (stamps[-1][0] - stamps[0][0]) / steps, (stamps[-1][1] - stamps[0][1]) / steps)


def plain(
    jobs: Iterable[TileJob],
    n_jobs: int,
    config: RunConfig,
    steps: object,
    on_progress: Callable[[TileProgress], None],
    *,
    on_gpu: bool,
) -> Iterator[TileOutcome]:
    """The loop that anybody would write."""
    for job in jobs:
        yield scan_tile(job, on_progress)


def processor_seconds() -> float:
    """Of this process and its children."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def measure_overhead(folder: Path, n_tiles: int, n_objects: int, step: float | None, repeats: int) -> None:
    draw_tiles(TilesRequest(n_tiles=3, size=1200, seed=3, overlap=0.3, lenses_per_tile=6, density=0.5), folder / "sky", 1)
    flags: dict[str, object] = {}
    if step is None:
        tiles = write_little_tiles(folder / "sky", folder / "tiles", n_tiles, n_objects)
    else:
        tiles, flags = folder / "sky" / "tile-list.txt", {"targets.source": "grid", "targets.grid_step_arcsec": step}
    best: dict[str, Pace] = {}
    for repeat in range(repeats):
        for name, scan in (("plain loop", plain), ("engine", run_on_workers)):
            pace = timed(scan, tiles, folder / f"{name}-{repeat}", flags)
            per_tile = f"{pace.clock:.3f} s ({pace.processors:.3f} s of processors) a tile"
            print(f"  {name}: first tile after {pace.started:.1f} s, then {per_tile}", flush=True)
            known = best.get(name, pace)
            best[name] = Pace(*(min(old, new) for old, new in zip(vars(known).values(), vars(pace).values(), strict=True)))
    loop, engine = best["plain loop"], best["engine"]
    more = f"{engine.clock / loop.clock - 1:+.1%} on the clock, {engine.processors / loop.processors - 1:+.1%} of processors"
    what = f"{n_tiles} tiles of {n_objects} objects" if step is None else f"3 tiles, a grid of {step:g} arcsec"
    print(f"{what}, best of {repeats}: the engine adds {more}")
    print(f"  and {engine.started - loop.started:.1f} s to start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--empty", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--step", type=float, help="larger tiles, scanned on a grid of this step in arcsec")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.empty:
        measure_empty(arguments.empty, arguments.workers)
    if arguments.tiles:
        with tempfile.TemporaryDirectory() as name:
            measure_overhead(Path(name), arguments.tiles, arguments.objects, arguments.step, arguments.repeats)


if __name__ == "__main__":
    main()
