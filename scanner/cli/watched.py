"""Everything that tells of a run while it goes on: log lines, a bar on a terminal, metrics.

In: how to tell, then the events of :mod:`scanner.survey.run`. Out: what is seen on standard error and at the metrics port; the
run itself is not touched. Refused: a metrics port that is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from scanner.cli.progress import RunBar
from scanner.cli.run_log import RunLog
from scanner.config import EngineConfig
from scanner.survey.events import Event
from scanner.survey.watch import metrics
from scanner.survey.watch.run_metrics import RunMetrics

#: Longest wait for Prometheus's next visit at the end of a run, so that it sees how the run ended. It comes every 15 to 60 s.
LAST_VISIT_SECONDS = 60.0


@contextmanager
def driver_metrics(engine: EngineConfig) -> Iterator[None]:
    """Serve the driver's metrics where a port is set.

    Raises
    ------
    UsageError
        The port is taken.
    """
    if engine.metrics_port is None:
        yield
        return
    with metrics.serve(engine.metrics_port, "driver", engine.metrics_address, LAST_VISIT_SECONDS):
        yield


@contextmanager
def watched(log_format: str) -> Iterator[Callable[[Event], None]]:
    """Tell of a run: give what this yields to ``run_survey``.

    Parameters
    ----------
    log_format
        As for :func:`scanner.cli.logs.written`, which is entered before.
    """
    with ExitStack() as stack:
        log, figures = RunLog(), RunMetrics()
        listeners: list[Callable[[Event], None]] = [log, figures]
        if log_format != "json" and sys.stderr.isatty():
            listeners.append(stack.enter_context(RunBar()))

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        try:
            yield tell
        except BaseException as error:
            figures.ended(error)
            log.ended(error)
            raise
        figures.ended(None)
        log.ended(None)
