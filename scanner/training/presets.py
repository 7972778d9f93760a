"""How members are trained: the presets and their stages, which member is trained when, and its share of a time budget."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self, get_args

from pydantic import Field, model_validator

from scanner.ensemble.preprocessing import Preprocessing
from scanner.errors import UsageError
from scanner.records import MEMBER_PIXELS, MEMBERS, MemberName, Record

PresetName = Literal["best", "paper"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)
#: Rows of a bundle's embedding, as many as in the paper (section 3.2): a cell is worth as much as the objects in it are many.
EMBEDDED_ROWS = 45_000
#: Share of the calibration rows' non-lenses above which objects are scored in all orientations: a harder crowd than the sky's,
#: of whose non-lenses about half as many are.
SECOND_LOOK_SHARE = 0.05
#: The members that score the orientations: they gain most by it, for 39 % of what all cost.
SECOND_LOOK_MEMBERS: tuple[MemberName, ...] = ("OU-VIS", "OU-66")
#: The members of a screen, and the share of the calibration rows' non-lenses that pass it.
SCREEN_MEMBERS: tuple[MemberName, ...] = ("OU-66",)
SCREEN_SHARE = 0.1
#: A member beyond the paper's seven, trained like them (:mod:`scanner.training.residual`).
RESIDUAL: Final = "residual"
#: What can be trained; the seven are where nothing is named.
TrainedName = MemberName | Literal["residual"]
#: How often the network of Einstein radii sees each lens (:mod:`scanner.training.radius`).
RADIUS_PASSES = 40.0
TRAINED: tuple[TrainedName, ...] = (*MEMBERS, RESIDUAL)
#: What is asked for: float32, or bfloat16 where hardware multiplies it.
WantedPrecision = Literal["fastest", "float32"]
WANTED_PRECISIONS: tuple[WantedPrecision, ...] = get_args(WantedPrecision)
#: What convolutions are computed in while training; weights, sums and everything that is validated or exported are float32.
Precision = Literal["float32", "bfloat16"]
#: How a member begins: He-initialised, as a copy of another member, or as the same member of a bundle.
Beginning = Literal["random", "copy", "bundle"]
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: Members that see VIS at full resolution see the arcs, and cost most; relative.
SHARE: Mapping[TrainedName, float] = {
    "OU-VIS": 0.34,
    "OU-200": 0.34,
    "OU-66": 0.17,
    "OU-JYH": 0.06,
    "OU-J": 0.03,
    "OU-Y": 0.03,
    "OU-H": 0.03,
    RESIDUAL: 0.34,
}


#: How images are kept between scaling and training.
ImageType = Literal["float16", "float32"]


class Shares(Record):
    """Which shares of a set's rows train and validate; the rest sets calibration and threshold."""

    train: float = Field(0.84, gt=0, lt=1)
    validation: float = Field(0.06, gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.calibration < 0.01:
            raise ValueError("training and validation leave no rows for calibration and threshold")
        return self

    @property
    def calibration(self) -> float:
        """What is left."""
        return 1.0 - self.train - self.validation


class Stage(Record):
    """One part of a training run: which pixels, which layers, how long, how fast."""

    name: str
    cropped: bool = Field(description="Train on the central crop of the twin, else on full images.")
    passes: float = Field(gt=0, description="Passes over the training rows, the most there will be.")
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0, description="Peak of the cycle, or the constant rate.")
    schedule: Literal["cycle", "constant"] = "cycle"
    frozen: int = Field(0, ge=0, description="Convolutions, from the first, that are not trained.")
    expanded: bool = Field(False, description="Write the tied head out as dense layers first, and train all of their weights.")
    jitter: int = Field(0, ge=0, description="Largest shift of a crop in pixels.")
    validations: int = Field(
        8, ge=1, description="How often the validation loss is taken, evenly spread; a budget lowers it to ten at the least."
    )


