"""The metrics of a training run: names, units and help texts, in a registry of their own.

In: a registry, the members that are to be trained. Out: :class:`TrainingInstruments`. Every time series is there from the
start, at zero, except losses and AUROC: zero would be a figure that nobody measured. Refused: nothing; the only labels are
members and states. Imported where a page is served only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from prometheus_client import CollectorRegistry

from scanner.records import MemberName
from scanner.survey.metrics import InstrumentMaker, start_at_zero

TrainingState = Literal["preparing", "training", "done", "failed", "interrupted"]
MemberState = Literal["waiting", "running", "done"]


class TrainingInstruments:
    """What a training run tells."""

    def __init__(self, registry: CollectorRegistry, members: Sequence[MemberName]) -> None:
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
