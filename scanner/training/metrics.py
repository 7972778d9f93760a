"""The Prometheus metrics of a training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, disable_created_metrics

from scanner.survey.metrics import InstrumentMaker, ProcessInstruments, start_at_zero
from scanner.survey.metrics_page import served
from scanner.training.jobs import (
    Listener,
    MemberFinished,
    MemberMirrored,
    MemberProgress,
    MemberSaved,
    MemberStarted,
    MemberValidated,
    TrainingEvent,
)
from scanner.training.presets import TrainedName

TrainingState = Literal["preparing", "training", "done", "failed", "interrupted"]
MemberState = Literal["waiting", "running", "done"]


@contextmanager
def served_metrics(
    port: int, address: str | None, members: Sequence[TrainedName], out: Path, linger_s: float
) -> Iterator[Listener]:
    """Serve the metrics of a training run until the context ends; yields what takes its events.

    Parameters
    ----------
    port, address, linger_s
        See :func:`scanner.survey.metrics_page.served`.
    members
        That are to be trained.
    out
        Folder of the runs, whose free disk space is reported.

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

    def __init__(self, instruments: TrainingInstruments, members: Sequence[TrainedName]) -> None:
        self._instruments = instruments
        self._members: dict[TrainedName, MemberState] = dict.fromkeys(members, "waiting")
        instruments.start.set_to_current_time()
        self._enter("preparing")
        self._count()

    def __call__(self, event: TrainingEvent) -> None:
        """Update the metrics by one event."""
        instruments, member = self._instruments, event.member
        match event:
            case MemberStarted():
                self._members[member] = "running"
                self._count()
            case MemberProgress():
                self._enter("training")
                instruments.progress.labels(member).set(event.share)
                instruments.passes.labels(member).set(event.passes)
                instruments.objects.labels(member).inc(event.n_objects)
            case MemberValidated():
                instruments.validations.labels(member).inc()
                instruments.loss.labels(member).set(event.row.train_loss)
                instruments.validation_loss.labels(member).set(event.row.validation_loss)
                instruments.auroc.labels(member).set(event.row.auroc)
                instruments.auroc_visible.labels(member).set(event.row.auroc_visible)
            case MemberSaved():
                instruments.checkpoint.labels(member).set_to_current_time()
            case MemberMirrored():
                if event.succeeded:
                    instruments.mirror.labels(member).set_to_current_time()
                else:
                    instruments.mirror_failures.labels(member).inc()
            case MemberFinished():
                self._members[member] = "done"
                instruments.progress.labels(member).set(1.0)
                self._count()

    def ended(self, error: BaseException | None) -> None:
        """The training is over; ``error`` is what stopped it."""
        if error is None:
            self._enter("done")
            self._instruments.success.set_to_current_time()
        else:
            self._enter("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")

    def _enter(self, state: TrainingState) -> None:
        for each in get_args(TrainingState):
            self._instruments.state.labels(each).set(each == state)

    def _count(self) -> None:
        states = list(self._members.values())
        for state in get_args(MemberState):
            self._instruments.members.labels(state).set(states.count(state))


class TrainingInstruments:
    """The metrics themselves: names, units and help texts.

    Every time series is there from the start, at zero, except losses and AUROC: zero would be a figure that nobody measured.
    """

    def __init__(self, registry: CollectorRegistry, members: Sequence[TrainedName]) -> None:
        make = InstrumentMaker(registry)
        self.state = make.gauge("training_state", "1 for the state that the training is in, 0 for the others.", "state")
        self.members = make.gauge("training_members", "Members by state; together they are those to be trained.", "state")
        self.progress = make.gauge(
            "training_progress_ratio", "Share of the planned steps that are made, over all stages.", "member"
        )
        self.passes = make.gauge("training_passes", "Passes over the training rows, earlier sittings included.", "member")
        self.objects = make.counter("training_objects", "Objects that this process trained on, repeats included.", "member")
        self.loss = make.gauge("training_loss", "Mean loss of the training batches before the last validation.", "member")
        self.validation_loss = make.gauge("training_validation_loss", "Mean loss of the last validation.", "member")
        self.auroc = make.gauge("training_validation_auroc", "AUROC of the last validation, all lenses.", "member")
        self.auroc_visible = make.gauge(
            "training_validation_auroc_visible", "AUROC of the last validation, lenses whose arcs can be seen.", "member"
        )
        self.validations = make.counter("training_validations", "Validations of this process.", "member")
        self.checkpoint = make.gauge(
            "training_checkpoint_timestamp_seconds", "Unix time of the last checkpoint of this process; 0: none yet.", "member"
        )
        self.mirror = make.gauge(
            "training_mirror_timestamp_seconds",
            "Unix time at which a checkpoint was last brought to the mirror; 0: not yet, or there is none.",
            "member",
        )
        self.mirror_failures = make.counter(
            "training_mirror_failures", "Checkpoints that could not be brought to the mirror.", "member"
        )
        self.start = make.gauge("training_start_timestamp_seconds", "Unix time at which this process started to train.")
        self.success = make.gauge(
            "training_last_success_timestamp_seconds", "Unix time at which all members were trained; 0: not yet."
        )
        start_at_zero(self.state, get_args(TrainingState))
        start_at_zero(self.members, get_args(MemberState))
        for metric in (self.progress, self.passes, self.checkpoint, self.mirror):
            start_at_zero(metric, members)
        for counter in (self.objects, self.validations, self.mirror_failures):
            start_at_zero(counter, members)
