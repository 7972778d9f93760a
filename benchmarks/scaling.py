"""How a survey grows with workers, what one tile gains from the cores of its worker, and what an object store costs.

    python benchmarks/scaling.py [--tiles 24] [--objects 64] [--repeats 3] [--s3]

Little tiles scanned by one worker and by two, each scoring one object at a time: tiles a second between the first tile's end
and the last one's, and processor seconds a tile. Then one tile of many objects on one worker that scores one object or several
at a time: seconds from its beginning to its commit. With ``--s3``: the same survey with tiles, scratch and run folder on this
disk, and with tiles and run folder on a real S3 server on loopback. The best of some repeats, since other work may share the
machine; processor seconds tell what a tile costs whatever else runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from chaos import uploaded
from conftest import S3_CREDENTIALS, running_s3_server
from disturbed.little_tiles import write_little_tiles
from engine import Pace, timed

from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.survey.workers.engine import run_on_workers


def best(tiles: str, outs: list[str], flags: dict[str, object]) -> Pace:
    """The least of each figure over some runs, each into a folder of its own."""
    paces = [timed(run_on_workers, tiles, out, flags) for out in outs]
    return Pace(*(min(values) for values in zip(*(vars(pace).values() for pace in paces), strict=True)))


def measure_workers(tiles: str, folder: Path, repeats: int) -> None:
    cores = len(os.sched_getaffinity(0))
    paces = {}
    for workers in sorted({1, 2, cores}):
        outs = [str(folder / f"workers-{workers}-{repeat}") for repeat in range(repeats)]
        paces[workers] = best(tiles, outs, {"engine.workers": workers})
        pace, one = paces[workers], paces[1]
        clock, processors = one.clock / pace.clock / workers, one.processors / pace.processors
        print(f"{workers} workers: {1 / pace.clock:.2f} tiles/s, {pace.processors:.3f} s of processors a tile", flush=True)
        print(f"  efficiency {clock:.0%} on the clock, {processors:.0%} of processors", flush=True)


def measure_one_tile(tiles: str, folder: Path, repeats: int) -> None:
    seconds = {}
    for objects in sorted({1, len(os.sched_getaffinity(0))}):
        outs = [str(folder / f"objects-{objects}-{repeat}") for repeat in range(repeats)]
        seconds[objects] = best(tiles, outs, {"engine.parallel_scores": objects}).clock
        gain = seconds[1] / seconds[objects]
        print(f"one tile, {objects} objects at a time: {seconds[objects]:.2f} s, {gain:.2f} times as fast", flush=True)


def measure_s3(listed: Path, folder: Path, repeats: int) -> None:
    os.environ.update(S3_CREDENTIALS)
    with running_s3_server() as server:
        flags = {"storage.endpoint": server.storage.endpoint}
        remote_tiles = uploaded(listed.parent, server.storage)
        outs = [str(folder / f"disk-{repeat}") for repeat in range(repeats)]
        disk = best(str(listed), outs, {})
        remote = best(remote_tiles, [server.storage.fresh() for _ in range(repeats)], flags)
    print(f"from and to this disk: {disk.clock:.3f} s a tile, {disk.processors:.3f} s of processors")
    print(f"from and to an S3 server: {remote.clock:.3f} s a tile, {remote.processors:.3f} s of processors")
    print(f"  {remote.clock / disk.clock - 1:+.1%} on the clock, {remote.processors / disk.processors - 1:+.1%} of processors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--objects", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--s3", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_tiles(TilesRequest(n_tiles=3, size=1200, seed=3, overlap=0.3, lenses_per_tile=6, density=0.5), folder / "sky", 1)
        tiles = write_little_tiles(folder / "sky", folder / "tiles", arguments.tiles, arguments.objects)
        measure_workers(str(tiles), folder, arguments.repeats)
        measure_one_tile(str(tiles), folder, arguments.repeats)
        if arguments.s3:
            measure_s3(tiles, folder, arguments.repeats)


if __name__ == "__main__":
    main()
