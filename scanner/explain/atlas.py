"""The atlas of a bundle: what each network responds to most, as class images, kernel images and objects of a labelled set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from scanner import __version__
from scanner.atomic_file import write_atomically, writing_to
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError
from scanner.evaluation.metrics import auroc
from scanner.explain.ascent import (
    CLASS_IMAGE,
    KERNEL_IMAGE,
    NOISES,
    Ascent,
    Report,
    best_of_noise,
    class_image,
    convolutions,
    kernel_activation,
    kernel_image,
    strongest,
)
from scanner.explain.display import enlarged, input_pictures, png, put, replaced_group
from scanner.explain.networks import CLASSES, network_input, restore
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, CutoutBatch, Float32, Float64, Int64, MemberName
from scanner.report.colour import UInt8, nisp_image, vis_image
from scanner.report.explanations import (
    AtlasRecord,
    AtlasRequest,
    ClassName,
    ClassRecord,
    KernelRecord,
    LayerRecord,
    MemberRecord,
)
from scanner.report.self_contained import asset, png_uri, template

#: Kernels whose images are made together; each takes up to 40 MB in an image of 200 pixels.
KERNELS_AT_A_TIME = 8
#: Called with what is being made, and with how many steps of how many are done.
AtlasReport = Callable[[str, int, int], None]
#: Sides of the pictures, what lies between them, and the height of the lines above them, in pixels.
CLASS_SIDE, KERNEL_SIDE = 264, 132
GAP, LABEL_HEIGHT = 4, 40
GROUND, INK, QUIET = (23, 26, 31), (231, 234, 238), (154, 164, 175)
#: Panels side by side on a sheet of kernels.
PANELS = 8
#: ``arrays.zarr`` has a group a member: ``classes/<class>`` (channels, side, side), ``classes/<class>-reached`` (steps + 1,),
#: ``layers/<layer>/images`` (K, channels, side, side), ``kernels`` (K,) and, of a labelled set, ``activation`` (N, all kernels)
#: of the rows ``rows`` (N,), and ``strongest`` (K, examples), rows of the set.
ARRAYS, RECORD, PAGE = "arrays.zarr", "explanation.json", "index.html"
#: Folder of images that are being made: a second call goes on with them. It may be removed when all is written.
ASCENTS = "ascents"
#: Both networks of all bands, as in Figs. 14 to 16, with the paper's steps and learning rates.
AS_IN_THE_PAPER = AtlasRequest(
    members=("OU-66", "OU-200"),
    seed=0,
    class_learning_rate=CLASS_IMAGE["learning_rate"],
    class_steps=CLASS_IMAGE["steps"],
    noises=NOISES,
    kernel_learning_rate=KERNEL_IMAGE["learning_rate"],
    kernel_steps=KERNEL_IMAGE["steps"],
    kernels=8,
    objects=2000,
    examples=3,
)
#: Objects read and passed through a network at a time.
BATCH = 32
#: Parts of an ascent whose means are compared.
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
        Folder, made if need be: ``index.html``, which needs no network and no other file, PNG sheets, ``arrays.zarr`` and
        ``explanation.json``.
    request
        What is made, and with which numbers.
    dataset
        Labelled set in which the objects are sought that activate the kernels most.
    device
        Of torch, on which images are made.
    report
        Called after every step.

    Raises
    ------
    ContentError
        The set has lenses only, or none.
    UsageError
        The folder holds an atlas that was made with other settings.
    OutputError
        The folder cannot be written.
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
    """How often the output fell between the twentieths of an ascent."""
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


@dataclass(frozen=True)
class Seen:
    """What a network sees of a labelled set.

    ``batches`` gives images (n, channels, side, side), anew at each call. ``is_lens`` (N,) bool. ``rows`` (N,) int64, of the
    set.
    """

    batches: Callable[[], Iterator[torch.Tensor]]
    is_lens: NDArray[np.bool_]
    rows: Int64


@dataclass(frozen=True)
class Layer:
    """One convolution.

    ``kernels`` (K,) int64: those that are shown; ``images`` and ``reached``: see :class:`~scanner.explain.ascent.Ascent`.
    ``activation`` (N, all kernels) float32 of the set's rows, ``auroc`` (all kernels,) float64, ``strongest`` (K, examples)
    int64, rows of the set; None without a set.
    """

    n_kernels: int
    kernels: Int64
    images: Float32
    reached: Float32
    activation: Float32 | None
    auroc: Float64 | None
    strongest: Int64 | None


@dataclass(frozen=True)
class MemberAtlas:
    """Everything of one network; ``layers`` by layer number."""

    member: MemberName
    classes: dict[ClassName, Ascent]
    best_of_noise: dict[ClassName, float]
    layers: dict[str, Layer]


def member_atlas(
    member: MemberName,
    network: nn.Sequential,
    request: AtlasRequest,
    *,
    seen: Seen | None,
    key: str,
    checkpoints: Path,
    report: AtlasReport = lambda what, done, total: None,
) -> MemberAtlas:
    """Make the atlas of one network, or go on with it.

    Of a convolution the kernels are shown whose activation tells lenses from non-lenses best (AUROC furthest from 0.5), best
    first; without a labelled set the first ones.

    Parameters
    ----------
    member, network
        See :func:`scanner.explain.networks.restore`.
    request
        What is asked for.
    seen
        The labelled set.
    key
        Of the checkpoints: the bundle's fingerprint.
    checkpoints
        Folder that keeps what is made.
    report
        Called after every step.

    Raises
    ------
    UsageError, ContentError, OutputError
        See :func:`scanner.explain.ascent.ascend`.
    """
    side = MEMBER_PIXELS[member]

    def progress(what: str) -> Report:
        return lambda done, total: report(f"{member} {what}", done, total)

    classes = {
        name: class_image(
            network,
            target,
            side,
            seed=request.seed,
            learning_rate=request.class_learning_rate,
            steps=request.class_steps,
            key=f"{key} {member}",
            checkpoint=checkpoints / f"{member}-{name}.pt",
            report=progress(f"{name} image"),
        )
        for name, target in CLASSES.items()
    }
    noise = best_of_noise(network, side, request.noises)
    activation = _activation(network, seen, progress("activation by the set"))
    layers = {}
    for name, layer in convolutions(network).items():
        values = activation.get(name)
        scores = None if seen is None or values is None else _aurocs(values, seen.is_lens)
        shown = _chosen(layer.out_channels, request.kernels, scores)
        parts = [
            kernel_image(
                network,
                name,
                part.tolist(),
                side,
                seed=request.seed,
                learning_rate=request.kernel_learning_rate,
                steps=request.kernel_steps,
                key=f"{key} {member}",
                checkpoint=checkpoints / f"{member}-layer-{name}-{number}.pt",
                report=progress(f"layer {name}, kernels {', '.join(map(str, part))}"),
            )
            for number, part in enumerate(np.split(shown, range(KERNELS_AT_A_TIME, len(shown), KERNELS_AT_A_TIME)))
        ]
        layers[name] = Layer(
            n_kernels=layer.out_channels,
            kernels=shown,
            images=np.concatenate([part.images for part in parts]),
            reached=np.concatenate([part.reached for part in parts], axis=1),
            activation=values,
            auroc=scores,
            strongest=None if seen is None or values is None else seen.rows[strongest(values[:, shown], request.examples)],
        )
    return MemberAtlas(member, classes, {name: float(noise[target]) for name, target in CLASSES.items()}, layers)


def _activation(network: nn.Sequential, seen: Seen | None, report: Report) -> dict[str, Float32]:
    if seen is None:
        return {}
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        report(done, len(seen.rows))

    return kernel_activation(network, seen.batches(), report=count)


def _aurocs(activation: Float32, is_lens: NDArray[np.bool_]) -> Float64:
    return np.array([auroc(values, is_lens) for values in activation.T])


def _chosen(n_kernels: int, most: int | None, scores: Float64 | None) -> Int64:
    order = np.arange(n_kernels) if scores is None else np.argsort(-np.abs(scores - 0.5), kind="stable")
    return np.asarray(order[:most], dtype=np.int64)


@dataclass(frozen=True)
class Sheet:
    """A picture of many: ``image`` (y, x, 3) uint8, first row on top; ``name`` of its file, ``title`` and ``alt`` for the page.

    NISP is red H, green J, blue Y, VIS grey (section 5). What was made is shown as the network sees it, black 0 and white 1;
    objects are shown as on the contact sheet of a run.
    """

    name: str
    title: str
    alt: str
    image: UInt8


def class_sheet(atlas: MemberAtlas) -> Sheet:
    """The images made for both classes, side by side, with what they reached."""
    tiles = []
    for name, ascent in atlas.classes.items():
        before, after = float(ascent.reached[0, 0]), float(ascent.reached[-1, 0])
        label = (name, f"logit {before:.1f} to {after:.1f}; best noise {atlas.best_of_noise[name]:.1f}")
        tiles.append(_tile(label, _panels(atlas.member, ascent.images[0], CLASS_SIDE)))
    bands = " and ".join(input_pictures(atlas.member, next(iter(atlas.classes.values())).images[0]))
    return Sheet(
        name=f"{atlas.member}-classes.png",
        title="Class-generated images",
        alt=f"Images in {bands} that {atlas.member} takes for the best of non-lenses and of lenses",
        image=_grid(tiles, 2),
    )


def layer_sheet(member: MemberName, number: str, layer: Layer, objects: Mapping[int, CutoutBatch]) -> Sheet:
    """The kernels of a convolution: the image made for each, then the objects that activate it most.

    ``objects``: cutouts, one each, by row of the set.
    """
    tiles = []
    for position, kernel in enumerate(layer.kernels.tolist()):
        panels = _panels(member, layer.images[position], KERNEL_SIDE)
        if layer.strongest is not None:
            for row in layer.strongest[position].tolist():
                panels += _object_panels(member, objects[row])
        detail = f"{layer.reached[0, position]:.2f} to {layer.reached[-1, position]:.2f}"
        if layer.auroc is not None:
            detail += f"; AUROC {layer.auroc[kernel]:.2f}"
        tiles.append(_tile((f"layer {number} kernel {kernel}", detail), panels))
    shown = f"{len(layer.kernels)} of {layer.n_kernels} kernels"
    objects_too = "" if layer.strongest is None else ", beside the objects that activate them most"
    return Sheet(
        name=f"{member}-layer-{number}.png",
        title=f"Layer {number}: {shown}",
        alt=f"Images made for {shown} of layer {number} of {member}{objects_too}",
        image=_grid(tiles, max(1, PANELS // len(panels))),
    )


def _panels(member: MemberName, image: Float32, side: int) -> list[UInt8]:
    return [enlarged(picture[::-1], side) for picture in input_pictures(member, image).values()]


def _object_panels(member: MemberName, cutout: CutoutBatch) -> list[UInt8]:
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    panels = []
    if MEMBER_BANDS[member] != ("VIS",):
        panels.append(nisp_image(cutout.nisp[0], sky, sigma))
    if "VIS" in MEMBER_BANDS[member]:
        panels.append(vis_image(cutout.vis[0], sky, sigma))
    return [enlarged(panel[::-1], KERNEL_SIDE) for panel in panels]


def _tile(label: tuple[str, str], panels: Sequence[UInt8]) -> UInt8:
    """Panels in a row beneath two lines of text."""
    side = len(panels[0])
    canvas = Image.new("RGB", ((side + GAP) * len(panels) - GAP, side + LABEL_HEIGHT), GROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((2, 1), label[0], INK, ImageFont.load_default(15))
    draw.text((2, 20), label[1], QUIET, ImageFont.load_default(13))
    for number, panel in enumerate(panels):
        canvas.paste(Image.fromarray(panel), ((side + GAP) * number, LABEL_HEIGHT))
    return np.asarray(canvas)


def _grid(tiles: Sequence[UInt8], columns: int) -> UInt8:
    """Tiles of one size, ``columns`` to a row."""
    height, width = tiles[0].shape[:2]
    columns, wide = min(columns, len(tiles)), 4 * GAP
    rows = -(-len(tiles) // columns)
    grid = np.empty((rows * (height + wide) - wide, columns * (width + wide) - wide, 3), dtype=np.uint8)
    grid[:] = GROUND
    for number, tile in enumerate(tiles):
        y, x = (number // columns) * (height + wide), (number % columns) * (width + wide)
        grid[y : y + height, x : x + width] = tile
    return grid


def write_atlas(
    out: Path,
    record: AtlasRecord,
    atlases: Sequence[MemberAtlas],
    sheets: Sequence[tuple[MemberName, Sequence[Sheet]]],
    rows: Int64 | None,
) -> None:
    """Write everything; ``rows``: of the labelled set, those that went through the networks.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        _write_arrays(out / ARRAYS, atlases, rows)
    pictures = {sheet.name: png(sheet.image[::-1]) for _, of_member in sheets for sheet in of_member}
    for name, content in pictures.items():
        write_atomically(out / name, content)
    write_atomically(out / RECORD, record.to_bytes())
    write_atomically(out / PAGE, render(record, sheets, pictures).encode())


def render(record: AtlasRecord, sheets: Sequence[tuple[MemberName, Sequence[Sheet]]], pictures: dict[str, bytes]) -> str:
    """The page as text, with the sheets inside."""
    uris = {name: png_uri(content) for name, content in pictures.items()}
    return template("atlas").render(record=record, sheets=sheets, uris=uris, style=asset("evaluation.css"))


def _write_arrays(path: Path, atlases: Sequence[MemberAtlas], rows: Int64 | None) -> None:
    with replaced_group(path) as group:
        if rows is not None:
            put(group, "rows", rows)
        for made in atlases:
            member = group.create_group(made.member, attributes={"channels": list(MEMBER_BANDS[made.member])})
            classes, layers = member.create_group("classes"), member.create_group("layers")
            for name, ascent in made.classes.items():
                put(classes, name, ascent.images[0])
                put(classes, f"{name}-reached", ascent.reached[:, 0])
            for number, layer in made.layers.items():
                of_layer = layers.create_group(number)
                for array in ("kernels", "images", "activation", "strongest"):
                    values = getattr(layer, array)
                    if values is not None:
                        put(of_layer, array, values)
