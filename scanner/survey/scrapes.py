"""Whether somebody reads the metrics: for a process that wants its last word to be heard.

In: a registry. Out: :class:`Scrapes`. Refused: nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector


class Scrapes(Collector):
    """Notices that the page is read; adds nothing to it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._again = threading.Event()
        self._read = False
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """No metric: registering it is no scrape."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Called when the page is read."""
        self._read = True
        self._again.set()
        return []

    def await_last(self, longest_s: float) -> None:
        """Wait until the page is read once more.

        Parameters
        ----------
        longest_s
            Longest time to wait, in seconds; not at all where nobody read the page before.
        """
        self._again.clear()
        if self._read:
            self._again.wait(longest_s)
