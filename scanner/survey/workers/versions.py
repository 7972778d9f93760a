"""What must be equal in the driver and in every worker, as their results are to be equal byte for byte.

In: this process. Out: a :class:`Versions` record and, for two of them, what differs. Refused: nothing.
"""

from __future__ import annotations

import importlib
import sys

import scanner
from scanner.records import Record

#: Libraries whose version can change a byte of the results: arithmetic, networks, files.
LIBRARIES = ("numpy", "onnxruntime", "pyarrow", "zarr")


class Versions(Record):
    """What a process computes with; ``bundle``: fingerprint of the networks."""

    scanner: str
    python: str
    bundle: str
    libraries: dict[str, str]


def current(bundle: str) -> Versions:
    """The versions of this process.

    Parameters
    ----------
    bundle
        Fingerprint of the bundle that it has loaded.
    """
    return Versions(
        scanner=scanner.__version__,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        bundle=bundle,
        libraries={name: str(importlib.import_module(name).__version__) for name in LIBRARIES},
    )


def differences(own: Versions, drivers: Versions) -> tuple[str, ...]:
    """What a worker has otherwise than the driver, one phrase each; empty where it may work for it."""
    pairs = [("scanner", own.scanner, drivers.scanner), ("python", own.python, drivers.python)]
    pairs += [(name, own.libraries.get(name, "none"), version) for name, version in drivers.libraries.items()]
    pairs += [("bundle", own.bundle[:12], drivers.bundle[:12])]
    return tuple(f"{name} {here} where the driver has {there}" for name, here, there in pairs if here != there)
