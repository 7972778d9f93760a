"""Which member is trained when, and how much of a common time budget each gets.

In: a preset, how members begin, a number of processes; a time as text. Out: an order, and seconds per member. Refused: what is
no time (UsageError).

Two members trained side by side with one thread each take less time than one after the other with two.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence

from scanner.errors import UsageError
from scanner.records import MEMBERS, MemberName

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

#: Members that see VIS at full resolution see the arcs, and cost most; relative.
SHARE: Mapping[MemberName, float] = {
    "OU-VIS": 0.34,
    "OU-200": 0.34,
    "OU-66": 0.17,
    "OU-JYH": 0.06,
    "OU-J": 0.03,
    "OU-Y": 0.03,
    "OU-H": 0.03,
}


def seconds(text: str) -> float:
    """Seconds of a time such as ``90s``, ``20m`` or ``1.5h``.

    Raises
    ------
    UsageError
        It is no such time, or zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or float(found[1]) == 0.0:
        raise UsageError(f"{text!r} is no time to take; write it as 90s, 20m or 1.5h.")
    return float(found[1]) * _UNITS[found[2]]


def training_order(members: Sequence[MemberName] = MEMBERS) -> tuple[MemberName, ...]:
    """Members, dearest first."""
    return tuple(sorted(members, key=lambda member: -SHARE[member]))


def time_shares(
    members: Sequence[MemberName], copies: Mapping[MemberName, MemberName], workers: int
) -> dict[MemberName, float]:
    """What each member may take of the time that all of them together take.

    Parameters
    ----------
    members
        To be trained.
    copies
        Members that begin as a copy of another, and so after it.
    workers
        Processes, one member each.

    Returns
    -------
    dict
        Shares of the wall-clock time; trained in :func:`training_order`, each as soon as a process and its source are free,
        all of them are done after 1.
    """
    finished: dict[MemberName, float] = {}
    free = [0.0] * workers
    waiting = list(training_order(members))
    while waiting:
        ready = [member for member in waiting if copies.get(member) not in waiting]
        now = heapq.heappop(free)
        able = [member for member in ready if finished.get(copies.get(member, member), 0.0) <= now]
        if not able:
            # Nothing can begin yet: this process waits for the next source to be finished.
            heapq.heappush(free, min(finished[copies[member]] for member in ready))
            continue
        waiting.remove(able[0])
        finished[able[0]] = now + SHARE[able[0]]
        heapq.heappush(free, finished[able[0]])
    whole = max(finished.values())
    return {member: SHARE[member] / whole for member in members}
