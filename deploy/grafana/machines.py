"""Panels of the machine that a process runs on: what every process of scanner tells, whatever it does."""

from __future__ import annotations

from typing import Any

from layout import RATE, WHICH, Queries, panel


def processors() -> dict[str, Any]:
    """Cores in use."""
    return panel(
        "timeseries",
        "Processors",
        "suffix: cores",
        "Processor time per second.",
        {"{{instance}}": f"rate(process_cpu_seconds_total{{{WHICH}}}[{RATE}])"},
        8,
    )


def memory(tells: str, limit: Queries | None = None) -> dict[str, Any]:
    """Memory in use, beside its limit where processes tell one."""
    return panel(
        "timeseries",
        "Memory",
        "bytes",
        tells,
        {"{{instance}}": f"process_resident_memory_bytes{{{WHICH}}}"} | (limit or {}),
        8,
    )


def disk(tells: str) -> dict[str, Any]:
    """Disks that are written to."""
    return panel(
        "bargauge",
        "Disk in use",
        "percentunit",
        tells,
        {"{{disk}} of {{instance}}": f"1 - scanner_disk_free_bytes{{{WHICH}}} / scanner_disk_size_bytes{{{WHICH}}}"},
        12,
        max=1,
        steps=[{"color": "green", "value": None}, {"color": "orange", "value": 0.8}, {"color": "red", "value": 0.95}],
    )
