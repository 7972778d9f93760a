"""scanner: finds strong gravitational lenses in Euclid-like survey imaging."""

import os

__version__ = "0.1.0"

# Before anything imports ONNX Runtime, which would otherwise report to its maker's servers as soon as it is imported, and leave
# an identifier in the temporary folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
