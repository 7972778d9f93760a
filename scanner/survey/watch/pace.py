"""How fast a run is going, over the last minutes: workers come and go, so its whole history says little of its future.

In: objects and tiles as they are done. Out: objects and tiles a second. Refused: nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 600.0


class Pace:
    """Counts what is done; looked at every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._n_objects = self._n_tiles = 0
        #: (time, objects, tiles with the parts of those under way) whenever somebody looked.
        self._seen: deque[tuple[float, int, float]] = deque([(clock(), 0, 0.0)])

    def objects(self, number: int) -> None:
        """Count objects."""
        self._n_objects += number

    def tile_done(self) -> None:
        """Count a tile that is through."""
        self._n_tiles += 1

    def now(self, under_way: float) -> tuple[float, float]:
        """Objects and tiles a second over the last minutes.

        Parameters
        ----------
        under_way
            Tiles that are being scanned, each counted by the part of it that is done.
        """
        time_now, tiles = self._clock(), self._n_tiles + under_way
        self._seen.append((time_now, self._n_objects, tiles))
        while len(self._seen) > 2 and time_now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        since, objects_then, tiles_then = self._seen[0]
        seconds = max(time_now - since, 1e-3)
        return (self._n_objects - objects_then) / seconds, max(tiles - tiles_then, 0.0) / seconds
