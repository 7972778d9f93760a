"""What a training run says of itself while it goes on.

In: where the run stands. Out: records that cross from the process that trains a member to the one that was asked to train, and
there to whoever listens (lines for people, metrics). Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from scanner.records import MemberName, Record
from scanner.training.history import HistoryRow


class MemberStarted(Record):
    """A process begins with a member, or goes on with it."""

    member: MemberName


class MemberProgress(Record):
    """A few seconds of training."""

    member: MemberName
    share: float = Field(ge=0, le=1, description="share of the planned steps that are made, over all stages")
    passes: float = Field(ge=0, description="passes over the training rows, from the start of the run")
    n_objects: int = Field(ge=0, description="objects gone through since this process said so before")


class MemberValidated(Record):
    """A validation."""

    member: MemberName
    row: HistoryRow


class MemberSaved(Record):
    """A checkpoint is on the disk."""

    member: MemberName


class MemberMirrored(Record):
    """The checkpoint is on the mirror too, or could not be brought there."""

    member: MemberName
    succeeded: bool


class MemberFinished(Record):
    """A member is trained."""

    member: MemberName


TrainingEvent = MemberStarted | MemberProgress | MemberValidated | MemberSaved | MemberMirrored | MemberFinished
Listener = Callable[[TrainingEvent], None]


def nobody(event: TrainingEvent) -> None:
    """Listen to nothing."""
