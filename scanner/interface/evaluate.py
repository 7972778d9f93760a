"""Measure bundles on labelled sets and images."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where log-odds are kept unless another place is named."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "scanner" / "log-odds"
