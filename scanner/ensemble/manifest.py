"""``bundle.json``: what a bundle says of itself.

In: the text of a ``bundle.json``. Out: a :class:`BundleManifest`. Refused: bad JSON, unknown format versions and keys, members
that are not the seven of the paper, file names that leave the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from scanner.ensemble.calibration import AnyCalibration, Calibration
from scanner.ensemble.f_beta import OperatingPoint
from scanner.ensemble.preprocessing import Preprocessing
from scanner.ensemble.second_look import SecondLook
from scanner.errors import ContentError
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, Band, MemberName, Record

FORMAT_VERSION: Literal[1] = 1
MANIFEST_FILE = "bundle.json"
MODEL_FILE = "ensemble.onnx"
GRID_FILE = "grid.npz"
CURVE_FILE = "operating_curve.npz"
CARD_FILE = "MODEL_CARD.md"

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class MemberEntry(Record):
    """One network: what it sees, how large it is and where its weights come from."""

    name: MemberName
    bands: tuple[Band, ...]
    pixels: int
    parameters: int = Field(gt=0)
    source: str


class Metric(Record):
    """A figure measured on a labelled set, with its interval.

    ``member`` is a member's name, ``grid``, ``calibrated`` or ``mean``; ``set`` names the objects, ``metric`` the figure.
    """

    set: str
    member: str
    metric: str
    value: float
    low: float
    high: float
    n_pos: int = Field(ge=0)
    n_neg: int = Field(ge=0)


class BundleManifest(Record):
    """Everything about a bundle but its numbers.

    ``class_prior``: share of lenses in training, none where unknown. ``second_look``: none where every object is scored as it
    is. ``trained_on``: fingerprints of the sets that any of its training has seen, its grid's and that of bundles that it began
    from included, or ``drawn:PRESET:SEED:N`` of sets that were drawn where they were used; none where that is not known.
    ``thresholds``: decisions for several β, the default one first; empty where no labelled set was at hand. ``sha256``: of
    every other file of the folder. Whether objects are judged by the grid or by the calibrated probability follows from whether
    there is a grid: :attr:`decides_on`.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    description: str
    members: tuple[MemberEntry, ...]
    preprocessing: Preprocessing
    class_prior: float | None = Field(None, gt=0, lt=1)
    calibration: AnyCalibration
    second_look: SecondLook | None = None
    thresholds: tuple[OperatingPoint, ...] = ()
    metrics: tuple[Metric, ...] = ()
    trained_on: tuple[str, ...] = ()
    sha256: dict[FileName, Sha256]

    @field_validator("members")
    @classmethod
    def _are_those_of_the_paper(cls, members: tuple[MemberEntry, ...]) -> tuple[MemberEntry, ...]:
        if tuple(member.name for member in members) != MEMBERS:
            raise ValueError(f"the members must be {', '.join(MEMBERS)}, in this order")
        for member in members:
            if (member.bands, member.pixels) != (MEMBER_BANDS[member.name], MEMBER_PIXELS[member.name]):
                raise ValueError(
                    f"{member.name} must see {'+'.join(MEMBER_BANDS[member.name])} at {MEMBER_PIXELS[member.name]}"
                )
        return members

    @model_validator(mode="after")
    def _looks_again_by_a_calibration(self) -> Self:
        if self.second_look is not None and not isinstance(self.calibration, Calibration):
            raise ValueError("a second look goes by calibrated log-odds, and this bundle has no calibration")
        return self

    @field_validator("sha256")
    @classmethod
    def _list_the_model(cls, sha256: dict[str, str]) -> dict[str, str]:
        if MODEL_FILE not in sha256:
            raise ValueError(f"{MODEL_FILE} is not listed")
        return sha256

    @property
    def decides_on(self) -> Literal["grid", "calibrated"]:
        """Which score the threshold applies to."""
        return "grid" if GRID_FILE in self.sha256 else "calibrated"


def parse(text: bytes, path: Path | str) -> BundleManifest:
    """Parse the content of ``path``, a ``bundle.json``, local or on an object store.

    Raises
    ------
    ContentError
        Anything is wrong with it; the message names the file and the key.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContentError(f"{path}: not valid JSON ({error}); fetch or export the bundle again.") from None
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if version != FORMAT_VERSION:
        raise ContentError(
            f"{path}: bundle format {version!r} is unknown (this scanner reads {FORMAT_VERSION}); update scanner."
        )
    try:
        return BundleManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ContentError(f"{path}: {key}: {first['msg']}; fetch or export the bundle again.") from None
