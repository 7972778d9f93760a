"""How a member is trained: named lists of stages.

In: a preset's name. Out: a :class:`Preset`. Refused: unknown names (the command line lists them).

``quick``: the route that trained the first bundle, made for few slow cores. Small central crops first (ten times the images a
second), then full images with the expensive first convolutions frozen; batch normalisation, asinh scaling, one cycle of the
learning rate. OU-VIS and OU-66 begin from random weights, the others as copies of a member of their architecture: from
scratch they need several times the passes to get as far.

``paper``: section 3.2 to the letter where it speaks (He initialisation, Adam at 3e-4, batches of 250 and 125, 250 epochs,
dropout 0.2, min-max scaling, no augmentation, weights of the lowest validation loss): hours on a GPU.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.ensemble.preprocessing import Preprocessing
from scanner.records import MEMBER_PIXELS, MemberName, Record

PresetName = Literal["quick", "paper"]


class Stage(Record):
    """One part of a training run: which pixels, which layers, how long, how fast."""

    name: str
    cropped: bool = Field(description="Train on the central crop of the twin, else on full images.")
    passes: float = Field(gt=0, description="Passes over the training rows.")
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0, description="Peak of the cycle, or the constant rate.")
    schedule: Literal["cycle", "constant"] = "cycle"
    frozen: int = Field(0, ge=0, description="Convolutions, from the first, that are not trained.")
    jitter: int = Field(0, ge=0, description="Largest shift of a crop in pixels.")
    validations: int = Field(10, ge=1, description="How often the validation loss is taken, evenly spread.")


class Preset(Record):
    """A named way to train."""

    name: PresetName
    preprocessing: Preprocessing
    twin: bool = Field(description="Train the twin of scanner.training.network, else the paper's network itself.")
    augment: bool = Field(description="Draw one of eight orientations for every image of either class.")
    weight_decay: float = 0.0
    min_arc_snr: float = Field(0.0, description="Lenses with fainter arcs are left out of training (never out of evaluation).")
    patience: int | None = Field(None, description="Stop a stage after this many validations without a better loss.")
    start_from: dict[MemberName, MemberName] = Field(
        {}, description="Members that begin as a copy of another, where bands agree."
    )
    stages_200: tuple[Stage, ...]
    stages_66: tuple[Stage, ...]
    started_200: tuple[Stage, ...] = Field((), description="Stages of members that begin as a copy.")
    started_66: tuple[Stage, ...] = ()

    def stages(self, member: MemberName) -> tuple[Stage, ...]:
        """Stages of one member, by the size of its images and by how it begins."""
        large, started = MEMBER_PIXELS[member] == 200, member in self.start_from
        if started:
            return self.started_200 if large else self.started_66
        return self.stages_200 if large else self.stages_66


QUICK = Preset(
    name="quick",
    preprocessing="asinh_mad",
    twin=True,
    augment=True,
    weight_decay=1e-2,
    min_arc_snr=25.0,
    stages_200=(
        Stage(name="crop", cropped=True, passes=12, batch=64, learning_rate=3e-3, jitter=4),
        Stage(name="full", cropped=False, passes=1.2, batch=64, learning_rate=1e-3, frozen=2, validations=4),
    ),
    stages_66=(
        Stage(name="crop", cropped=True, passes=24, batch=64, learning_rate=3e-3, jitter=2),
        Stage(name="full", cropped=False, passes=2, batch=64, learning_rate=1e-3, frozen=4, validations=4),
    ),
    start_from={"OU-200": "OU-VIS", "OU-JYH": "OU-66", "OU-J": "OU-JYH", "OU-Y": "OU-JYH", "OU-H": "OU-JYH"},
    started_200=(
        Stage(name="crop", cropped=True, passes=5, batch=64, learning_rate=2e-3, jitter=4),
        Stage(name="full", cropped=False, passes=1, batch=64, learning_rate=1e-3, frozen=2, validations=4),
    ),
    started_66=(
        Stage(name="crop", cropped=True, passes=4, batch=64, learning_rate=2e-3, jitter=2),
        Stage(name="full", cropped=False, passes=1, batch=64, learning_rate=1e-3, frozen=4, validations=4),
    ),
)

PAPER = Preset(
    name="paper",
    preprocessing="minmax",
    twin=False,
    augment=False,
    stages_200=(
        Stage(name="paper", cropped=False, passes=250, batch=125, learning_rate=3e-4, schedule="constant", validations=250),
    ),
    stages_66=(
        Stage(name="paper", cropped=False, passes=250, batch=250, learning_rate=3e-4, schedule="constant", validations=250),
    ),
)

PRESETS: dict[PresetName, Preset] = {"quick": QUICK, "paper": PAPER}
