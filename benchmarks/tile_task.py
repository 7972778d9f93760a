"""How fast one process scans one tile, and in how much memory, by the number of objects that it scores at a time.

    python benchmarks/tile_task.py [--size 1800] [--step 10] [--parallel 1 2] [--keep candidates] [--rounds 3] [--split]

Draws a tile of ``--size`` pixels and scans the positions of a grid of ``--step`` arcsec, each time in a process of its own, the
settings in turn. Prints the median over the rounds of objects per second on the clock and per second of processors, the peak
resident set, and the busy cores (processor time over time on the clock, 1 for a plain loop). ``--split``: cut and scored as two
tasks, through the run folder. Every table must come out the same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from scanner.config import load
from scanner.ensemble import bundles
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.survey.messages import TileJob
from scanner.survey.scan.tile import cut_tile, load_scorer, scan_tile, score_tile


def scan(arguments: argparse.Namespace, sky: Path, parallel: int) -> None:
    """What a child does."""
    flags = {
        "targets.source": "grid",
        "targets.grid_step_arcsec": arguments.step,
        "cutouts.keep": arguments.keep,
        "engine.parallel_scores": parallel,
    }
    with tempfile.TemporaryDirectory(dir=sky) as out:
        job = TileJob(
            tile=next(iter(tile_list.read(str(sky / "tile-list.txt")).tiles.values())),
            run_folder=out,
            config=load(None, flags, {}),
            provider="cpu",
            bundle=str(bundles.load(None).path),
            config_fingerprint="",
            bundle_fingerprint="",
        )
        load_scorer(job)
        wall, core = time.perf_counter(), time.process_time()
        outcome = score_tile(job, cut_tile(job)) if arguments.split else scan_tile(job)
        wall, core = time.perf_counter() - wall, time.process_time() - core
        assert outcome.commit is not None, outcome
        (table,) = Path(out).glob("tiles/*/scores.parquet")
        told = {
            "objects": outcome.commit.n_targets,
            "wall_s": wall,
            "core_s": core,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "table": hashlib.sha256(table.read_bytes()).hexdigest(),
        }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1800)
    parser.add_argument("--step", type=float, default=10.0)
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep", default="candidates")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        scan(arguments, Path(arguments.child[0]), int(arguments.child[1]))
        return
    with tempfile.TemporaryDirectory() as sky:
        draw_tiles(TilesRequest(n_tiles=1, size=arguments.size, seed=5, lenses_per_tile=6, density=0.5), Path(sky), 1)
        told: dict[int, list[dict[str, float]]] = {parallel: [] for parallel in arguments.parallel}
        for _ in range(arguments.rounds):
            for parallel, rounds in told.items():
                command = [sys.executable, __file__, *sys.argv[1:], "--child", sky, str(parallel)]
                rounds.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    assert len({one["table"] for rounds in told.values() for one in rounds}) == 1
    for parallel, rounds in told.items():
        wall, core = median(one["wall_s"] for one in rounds), median(one["core_s"] for one in rounds)
        n, peak = rounds[0]["objects"], median(one["peak_mb"] for one in rounds)
        print(
            f"{parallel} at a time: {n} objects, {n / wall:.1f} a second, {n / core:.1f} a core-second, "
            f"{core / wall:.2f} cores busy, peak {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
