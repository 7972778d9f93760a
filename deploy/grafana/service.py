"""The dashboard of the catalogue service: whether it can answer, how fast, what it refuses and why."""

from __future__ import annotations

from typing import Any

from layout import RATE, WHICH, Rows, dashboard, panel
from machines import memory, processors

RED_ABOVE_ZERO = [{"color": "green", "value": None}, {"color": "red", "value": 0.001}]


def quantile(share: float, by: str) -> str:
    """Time within which a share of the answers is complete."""
    rate = f"rate(scanner_service_request_seconds_bucket{{{WHICH}}}[{RATE}])"
    return f"histogram_quantile({share}, sum by ({by}) ({rate}))"


def rows() -> Rows:
    """Panels by row."""
    requests = f"scanner_service_requests_total{{{WHICH}}}"
    return {
        "What is served": [
            panel(
                "stat",
                "Replicas that are ready",
                "none",
                "Those that have every catalogue open. A large catalogue takes minutes to open.",
                {"ready": f"sum(scanner_service_ready{{{WHICH}}})"},
                4,
                steps=[{"color": "red", "value": None}, {"color": "green", "value": 1}],
            ),
            panel(
                "stat",
                "Objects",
                "short",
                "Rows of each catalogue.",
                {"{{collection}}": f"max by (collection) (scanner_service_objects{{{WHICH}}})"},
                8,
            ),
            panel(
                "stat",
                "Candidates",
                "none",
                "Rows above the threshold of each catalogue; they are kept in memory.",
                {"{{collection}}": f"max by (collection) (scanner_service_candidates{{{WHICH}}})"},
                8,
            ),
            panel(
                "stat",
                "Errors of the service",
                "reqps",
                "Requests that ended with status 500; the log has a traceback for each.",
                {"errors": f'sum(rate(scanner_service_requests_total{{{WHICH}, status="500"}}[{RATE}])) or vector(0)'},
                4,
                steps=RED_ABOVE_ZERO,
            ),
        ],
        "Requests": [
            panel(
                "timeseries",
                "Answers by status",
                "reqps",
                "401 are readers without a token, 429 those who ask too often, 503 requests that found the queue full.",
                {"{{status}}": f"sum by (status) (rate({requests}[{RATE}]))"},
                12,
                stacked=True,
            ),
            panel(
                "timeseries",
                "Answers by route",
                "reqps",
                "What people and programs use.",
                {"{{route}}": f"sum by (route) (rate({requests}[{RATE}]))"},
                12,
                stacked=True,
            ),
            panel(
                "timeseries",
                "Time of an answer",
                "s",
                "From a request's first byte to its answer's last.",
                {"half": quantile(0.5, "le"), "nine of ten": quantile(0.9, "le"), "99 of 100": quantile(0.99, "le")},
                12,
            ),
            panel(
                "timeseries",
                "Time of an answer by route, 90 %",
                "s",
                "Nine of ten answers take less.",
                {"{{route}}": quantile(0.9, "route, le")},
                12,
            ),
            panel(
                "timeseries",
                "Refused",
                "reqps",
                "Busy, time and memory: the service has too much to do. Rate: one client asks too often. Token, host, origin, "
                "size, blind: as it should be.",
                {"{{reason}}": f"sum by (reason) (rate(scanner_service_refused_total{{{WHICH}}}[{RATE}]))"},
                8,
                stacked=True,
            ),
            panel(
                "timeseries",
                "In hand",
                "none",
                "Requests that are being answered, and queries that run or wait for a thread.",
                {
                    "requests": f"sum(scanner_service_requests_in_progress{{{WHICH}}})",
                    "queries": f"sum(scanner_service_work_pending{{{WHICH}}})",
                },
                8,
            ),
            panel(
                "timeseries",
                "Sent",
                "Bps",
                "Bytes of answers' bodies.",
                {"{{instance}}": f"sum by (instance) (rate(scanner_service_sent_bytes_total{{{WHICH}}}[{RATE}]))"},
                8,
            ),
        ],
        "The machines": [
            memory("Resident memory: 300 MB, and what limits.memory_mb allows for each catalogue.") | {"width": 12},
            processors() | {"width": 12},
        ],
    }


def service() -> dict[str, Any]:
    """The dashboard."""
    return dashboard(
        "scanner-service",
        "scanner: catalogue service",
        "The service that shows runs and surveys: whether it can answer, how fast, what it refuses and why.",
        rows(),
        "scanner_service_ready",
    )
