"""How often a tile is tried, and when: pauses that double, an end after so many attempts.

In: attempts and how they went. Out: the attempt that is due next, or the outcome that stands. Refused: nothing.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from scanner.errors import UnavailableError
from scanner.records import FailedTile
from scanner.survey import metrics
from scanner.survey.messages import FatalError, TileJob, TileOutcome

#: Longest pause before an attempt.
LONGEST_PAUSE_SECONDS = 600.0
#: The death of a worker that had not begun with the tile counts for so much of an attempt: most often another tile killed it.
WAITING_DEATH = 1 / 4
#: So many tiles in a row given up because a store or a machine did not answer: it is not the tiles.
ROW_OF_UNAVAILABLE = 5

logger = logging.getLogger(__name__)


@dataclass
class Attempt:
    """A tile being tried. ``number``: from 1; ``tries``: those that count; ``began``: a worker has told that it works on it."""

    job: TileJob
    number: int = 1
    tries: float = 0.0
    began: bool = False
    futures: list[Any] = field(default_factory=list)

    def release(self) -> None:
        """Let the scheduler forget the tile's tasks."""
        for future in self.futures:
            future.release()
        self.futures.clear()

    def failed(self, reason: str) -> TileOutcome:
        """The tile has failed."""
        return TileOutcome(failed=FailedTile(tile_id=self.job.tile.tile_id, reason=reason))


class Attempts:
    """The tiles in a pause between two attempts.

    Parameters
    ----------
    most
        Attempts that a tile is given.
    backoff_s
        Pause before the second; doubled each time.
    """

    def __init__(self, most: int, backoff_s: float) -> None:
        self._most, self._backoff_s = most, backoff_s
        self._paused: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self._unavailable_in_a_row = 0

    def __len__(self) -> int:
        return len(self._paused)

    def due(self) -> Attempt | None:
        """An attempt whose pause is over."""
        return heapq.heappop(self._paused)[2] if self._paused and self._paused[0][0] <= time.monotonic() else None

    def seconds_to_next(self) -> float:
        """Until the next attempt is due."""
        return max(self._paused[0][0] - time.monotonic(), 0.0) if self._paused else float("inf")

    def settle(self, attempt: Attempt, outcome: TileOutcome) -> TileOutcome | None:
        """What a tile's outcome comes to: itself, or another attempt (None)."""
        if outcome.passing is None:
            self._unavailable_in_a_row = 0
            return outcome
        reason = outcome.passing.reason
        settled = self._again(attempt, 1.0, reason)
        if settled is not None:
            self._unavailable_in_a_row += 1
            if self._unavailable_in_a_row >= ROW_OF_UNAVAILABLE:
                message = f"{ROW_OF_UNAVAILABLE} tiles in a row could not be had or kept, the last one because: {reason}"
                return TileOutcome(fatal=FatalError(message=message, exit_code=UnavailableError.exit_code))
        return settled

    def died(self, attempt: Attempt) -> TileOutcome | None:
        """What the death of a tile's worker comes to."""
        reason = "the worker process died while scanning it; give it more memory with --memory-gb"
        return self._again(attempt, 1.0 if attempt.began else WAITING_DEATH, reason)

    def _again(self, attempt: Attempt, tries: float, reason: str) -> TileOutcome | None:
        attempt.tries += tries
        if attempt.tries >= self._most:
            return attempt.failed(f"{reason} (given up after {self._most} attempts)" if self._most > 1 else reason)
        attempt.number += 1
        pause = min(self._backoff_s * 2 ** (int(attempt.tries) - 1), LONGEST_PAUSE_SECONDS) if attempt.tries >= 1 else 0.0
        metrics.tile_retried()
        logger.warning("trying again in %.0f s: %s", pause, reason, extra={"tile": attempt.job.tile.tile_id})
        heapq.heappush(self._paused, (time.monotonic() + pause, next(self._order), attempt))
        return None
