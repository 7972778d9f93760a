"""A commit names files that are there for ever, whoever is killed, told to stop or taken over, in whatever order they write.

The protocol is stepped over the real code (:mod:`disturbed.stepper`): two drivers, the worker of the first, which outlives it,
and a third driver where the second is killed. ``python -m test_hand_over`` goes further (a quarter of an hour);
``benchmarks/hand_overs.py`` hands runs over among real processes, a thousand times.
"""

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disturbed.stepper import WAITS, Actor, World, acting, explore, local_folder, object_store, wander
from made_records import commit_record, run_record

from scanner import __version__
from scanner.config import StorageConfig
from scanner.errors import ScannerError, UnavailableError
from scanner.storage import open_store
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, SCORES, RunFolder
from scanner.survey.folder.resume import committed_inputs, open_run
from scanner.survey.scan import output
from scanner.survey.scan.output import CutTile
from scanner.survey.scan.pipeline import Stopwatch

STORAGE = StorageConfig()
TILE = "1"
PIXELS = f"{CUTOUTS}/c/0"
RECORD = run_record(scanner_version=__version__, tile_ids=(TILE,))
CUT = CutTile(
    tile_id=TILE, input_fingerprint="i", input_files={}, config_fingerprint="c", target_source="catalogue", n_seen=1,
    n_outside=0, n_rejected=0, notes=(), n_targets=1, sky_area_deg2=0.1, s_region="", bytes_read=0, wcs="", zero_points={},
    units={},
)  # fmt: skip
_table = io.BytesIO()
pq.write_table(pa.table({"target_id": [1]}), _table)
TABLE = _table.getvalue()


def write_pixels(staging, pause):
    """As zarr does, which makes every folder that is not there."""
    pause()
    (staging.path / PIXELS).parent.mkdir(parents=True, exist_ok=True)
    (staging.path / PIXELS).write_bytes(b"pixels")
    pause()


def write_tile(staging, tile_id, settings, pause):
    """As a worker does: it opens the table first, and its record names what is there in the end."""
    with (staging.path / SCORES).open("wb") as scores:
        write_pixels(staging, pause)
        scores.write(TABLE)
    written = {SCORES: TABLE, PIXELS: b"pixels"}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in written.items() if (staging.path / name).exists()}
    commit = commit_record(tile_id=tile_id, place=staging.place, sha256=files, config_fingerprint=settings)
    (staging.path / COMMIT).write_bytes(commit.to_bytes())
    pause()


def scan_whole(folder, tile_id, settings, pause=lambda: None):
    if folder.commit_of(tile_id) is None:
        with folder.staged_tile(tile_id) as staging:
            write_tile(staging, tile_id, settings, pause)


def scan_split(folder, tile_id, settings, pause=lambda: None):
    cut = CUT.model_copy(update={"tile_id": tile_id, "config_fingerprint": settings})
    if folder.commit_of(tile_id) is None and output.find(folder, tile_id, "i", settings) is None:
        with folder.staged_handover(tile_id, None) as staging:
            write_pixels(staging, pause)
            output.write_record(staging, cut, Stopwatch())
    if folder.commit_of(tile_id) is None:
        handed = output.find(folder, tile_id, "i", settings)
        if handed is None:
            raise output.gone(folder, tile_id)
        with folder.staged_tile(tile_id) as staging:
            try:
                folder.store.read("/".join(part for part in (folder.handover(tile_id), handed.place, PIXELS) if part))
            except FileNotFoundError:
                output.remove(folder, tile_id)
                raise output.gone(folder, tile_id) from None
            write_tile(staging, tile_id, settings, pause)
    output.remove(folder, tile_id)


SCANS = {"whole": scan_whole, "split": scan_split}


@dataclass(frozen=True)
class Scenario:
    """``closes``: the first driver is told to stop and clears up, else it is killed at once. ``restart``: the second throws
    away what is there, and has other settings."""

    place: str
    placement: str
    restart: bool
    closes: bool

    def __str__(self):
        second = "restart" if self.restart else "resume"
        return f"{self.place}-{self.placement}-{'closed' if self.closes else 'killed'}-{second}"

    def world(self, fresh, snapshot):
        location = fresh()
        taken_over = self.place == "s3"
        scan = SCANS[self.placement]
        hold, begun_again = [], []
        settings = "other" if self.restart else "c"

        def first():
            with open_run(location, STORAGE, RECORD) as folder:
                hold.append(folder.hold)
                acting().before(WAITS, writes=False)
                raise KeyboardInterrupt

        def worker():
            with suppress(ScannerError):
                scan(RunFolder(open_store(location, STORAGE), hold[0]), TILE, "c")

        def later(restart):
            record = RECORD.model_copy(update={"config_fingerprint": settings})
            begun_again.append(restart)
            with open_run(location, STORAGE, record, restart=restart) as folder:
                begun_again.clear()
                done = committed_inputs(folder, record)
                for _ in range(4):
                    if TILE in done or folder.commit_of(TILE) is not None:
                        break
                    with suppress(UnavailableError):
                        scan(folder, TILE, settings)
                commit = folder.commit_of(TILE)
                folder.verify(commit)
                return commit.config_fingerprint

        one = Actor("first driver", first)
        two = Actor("its worker", worker, lambda: bool(hold))
        begins = (lambda: one.over or (taken_over and bool(hold))) if self.closes else (lambda: bool(hold))
        three = Actor("second driver", lambda: later(self.restart), begins, mortal=True)
        four = Actor("third driver", lambda: later(self.restart), lambda: three.killed)
        seen = []

        def check():
            folder = RunFolder(open_store(location, STORAGE))
            commit = folder.commit_of(TILE)
            if any(begun_again):
                seen.clear()
            else:
                assert not seen or seen[-1] == commit, "a commit was changed or removed"
            if commit is not None:
                seen[:] = [commit]
                try:
                    folder.verify(commit)
                except ScannerError as error:
                    raise AssertionError(f"a commit names files that are not there: {error}") from None
            for actor in (three, four):
                assert not actor.over or actor.killed or actor.result == settings, repr(actor.result)

        actors = [one, two, three, four]
        if not self.closes:
            # It takes no step after its hold was known: it was killed.
            one.dies_after = lambda: bool(hold)
        return World(actors, check, lambda: snapshot(location))


PLACES = {"local": local_folder, "s3": object_store}
SCENARIOS = [Scenario(*words) for words in product(PLACES, SCANS, (False, True), (False, True))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_nothing_committed_is_lost(scenario):
    """In every order that leaves a process for another once while it could go on; and in some drawn by chance, with deaths."""
    with PLACES[scenario.place]() as (fresh, snapshot):
        assert explore(lambda: scenario.world(fresh, snapshot), deaths=0, preemptions=1) > 100
        for seed in range(8):
            wander(lambda: scenario.world(fresh, snapshot), 1, seed)


def main():
    """Go further than there is time for in the tests."""
    for scenario in SCENARIOS:
        with PLACES[scenario.place]() as (fresh, snapshot):
            for deaths, preemptions in ((1, 1), (0, 2)):
                n_states = explore(lambda scenario=scenario: scenario.world(fresh, snapshot), deaths, preemptions)
                print(f"{scenario}: {deaths} deaths, left {preemptions} times: {n_states} states", flush=True)


if __name__ == "__main__":
    main()
