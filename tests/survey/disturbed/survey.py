"""One survey of little tiles, run undisturbed and disturbed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from disturbed.disturbances import N_WORKERS, Outcome, run_disturbed
from disturbed.processes import Processes, running_cluster
from disturbed.results import files_below, leftovers, n_committed, promised

from scanner.config import StorageConfig

#: So many objects are decided that there are cutouts to keep and to draw; each tile takes several batches.
SETTINGS = {
    "SCANNER_TARGETS__MAGNITUDE_LIMIT": "none",
    "SCANNER_TARGETS__MIN_AREA_PIXELS": "0",
    "SCANNER_CUTOUTS__BATCH_SIZE": "2",
    "SCANNER_CUTOUTS__KEEP": "candidates",
    "SCANNER_SCORING__BETA": "2.0",
    # A tile whose worker is ended again and again by us is not to blame for it.
    "SCANNER_ENGINE__ATTEMPTS": "9",
    "SCANNER_ENGINE__BACKOFF_S": "0.2",
}


@dataclass(frozen=True)
class Survey:
    """A tile list, how many of its tiles can be scanned, how object stores are reached, and the bundle that scores."""

    tile_list: str
    n_tiles: int
    storage: StorageConfig
    bundle: str

    def environment(self, placement: str) -> dict[str, str]:
        """Settings of a run as the environment of its processes."""
        endpoint = {"SCANNER_STORAGE__ENDPOINT": self.storage.endpoint} if self.storage.endpoint else {}
        return SETTINGS | endpoint | {"SCANNER_ENGINE__PLACEMENT": placement, "SCANNER_SCORING__BUNDLE": self.bundle}

    def undisturbed(self, folder: Path, out: str) -> dict[str, str]:
        """Run on workers of its own; return what a run promises to give again."""
        folder.mkdir(parents=True)
        processes = Processes(folder, self.environment("whole"))
        process = processes.start("driver", "run", self.tile_list, "--out", out, "--workers", "2")
        if process.wait() != 3 or n_committed(out, self.storage) != self.n_tiles:
            raise RuntimeError(processes.log("driver"))
        return promised(out, self.storage)

    def disturbed(self, seed: int, folder: Path, out: str, placement: str, n_ended: int = 4) -> Disturbed:
        """Run on a standing cluster, disturbed as a seed says; so many of its workers are ended."""
        folder.mkdir(parents=True)
        processes = Processes(folder, self.environment(placement))
        with running_cluster(processes, N_WORKERS) as cluster:
            outcome = run_disturbed(
                seed,
                n_ended,
                processes,
                cluster,
                ["run", self.tile_list, "--out", out],
                self.n_tiles,
                lambda: n_committed(out, self.storage),
            )
            codes = cluster.leave()
        left = leftovers(out, self.storage) + [f"tmp/{name}" for name in files_below(processes.temporary)]
        return Disturbed(outcome, promised(out, self.storage), left, codes, processes)


@dataclass(frozen=True)
class Disturbed:
    """A disturbed run that has ended: ``codes`` are those of the workers and the scheduler that were left at the end."""

    outcome: Outcome
    promised: dict[str, str]
    leftovers: list[str]
    codes: list[int]
    processes: Processes
