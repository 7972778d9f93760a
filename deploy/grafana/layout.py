"""What the dashboards have in common: panels, rows, choices of job and process. Grafana 10 and later import them."""

from __future__ import annotations

from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Columns of Grafana's grid.
WIDTH = 24
#: The dashboard's choice, in every expression.
WHICH = 'job=~"$job", instance=~"$instance"'
RATE = "$__rate_interval"

Queries = dict[str, str]
#: Title of a row → its panels.
Rows = dict[str, list[dict[str, Any]]]


def panel(kind: str, title: str, unit: str, description: str, queries: Queries, width: int, **more: Any) -> dict[str, Any]:
    """One panel; ``queries`` maps legends to expressions."""
    options: dict[str, Any] = {
        "timeseries": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "colorMode": more.pop("color", "value"),
            "graphMode": more.pop("graph", "none"),
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": more.pop("fields", ""), "values": False},
            "textMode": more.pop("text", "auto"),
        },
        "bargauge": {
            "displayMode": "basic",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showUnfilled": True,
        },
        "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
    }[kind]
    lines = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    if more.pop("stacked", False):
        lines |= {"fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
    steps = more.pop("steps", [{"color": "green", "value": None}])
    defaults = {
        "unit": unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": more.pop("mappings", []),
    }
    if kind == "timeseries":
        defaults["custom"] = lines
    if "max" in more:
        defaults["max"] = more.pop("max")
    instant = kind != "timeseries"
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "width": width,
        "height": more.pop("height", 4 if kind == "stat" else 8),
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "options": options,
        "transformations": more.pop("transformations", []),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if kind == "table" else "time_series",
            }
            for number, (legend, expression) in enumerate(queries.items())
        ],
    }


def choice(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable whose values come from Prometheus."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def laid_out(rows: Rows) -> list[dict[str, Any]]:
    """The panels with ids and places: rows from top to bottom, panels from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, members in rows.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        )
        x, y, height = 0, y + 1, 0
        for member in members:
            width, member_height = member.pop("width"), member.pop("height")
            if x + width > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append(member | {"gridPos": {"x": x, "y": y, "w": width, "h": member_height}})
            x, height = x + width, max(height, member_height)
        y += height
    return [{"id": number} | each for number, each in enumerate(panels, start=1)]


def dashboard(uid: str, title: str, description: str, rows: Rows, known_by: str) -> dict[str, Any]:
    """The whole dashboard; ``known_by``: a metric that every process that it shows has."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["scanner"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [],
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "current": {"text": "default", "value": "default"},
                },
                choice("job", "Job", f"label_values({known_by}, job)"),
                choice("instance", "Process", f'label_values({known_by}{{job=~"$job"}}, instance)'),
            ]
        },
        "panels": laid_out(rows),
    }
