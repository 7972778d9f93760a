from scanner.interface.cutout import Cutout
from scanner.interface.opened import Run, Survey, open  # noqa: A004
from scanner.interface.scan import plan, scan
from scanner.interface.score import load_bundle, score
from scanner.interface.simulate import inject, simulate, simulate_dataset

__version__: str
__all__ = [
    "Cutout",
    "Run",
    "Survey",
    "__version__",
    "inject",
    "load_bundle",
    "open",
    "plan",
    "scan",
    "score",
    "simulate",
    "simulate_dataset",
]
