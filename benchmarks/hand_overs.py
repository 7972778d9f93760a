"""Runs that are handed over from driver to driver at random moments, among real processes: no committed tile may be lost.

    python benchmarks/hand_overs.py [--number 1000] [--first 1]

Each run has a few tiles without pixels, a driver that opens the run folder as ``scanner run`` does, and two workers for it,
which write tiles with pauses. Drivers are killed or told to stop, and the next one begins while the workers of the last go on;
workers are killed too. Every driver says which tiles it counts as done, and by which record: whatever one said once must hold
for all that follow, to the last, which verifies all tiles. A quarter of the hand-overs each: on a disk and on an S3 server on
loopback, with a tile as one task and as two. Prints a line for each combination; the exit code is 1 where a tile was lost.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import product
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "survey")]

from conftest import S3_CREDENTIALS, running_s3_server  # noqa: E402
from test_hand_over import RECORD, SCANS  # noqa: E402

from scanner.config import StorageConfig  # noqa: E402
from scanner.errors import UnavailableError  # noqa: E402
from scanner.storage import open_store  # noqa: E402
from scanner.survey.folder.ledger import COMMIT, RunFolder  # noqa: E402
from scanner.survey.folder.resume import committed_inputs, open_run  # noqa: E402

TILES = tuple(f"{number:03d}" for number in range(8))
RUN = RECORD.model_copy(update={"tile_ids": TILES})
N_WORKERS = 2
LONGEST_PAUSE_S = 0.01
LONGEST_LIFE_S = 0.25
MOST_SECONDS = 120.0
STOPPED = 130
#: Processes are forked from one that has imported everything and has never spoken to an object store.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["conftest", "test_hand_over"])


class LostError(Exception):
    """A tile that was done once is not what it was."""


def drive(location: str, storage: StorageConfig, pipe: Connection) -> None:
    """Open the run, say what is done, wait until everything is, and verify it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))

    def tell(folder: RunFolder, done: list[str]) -> None:
        records = {tile: hashlib.sha256(folder.store.read(f"{folder.tile(tile)}/{COMMIT}")).hexdigest() for tile in done}
        pipe.send((folder.hold, records))

    with open_run(location, storage, RUN) as folder:
        done = set(committed_inputs(folder, RUN))
        tell(folder, sorted(done))
        while len(done) < len(TILES):
            time.sleep(0.01)
            done |= {tile for tile in TILES if tile not in done and folder.commit_of(tile) is not None}
        for tile in TILES:
            commit = folder.commit_of(tile)
            if commit is None:
                raise LostError(tile)
            folder.verify(commit)
        tell(folder, sorted(done))
    # What ends a process while Python shuts it down gives it another exit code.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def work(location: str, storage: StorageConfig, placement: str, hold: str, seed: int) -> None:
    """Scan every tile that is not committed, in an order of its own, for one driver."""
    chance = random.Random(seed)
    folder = RunFolder(open_store(location, storage), hold)
    for tile in chance.sample(TILES, len(TILES)):
        for _ in range(3):
            try:
                SCANS[placement](folder, tile, "c", lambda: time.sleep(chance.uniform(0, LONGEST_PAUSE_S)))
                break
            except UnavailableError:
                if folder.store.holder() != hold:
                    return


class Run:
    """One run folder from its first driver to the one that ends it."""

    def __init__(self, location: str, storage: StorageConfig, placement: str, chance: random.Random) -> None:
        self._where = (location, storage)
        self._placement, self._chance = placement, chance
        self._records: dict[str, str] = {}
        self._workers: list[BaseProcess] = []
        self.done: Counter[str] = Counter()

    def drive(self) -> bool:
        """One driver's life, with its workers; whether it ended of itself."""
        here, there = PROCESSES.Pipe(duplex=False)
        driver = PROCESSES.Process(target=drive, args=(*self._where, there))
        driver.start()
        there.close()
        with here, suppress(EOFError):
            hold = self._noted(here)
            self._live(driver, [self._worker(hold) for _ in range(N_WORKERS)], hold)
            self._noted(here)
        driver.join()
        if driver.exitcode not in (0, STOPPED, -signal.SIGKILL, -signal.SIGTERM):
            raise LostError(f"a driver ended with {driver.exitcode}")
        return driver.exitcode == 0

    def end(self) -> None:
        """Wait for all workers."""
        for worker in self._workers:
            worker.join()

    def _live(self, driver: BaseProcess, mine: list[BaseProcess], hold: str) -> None:
        """Until the driver has ended, or is ended; workers are killed meanwhile."""
        dies = time.monotonic() + self._chance.uniform(0, LONGEST_LIFE_S)
        how = self._chance.choice([signal.SIGKILL, signal.SIGTERM])
        given_up = time.monotonic() + MOST_SECONDS
        while driver.is_alive():
            if time.monotonic() > given_up:
                raise TimeoutError("a driver waits in vain")
            if time.monotonic() > dies:
                # It may have ended of itself just now: the process that forked it has reaped it then.
                with suppress(ProcessLookupError):
                    os.kill(driver.pid or 0, how)
                    self.done[f"driver {how.name}"] += 1
                driver.join(MOST_SECONDS)
                return
            if self._chance.random() < 0.03:
                number = self._chance.randrange(N_WORKERS)
                with suppress(ProcessLookupError):
                    mine[number].kill()
                    self.done["worker SIGKILL"] += 1
                mine[number] = self._worker(hold)
            time.sleep(0.005)

    def _worker(self, hold: str) -> BaseProcess:
        seed = self._chance.randrange(1 << 30)
        worker = PROCESSES.Process(target=work, args=(*self._where, self._placement, hold, seed))
        worker.start()
        self._workers.append(worker)
        return worker

    def _noted(self, pipe: Connection) -> str:
        """What a driver said, compared with what others said before; gives its token."""
        hold, records = pipe.recv()
        for tile, record in self._records.items():
            if records.get(tile) != record:
                raise LostError(f"tile {tile}: a driver counted it as done, the next did not")
        self._records = records
        return str(hold)


def main() -> None:
    """Hand over until it was done often enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1, help="seed of the first run")
    arguments = parser.parse_args()
    os.environ.update(S3_CREDENTIALS, PYTHONPATH=os.pathsep.join(sys.path))
    failed = False
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder,
        running_s3_server() as s3,
    ):
        for kind, placement in product(("local", "s3"), SCANS):
            totals, n_runs, start, seed = Counter[str](), 0, time.monotonic(), arguments.first
            while totals["driver SIGKILL"] + totals["driver SIGTERM"] < arguments.number / 4:
                location = f"{folder}/{placement}-{seed}" if kind == "local" else s3.storage.fresh()
                storage = StorageConfig() if kind == "local" else s3.storage.config
                run = Run(location, storage, placement, random.Random(f"{kind} {placement} {seed}"))
                try:
                    while not run.drive():
                        pass
                except (LostError, TimeoutError) as error:
                    failed = True
                    print(f"{kind} {placement} seed {seed}: {error}", flush=True)
                finally:
                    run.end()
                totals += run.done
                n_runs, seed = n_runs + 1, seed + 1
            counts = ", ".join(f"{count} {name}" for name, count in sorted(totals.items()))
            print(f"{kind:<6} {placement:<6} {n_runs} runs, {counts}, {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
