"""Holding a store whose holder is about to leave.

In: a store. Out: the store held, as :mod:`scanner.storage.contract` has it. Refused (:class:`~scanner.errors.HeldError`): a
store that another process still holds after a while. A job that takes the place of another begins while that one may be saving
itself, so it waits as long as that one has for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scanner.errors import HeldError
from scanner.storage.contract import Store

#: Somewhat longer than the grace of a pod that is told to stop.
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def held(store: Store) -> Iterator[None]:
    """Hold a store until the block ends, waiting for another holder to leave."""
    end = time.monotonic() + WAIT_SECONDS
    with ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(store.held())
                break
            except HeldError as error:
                if time.monotonic() > end:
                    raise
                if not told:
                    logger.info("%s Waiting up to %.0f s.", error, WAIT_SECONDS)
                    told = True
                time.sleep(POLL_SECONDS)
        yield
