"""What is asked of the atlas of a bundle, and what it says of itself in ``explanation.json``.

In: values. Out: frozen records. Refused: numbers that make no sense. The atlas is made by :mod:`scanner.explain.atlas`; this
needs no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scanner.records import MemberName, Record

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
