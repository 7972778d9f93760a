"""A standing cluster whose tiles do nothing but what a test says, and tell what was done to them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from disturbed.processes import Processes
from made_records import commit_record
from ports import free_ports
from waiting import LIMIT_S, wait_for

from scanner.config import load
from scanner.records import FailedTile, Tile
from scanner.survey.messages import TileJob, TileOutcome, TileProgress
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import SCANNING

#: Started as ``scanner …`` but of another version.
OTHER_VERSION = "import scanner; scanner.__version__ = '0.0'; from scanner.cli.main import main; main()"


def jobs(*tile_ids, provider="cpu", **flags):
    """Jobs of tiles without files; keyword ``engine__attempts`` stands for the setting."""
    config = load(None, {"engine.backoff_s": 0.01} | {name.replace("__", "."): value for name, value in flags.items()}, {})
    return [
        TileJob(
            tile=Tile(tile_id=tile_id, bands={}),
            run_folder="nowhere",
            config=config,
            provider=provider,
            bundle="none",
            config_fingerprint="c",
            bundle_fingerprint="b",
        )
        for tile_id in tile_ids
    ]


@dataclass(frozen=True)
class Bodies:
    """``folder``: where each begun tile leaves a file ``<tile>.<worker>.<number>``."""

    folder: Path

    def begun(self, tile_id="*"):
        """(tile, worker) of all that was begun."""
        return sorted(tuple(file.name.split(".")[:2]) for file in self.folder.glob(f"{tile_id}.*.*"))

    def work(self, behave=lambda tile_id, number, step: None):
        """Work whose tiles succeed where ``behave`` returns nothing, else have a temporary failure; ``step()``: progress."""
        folder, outcome, committed = self.folder, TileOutcome, commit_record(bundle_fingerprint="b")

        def scan(job, on_progress):
            from distributed import get_worker

            tile_id = job.tile.tile_id
            number = len(list(folder.glob(f"{tile_id}.*.*")))
            (folder / f"{tile_id}.{get_worker().name}.{number}").touch()
            reason = behave(tile_id, number, lambda: on_progress(TileProgress(tile_id=tile_id, n_done=0, n_targets=1)))
            if reason is not None:
                return outcome(temporary=FailedTile(tile_id=tile_id, reason=reason))
            return outcome(commit=committed.model_copy(update={"tile_id": tile_id}))

        return replace(
            SCANNING,
            prepare=lambda job, scores: job.bundle_fingerprint,
            close=lambda config: None,
            remote=lambda job: False,
            whole=scan,
        )


def run(given, work, on_progress=lambda progress: None):
    """Outcomes of jobs by tile id, in the order in which they came."""
    config = given[0].config
    return {
        named(outcome): outcome
        for outcome in run_on_workers(iter(given), len(given), config, work, on_progress, on_gpu=given[0].provider == "cuda")
    }


def named(outcome):
    return (outcome.commit or outcome.failed).tile_id if not outcome.fatal else "fatal"


def disturbed(given, work, meanwhile):
    """The outcomes of a run during which something else happens."""
    with ThreadPoolExecutor(1) as beside:
        happening = beside.submit(meanwhile)
        try:
            return run(given, work)
        finally:
            happening.result()


class Standing:
    """A scheduler and workers of ours, in processes; ``words``: flags of both, for certificates."""

    def __init__(self, folder, *words, scheme="tcp"):
        self.processes = Processes(folder, {})
        self._words = words
        (port,) = free_ports(1)
        self.address = f"{scheme}://127.0.0.1:{port}"
        self.scheduler = self.processes.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", str(port), *words)

    def worker(self, name, *words):
        # On a crowded machine a worker takes minutes to start; one that gave up would leave a test waiting for ever.
        return self.processes.start(
            name, "worker", self.address, "--name", name, "--death-timeout", f"{LIMIT_S}s", *self._words, *words
        )

    def worker_of_other_version(self, name):
        with (self.processes.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", OTHER_VERSION, "worker", self.address, "--name", name], stdout=log, stderr=log
            )
        self.processes.started.append(process)
        return process

    def told(self, name, words):
        """Wait until a process has said something."""
        wait_for(f"{name}: {words}", lambda: words in self.processes.log(name))

    def end(self):
        for process in self.processes.started:
            if process.poll() is None:
                process.kill()
                process.wait()
