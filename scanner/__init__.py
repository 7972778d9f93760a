"""scanner: finds strong gravitational lenses in survey imaging.

>>> import scanner
>>> run = scanner.scan("sky/tile-list.txt", "scan", keep="all")
>>> scanner.open("scan").status.state
'done'

Each name is imported when it is first used, so that ``import scanner`` and ``scanner --help`` answer at once.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: Public name → the module that it comes from. ``__init__.pyi`` says the same to type checkers and editors.
_HOMES = {
    "Cutout": "scanner.interface.objects",
    "Run": "scanner.interface.opened",
    "Survey": "scanner.interface.opened",
    "adapt": "scanner.interface.train",
    "add_member": "scanner.interface.bundle",
    "completeness": "scanner.interface.recovery",
    "einstein_mass": "scanner.interface.model",
    "euclidise": "scanner.interface.simulate",
    "evaluate": "scanner.interface.bundle",
    "export_model": "scanner.interface.model",
    "features": "scanner.interface.opened",
    "forecast": "scanner.interface.recovery",
    "import_labels": "scanner.interface.prepare",
    "inject": "scanner.interface.simulate",
    "learn": "scanner.interface.train",
    "load_bundle": "scanner.interface.bundle",
    "make_bundle": "scanner.interface.train",
    "merge": "scanner.interface.opened",
    "model": "scanner.interface.model",
    "open": "scanner.interface.opened",
    "plan": "scanner.interface.scan",
    "prepare": "scanner.interface.prepare",
    "recover": "scanner.interface.recovery",
    "quantise": "scanner.interface.bundle",
    "regrid": "scanner.interface.bundle",
    "rescore": "scanner.interface.scan",
    "scan": "scanner.interface.scan",
    "score": "scanner.interface.bundle",
    "selection_function": "scanner.interface.recovery",
    "set_cascade": "scanner.interface.bundle",
    "similar": "scanner.interface.opened",
    "simulate": "scanner.interface.simulate",
    "simulate_dataset": "scanner.interface.simulate",
    "train": "scanner.interface.train",
    "train_radius": "scanner.interface.train",
    "verify": "scanner.interface.verify",
}
__all__ = [*_HOMES, "__version__"]

# Before anything imports ONNX Runtime, which would otherwise report to its maker's servers as soon as it is imported, and leave
# an identifier in the temporary folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanner' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
