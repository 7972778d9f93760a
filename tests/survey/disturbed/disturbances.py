"""A run that is disturbed by a seed: its workers and its driver are ended at random moments.

A moment is a number of committed tiles and a pause after it, so that a faster machine is disturbed as much as a slower one.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from disturbed.processes import Cluster, Processes
from programs import Command
from waiting import LIMIT_S

N_WORKERS = 3
LONGEST_PAUSE_S = 0.3
#: More than so many drivers that end of themselves without a result, and the run is given up.
MOST_RESTARTS = 12
DONE, DONE_WITH_FAILURES = 0, 3
RUN_S = 1500.0


@dataclass(frozen=True)
class Disturbance:
    """Who is ended by which signal, so many seconds after so many tiles were committed."""

    n_committed: int
    pause_s: float
    who: str
    how: signal.Signals
    worker: int = 0

    @property
    def kind(self) -> str:
        """Such as ``worker SIGKILL``."""
        return f"{self.who} {self.how.name}"


@dataclass
class Outcome:
    """How a disturbed run went."""

    done: Counter[str] = field(default_factory=Counter)
    exit_code: int = -1
    seconds: float = 0.0
    #: Exit code of each driver that ended of itself before the last one.
    refusals: list[int] = field(default_factory=list)
    #: Exit code and seconds of each worker that was asked to leave.
    left: list[tuple[int, float]] = field(default_factory=list)

    def has_left(self, process: Command, asked: float) -> bool:
        """Whether a worker that was asked to leave at some time is gone; notes how."""
        code = process.poll()
        if code is not None:
            self.left.append((code, time.monotonic() - asked))
        return code is not None


def draw(seed: int, n_tiles: int, n_ended: int, n_workers: int = N_WORKERS) -> list[Disturbance]:
    """The disturbances of a seed, in order: so many workers' ends, at least two by each signal, and two of the driver's."""
    chance = random.Random(seed)
    signals = [signal.SIGKILL, signal.SIGTERM] * 2
    signals += chance.choices([signal.SIGKILL, signal.SIGTERM], k=n_ended - len(signals))
    drawn = [
        Disturbance(
            chance.randrange(n_tiles - 1), chance.uniform(0, LONGEST_PAUSE_S), "worker", how, chance.randrange(n_workers)
        )
        for how in signals
    ]
    # The second driver's end may fall into the merging.
    for low, high in pairwise((0, n_tiles // 2, n_tiles + 1)):
        how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        drawn.append(Disturbance(chance.randrange(low, high), chance.uniform(0, 2 * LONGEST_PAUSE_S), "driver", how))
    return sorted(drawn, key=lambda disturbance: (disturbance.n_committed, disturbance.pause_s))


def run_disturbed(
    seed: int,
    n_ended: int,
    processes: Processes,
    cluster: Cluster,
    words: list[str],
    n_tiles: int,
    count_committed: Callable[[], int],
) -> Outcome:
    """Run ``scanner run`` with some words to its end, disturbed.

    Parameters
    ----------
    seed, n_ended
        Of the disturbances; how many workers are ended.
    processes, cluster
        Where the run goes on.
    words
        What follows ``scanner``, but for the scheduler.
    n_tiles
        So many tiles can be committed.
    count_committed
        How many are.
    """
    outcome, start = Outcome(), time.monotonic()
    leaving: list[tuple[Command, float]] = []
    driver = processes.start("driver", *words, "--scheduler", cluster.address)
    ahead = draw(seed, n_tiles, n_ended)
    while True:
        if time.monotonic() - start > RUN_S:
            raise TimeoutError(f"seed {seed}: not done after {RUN_S:.0f} s; {outcome}")
        leaving = [(process, asked) for process, asked in leaving if not outcome.has_left(process, asked)]
        code = driver.poll()
        if code in (DONE, DONE_WITH_FAILURES):
            outcome.exit_code = code
            break
        if code is not None:
            outcome.refusals.append(code)
            if len(outcome.refusals) > MOST_RESTARTS:
                outcome.exit_code = code
                break
            driver = processes.start("driver", *words, "--scheduler", cluster.address)
        if not ahead or count_committed() < ahead[0].n_committed:
            time.sleep(0.05)
            continue
        now = ahead.pop(0)
        time.sleep(now.pause_s)
        if now.who == "driver":
            if driver.poll() is not None:
                continue
            os.killpg(driver.pid, now.how)
            driver.wait(LIMIT_S)
            driver = processes.start("driver", *words, "--scheduler", cluster.address)
        elif now.how == signal.SIGKILL:
            cluster.kill(now.worker)
        else:
            leaving.append((cluster.ask_to_leave(now.worker), time.monotonic()))
        outcome.done[now.kind] += 1
    outcome.seconds = time.monotonic() - start
    for process, asked in leaving:
        process.wait(LIMIT_S)
        outcome.has_left(process, asked)
    return outcome
