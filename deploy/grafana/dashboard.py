"""Write the Grafana dashboards: ``python deploy/grafana/dashboard.py``.

It writes ``scanner.json`` of a survey run, ``service.json`` of the catalogue service, ``training.json`` of a training. Each
panel is one call in a module named like its dashboard: title, unit, description, and expressions with the legend of each.
Everything else of the JSON is layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service import service
from survey import survey
from training import training

FOLDER = Path(__file__).parent


def dashboards() -> dict[str, dict[str, Any]]:
    """All of them, by the names of their files."""
    return {"scanner.json": survey(), "service.json": service(), "training.json": training()}


if __name__ == "__main__":
    for name, made in dashboards().items():
        (FOLDER / name).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
