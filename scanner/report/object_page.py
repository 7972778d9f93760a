"""What is asked of an object's page of explanations, and what it says of itself in ``explanation.json``.

In: values. Out: frozen records. Refused: numbers that make no sense. :mod:`scanner.explain.page` makes the page; this needs
no torch.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from scanner.records import MemberName, Record
from scanner.report.atlas_record import ClassName

Method = Literal["occlusion", "guided-grad-cam", "votes", "neighbours", "deep-dream"]
METHODS: tuple[Method, ...] = get_args(Method)
#: Those that take seconds.
QUICK: tuple[Method, ...] = METHODS[:4]


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
