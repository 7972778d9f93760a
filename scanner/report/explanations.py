"""What an explanation is asked for and says of itself: of a candidate, an object's page, a bundle's atlas. No torch here.

A candidate's ``explanation.json`` is written last: its explanation is there whole or not at all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
from pydantic import Field

from scanner.errors import ContentError
from scanner.records import MemberName, Record
from scanner.storage import Staging, Store

EXPLANATIONS = "explanations"
RECORD, STRIP, MAPS = "explanation.json", "strip.png", "maps.zarr"


class Explanation(Record):
    """``explanation.json``: why the networks say what they say of one candidate.

    ``input_fingerprint``, ``bundle_fingerprint``: of the tile's files and of the bundle; an explanation with others is of
    another object. ``probabilities``: of the seven members; ``votes``: how many say 0.5 or more; ``spread``: their standard
    deviation; ``disagreement_bits``: see :mod:`scanner.explain.networks`. ``methods``: the maps in ``maps.zarr``, arrays
    ``<method>_<member>``. ``place``: where the files lie, below the record.
    """

    format_version: Literal[1] = 1
    tile_id: str
    target_id: int
    input_fingerprint: str
    bundle_fingerprint: str
    scanner_version: str
    probabilities: tuple[float, ...]
    votes: int
    spread: float
    disagreement_bits: float
    methods: tuple[str, ...]
    place: str = ""


def key(tile_id: str, target_id: int) -> str:
    """Key of an explanation's folder in its run folder."""
    return f"{EXPLANATIONS}/{tile_id}/{target_id}"


def read(store: Store, tile_id: str, target_id: int) -> Explanation | None:
    """The explanation of an object; None where there is none.

    Raises
    ------
    ContentError
        It is damaged.
    """
    record = f"{key(tile_id, target_id)}/{RECORD}"
    try:
        content = store.read(record)
    except FileNotFoundError:
        return None
    folder = store.where(key(tile_id, target_id))
    return Explanation.from_bytes(content, store.where(record), f"remove {folder} and explain it again")


def strip(store: Store, explanation: Explanation) -> bytes:
    """The explanation as one picture, PNG.

    Raises
    ------
    ContentError
        The file has gone.
    """
    place = file_key(explanation, STRIP)
    try:
        return store.read(place)
    except FileNotFoundError:
        raise ContentError(f"{store.where(place)}: missing; remove its folder and explain the candidate again.") from None


def strips(store: Store, bundle_fingerprint: str, rows: pa.Table) -> list[bytes | None]:
    """PNG of each object's explanation, in the order of the rows; None where this bundle's networks have none.

    Parameters
    ----------
    store
        The run folder's.
    bundle_fingerprint
        Of the bundle that scored the run.
    rows
        Objects, with the columns ``tile_id`` and ``target_id``.
    """
    found = []
    for tile_id, target_id in zip(rows["tile_id"].to_pylist(), rows["target_id"].to_pylist(), strict=True):
        known = read(store, tile_id, target_id)
        is_own = known is not None and known.bundle_fingerprint == bundle_fingerprint
        found.append(strip(store, known) if known is not None and is_own else None)
    return found


def file_key(explanation: Explanation, name: str) -> str:
    """Key of one of its files."""
    return "/".join(part for part in (key(explanation.tile_id, explanation.target_id), explanation.place, name) if part)


def staged(store: Store, tile_id: str, target_id: int, scratch: Path | None) -> AbstractContextManager[Staging]:
    """A local folder to write an explanation into, its record too; see :meth:`scanner.storage.contract.Store.staged`."""
    return store.staged(key(tile_id, target_id), RECORD, scratch)


ClassName = Literal["non-lens", "lens"]


class AtlasRequest(Record):
    """What is to be made.

    ``noises``: images of noise that a class image is compared with. ``kernels``: of each convolution; None: all. ``objects``:
    of a labelled set that go through the networks; ``examples``: how many of them are shown for each kernel.
    """

    members: tuple[MemberName, ...] = Field(min_length=1)
    seed: int = Field(ge=0)
    class_learning_rate: float = Field(gt=0)
    class_steps: int = Field(ge=1)
    noises: int = Field(ge=1)
    kernel_learning_rate: float = Field(gt=0)
    kernel_steps: int = Field(ge=1)
    kernels: int | None = Field(ge=1)
    objects: int = Field(ge=2)
    examples: int = Field(ge=1)


