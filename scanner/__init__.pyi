from scanner.interface.bundle import add_member, evaluate, load_bundle, quantise, regrid, score, set_cascade
from scanner.interface.model import einstein_mass, export_model, model
from scanner.interface.objects import Cutout
from scanner.interface.opened import Run, Survey, features, merge, open, similar  # noqa: A004
from scanner.interface.prepare import import_labels, prepare
from scanner.interface.recovery import completeness, forecast, recover, selection_function
from scanner.interface.scan import plan, rescore, scan
from scanner.interface.simulate import euclidise, inject, simulate, simulate_dataset
from scanner.interface.train import adapt, learn, make_bundle, train, train_radius
from scanner.interface.verify import verify

__version__: str
__all__ = [
    "Cutout",
    "Run",
    "Survey",
    "__version__",
    "adapt",
    "add_member",
    "completeness",
    "einstein_mass",
    "euclidise",
    "evaluate",
    "export_model",
    "features",
    "forecast",
    "import_labels",
    "inject",
    "learn",
    "load_bundle",
    "make_bundle",
    "merge",
    "model",
    "open",
    "plan",
    "prepare",
    "quantise",
    "recover",
    "regrid",
    "rescore",
    "scan",
    "score",
    "selection_function",
    "set_cascade",
    "similar",
    "simulate",
    "simulate_dataset",
    "train",
    "train_radius",
    "verify",
]
