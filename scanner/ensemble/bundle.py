"""A bundle: a folder that holds a trained ensemble, verified when it is read and written whole or not at all.

Nothing in a bundle is unpickled or run, save the ONNX graph.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, field_validator, model_validator

from scanner.atomic_file import file_sha256
from scanner.ensemble.calibration import (
    BETAS,
    MEMBER_THRESHOLD,
    AnyCalibration,
    Calibration,
    CalibrationSet,
    DecisionRule,
    MeanProbability,
    OperatingCurve,
    OperatingPoint,
)
from scanner.ensemble.embedding_grid import PAPER_RULE, EmbeddingGrid, GridRule
from scanner.ensemble.preprocessing import Augmentation, Preprocessing, Scaling, SecondLook
from scanner.errors import ContentError, OutputError, UsageError
from scanner.records import (
    MEMBER_BANDS,
    MEMBER_PIXELS,
    MEMBERS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    Finite,
    Float32,
    MemberName,
    Record,
    ScreenChoice,
    SealedRecord,
    is_sealed,
    unsealed,
)

FORMAT_VERSION: Literal[1] = 1
MANIFEST_FILE = "bundle.json"
MODEL_FILE = "ensemble.onnx"
GRID_FILE = "grid.npz"
CURVE_FILE = "operating_curve.npz"
CALIBRATION_FILE = "calibration.npz"
SCREEN_FILE = "screen.onnx"
AUGMENTATION_FILE = "augmentation.onnx"
CARD_FILE = "MODEL_CARD.md"


FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: What convolutions compute in; ``int8``: see :mod:`scanner.training.quantised`.
Arithmetic = Literal["float32", "int8"]


#: Name of a member beyond the paper's seven; its probability is the column ``p_NAME``.
FURTHER_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
#: Columns that are called ``p_…`` already, and what else figures are listed under.
TAKEN_NAMES = frozenset({"calibrated", "grid", "mean", "screen", *(member.lower().replace("-", "_") for member in MEMBERS)})


class MemberEntry(Record):
    """One network: what it sees, how large it is and where its weights come from.

    ``pixels``: side of its square input, of 0.1" where VIS is among ``bands``, else of 0.3"; OU-66 sees VIS at NISP's pixels.
    ``scaling``: of its input; none: the bundle's. ``file``: its ONNX graph; the paper's seven share one.
    """

    name: str
    bands: tuple[Band, ...] = Field(min_length=1)
    pixels: int
    scaling: Scaling | None = None
    file: FileName = MODEL_FILE
    parameters: int = Field(gt=0)
    source: str


def check_further(name: str, bands: Sequence[Band], pixels: int, taken: Sequence[str] = ()) -> None:
    """Refuse a member beyond the paper's seven that has no place in a bundle.

    Raises
    ------
    ValueError
        With one sentence.
    """
    if not FURTHER_NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} must be small letters, digits and underscores, a letter first, 31 at most")
    if name in TAKEN_NAMES or name in taken:
        raise ValueError(f"the name {name!r} is taken")
    if len(set(bands)) != len(bands):
        raise ValueError(f"{name} sees a band twice ({','.join(bands)})")
    most = VIS_CUTOUT_PIXELS if "VIS" in bands else NISP_CUTOUT_PIXELS
    if pixels % 2 or not 0 < pixels <= most:
        raise ValueError(f"{name} must see an even number of pixels up to {most}, so that cutouts have it at their centre")


class Metric(Record):
    """A figure measured on a labelled set, with its interval.

    ``member`` is a member's name, ``grid``, ``calibrated`` or ``mean``; ``set`` names the objects, ``metric`` the figure.
    """

    set: str
    member: str
    metric: str
    value: Finite
    low: Finite
    high: Finite
    n_pos: int = Field(ge=0)
    n_neg: int = Field(ge=0)


#: A screen is used where nothing else is asked for if it loses no more than this share of the lenses that all members together
#: find at this false-positive rate.
SCREEN_LOSS, SCREEN_FPR = 0.005, 1e-3


def lost_at(fpr: float) -> str:
    """Name of the metric: share of the lenses found at a false-positive rate that a screen loses."""
    return f"lost_at_fpr_{fpr:g}"


class SecondStage(Record):
    """Which objects that pass the screen's first stage all members score: those that stand high by the members that turn.

    These are the members of test-time augmentation (:class:`~scanner.ensemble.preprocessing.SecondLook`), among which those of
    the screen are; here they score an object as it is.
    """

    log_odds_above: Finite = Field(
        description="Calibrated log-odds of these members alone, at the sky's prevalence, from which an object passes."
    )
    share: float = Field(gt=0, lt=1, description="Share of the labelled non-lenses that passed both stages.")


class Screen(Record):
    """Which objects all members score: those that stand high by a few quick ones.

    ``lost``: share of the lenses that the combination of all members finds at low false-positive rates and the screen loses, as
    it was measured (:func:`lost_at`), by both stages where there are two.
    """

    members: tuple[MemberName, ...] = Field(min_length=1, max_length=len(MEMBERS) - 1)
    log_odds_above: Finite = Field(
        description="Calibrated log-odds of these members alone, at the sky's prevalence, from which an object passes."
    )
    share: float = Field(gt=0, lt=1, description="Share of the labelled non-lenses that passed where the limit was set.")
    second_stage: SecondStage | None = Field(None, description="None: all members score whatever passes.")
    lost: tuple[Metric, ...] = ()

    @property
    def share_passing(self) -> float:
        """Share of the labelled non-lenses that all members scored."""
        return self.share if self.second_stage is None else self.second_stage.share

    @property
    def is_harmless(self) -> bool:
        """Whether it was measured to lose next to nothing (:data:`SCREEN_LOSS`, :data:`SCREEN_FPR`)."""
        measured = [metric.value for metric in self.lost if metric.metric == lost_at(SCREEN_FPR)]
        return bool(measured) and max(measured) <= SCREEN_LOSS


@dataclass(frozen=True)
class Screening:
    """One stage of a screen at work, and the stage after it, if any.

    ``members`` (M,) bool are those of the stage, ``calibration`` combines them alone.
    """

    members: NDArray[np.bool_]
    calibration: Calibration
    log_odds_above: float
    second: Screening | None = None

    def passing(self, logits: Float32) -> NDArray[np.bool_]:
        """Which objects pass this stage, (N,) bool, by log-odds (N, M) that are finite for every member."""
        return np.asarray(self.calibration.log_odds(logits) >= self.log_odds_above, dtype=np.bool_)


#: An SPDX licence expression: names of licences, joined by AND, OR and WITH.
Licence = Annotated[
    str, Field(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*( (AND|OR|WITH) [A-Za-z0-9][A-Za-z0-9.+-]*)*$")
]


class BundleManifest(SealedRecord):
    """Everything about a bundle but its numbers.

    ``licence``: of the weights, as an SPDX expression (https://spdx.org/licenses); none where nobody has said.
    ``arithmetic``: what convolutions compute in.
    ``class_prior``: share of lenses in training, none where unknown. ``second_look``: none where every object is scored as it
    is. ``screen``: none where all members score every object. ``trained_on``: fingerprints of the sets that any of its training
    has seen, its grid's and that of bundles that it began from included, or ``drawn:PRESET:SEED:N`` of sets that were drawn
    where they were used; none where that is not known. ``grid``: what the grid embeds, and how it places new objects.
    ``thresholds``: decisions for several β, the default one first; empty where no labelled set was at hand. ``sha256``: of
    every other file of the folder. ``members``: the paper's seven, which the grid embeds, then any others. Whether objects are
    judged by the grid or by the calibrated probability follows from what is there: :attr:`decides_on`.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    description: str
    licence: Licence | None = None
    members: tuple[MemberEntry, ...]
    preprocessing: Preprocessing
    arithmetic: Arithmetic = "float32"
    class_prior: float | None = Field(None, gt=0, lt=1)
    calibration: AnyCalibration
    second_look: SecondLook | None = None
    grid: GridRule = GridRule()
    screen: Screen | None = None
    thresholds: tuple[OperatingPoint, ...] = ()
    metrics: tuple[Metric, ...] = ()
    trained_on: tuple[str, ...] = ()
    sha256: dict[FileName, Sha256]

    @field_validator("members")
    @classmethod
    def _begin_with_those_of_the_paper(cls, members: tuple[MemberEntry, ...]) -> tuple[MemberEntry, ...]:
        if tuple(member.name for member in members[: len(MEMBERS)]) != MEMBERS:
            raise ValueError(f"the members must begin with {', '.join(MEMBERS)}, in this order")
        for name, member in zip(MEMBERS, members, strict=False):
            if (member.bands, member.pixels) != (MEMBER_BANDS[name], MEMBER_PIXELS[name]):
                raise ValueError(f"{name} must see {'+'.join(MEMBER_BANDS[name])} at {MEMBER_PIXELS[name]}")
            if (member.file, member.scaling) != (MODEL_FILE, None):
                raise ValueError(f"{name} must lie in {MODEL_FILE}, with the scaling of the bundle")
        for position, member in enumerate(members[len(MEMBERS) :], len(MEMBERS)):
            check_further(member.name, member.bands, member.pixels, [other.name for other in members[:position]])
            if member.scaling is None or member.file in {other.file for other in members[:position]}:
                raise ValueError(f"{member.name} must have a scaling and a file of its own")
        return members

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        calibration, further = self.calibration, self.members[len(MEMBERS) :]
        if isinstance(calibration, Calibration) and len(calibration.coefficients) != len(self.members):
            raise ValueError(f"calibration has {len(calibration.coefficients)} coefficients for {len(self.members)} members")
        needed = {member.file for member in further}
        if further and isinstance(calibration, Calibration):
            needed.add(CALIBRATION_FILE)
        for some, file, whose in (
            (self.screen and self.screen.members, SCREEN_FILE, "the screen"),
            (self.second_look and self.second_look.members, AUGMENTATION_FILE, "second_look"),
        ):
            if some is not None:
                needed.add(file)
                if tuple(name for name in MEMBERS if name in some) != some:
                    raise ValueError(f"the members of {whose} must be different ones in the order {', '.join(MEMBERS)}")
        turning = set() if self.second_look is None else {*(self.second_look.members or ())}
        if self.screen is not None and self.screen.second_stage is not None and not turning >= {*self.screen.members}:
            raise ValueError("the screen has a second stage, so second_look must name its members, and those of the screen")
        if not needed <= self.sha256.keys():
            raise ValueError(f"{', '.join(sorted(needed - self.sha256.keys()))} is not listed in sha256")
        for rule, what in ((self.second_look, "second_look (test-time augmentation)"), (self.screen, "screen")):
            if rule is not None and not isinstance(self.calibration, Calibration):
                raise ValueError(f"{what} goes by calibrated log-odds, and this bundle has no calibration")
        return self

    @field_validator("sha256")
    @classmethod
    def _list_the_model(cls, sha256: dict[str, str]) -> dict[str, str]:
        if MODEL_FILE not in sha256:
            raise ValueError(f"{MODEL_FILE} is not listed")
        return sha256

    @property
    def decides_on(self) -> Literal["grid", "calibrated"]:
        """Which score the threshold applies to: the grid's, unless there is none or a member that it does not embed."""
        return "grid" if GRID_FILE in self.sha256 and len(self.members) == len(MEMBERS) else "calibrated"

    @property
    def further(self) -> tuple[MemberEntry, ...]:
        """The members beyond the paper's seven."""
        return self.members[len(MEMBERS) :]

    @property
    def member_names(self) -> tuple[str, ...]:
        """Of all members, in the order of log-odds."""
        return tuple(member.name for member in self.members)

    @property
    def further_names(self) -> tuple[str, ...]:
        """Of the members beyond the paper's seven."""
        return self.member_names[len(MEMBERS) :]

    @property
    def networks_sha256(self) -> str:
        """Fingerprint of what log-odds depend on: of the one graph, or of those of all members."""
        sums = [self.sha256[MODEL_FILE], *(self.sha256[member.file] for member in self.further)]
        return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()


def parse_manifest(text: bytes, path: Path | str) -> BundleManifest:
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
    if version != FORMAT_VERSION and is_sealed(text):
        raise ContentError(
            f"{path}: bundle format {version!r} is unknown (this scanner reads {FORMAT_VERSION}); update scanner."
        )
    return BundleManifest.from_bytes(text, path, "fetch or export the bundle again")


def fingerprint_of(text: bytes) -> str:
    """Fingerprint of a bundle by the content of its ``bundle.json``, which lists those of all other files: its checksum."""
    return hashlib.sha256(unsealed(text)).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    ``path``: its local folder. ``location``: where any machine of the run finds it, the URL it was loaded from or the absolute
    path. ``fingerprint``: checksum of ``bundle.json``, which lists those of all other files. ``model``: the ONNX graph of the
    paper's seven; ``further``: one of each further member. ``grid`` and ``curve`` (of the score that decides, on a labelled
    held-out set) are absent where no labelled set was at hand. ``calibration_set``: in bundles with further members.
    ``screen_model``, ``augmentation_model``: the graphs of the members of the screen alone, and of those that score turned
    cutouts, where there is a screen and where not all members turn.
    """

    path: Path
    location: str
    manifest: BundleManifest
    fingerprint: str
    model: bytes
    grid: EmbeddingGrid | None
    curve: OperatingCurve | None
    further: tuple[bytes, ...] = ()
    calibration_set: CalibrationSet | None = None
    screen_model: bytes | None = None
    augmentation_model: bytes | None = None

    @property
    def calibration(self) -> Calibration | MeanProbability:
        """The calibrated combination of the members' log-odds."""
        return self.manifest.calibration

    @property
    def reference_logits(self) -> Float32 | None:
        """Log-odds (K, M) of objects like those of the calibration, of which all members saw all; None: there are none."""
        if self.calibration_set is not None:
            return self.calibration_set.logits
        return None if self.grid is None or self.manifest.further else self.grid.logits

    def combination(self, members: NDArray[np.bool_]) -> Calibration | MeanProbability | None:
        """What combines the log-odds of those ``members``, (M,) bool, that see an object; None: nothing is known to.

        A calibration of some is distilled (:meth:`~scanner.ensemble.calibration.Calibration.distilled`), and takes the log-odds
        of all; a mean takes those of ``members`` alone.
        """
        if not members.any():
            return None
        full, reference = self.calibration, self.reference_logits
        if members.all() or isinstance(full, MeanProbability):
            return full
        return None if reference is None else full.distilled(members, reference)

    @property
    def augmentation(self) -> Augmentation | None:
        """Test-time augmentation; None where no object gets it."""
        rule, calibration, names = self.manifest.second_look, self.calibration, self.manifest.member_names
        if rule is None or not isinstance(calibration, Calibration):
            return None
        columns = np.flatnonzero([rule.members is None or name in rule.members for name in names])
        return Augmentation(rule, calibration, columns)

    def screening(self, choice: ScreenChoice = "auto") -> Screening | None:
        """The screen that a scan uses; None where all members score every object.

        Parameters
        ----------
        choice
            ``none``: none; ``bundle``: the bundle's, if it has one; ``auto``: the bundle's, if it was measured to lose next to
            nothing (:attr:`Screen.is_harmless`).
        """
        rule, turning = self.manifest.screen, self.manifest.second_look
        if rule is None or choice == "none" or (choice == "auto" and not rule.is_harmless):
            return None
        second = None
        if rule.second_stage is not None and turning is not None and turning.members is not None:
            second = self._stage(turning.members, rule.second_stage.log_odds_above)
        return self._stage(rule.members, rule.log_odds_above, second)

    def _stage(self, names: Sequence[MemberName], log_odds_above: float, second: Screening | None = None) -> Screening | None:
        members = np.array([name in names for name in self.manifest.member_names])
        calibration = self.combination(members)
        return Screening(members, calibration, log_odds_above, second) if isinstance(calibration, Calibration) else None

    @property
    def default_beta(self) -> float | None:
        """β of the threshold that decides where none is asked for; None: no labelled set was at hand, so no F-beta chose it."""
        return self.manifest.thresholds[0].beta if self.manifest.thresholds else None

    def decision_rule(self, beta: float | None = None, fixed: float | None = None) -> DecisionRule:
        """Which objects are candidates; parameters and errors as those of :meth:`threshold`."""
        calibration = self.calibration if isinstance(self.calibration, Calibration) else None
        return DecisionRule(
            threshold=self.threshold(beta, fixed),
            decides_on=self.manifest.decides_on,
            training_prevalence=None if calibration is None else calibration.training_prevalence,
            sky_prevalence=None if calibration is None else calibration.sky_prevalence,
        )

    def threshold(self, beta: float | None = None, fixed: float | None = None) -> float:
        """Threshold on the score that decides (``manifest.decides_on``).

        Parameters
        ----------
        beta
            Weight of recall against precision; ``None``: the bundle's default.
        fixed
            The threshold itself, where one was asked for.

        Raises
        ------
        UsageError
            The bundle was made without labelled objects, so no threshold can be derived for a β.
        """
        if fixed is not None:
            return fixed
        listed = self.manifest.thresholds
        if beta is None:
            return listed[0].threshold if listed else MEMBER_THRESHOLD
        for point in listed:
            if point.beta == beta:
                return point.threshold
        if self.curve is None:
            raise UsageError(
                f"{self.path}: this bundle was made without labelled objects and has no threshold for beta = {beta:g}; "
                "leave beta out, or import it again with --data."
            )
        prevalence = listed[0].prevalence if listed else None
        return self.curve.best(beta, prevalence, exact=self.manifest.grid == PAPER_RULE).threshold