class ClassRecord(Record):
    """An image made for a class: its logit before and after, and the best among images of noise.

    ``falls``: of the means over twentieths of the way, how many lie below the one before.
    """

    name: ClassName
    before: float
    reached: float
    falls: int = Field(ge=0)
    best_of_noise: float


class KernelRecord(Record):
    """An image made for a kernel: its activation before and after.

    ``auroc``: of the kernel's activation as a score for lenses, in the labelled set. ``strongest``: ``target_id`` of the
    objects of the set that activate it most.
    """

    kernel: int
    before: float
    reached: float
    auroc: float | None = None
    strongest: tuple[int, ...] = ()


class LayerRecord(Record):
    """A convolution by its number in Tables 3 and 4, how many kernels it has, and those that are shown."""

    layer: str
    n_kernels: int
    kernels: tuple[KernelRecord, ...]


class MemberRecord(Record):
    """What was made of one network."""

    member: MemberName
    classes: tuple[ClassRecord, ...]
    layers: tuple[LayerRecord, ...]


class AtlasRecord(Record):
    """``explanation.json`` of a bundle; ``dataset`` and its SHA-256: the labelled set, where there was one."""

    format_version: Literal[1] = 1
    scanner_version: str
    bundle: str
    bundle_version: str
    bundle_fingerprint: str
    preprocessing: str
    request: AtlasRequest
    dataset: str | None = None
    dataset_sha256: str | None = None
    members: tuple[MemberRecord, ...]


Method = Literal["occlusion", "guided-grad-cam", "votes", "neighbours", "deep-dream"]
METHODS: tuple[Method, ...] = get_args(Method)
#: Those that take seconds.
QUICK: tuple[Method, ...] = METHODS[:4]
#: Figures of the paper's section 5, and the drawings of its networks.
FigureNumber = Literal["7", "8", "11", "12", "13", "14", "15", "16", "17"]
PAPER_FIGURES: tuple[FigureNumber, ...] = get_args(FigureNumber)


class PageRequest(Record):
    """What is to be made.

    ``fill``: what occlusion covers with: ``sky``, or the paper's ``zero``. ``random_orders``: that each map's order is compared
    with; 0: no faithfulness. ``dream_*``: the paper's numbers.
    """

    methods: tuple[Method, ...] = QUICK
    members: tuple[MemberName, ...] = ("OU-200", "OU-66")
    fill: Literal["sky", "zero"] = "sky"
    random_orders: int = Field(5, ge=0)
    neighbours: int = Field(8, ge=1)
    dream_steps: int = Field(1000, ge=1)
    dream_learning_rate: float = Field(0.001, gt=0)
    seed: int = Field(0, ge=0)


class Gain(Record):
    """By how much an order beats random ones: the mean, and the range that holds 95% of them."""

    value: float
    low: float
    high: float


class MapRecord(Record):
    """One map: ``lowest`` and ``highest`` value; by how much its order beats random ones."""

    method: Method
    member: MemberName
    lowest: float
    highest: float
    deletion_gain: Gain | None = None
    insertion_gain: Gain | None = None


class VoteRecord(Record):
    """What a member says."""

    member: MemberName
    probability: float


class NeighbourRecord(Record):
    """A near training object: how far in the map and in log-odds; share of lenses among the training objects of its cell.

    ``target_id``, ``is_lens``, ``class_name``: of an object of a labelled set; None where the bundle's own were searched, which
    keep neither labels nor images.
    """

    distance: float
    logit_distance: float
    lens_fraction: float
    probabilities: tuple[float, ...]
    target_id: int | None = None
    is_lens: bool | None = None
    class_name: str | None = None


class DreamRecord(Record):
    """What Deep Dream reached: the logit of a class before and after."""

    member: MemberName
    name: ClassName
    before: float
    reached: float


class PageRecord(Record):
    """``explanation.json`` of one object."""

    format_version: Literal[1] = 1
    scanner_version: str
    name: str
    run_folder: str
    tile_id: str
    target_id: int
    bundle: str
    bundle_fingerprint: str
    preprocessing: str
    request: PageRequest
    votes: tuple[VoteRecord, ...]
    n_votes: int
    spread: float
    shared_bits: float
    disagreement_bits: float
    maps: tuple[MapRecord, ...] = ()
    dreams: tuple[DreamRecord, ...] = ()
    neighbours: tuple[NeighbourRecord, ...] = ()
    dataset: str | None = None
