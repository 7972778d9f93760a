"""Programs that tests run: on the PATH, or in the places of the environment where ``make test`` puts them."""

import os
import shutil
import sys
from pathlib import Path

import pytest

_ENVIRONMENT = Path(sys.prefix)
#: In this order: what is installed on the machine comes first.
PLACES = os.pathsep.join(
    [
        os.environ.get("PATH", os.defpath),
        *(str(_ENVIRONMENT / folder) for folder in ("bin", "prometheus/usr/bin", "checkov/bin")),
    ]
)


def find(*names: str) -> str | None:
    """Path of the first of these programs that is there."""
    return next((found for name in names if (found := shutil.which(name, path=PLACES))), None)


def needed(*names: str, target: str) -> str:
    """Path of the first of these programs that is there; without one the test is skipped.

    ``target``: of the Makefile, which fetches it.
    """
    found = find(*names)
    if found is None:
        pytest.skip(f"{names[0]} is not there: 'make {target}' fetches it")
    return found
