"""Surveys of little tiles whose workers and driver are killed at random, against the undisturbed one, byte for byte.

    python benchmarks/chaos.py [--seeds 20] [--first 1] [--tiles 42] [--where local|s3] [--placement whole|split] [--folder …]

Each run has a scheduler and three workers of its own, and another worker for every one that is lost. Seeds take the four
combinations of folder (a local one; a real S3 server on loopback, which then holds the tiles too) and placement in turn, unless
told otherwise. Printed for each: what was killed, drivers that had to be started again, seconds, whether the bytes are equal,
what was left behind. The exit code is 1 if anything differed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "survey")]

from conftest import S3_CREDENTIALS, ObjectStorage, running_s3_server  # noqa: E402
from disturbed.little_tiles import write_little_tiles  # noqa: E402
from disturbed.survey import Disturbed, Survey  # noqa: E402

from scanner.config import StorageConfig  # noqa: E402
from scanner.ensemble import bundles  # noqa: E402
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles  # noqa: E402
from scanner.storage import open_store  # noqa: E402

KINDS = ("worker SIGKILL", "worker SIGTERM", "driver SIGKILL", "driver SIGTERM")
#: Workers that are ended in each run.
N_ENDED = 6
COMBINATIONS = [("local", "whole"), ("s3", "split"), ("local", "split"), ("s3", "whole")]


def uploaded(tiles: Path, server: ObjectStorage) -> str:
    """Put the tiles into a bucket, but for the one that cannot be opened: there it is missing."""
    location = server.fresh()
    store = open_store(location, server.config)
    for path in sorted(tiles.iterdir()):
        if path.is_file():
            store.write(path.name, path.read_bytes())
    return f"{location}/tile-list.txt"


def row(seed: int, where: str, placement: str, run: Disturbed, expected: dict[str, str]) -> tuple[str, bool]:
    """A line of the table, and whether all is as it should be."""
    outcome = run.outcome
    differing = [name for name in expected.keys() | run.promised.keys() if expected.get(name) != run.promised.get(name)]
    longest = max((seconds for _, seconds in outcome.left), default=0.0)
    good = not differing and not run.leftovers and outcome.exit_code == 3
    kills = " ".join(f"{outcome.done[kind]:>7}" for kind in KINDS)
    line = f"{seed:>5} {where:<6} {placement:<6} {kills} {longest:>8.1f} {len(outcome.refusals):>9} {outcome.seconds:>8.0f}"
    line += f"  {'equal' if not differing else f'{len(differing)} DIFFER'}, {len(run.leftovers)} left"
    for detail in (differing, run.leftovers):
        line += f"\n      {', '.join(sorted(detail)[:6])}" if detail else ""
    if outcome.exit_code != 3:
        line += (
            f"\n      exit code {outcome.exit_code}, others {outcome.refusals}: {run.processes.log('driver').splitlines()[-1]}"
        )
    return line, good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=42)
    parser.add_argument("--where", choices=["local", "s3"])
    parser.add_argument("--placement", choices=["whole", "split"])
    parser.add_argument("--folder", type=Path, help="where to work, and to leave what was made; default: a temporary folder")
    arguments = parser.parse_args()
    combinations = [
        (where, placement)
        for where, placement in COMBINATIONS
        if arguments.where in (None, where) and arguments.placement in (None, placement)
    ]
    os.environ.update(S3_CREDENTIALS)
    # Whoever ends this by a signal has its processes ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        base = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base.mkdir(parents=True, exist_ok=True)
        draw_tiles(TilesRequest(n_tiles=3, size=640, seed=3, overlap=0.3, lenses_per_tile=6, density=0.5), base / "sky", 1)
        listed = write_little_tiles(base / "sky", base / "tiles", arguments.tiles)
        surveys, server, bundle = {}, None, str(bundles.find(None))
        if any(where == "local" for where, _ in combinations):
            surveys["local"] = Survey(str(listed), arguments.tiles - 2, StorageConfig(), bundle)
        if any(where == "s3" for where, _ in combinations):
            server = stack.enter_context(running_s3_server()).storage
            surveys["s3"] = Survey(uploaded(base / "tiles", server), arguments.tiles - 2, server.config, bundle)
        expected = {}
        for where, survey in surveys.items():
            out = server.fresh() if where == "s3" and server else str(base / "calm-local" / "out")
            expected[where] = survey.undisturbed(base / f"calm-{where}", out)
        for where, files in expected.items():
            print(f"undisturbed, {where}: {len(files)} files")
        head = " ".join(f"{kind.replace('worker ', 'W').replace('driver ', 'D').replace('SIG', '-'):>7}" for kind in KINDS)
        print(f"{'seed':>5} {'where':<6} {'place':<6} {head} {'leave, s':>8} {'restarts':>9} {'seconds':>8}", flush=True)
        all_good = True
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            where, placement = combinations[seed % len(combinations)]
            folder = base / f"seed-{seed}"
            out = server.fresh() if where == "s3" and server else str(folder / "out")
            run = surveys[where].disturbed(seed, folder, out, placement, N_ENDED)
            line, good = row(seed, where, placement, run, expected[where])
            print(line, flush=True)
            all_good &= good
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
