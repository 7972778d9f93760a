"""Write ``scanner.json``, the Grafana dashboard of a survey run: ``python deploy/grafana/dashboard.py``.

Each panel is one line here: title, unit, what it tells, and expressions with the legend of each. Everything else of the JSON is
layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_name("scanner.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Columns of Grafana's grid.
WIDTH = 24
WHICH = 'job=~"$job", instance=~"$instance"'
RATE = "$__rate_interval"

Queries = dict[str, str]


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


def of_run(expression: str) -> str:
    """The driver's series with the dashboard's choice of job: of a run there is one, whatever instance is looked at."""
    return expression.replace("{", '{job=~"$job", ').replace(", }", "}")


RED_ABOVE_ZERO = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
STATES = [
    {
        "type": "value",
        "options": {
            "1": {"text": "starting", "color": "blue", "index": 0},
            "2": {"text": "scanning", "color": "green", "index": 1},
            "3": {"text": "merging", "color": "blue", "index": 2},
            "4": {"text": "done", "color": "green", "index": 3},
            "5": {"text": "failed", "color": "red", "index": 4},
            "6": {"text": "interrupted", "color": "orange", "index": 5},
        },
    }
]
STATE_NUMBER = " or ".join(
    f'(max by (instance) (scanner_run_state{{job=~"$job", state="{state}"}}) == 1) * {number}'
    for number, state in enumerate(("starting", "scanning", "merging", "done", "failed", "interrupted"), start=1)
)

ROWS: dict[str, list[dict[str, Any]]] = {
    "The run": [
        panel("stat", "State", "none", "What the driver is doing.", {"{{instance}}": STATE_NUMBER}, 4, mappings=STATES),
        panel(
            "stat",
            "Tiles through",
            "percentunit",
            "Tiles of the list that are done or have failed, as a part of all.",
            {
                "through": of_run('sum(scanner_run_tiles{state=~"done|failed"})')
                + " / "
                + of_run("(sum(scanner_run_tiles{}) > 0)")
            },
            4,
        ),
        panel(
            "stat",
            "Tiles failed",
            "none",
            "Tiles given up; the reasons are in `scanner status` and failed-tiles.ecsv.",
            {"failed": of_run('sum(scanner_run_tiles{state="failed"})')},
            4,
            steps=RED_ABOVE_ZERO,
        ),
        panel(
            "stat",
            "Time to go",
            "s",
            "Tiles that are left, at the pace of the last half hour. Merging comes on top.",
            {
                "to go": of_run('sum(scanner_run_tiles{state=~"waiting|running"})')
                + " / "
                + of_run("(sum(rate(scanner_run_tiles_done_total{}[30m])) > 0)")
            },
            4,
        ),
        panel(
            "stat",
            "Workers",
            "none",
            "Workers connected to the scheduler.",
            {"workers": of_run("sum(scanner_run_workers{})")},
            4,
            graph="area",
        ),
        panel(
            "stat",
            "Sky scanned",
            "suffix: deg²",
            "Sky of the tiles committed since the driver started; overlaps of tiles count twice.",
            {"sky": of_run("sum(scanner_run_area_square_degrees_total{})")},
            4,
        ),
        panel(
            "timeseries",
            "Tiles by state",
            "none",
            "Every tile of the list is in one of these states.",
            {"{{state}}": of_run("sum by (state) (scanner_run_tiles{})")},
            12,
            stacked=True,
        ),
        panel(
            "timeseries",
            "Objects of the whole run",
            "suffix: objects/s",
            "What the workers report to the driver: right even where the workers themselves are not scraped.",
            {"objects": of_run(f"sum(rate(scanner_run_objects_total{{}}[{RATE}]))")},
            12,
        ),
        panel(
            "timeseries",
            "Tiles finished",
            "suffix: tiles/h",
            "Tiles done, given up and tried again, per hour.",
            {
                "done": of_run(f"3600 * sum(rate(scanner_run_tiles_done_total{{}}[{RATE}]))"),
                "failed": of_run(f"3600 * sum(rate(scanner_run_tiles_failed_total{{}}[{RATE}]))"),
                "tried again": of_run(f"3600 * sum(rate(scanner_run_tile_retries_total{{}}[{RATE}]))"),
            },
            12,
        ),
        panel(
            "timeseries",
            "Workers connected and lost",
            "none",
            "Workers at the scheduler, and those that left within five minutes while there was work.",
            {
                "connected": of_run("sum(scanner_run_workers{})"),
                "lost in 5 min": of_run("sum(increase(scanner_run_workers_lost_total{}[5m]))"),
            },
            12,
        ),
    ],
    "Throughput of the workers": [
        panel(
            "timeseries",
            "Objects",
            "suffix: objects/s",
            "Objects cut from the mosaics and scored by the networks. Objects with too many bad pixels are cut but not scored.",
            {
                "cut": f"sum(rate(scanner_objects_cut_total{{{WHICH}}}[{RATE}]))",
                "scored": f"sum(rate(scanner_objects_scored_total{{{WHICH}}}[{RATE}]))",
            },
            12,
        ),
        panel(
            "timeseries",
            "Objects scored, by worker",
            "suffix: objects/s",
            "A worker far below the others shares its processors, or has no GPU.",
            {"{{instance}}": f"sum by (instance) (rate(scanner_objects_scored_total{{{WHICH}}}[{RATE}]))"},
            12,
        ),
        panel(
            "timeseries",
            "Input read",
            "Bps",
            "Mosaics and catalogues, in bytes as they are stored.",
            {"{{instance}}": f"sum by (instance) (rate(scanner_read_bytes_total{{{WHICH}}}[{RATE}]))"},
            12,
        ),
        panel(
            "timeseries",
            "What is found",
            "percentunit",
            "Of the objects scored: those with a quality flag and those at or above the threshold, in tiles committed within "
            "an hour. A jump of either tells of bad input sooner than any failure.",
            {
                "flagged": f"sum(increase(scanner_objects_flagged_total{{{WHICH}}}[1h]))"
                f" / (sum(increase(scanner_objects_scored_total{{{WHICH}}}[1h])) > 0)",
                "above the threshold": f"sum(increase(scanner_objects_decided_total{{{WHICH}}}[1h]))"
                f" / (sum(increase(scanner_objects_scored_total{{{WHICH}}}[1h])) > 0)",
            },
            12,
        ),
    ],
    "Where the time goes": [
        panel(
            "timeseries",
            "Workers busy, by stage",
            "suffix: s/s",
            "Seconds of work per second. Stages of one tile overlap, so the sum is more than the number of workers where the "
            "pipeline works as it should. Fetch on top: the store is slow. Score on top: this is how it should be.",
            {"{{stage}}": f"sum by (stage) (rate(scanner_stage_seconds_sum{{{WHICH}}}[{RATE}]))"},
            12,
            stacked=True,
        ),
        panel(
            "timeseries",
            "Time of a piece of work, 90 %",
            "s",
            "Nine of ten pieces take less: a tile to fetch, open, targets and commit, a batch to cut, score and store.",
            {
                "{{stage}}": "histogram_quantile(0.9, sum by (stage, le) "
                f"(rate(scanner_stage_seconds_bucket{{{WHICH}}}[{RATE}])))"
            },
            12,
        ),
        panel(
            "timeseries",
            "Time of a tile",
            "s",
            "From a tile's start to its commit, for tiles finished within half an hour.",
            {
                "half": f"histogram_quantile(0.5, sum by (le) (rate(scanner_tile_seconds_bucket{{{WHICH}}}[30m])))",
                "nine of ten": f"histogram_quantile(0.9, sum by (le) (rate(scanner_tile_seconds_bucket{{{WHICH}}}[30m])))",
            },
            8,
        ),
        panel(
            "timeseries",
            "Batches that wait",
            "none",
            "Mean of the workers. Batches that wait to be scored: the networks are the narrow place, as they should be. None "
            "do: cutting or the disk is.",
            {"before {{stage}}": f"avg by (stage) (scanner_queue_depth_batches{{{WHICH}}})"},
            8,
        ),
        panel(
            "timeseries",
            "Objects in a batch",
            "none",
            "Mean size of the batches given to the networks. Small batches leave a GPU idle.",
            {
                "objects": f"sum(rate(scanner_batch_size_objects_sum{{{WHICH}}}[{RATE}]))"
                f" / (sum(rate(scanner_batch_size_objects_count{{{WHICH}}}[{RATE}])) > 0)"
            },
            8,
        ),
    ],
    "The machines": [
        panel(
            "table",
            "What runs where",
            "none",
            "Version, bundle and provider of each process. Anything but one version and one bundle is worth a question.",
            {
                "process": f"max by (instance, version, python, provider, bundle) (scanner_build_info{{{WHICH}}}"
                f" * on (job, instance) group_left (provider) scanner_provider_info{{{WHICH}}}"
                " * on (job, instance) group_left (bundle)"
                f' label_join(scanner_bundle_info{{{WHICH}}}, "bundle", " ", "name", "version"))'
            },
            24,
            transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}],
        ),
        panel(
            "timeseries",
            "Tiles in hand",
            "none",
            "Tiles that each worker is scanning: 1, but for the moments between two tiles.",
            {"{{instance}}": f"scanner_tiles_in_progress{{{WHICH}}}"},
            8,
        ),
        panel(
            "timeseries",
            "Processors",
            "suffix: cores",
            "Processor time per second.",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{WHICH}}}[{RATE}])"},
            8,
        ),
        panel(
            "timeseries",
            "Memory",
            "bytes",
            "Resident memory. A worker that comes near its limit is ended and its tile tried elsewhere.",
            {
                "{{instance}}": f"process_resident_memory_bytes{{{WHICH}}}",
                "limit of {{instance}}": f"scanner_memory_limit_bytes{{{WHICH}}} > 0",
            },
            8,
        ),
        panel(
            "bargauge",
            "Disk in use",
            "percentunit",
            "File systems of the run folder (driver) and of the scratch folders (workers). A full disk stops the run.",
            {"{{disk}} of {{instance}}": f"1 - scanner_disk_free_bytes{{{WHICH}}} / scanner_disk_size_bytes{{{WHICH}}}"},
            12,
            max=1,
            steps=[{"color": "green", "value": None}, {"color": "orange", "value": 0.8}, {"color": "red", "value": 0.95}],
        ),
        panel(
            "stat",
            "Since the last success",
            "s",
            "Time since a run was done (of drivers of the last two weeks) and since a worker committed a tile.",
            {
                "a run": 'time() - max(last_over_time(scanner_run_last_success_timestamp_seconds{job=~"$job"}[14d]) > 0)',
                "a tile": f"time() - max(scanner_tile_last_success_timestamp_seconds{{{WHICH}}} > 0)",
            },
            12,
            height=8,
        ),
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


def laid_out() -> list[dict[str, Any]]:
    """The panels with ids and places: rows from top to bottom, panels from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, members in ROWS.items():
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


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana 10 and later import it."""
    return {
        "uid": "scanner-survey",
        "title": "scanner: survey run",
        "description": "A run of scanner over the tiles of a survey: how far it is, how fast, where the time goes, on what.",
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
                choice("job", "Job", "label_values(scanner_build_info, job)"),
                choice("instance", "Process", 'label_values(scanner_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": laid_out(),
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