class Preset(Record):
    """A named way to train."""

    name: str
    preprocessing: Preprocessing
    twin: bool = Field(description="Train the twin of scanner.training.twin, else the paper's network itself.")
    batch_norm: bool = Field(True, description="Normalise the twin's convolutions; folded away at the end.")
    tied: bool = Field(True, description="Begin with the tied head; without it there are no crops.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Of what enters the twin's head, or of the paper's dropout layers.")
    augment: bool = Field(True, description="Draw one of eight orientations for every image of either class.")
    precision: WantedPrecision = Field(
        "fastest", description="Of images and convolutions; fastest: bfloat16 where hardware has it, and images in float16."
    )
    shares: Shares = Field(default_factory=Shares, description="Of the rows that train and validate.")
    validation_rows: int = Field(
        2000, ge=1, description="Most rows of a validation: at full resolution 2,000 take as long as training on 500."
    )
    weight_decay: float = 0.0
    min_arc_snr: float = Field(0.0, description="Lenses with fainter arcs are left out of training (never out of evaluation).")
    patience: int | None = Field(None, description="Stop a stage after this many validations without a better loss.")
    copies: dict[MemberName, MemberName] = Field({}, description="Members that begin as a copy of another, where bands agree.")
    share_of_bundle: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Of a bundle's weights in a mean with those of the end; the best of the three is kept; 0: the latter.",
    )
    stages_200: tuple[Stage, ...]
    stages_66: tuple[Stage, ...]
    stages_residual: tuple[Stage, ...] = Field((), description="Stages of the residual network; none: it is not trained so.")
    copied_200: tuple[Stage, ...] = Field(
        (), description="Stages of members that begin as a copy; none: as from random weights."
    )
    copied_66: tuple[Stage, ...] = ()
    continued_200: tuple[Stage, ...] = Field((), description="Stages of members of a bundle; none: as from random weights.")
    continued_66: tuple[Stage, ...] = ()

    @property
    def image_type(self) -> ImageType:
        """How the scaled images are kept."""
        return "float32" if self.precision == "float32" else "float16"

    @model_validator(mode="after")
    def _no_crops_for_dense_layers(self) -> Self:
        for member in MEMBERS:
            if any(stage.cropped for stage in self.stages(member, "bundle")):
                raise ValueError(f"preset {self.name}: {member} of a bundle has dense layers, which can be shown no crops")
        return self

    def stages(self, member: TrainedName, beginning: Beginning) -> tuple[Stage, ...]:
        """Stages of one member, by the size of its images and by how it begins.

        Raises
        ------
        UsageError
            The preset has none.
        """
        if member == RESIDUAL:
            if not self.stages_residual or beginning == "bundle":
                raise UsageError(f"{member} begins from random weights, by preset best: leave --from and --preset out.")
            return self.stages_residual
        if MEMBER_PIXELS[member] == 200:
            special = {"copy": self.copied_200, "bundle": self.continued_200, "random": ()}[beginning]
            return special or self.stages_200
        special = {"copy": self.copied_66, "bundle": self.continued_66, "random": ()}[beginning]
        return special or self.stages_66


def _crop(passes: float, learning_rate: float, jitter: int) -> Stage:
    return Stage(name="crop", cropped=True, passes=passes, batch=64, learning_rate=learning_rate, jitter=jitter)


def _full(passes: float, learning_rate: float, frozen: int, *, expanded: bool = False, validations: int = 3) -> Stage:
    return Stage(
        name="full",
        cropped=False,
        passes=passes,
        batch=64,
        learning_rate=learning_rate,
        frozen=frozen,
        expanded=expanded,
        validations=validations,
    )


def _dense(passes: float, convolutions: int) -> Stage:
    return Stage(
        name="dense",
        cropped=False,
        passes=passes,
        batch=256,
        learning_rate=1e-3,
        frozen=convolutions,
        expanded=True,
        validations=3,
    )


