"""The service's metrics for Prometheus: names, units, buckets and help texts.

Labels come from fixed sets (routes, methods, statuses, reasons, collections), so clients cannot add series.
"""

from __future__ import annotations

import platform
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from scanner import __version__

Reason = Literal["busy", "time", "memory", "rate", "token", "host", "origin", "size", "blind"]
#: From an answer out of memory to one that meets the time limit.
SECONDS_BUCKETS = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class ServiceInstruments:
    """Counters and gauges of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        build = Gauge(
            "scanner_build_info",
            "Always 1; the labels tell what runs in this process.",
            ("version", "python"),
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self.requests = Counter(
            "scanner_service_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "scanner_service_request_seconds",
            "Seconds on the clock from a request's first byte to its answer's last.",
            ("route",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "scanner_service_requests_in_progress", "Requests that are being answered now.", registry=registry
        )
        self.sent_bytes = Counter("scanner_service_sent_bytes", "Bytes of answers' bodies.", registry=registry)
        self.refused = Counter("scanner_service_refused", "Requests refused, by reason.", ("reason",), registry=registry)
        self.work_pending = Gauge(
            "scanner_service_work_pending", "Pieces of blocking work that run or wait for a thread.", registry=registry
        )
        self.ready = Gauge("scanner_service_ready", "1 when every collection is open, else 0.", registry=registry)
        self.objects = Gauge("scanner_service_objects", "Objects of a collection.", ("collection",), registry=registry)
        self.candidates = Gauge("scanner_service_candidates", "Candidates of a collection.", ("collection",), registry=registry)
        self.renewals = Counter(
            "scanner_service_renewals", "Times that a collection was opened again as it had changed.", registry=registry
        )
        for reason in get_args(Reason):
            self.refused.labels(reason)
