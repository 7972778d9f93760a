"""Objects a second, end to end, of a scan whose networks run on a GPU; and how full its calls are.

    python benchmarks/gpu.py [--provider cuda] [--size 9600] [--calls 64 256] [--together 1024 2048]
    python benchmarks/gpu.py --provider cpu --size 2400 --calls 64

A simulated tile is scanned, every object of its catalogue: cut by all cores, screened, what passes gathered, scored by all
members and turned, each in calls of ``--calls`` objects, while the next batches are cut. Each scan is made twice and the second
counts: the first pays for starting the device. Printed: objects a second and a day, seconds by stage (they overlap), calls and
cutouts a call of each graph.

On a processor the same is done with the same calls, and compared with a scan that scores one object after the other: what is
gathered into calls must come back to its own object.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.config import load
from scanner.ensemble import session
from scanner.records import CommitRecord, Float32
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.survey.messages import TileJob
from scanner.survey.scan.tile import GPU_BATCH_SIZE, forget_scorer, load_scorer, scan_tile

GOAL_PER_S = 12_000
#: Log-odds of an object that came alone and of the same one among others.
TOLERANCE = 1e-3


class Calls:
    """How many objects each call of each graph has, by the columns that the graph gives."""

    def __init__(self) -> None:
        self.sizes: dict[str, Counter[int]] = {}

    def counted(self, run: Any) -> Any:
        """The same function, whose calls are counted."""

        def counting(part: Any, feed: Mapping[str, Float32]) -> Float32:
            columns = np.arange(64)[part.columns]
            name = "all members" if len(columns) == len(session.MEMBERS) else f"{len(columns)} of them"
            self.sizes.setdefault(name, Counter())[len(next(iter(feed.values())))] += 1
            return run(part, feed)  # type: ignore[no-any-return]

        return counting


def scan(sky: Path, provider: str, calls: int, together: int | None) -> tuple[CommitRecord, pa.Table, float, Calls]:
    """Scan the tile twice; the record, the scores and the seconds of the second scan, and its calls."""
    flags = {"targets.magnitude_limit": None, "targets.min_area_pixels": 0, "cutouts.keep": "none", "scoring.screen": "bundle"}
    flags |= {"scoring.provider": provider, "cutouts.batch_size": together}
    (tile,) = tile_list.read(str(sky / "tile-list.txt")).tiles.values()
    made = Calls()
    forget_scorer()
    with (
        patch.dict(session.BATCH, {provider: calls}),
        patch.object(session._Part, "run", made.counted(session._Part.run)),
        tempfile.TemporaryDirectory(dir=sky) as out,
    ):
        for turn in range(2):
            made.sizes.clear()
            job = TileJob(
                tile=tile,
                run_folder=f"{out}/{turn}",
                config=load(None, flags, {}),
                provider=provider,
                bundle="ou-euclid-sixth",
                config_fingerprint="",
                bundle_fingerprint="",
            )
            load_scorer(job)
            began = time.perf_counter()
            outcome = scan_tile(job)
            seconds = time.perf_counter() - began
            if outcome.commit is None:
                raise SystemExit(str(outcome))
        (scores,) = Path(out, "1").rglob("scores.parquet")
        return outcome.commit, pq.read_table(scores), seconds, made


def report(words: str, commit: CommitRecord, seconds: float, made: Calls) -> None:
    rate = commit.n_scored / seconds
    print(f"{words}: {commit.n_scored:,} objects in {seconds:.1f} s, {rate:,.0f} a second, {rate * 0.0864:,.1f} million a day")
    print("  seconds:", ", ".join(f"{stage} {value:.1f}" for stage, value in commit.seconds.items()))
    for name, sizes in made.sizes.items():
        n_calls, n = sum(sizes.values()), sum(size * times for size, times in sizes.items())
        print(f"  {name}: {n:,} cutouts in {n_calls:,} calls, {n / n_calls:.1f} a call", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="cuda", choices=session.PROVIDERS)
    parser.add_argument("--size", type=int, default=9600, help="side of the tile, VIS pixels")
    parser.add_argument("--calls", type=int, nargs="+", default=[64], help="objects of a call")
    parser.add_argument("--together", type=int, nargs="+", default=[GPU_BATCH_SIZE], help="objects cut and screened together")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sky = Path(folder)
        draw_tiles(TilesRequest(n_tiles=1, size=arguments.size, seed=5, lenses_per_tile=0.0), sky, 1)
        alone = None
        if session.BATCH[arguments.provider] == 1:
            commit, alone, seconds, made = scan(sky, arguments.provider, 1, None)
            report("one object a call", commit, seconds, made)
        best = 0.0
        for calls in arguments.calls:
            for together in arguments.together:
                commit, scores, seconds, made = scan(sky, arguments.provider, calls, together)
                report(f"{calls} a call, {together} together", commit, seconds, made)
                best = max(best, commit.n_scored / seconds)
                if alone is not None:
                    compare(alone, scores)
        if alone is None:
            print(f"goal: {GOAL_PER_S:,} a second; reached: {best / GOAL_PER_S:.2f} of it")


def compare(alone: pa.Table, scores: pa.Table) -> None:
    """Say how far the scores of gathered objects are from those of objects that were scored one by one."""
    assert alone["target_id"].equals(scores["target_id"])
    names = [name for name in alone.column_names if name.startswith("p_")]
    old, new = (np.stack([table[name].to_numpy() for name in names]) for table in (alone, scores))
    same_members = np.isnan(old) == np.isnan(new)
    both = np.isfinite(old) & np.isfinite(new)
    largest = float(np.abs(old - new, where=both, out=np.zeros_like(old)).max())
    decided = [np.asarray(table["is_candidate"]) for table in (alone, scores)]
    print(
        f"  beside one by one: largest difference of a probability {largest:.1e}, {(decided[0] != decided[1]).sum()} decisions "
        f"differ, {(~same_members).any(axis=0).sum()} objects have other members' scores"
    )
    if largest > TOLERANCE:
        raise SystemExit("objects were given others' scores")


if __name__ == "__main__":
    main()
