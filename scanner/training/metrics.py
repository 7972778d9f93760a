"""What a training run tells Prometheus.

In: the members to be trained, then events. Out: a page of metrics over HTTP while :func:`served_metrics` lasts. Refused: a port
that is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, disable_created_metrics

from scanner.records import MemberName
from scanner.survey.metrics import ProcessInstruments
from scanner.survey.metrics_page import served
from scanner.training.events import (
    Listener,
    MemberFinished,
    MemberMirrored,
    MemberProgress,
    MemberSaved,
    MemberStarted,
    MemberValidated,
    TrainingEvent,
)
from scanner.training.instruments import MemberState, TrainingInstruments, TrainingState


@contextmanager
def served_metrics(
    port: int, address: str | None, members: Sequence[MemberName], out: Path, linger_s: float
) -> Iterator[Listener]:
    """Serve the metrics of a training run until the context ends; yields what takes its events.

    Parameters
    ----------
    port, address, linger_s
        See :func:`scanner.survey.metrics_page.served`.
    members
        That are to be trained.
    out
        Folder of the runs, whose disk is watched.

    Raises
    ------
    UsageError
        The port is taken or the address is not this machine's.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessInstruments(registry).watch_disk("run_folder", out)
    figures = TrainingMetrics(TrainingInstruments(registry, members), members)
    with served(registry, port, address, linger_s):
        try:
            yield figures
        except BaseException as error:
            figures.ended(error)
            raise
        figures.ended(None)


class TrainingMetrics:
    """Keeps the metrics of a training run; called with each event."""

    def __init__(self, instruments: TrainingInstruments, members: Sequence[MemberName]) -> None:
        self._tell = instruments
        self._members: dict[MemberName, MemberState] = dict.fromkeys(members, "waiting")
        instruments.start.set_to_current_time()
        self._enter("preparing")
        self._count()

    def __call__(self, event: TrainingEvent) -> None:
        """Take one event in."""
        tell, member = self._tell, event.member
        match event:
            case MemberStarted():
                self._members[member] = "running"
                self._count()
            case MemberProgress():
                self._enter("training")
                tell.progress.labels(member).set(event.share)
                tell.passes.labels(member).set(event.passes)
                tell.objects.labels(member).inc(event.n_objects)
            case MemberValidated():
                tell.validations.labels(member).inc()
                tell.loss.labels(member).set(event.row.train_loss)
                tell.validation_loss.labels(member).set(event.row.validation_loss)
                tell.auroc.labels(member).set(event.row.auroc)
                tell.auroc_visible.labels(member).set(event.row.auroc_visible)
            case MemberSaved():
                tell.checkpoint.labels(member).set_to_current_time()
            case MemberMirrored():
                if event.succeeded:
                    tell.mirror.labels(member).set_to_current_time()
                else:
                    tell.mirror_failures.labels(member).inc()
            case MemberFinished():
                self._members[member] = "done"
                tell.progress.labels(member).set(1.0)
                self._count()

    def ended(self, error: BaseException | None) -> None:
        """The training is over; ``error`` is what stopped it."""
        if error is None:
            self._enter("done")
            self._tell.success.set_to_current_time()
        else:
            self._enter("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")

    def _enter(self, state: TrainingState) -> None:
        for each in get_args(TrainingState):
            self._tell.state.labels(each).set(each == state)

    def _count(self) -> None:
        states = list(self._members.values())
        for state in get_args(MemberState):
            self._tell.members.labels(state).set(states.count(state))
