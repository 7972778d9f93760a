"""Write the settings of runs and of the service into the chart's schema: ``python deploy/helm/settings_schema.py``.

It fills ``$defs/runConfig`` and ``$defs/serviceConfig`` of ``helm/scanner/values.schema.json`` from scanner's own models, so
that helm refuses what ``scanner`` would. Settings that have a chart value of their own are left out. ``make schemas`` runs this
too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scanner.config import RunConfig
from scanner.records import Record
from scanner.service.settings import ServiceConfig

SCHEMA = Path(__file__).parents[2] / "helm" / "scanner" / "values.schema.json"
TLS = {"tls_ca", "tls_cert", "tls_key", "insecure"}
METRICS = {"metrics_port", "metrics_address"}
WORKERS = {"workers", "scheduler", "listen", "scale_deployment", "memory_limit_gb", "scratch"}
#: Section → settings that the chart knows under other names; a section that is missing is the chart's altogether.
RUN: dict[str, set[str]] = {
    "targets": set(),
    "cutouts": set(),
    "scoring": {"bundle"},
    "catalogue": set(),
    "storage": {"endpoint", "region"},
    "engine": WORKERS | TLS | METRICS,
    "explain": set(),
    "model": set(),
}
SERVICE: dict[str, set[str]] = {
    "http": {"host", "port", "base_url"},
    "grading": {"enabled", "path"},
    "storage": {"endpoint", "region"},
    "limits": set(),
    "jobs": set(),
}


def closed(model: type[Record], sections: dict[str, set[str]]) -> dict[str, Any]:
    """JSON Schema of some sections of a model, with nothing allowed beside them."""
    described = model.model_json_schema()
    found = {}
    for section, elsewhere in sections.items():
        own = described["$defs"][described["properties"][section]["$ref"].rpartition("/")[2]]
        found[section] = {
            "type": "object",
            "additionalProperties": False,
            "description": own["description"],
            "properties": {
                # Helm has no use for titles, and its users would take a default for the chart's.
                name: {key: value for key, value in inline(setting, described["$defs"]).items() if key != "default"}
                for name, setting in own["properties"].items()
                if name not in elsewhere
            },
        }
    return {"type": "object", "additionalProperties": False, "properties": found}


def inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema without titles that says in place what it refers to."""
    if isinstance(schema, list):
        return [inline(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: inline(value, definitions) for key, value in schema.items() if key != "title" or not isinstance(value, str)}


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """The chart's schema with both sets of settings as they are now."""
    definitions = schema["$defs"] | {"runConfig": closed(RunConfig, RUN), "serviceConfig": closed(ServiceConfig, SERVICE)}
    return schema | {"$defs": definitions}


if __name__ == "__main__":
    written = with_settings(json.loads(SCHEMA.read_text(encoding="utf-8")))
    SCHEMA.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