#: What measured best within minutes of a slow core. Small central crops first (ten times the images a second), then full images
#: with the expensive first convolutions frozen, then the head alone, with weights of its own at every position: a tied head can
#: only add up what it sees in different places. OU-VIS and OU-66 begin from random weights, the others as copies of a member of
#: their architecture: from scratch they need several times the passes to get as far. A bundle's members are trained on with
#: full images alone: crops can be shown to a tied head only, and what their dense layers have learnt of where objects lie would
#: be lost. They end as they began, as they were trained, or as a mean of both, whichever is best.
BEST = Preset(
    name="best",
    preprocessing="asinh_mad",
    twin=True,
    weight_decay=1e-2,
    min_arc_snr=25.0,
    stages_200=(_crop(16, 3e-3, 4), _full(2, 1e-3, 2), _dense(2, 6)),
    stages_66=(_crop(28, 3e-3, 2), _full(3, 1e-3, 4), _dense(3, 9)),
    copies={"OU-200": "OU-VIS", "OU-JYH": "OU-66", "OU-J": "OU-JYH", "OU-Y": "OU-JYH", "OU-H": "OU-JYH"},
    stages_residual=(Stage(name="full", cropped=False, passes=24, batch=64, learning_rate=2e-3, jitter=1, validations=16),),
    copied_200=(_crop(8, 2e-3, 4), _full(1.5, 1e-3, 2), _dense(2, 6)),
    copied_66=(_crop(6, 2e-3, 2), _full(1.5, 1e-3, 4), _dense(3, 9)),
    continued_200=(_full(16, 7e-4, 2, expanded=True, validations=10),),
    continued_66=(_full(40, 7e-4, 4, expanded=True, validations=10),),
    share_of_bundle=0.4,
)


def _paper(batch: int) -> tuple[Stage, ...]:
    return (
        Stage(name="paper", cropped=False, passes=250, batch=batch, learning_rate=3e-4, schedule="constant", validations=250),
    )


#: Section 3.2 to the letter: He initialisation, Adam at 3e-4, batches of 250 and 125, 250 epochs, dropout 0.2, linear min-max
#: scaling, class-weighted categorical cross-entropy over two classes, weights of the lowest validation loss; nothing turned, as
#: the paper gave it up; float32; of 60,000 rows 45,000 to train, 3,000 to validate, 12,000 kept apart. Hours on a GPU.
PAPER = Preset(
    name="paper",
    preprocessing="minmax",
    twin=False,
    dropout=0.2,
    augment=False,
    precision="float32",
    shares=Shares(train=0.75, validation=0.05),
    validation_rows=3000,
    stages_200=_paper(125),
    stages_66=_paper(250),
)


PRESETS: dict[PresetName, Preset] = {"best": BEST, "paper": PAPER}


def training_order(members: Sequence[TrainedName] = MEMBERS) -> tuple[TrainedName, ...]:
    """Members, dearest first."""
    return tuple(sorted(members, key=lambda member: -SHARE[member]))


def time_shares(
    members: Sequence[TrainedName], copies: Mapping[MemberName, MemberName], workers: int
) -> dict[TrainedName, float]:
    """What each member may take of the time that all of them together take.

    Two members trained side by side with one thread each take less time than one after the other with two.

    Parameters
    ----------
    members
        To be trained.
    copies
        Members that begin as a copy of another, and so after it.
    workers
        Processes, one member each.

    Returns
    -------
    dict
        Shares of the wall-clock time; trained in :func:`training_order`, each as soon as a process and its source are free,
        all of them are done after 1.
    """
    sources: dict[TrainedName, TrainedName] = {copy: copies[copy] for copy in members if copy != RESIDUAL and copy in copies}
    finished: dict[TrainedName, float] = {}
    free = [0.0] * workers
    waiting = list(training_order(members))
    while waiting:
        ready = [member for member in waiting if sources.get(member) not in waiting]
        now = heapq.heappop(free)
        able = [member for member in ready if finished.get(sources.get(member, member), 0.0) <= now]
        if not able:
            # Nothing can begin yet: this process waits for the next source to be finished.
            heapq.heappush(free, min(finished[sources[member]] for member in ready))
            continue
        waiting.remove(able[0])
        finished[able[0]] = now + SHARE[able[0]]
        heapq.heappush(free, finished[able[0]])
    whole = max(finished.values())
    return {member: SHARE[member] / whole for member in members}


def seconds(text: str) -> float:
    """Seconds of a time such as ``90s``, ``20m`` or ``1.5h``.

    Raises
    ------
    UsageError
        It is no such time, or zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or float(found[1]) == 0.0:
        raise UsageError(f"{text!r} is no time to take; write it as 90s, 20m or 1.5h.")
    return float(found[1]) * _UNITS[found[2]]
