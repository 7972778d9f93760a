"""The atlas of a bundle: its networks one by one, then everything on disk.

In: a verified bundle, what is asked for, a labelled set where there is one. Out: in a folder ``index.html``, which needs no
network and no other file, PNG sheets, ``arrays.zarr``, and ``explanation.json``. Refused: a set without both classes
(ContentError), a folder that holds what was made with other settings (UsageError), places that cannot be written (OutputError).

Images that are being made are kept in the folder ``ascents``: a second call goes on where the first was stopped, and makes
nothing twice. When all is written the folder may be removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from scanner import __version__
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError
from scanner.explain.atlas.member import AtlasReport, Layer, MemberAtlas, Seen, member_atlas
from scanner.explain.atlas.sheets import Sheet, class_sheet, layer_sheet
from scanner.explain.atlas.write import write_atlas
from scanner.explain.class_image import LEARNING_RATE as CLASS_LEARNING_RATE
from scanner.explain.class_image import NOISES
from scanner.explain.class_image import STEPS as CLASS_STEPS
from scanner.explain.kernel_image import LEARNING_RATE as KERNEL_LEARNING_RATE
from scanner.explain.kernel_image import STEPS as KERNEL_STEPS
from scanner.explain.networks import network_input, restore
from scanner.labelled_set import LabelledSet
from scanner.records import CutoutBatch, Float32, Int64, MemberName
from scanner.report.explanations import (
    AtlasRecord,
    AtlasRequest,
    ClassRecord,
    KernelRecord,
    LayerRecord,
    MemberRecord,
)

ASCENTS = "ascents"
#: Both networks of all bands, as in Figs. 14 to 16, with the paper's steps and learning rates.
AS_IN_THE_PAPER = AtlasRequest(
    members=("OU-66", "OU-200"),
    seed=0,
    class_learning_rate=CLASS_LEARNING_RATE,
    class_steps=CLASS_STEPS,
    noises=NOISES,
    kernel_learning_rate=KERNEL_LEARNING_RATE,
    kernel_steps=KERNEL_STEPS,
    kernels=8,
    objects=2000,
    examples=3,
)
#: Objects read and passed through a network at a time.
BATCH = 32
TWENTIETHS = 20


def explain_bundle(
    bundle: Bundle,
    out: Path,
    request: AtlasRequest = AS_IN_THE_PAPER,
    *,
    dataset: LabelledSet | None = None,
    device: str = "cpu",
    report: AtlasReport = lambda what, done, total: None,
) -> AtlasRecord:
    """Make the atlas of a bundle, or go on with it.

    Parameters
    ----------
    bundle
        Shipped or imported.
    out
        Folder; made if need be.
    request
        What is made, and with which numbers.
    dataset
        Labelled set whose objects are looked for that activate the kernels most.
    device
        Of torch, on which images are made.
    report
        Called after every step.

    Raises
    ------
    ContentError
        The set has lenses only, or none.
    ScannerError
        See the module.
    """
    rows = None if dataset is None else _rows(dataset, request)
    networks = restore(bundle)
    atlases, sheets = [], []
    for member in request.members:
        made = member_atlas(
            member,
            networks[member].to(device),
            request,
            seen=None if dataset is None or rows is None else _seen(bundle, member, dataset, rows, device),
            key=bundle.fingerprint,
            checkpoints=out / ASCENTS,
            report=report,
        )
        atlases.append(made)
        sheets.append((member, _sheets(made, dataset)))
    record = AtlasRecord(
        scanner_version=__version__,
        bundle=bundle.manifest.name,
        bundle_version=bundle.manifest.version,
        bundle_fingerprint=bundle.fingerprint,
        preprocessing=bundle.manifest.preprocessing,
        request=request,
        dataset=None if dataset is None else dataset.path.resolve().name,
        dataset_sha256=None if dataset is None else dataset.fingerprint,
        members=tuple(_member_record(made, dataset) for made in atlases),
    )
    write_atlas(out, record, atlases, sheets, rows)
    return record


def _rows(dataset: LabelledSet, request: AtlasRequest) -> Int64:
    """Rows of the set that go through the networks: a draw of them, in order."""
    n = len(dataset)
    generator = np.random.default_rng(request.seed)
    rows = np.arange(n) if n <= request.objects else np.sort(generator.choice(n, request.objects, replace=False))
    is_lens = dataset.truth.is_lens[rows]
    if is_lens.all() or not is_lens.any():
        raise ContentError(f"{dataset.path}: the {len(rows)} objects that are shown must be lenses and non-lenses.")
    return np.asarray(rows, dtype=np.int64)


def _seen(bundle: Bundle, member: MemberName, dataset: LabelledSet, rows: Int64, device: str) -> Seen:
    def batches() -> Iterator[torch.Tensor]:
        for batch, _, _ in dataset.batches(rows, BATCH):
            yield network_input(bundle, member, batch).to(device)

    return Seen(batches, dataset.truth.is_lens[rows], rows)


def _sheets(made: MemberAtlas, dataset: LabelledSet | None) -> list[Sheet]:
    objects = {} if dataset is None else _objects(dataset, made.layers)
    return [class_sheet(made), *(layer_sheet(made.member, name, layer, objects) for name, layer in made.layers.items())]


def _objects(dataset: LabelledSet, layers: Mapping[str, Layer]) -> dict[int, CutoutBatch]:
    """The cutouts that are shown, one each, by row of the set."""
    wanted = np.unique(np.concatenate([layer.strongest.ravel() for layer in layers.values() if layer.strongest is not None]))
    return {int(row): dataset.store.read(int(row)) for row in wanted}


def _member_record(made: MemberAtlas, dataset: LabelledSet | None) -> MemberRecord:
    classes = tuple(
        ClassRecord(
            name=name,
            before=float(ascent.reached[0, 0]),
            reached=float(ascent.reached[-1, 0]),
            falls=_falls(ascent.reached[:, 0]),
            best_of_noise=made.best_of_noise[name],
        )
        for name, ascent in made.classes.items()
    )
    layers = tuple(
        LayerRecord(
            layer=name,
            n_kernels=layer.n_kernels,
            kernels=tuple(_kernel_record(layer, position, dataset) for position in range(len(layer.kernels))),
        )
        for name, layer in made.layers.items()
    )
    return MemberRecord(member=made.member, classes=classes, layers=layers)


def _falls(reached: Float32) -> int:
    means = [part.mean() for part in np.array_split(reached, min(TWENTIETHS, len(reached)))]
    return int((np.diff(means) < 0).sum())


def _kernel_record(layer: Layer, position: int, dataset: LabelledSet | None) -> KernelRecord:
    kernel = int(layer.kernels[position])
    rows = () if layer.strongest is None else layer.strongest[position]
    return KernelRecord(
        kernel=kernel,
        before=float(layer.reached[0, position]),
        reached=float(layer.reached[-1, position]),
        auroc=None if layer.auroc is None else float(layer.auroc[kernel]),
        strongest=() if dataset is None else tuple(int(dataset.truth.target_id[row]) for row in rows),
    )
