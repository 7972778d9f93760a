"""How tests wait: for the event itself, and for no more than one limit, which is only reached where the event never comes."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
#: Far more than anything takes on a machine that does much else; less than what pytest gives a test.
LIMIT_S = 600.0


def wait_for(what: str, holds: Callable[[], Found]) -> Found:
    """Wait until a function returns something true, and return it."""
    end = time.monotonic() + LIMIT_S
    while not (found := holds()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {LIMIT_S:.0f} s for {what}")
        time.sleep(0.02)
    return found
