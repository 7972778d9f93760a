"""How many workers a run could use, told to the standing scheduler, where an autoscaler asks.

In: a driver's client and a number. Out: the number, to whoever asks the scheduler, for as long as that driver is connected.
Refused: nothing; a scheduler that went away is noticed by the run itself.

Dask's own estimate counts the tasks that wait; a run never hands out more tiles than its workers take, so that the estimate
stays where it is: at no worker for ever, where there is none.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

#: Place of (client, number) among the scheduler's metadata: of the last run that told, as one run at a time uses it.
PLACE = "scanner-workers-wanted"


def tell_wanted(client: Any, n_workers: int) -> None:
    """Say that the run of a client could use so many workers; 0: it needs none any more."""
    with suppress(OSError, TimeoutError):
        client.set_metadata([PLACE], [client.id, n_workers])


def wanted(scheduler: Any) -> int:
    """Workers that the connected run could use; 0 without a run."""
    client, n_workers = scheduler.task_metadata.get(PLACE, (None, 0))
    return int(n_workers) if client in scheduler.clients else 0