def read_bundle(path: Path, location: str) -> Bundle:
    """Read a bundle from a local folder, verifying all of it.

    Parameters
    ----------
    path
        Its folder.
    location
        Where any machine of the run finds it.

    Raises
    ------
    ContentError
        The folder is not a bundle, or a file is missing, altered, unlisted or unreadable; the message says which.
    """
    text = _read(path / MANIFEST_FILE)
    manifest = parse_manifest(text, path / MANIFEST_FILE)
    listed = {MANIFEST_FILE, *manifest.sha256}
    for entry in sorted(path.iterdir()):
        if entry.name not in listed and not entry.name.startswith("."):
            raise ContentError(f"{entry}: not listed in {MANIFEST_FILE}; remove it or fetch the bundle again.")
    content = {}
    for name, expected in manifest.sha256.items():
        content[name] = _read(path / name)
        if hashlib.sha256(content[name]).hexdigest() != expected:
            raise ContentError(
                f"{path / name}: altered (its SHA-256 is not the one in {MANIFEST_FILE}); fetch the bundle again."
            )
    return Bundle(
        path=path,
        location=location,
        manifest=manifest,
        fingerprint=fingerprint_of(text),
        model=content[MODEL_FILE],
        grid=EmbeddingGrid.load(path / GRID_FILE, manifest.grid) if GRID_FILE in content else None,
        curve=OperatingCurve.load(path / CURVE_FILE) if CURVE_FILE in content else None,
        further=tuple(content[member.file] for member in manifest.further),
        calibration_set=CalibrationSet.load(path / CALIBRATION_FILE, len(manifest.members))
        if CALIBRATION_FILE in content
        else None,
        screen_model=content.get(SCREEN_FILE),
        augmentation_model=content.get(AUGMENTATION_FILE),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ContentError(f"{path}: cannot be read ({error.strerror}); fetch or export the bundle again.") from None


@dataclass(frozen=True)
class BundleContent:
    """What a bundle is made of.

    ``model``: the ONNX graph of the paper's seven (:func:`scanner.training.export.merge_onnx`); ``further``: those of the
    members beyond them, ``calibration_set`` what all were calibrated on. ``calibration``, ``grid``: what turns log-odds into
    the two scores. ``second_look``, ``augmentation_model``: what gets test-time augmentation, if anything, and the graph of the
    members that do it, if not all. ``screen``, ``screen_model``: what all members score, if not everything, and the graph of
    those that say so. ``curve``: of the score that decides (the grid value
    where there is a grid, else the calibrated probability), on a labelled set. ``betas``, ``prevalence``: β of the thresholds
    to list, the default one first, and the share of lenses to state them for (``None``: the set's). ``texts``: further files,
    such as ``{"MODEL_CARD.md": ...}``. ``licence``: of the weights.
    """

    name: str
    version: str
    description: str
    members: Sequence[MemberEntry]
    preprocessing: Preprocessing
    model: bytes
    arithmetic: Arithmetic = "float32"
    trained_on: Sequence[str] = ()
    calibration: Calibration | MeanProbability = field(default_factory=MeanProbability)
    class_prior: float | None = None
    second_look: SecondLook | None = None
    augmentation_model: bytes | None = None
    grid: EmbeddingGrid | None = None
    curve: OperatingCurve | None = None
    betas: Sequence[float] = BETAS
    prevalence: float | None = None
    metrics: Sequence[Metric] = ()
    further: Sequence[bytes] = ()
    calibration_set: CalibrationSet | None = None
    screen: Screen | None = None
    screen_model: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None

    def manifest(self, sha256: dict[str, str]) -> BundleManifest:
        """What ``bundle.json`` says of it."""
        rule, curve = GridRule() if self.grid is None else self.grid.rule, self.curve
        # A bundle of the paper's recipe has the paper's threshold.
        best = () if curve is None else (curve.best(beta, self.prevalence, exact=rule == PAPER_RULE) for beta in self.betas)
        return BundleManifest(
            name=self.name,
            version=self.version,
            description=self.description,
            licence=self.licence,
            members=tuple(self.members),
            preprocessing=self.preprocessing,
            arithmetic=self.arithmetic,
            class_prior=self.class_prior,
            calibration=self.calibration,
            second_look=self.second_look,
            grid=rule,
            screen=self.screen,
            thresholds=tuple(best),
            metrics=tuple(self.metrics),
            trained_on=tuple(self.trained_on),
            sha256=sha256,
        )


def content_of(bundle: Bundle) -> BundleContent:
    """What a bundle was written from, its texts included."""
    manifest = bundle.manifest
    arrays = {GRID_FILE, CURVE_FILE, CALIBRATION_FILE}
    binary = {MODEL_FILE, SCREEN_FILE, AUGMENTATION_FILE, *arrays, *(member.file for member in manifest.further)}
    return BundleContent(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        licence=manifest.licence,
        members=manifest.members,
        preprocessing=manifest.preprocessing,
        model=bundle.model,
        arithmetic=manifest.arithmetic,
        trained_on=manifest.trained_on,
        calibration=bundle.calibration,
        second_look=manifest.second_look,
        augmentation_model=bundle.augmentation_model,
        class_prior=manifest.class_prior,
        grid=bundle.grid,
        curve=bundle.curve,
        betas=tuple(point.beta for point in manifest.thresholds) or BETAS,
        prevalence=_stated_prevalence(bundle),
        metrics=manifest.metrics,
        further=bundle.further,
        calibration_set=bundle.calibration_set,
        screen=manifest.screen,
        screen_model=bundle.screen_model,
        texts={name: (bundle.path / name).read_text(encoding="utf-8") for name in manifest.sha256 if name not in binary},
    )


def _stated_prevalence(bundle: Bundle) -> float | None:
    if bundle.curve is None or not bundle.manifest.thresholds:
        return None
    stated = bundle.manifest.thresholds[0].prevalence
    return None if stated == bundle.curve.prevalence else stated


def write_bundle(out: Path, content: BundleContent) -> Bundle:
    """Write a bundle, all of it or nothing, and load it back.

    Parameters
    ----------
    out
        The folder to make; a bundle that is there already is replaced, anything else is refused.
    content
        What to write.

    Raises
    ------
    OutputError
        The folder cannot be written, or is something else than a bundle.
    """
    if out.exists() and not (out / MANIFEST_FILE).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out}: exists and is not a bundle; choose another folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError.of(out, error) from None
    try:
        partial.chmod(0o755)
        _fill(partial, content)
        read_bundle(partial, str(partial))
        if out.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            out.replace(replaced)
            partial.replace(out)
            shutil.rmtree(replaced)
        else:
            partial.replace(out)
    except OSError as error:
        raise OutputError.of(out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(out, str(out.resolve()))


def _fill(folder: Path, content: BundleContent) -> None:
    (folder / MODEL_FILE).write_bytes(content.model)
    for member, graph in zip(content.members[len(MEMBERS) :], content.further, strict=True):
        (folder / member.file).write_bytes(graph)
    for file, part in ((SCREEN_FILE, content.screen_model), (AUGMENTATION_FILE, content.augmentation_model)):
        if part is not None:
            (folder / file).write_bytes(part)
    if content.calibration_set is not None:
        content.calibration_set.save(folder / CALIBRATION_FILE)
    if content.grid is not None:
        content.grid.save(folder / GRID_FILE)
    if content.curve is not None:
        content.curve.save(folder / CURVE_FILE)
    for file_name, text in content.texts.items():
        (folder / file_name).write_text(text, encoding="utf-8")
    sha256 = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST_FILE).write_bytes(content.manifest(sha256).to_bytes())
