"""The dashboard of a survey run: how far it is, how fast, where the time goes, on what."""

from __future__ import annotations

from typing import Any

from layout import RATE, WHICH, Rows, dashboard, panel
from machines import disk, memory, processors
from workers import WORKERS


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

ROWS: Rows = {
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
            "Workers wanted, connected and lost",
            "none",
            "Workers that the run can keep busy, those there are, and those that left within five minutes amid work.",
            {
                "wanted": of_run("sum(scanner_run_workers_wanted{})"),
                "connected": of_run("sum(scanner_run_workers{})"),
                "lost in 5 min": of_run("sum(increase(scanner_run_workers_lost_total{}[5m]))"),
            },
            12,
        ),
    ],
    **WORKERS,
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
        processors(),
        memory(
            "Resident memory. A worker that comes near its limit is ended and its tile tried elsewhere.",
            {"limit of {{instance}}": f"scanner_memory_limit_bytes{{{WHICH}}} > 0"},
        ),
        disk("File systems of the run folder (driver) and of the scratch folders (workers). A full disk stops the run."),
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


def survey() -> dict[str, Any]:
    """The dashboard."""
    return dashboard(
        "scanner-survey",
        "scanner: survey run",
        "A run of scanner over the tiles of a survey: how far it is, how fast, where the time goes, on what.",
        ROWS,
        "scanner_build_info",
    )
