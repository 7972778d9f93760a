"""Figs. 7, 8 and 11 to 17 of Wilde et al. (2022), for a bundle, labelled sets and known lenses of one's own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from scanner.ensemble.bundle import Bundle
from scanner.errors import OutputError, UsageError
from scanner.explain.ascent import (
    CLASS_IMAGE,
    DEEP_DREAM,
    KERNEL_IMAGE,
    Steps,
    class_image,
    convolutions,
    deep_dream,
    kernel_activation,
    kernel_image,
    strongest,
)
from scanner.explain.display import input_pictures, only, overlaid
from scanner.explain.maps import SHOWN_FROM, SQUARE_PIXELS, guided_grad_cam, occlusion, shown
from scanner.explain.networks import CLASSES, Output, lens_output, network_input, restore, sky_level
from scanner.labelled_set import LabelledSet
from scanner.networks import Dropout, build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, CutoutBatch, MemberName
from scanner.report.colour import UInt8, vis_image
from scanner.report.explanations import PAPER_FIGURES, FigureNumber

#: Objects of a kind in Figs. 11, 12 and 17, and rows of a set that kernels choose from.
SHOWN, SEARCHED = 6, 300
#: The kernels of Figs. 14 and 15: layer and kernel.
KERNELS: Mapping[MemberName, tuple[tuple[str, int], ...]] = {
    "OU-66": (("0", 6), ("0", 44), ("4", 25), ("4", 33), ("13", 4), ("17", 1), ("17", 11), ("20", 29)),
    "OU-200": (("4", 29), ("8", 1), ("12", 18)),
}
#: Of the classes of Figs. 12 and 17.
COMPOUND: Mapping[str, str] = {"compound_arc": "compound arc", "double_ring": "double ring"}
#: Colours of Figs. 7 and 8: yellow convolutions, teal ReLUs, orange pooling, red dropout.
LAYER_COLOURS: Mapping[type[nn.Module], str] = {
    nn.Conv2d: "#f2d64b",
    nn.ReLU: "#2a9d8f",
    nn.MaxPool2d: "#f4a261",
    Dropout: "#d62839",
    nn.Linear: "#8d99ae",
}
#: What the authors' notebook makes kernel images with (Adam), and the side of the images.
NOTEBOOK_KERNELS: Steps = {"learning_rate": 0.1, "steps": 50}
NOTEBOOK_KERNEL_PIXELS = 200


@dataclass(frozen=True)
class FigureSettings:
    """How figures are made.

    ``paper``: as the authors did: occlusion covers with 0 and follows the probability, kernel images take the notebook's 50
    steps on 200 pixels. Else it covers with blank sky and follows the log-odds, and kernel images take Deep Dream's steps.
    ``class_steps``, ``dream_steps``, ``kernel_steps``: how many, where they are not the usual ones. ``seed``: of the noise that
    images begin with.
    """

    paper: bool = False
    class_steps: int = CLASS_IMAGE["steps"]
    dream_steps: int = DEEP_DREAM["steps"]
    kernel_steps: int | None = None
    seed: int = 0

    @property
    def output(self) -> Output:
        """What occlusion follows."""
        return "probability" if self.paper else "log_odds"

    @property
    def kernels(self) -> Steps:
        """How kernel images are made."""
        usual = NOTEBOOK_KERNELS if self.paper else KERNEL_IMAGE
        return usual if self.kernel_steps is None else usual | {"steps": self.kernel_steps}


@dataclass(frozen=True)
class Objects:
    """What figures show: single lenses, non-lenses, compound arcs, double rings and known lenses, each by its label."""

    lenses: Mapping[str, CutoutBatch] = field(default_factory=dict)
    others: Mapping[str, CutoutBatch] = field(default_factory=dict)
    compound: Mapping[str, CutoutBatch] = field(default_factory=dict)
    known: Mapping[str, CutoutBatch] = field(default_factory=dict)
    searched: CutoutBatch | None = None


@dataclass(frozen=True)
class Panel:
    """One picture (y, x) or (y, x, 3) with a line over it."""

    title: str
    picture: UInt8


def chosen(datasets: Sequence[LabelledSet], known: Mapping[str, CutoutBatch]) -> Objects:
    """The first visible lenses, non-lenses and compound lenses of the sets, whatever the networks say of them."""
    found: dict[str, dict[str, CutoutBatch]] = {"lens": {}, "other": {}, **{name: {} for name in COMPOUND}}
    searched = None
    for dataset in datasets:
        truth = dataset.truth
        kinds = {
            "lens": truth.is_lens & truth.visible & ~np.isin(truth.class_name, list(COMPOUND)),
            "other": ~truth.is_lens & ~np.isin(truth.class_name, list(COMPOUND)),
            **{name: (truth.class_name == name) & (truth.visible | ~truth.is_lens.any()) for name in COMPOUND},
        }
        for kind, rows in kinds.items():
            for row in np.flatnonzero(rows)[: SHOWN - len(found[kind])]:
                label = COMPOUND.get(kind, str(truth.class_name[row]).replace("_", " "))
                ((batch, _, _),) = dataset.batches(np.array([row]), 1)
                found[kind][f"{label} {row}"] = batch
        if searched is None and len(dataset) > 1:
            ((searched, _, _),) = dataset.batches(np.arange(min(SEARCHED, len(dataset))), SEARCHED)
    compound = {label: batch for name in COMPOUND for label, batch in found[name].items()}
    return Objects(found["lens"], found["other"], compound, known, searched)


#: What a figure needs beside a bundle: the fields of :class:`Objects`, any of them, and where they come from.
NEEDS: Mapping[FigureNumber, tuple[tuple[str, ...], str]] = {
    "11": (("lenses", "others"), "a set with lenses or others as --data"),
    "12": (("compound",), "a set of compound lenses as --data ('scanner simulate sets compound-arc double-ring')"),
    "13": (("known",), "a list of known lenses as --known"),
    "17": (("lenses", "compound", "known"), "a set with lenses as --data, or a list of known lenses as --known"),
}


def draw_figures(
    bundle: Bundle,
    objects: Objects,
    out: Path,
    settings: FigureSettings,
    wanted: Sequence[FigureNumber] = (),
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Path, ...]:
    """Draw figures into ``out``, a PNG each: the panels, and under them how they were made, the authors' way beside ours.

    Parameters
    ----------
    bundle
        Whose networks are explained.
    objects
        See :func:`chosen`.
    out
        Folder; files of the same name are replaced.
    settings
        See :class:`FigureSettings`.
    wanted
        Numbers; none: all that there is something for.
    report
        Called with a line for each figure.

    Returns
    -------
    tuple of Path
        What was drawn.

    Raises
    ------
    UsageError
        A figure that was asked for needs objects that are not there.
    OutputError
        The folder cannot be written.
    """
    missing = {number: text for number, (names, text) in NEEDS.items() if not any(getattr(objects, name) for name in names)}
    for number in wanted:
        if number in missing:
            raise UsageError(f"Fig. {number} needs {missing[number]}.")
    networks = restore(bundle)
    drawn = []
    for number in wanted or PAPER_FIGURES:
        if number in missing:
            report(f"Fig. {number} was left out: it needs {missing[number]}.")
            continue
        path = out / f"fig-{number}.png"
        if number in ("7", "8"):
            architecture(path, "OU-66" if number == "7" else "OU-200")
        else:
            caption, rows = MAKERS[number](bundle, networks, objects, settings)
            panels(path, f"Fig. {number}. {bundle.manifest.name}. {caption}", list(rows))
        report(f"{path}: drawn")
        drawn.append(path)
    return tuple(drawn)


Networks = Mapping[MemberName, nn.Sequential]
Drawn = tuple[str, Iterator[list[Panel]]]


def _occluded(bundle: Bundle, networks: Networks, member: MemberName, batch: CutoutBatch, how: FigureSettings) -> Panel:
    images = network_input(bundle, member, batch)
    map_ = occlusion(networks[member], images, fill=0.0 if how.paper else sky_level(images), output=how.output)[0]
    return Panel(f"{member}: {_probability(networks[member], images):.2f}", overlaid(_vis(batch), map_))


def _probability(network: nn.Sequential, images: torch.Tensor) -> float:
    return float(lens_output(network, images, "probability").detach()[0])


def _vis(batch: CutoutBatch) -> UInt8:
    return vis_image(batch.vis[0], batch.sky[0], batch.sigma[0])


def _occlusion_caption(settings: FigureSettings) -> str:
    cell = f"{SQUARE_PIXELS[66]} × {SQUARE_PIXELS[66]} pixels of OU-66, {SQUARE_PIXELS[200]} × {SQUARE_PIXELS[200]} of OU-200"
    did = f"Covered: {cell}, the whole image on a grid. Blue: covering lowers the output, red: it raises it."
    if settings.paper:
        return f"{did} Covered with 0, and the output is the probability, as the authors have it."
    return f"{did} Covered with blank sky, and the output is the log-odds; the authors: with 0, and the probability (--paper)."


def occlusions(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
    """Fig. 11: single lenses and non-lenses, VIS beside the maps of OU-66 and OU-200."""
    return _occlusion_caption(settings), _maps(bundle, networks, {**objects.lenses, **objects.others}, settings)


def compound_occlusions(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
    """Fig. 12: the same of compound arcs and double rings."""
    return _occlusion_caption(settings), _maps(bundle, networks, objects.compound, settings)


def known_occlusions(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
    """Fig. 13: the same of known lenses."""
    return _occlusion_caption(settings), _maps(bundle, networks, objects.known, settings)


def _maps(
    bundle: Bundle, networks: Networks, batches: Mapping[str, CutoutBatch], settings: FigureSettings
) -> Iterator[list[Panel]]:
    for label, batch in batches.items():
        of_members = [_occluded(bundle, networks, member, batch, settings) for member in ("OU-66", "OU-200")]
        yield [Panel(label, _vis(batch)), *of_members]


def kernels_of(member: MemberName) -> Callable[[Bundle, Networks, Objects, FigureSettings], Drawn]:
    """Figs. 14 and 15: the image that each kernel responds to most, beside the object that activates it most."""

    def made(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
        how, side = settings.kernels, NOTEBOOK_KERNEL_PIXELS if settings.paper else MEMBER_PIXELS[member]
        caption = (
            f"[layer, kernel] as in Tables 3 and 4; NISP with red H, green J, blue Y. Images by {how['steps']} steps of Adam "
            f"at {how['learning_rate']:g} on {side} pixels"
        )
        other = (
            f"ours are {KERNEL_IMAGE['steps']} at {KERNEL_IMAGE['learning_rate']:g}"
            if settings.paper
            else f"the authors' notebook: {NOTEBOOK_KERNELS['steps']} at {NOTEBOOK_KERNELS['learning_rate']:g} on "
            f"{NOTEBOOK_KERNEL_PIXELS} (--paper)"
        )
        return f"{caption}; {other}.", _kernel_rows(bundle, networks[member], member, objects, settings, side)

    return made


def _kernel_rows(
    bundle: Bundle, network: nn.Sequential, member: MemberName, objects: Objects, settings: FigureSettings, side: int
) -> Iterator[list[Panel]]:
    known = [(layer, kernel) for layer, kernel in KERNELS[member] if kernel < convolutions(network)[layer].out_channels]
    seen, best = None, {}
    if objects.searched is not None:
        seen = network_input(bundle, member, objects.searched)
        activation = kernel_activation(network, torch.split(seen, 32))
        best = {(layer, kernel): int(strongest(activation[layer], 1)[kernel, 0]) for layer, kernel in known}
    for layer, kernel in known:
        made = kernel_image(network, layer, [kernel], side, seed=settings.seed, **settings.kernels)
        row = [Panel(f"[{layer}, {kernel}]", input_pictures(member, made.images[0])["NISP"])]
        if seen is not None:
            number = best[layer, kernel]
            row.append(Panel(f"object {number} of the set", input_pictures(member, seen[number].numpy())["NISP"]))
        yield row


def dreams(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
    """Fig. 16: images generated for a class, and Deep Dream from a non-lens and from a lens, towards either class."""
    caption = (
        f"NISP, red H, green J, blue Y. Class images: {settings.class_steps:,} steps of {CLASS_IMAGE['learning_rate']:g} from "
        f"noise (the authors: 5,000 of 0.1); Deep Dream: {settings.dream_steps:,} of {DEEP_DREAM['learning_rate']:g} (the "
        "paper: 1,000 of 0.001; the notebook: 100 of 0.1). Ours: a step that leads down is taken back, pixels stay in 0 to 1."
    )
    return caption, _dream_rows(bundle, networks, objects, settings)


def _dream_rows(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Iterator[list[Panel]]:
    pair: tuple[MemberName, MemberName] = ("OU-66", "OU-200")
    row = []
    for name, target in CLASSES.items():
        for member in pair:
            made = class_image(networks[member], target, MEMBER_PIXELS[member], seed=settings.seed, steps=settings.class_steps)
            row.append(Panel(f"{member} for {name}", input_pictures(member, made.images[0])["NISP"]))
    yield row
    for label, batch in [*list(objects.others.items())[:1], *list(objects.lenses.items())[:1]]:
        row = []
        for name, target in CLASSES.items():
            for member in pair:
                images = network_input(bundle, member, batch)
                if not row:
                    row.append(Panel(label, input_pictures(member, images[0].numpy())["NISP"]))
                dreamt = deep_dream(networks[member], images, target, steps=settings.dream_steps)
                row.append(Panel(f"{member} towards {name}", input_pictures(member, dreamt.images[0])["NISP"]))
        yield row


def grad_cams(bundle: Bundle, networks: Networks, objects: Objects, settings: FigureSettings) -> Drawn:
    """Fig. 17: the pixels of the image that guided Grad-CAM of OU-200 marks, of single, compound and known lenses."""
    caption = (
        f"OU-200: pixels where guided Grad-CAM is {SHOWN_FROM:g} or more of its largest value, at the last convolution with "
        "its ReLU applied, as the authors have it. They do not say in what unit their 0.05 is."
    )
    return caption, _cam_rows(bundle, networks["OU-200"], objects)


def _cam_rows(bundle: Bundle, network: nn.Sequential, objects: Objects) -> Iterator[list[Panel]]:
    everything = {**objects.lenses, **objects.compound, **objects.known}
    for label, batch in everything.items():
        images, vis = network_input(bundle, "OU-200", batch), _vis(batch)
        mask = shown(guided_grad_cam(network, images))[0]
        yield [
            Panel(f"{label}: {_probability(network, images):.2f}", vis),
            Panel(f"{mask.mean():.1%} of the pixels", only(vis, mask)),
        ]


MAKERS: Mapping[FigureNumber, Callable[[Bundle, Networks, Objects, FigureSettings], Drawn]] = {
    "11": occlusions,
    "12": compound_occlusions,
    "13": known_occlusions,
    "14": kernels_of("OU-66"),
    "15": kernels_of("OU-200"),
    "16": dreams,
    "17": grad_cams,
}


def panels(path: Path, caption: str, rows: Sequence[Sequence[Panel]]) -> None:
    """Draw rows of panels, short rows two and more side by side, with a caption under them."""
    widest = max(len(row) for row in rows)
    beside = min(max(1, 6 // widest), len(rows))
    height = -(-len(rows) // beside)
    lines = textwrap.wrap(caption, 22 * widest * beside)
    figure = Figure(figsize=(1.7 * widest * beside, 1.9 * height + 0.18 * len(lines) + 0.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(height, widest * beside, squeeze=False)
    for cell in axes.ravel():
        cell.axis("off")
    for number, row in enumerate(rows):
        line, block = number % height, number // height
        for column, panel in enumerate(row):
            cell = axes[line, block * widest + column]
            cell.imshow(panel.picture, origin="lower", cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            cell.set_title(panel.title, fontsize=7, pad=2)
    figure.supxlabel("\n".join(lines), fontsize=7, ha="left", x=0.01)
    _save(figure, path)


def architecture(path: Path, member: MemberName) -> None:
    """Draw a network of Tables 3 and 4 (Figs. 7 and 8): a block a layer, as high as its image, as wide as it has channels."""
    network, side = build(member, seed=0).eval(), MEMBER_PIXELS[member]
    figure = Figure(figsize=(11.0, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    images, x = torch.zeros(1, len(MEMBER_BANDS[member]), side, side), 0.0
    with torch.inference_mode():
        for name, layer in network.named_children():
            images = layer(images)
            colour = LAYER_COLOURS.get(type(layer))
            if colour is None:
                continue
            flat = images.ndim == 2
            tall = 0.12 * images.shape[1] ** 0.5 if flat else float(images.shape[-1]) / side * 4.0
            wide = 0.1 + (0.25 if isinstance(layer, nn.Conv2d | nn.Linear) else 0.0)
            axes.add_patch(Rectangle((x, -tall / 2), wide, tall, facecolor=colour, edgecolor="#16191d", linewidth=0.5))
            if isinstance(layer, nn.Conv2d | nn.Linear):
                shape = str(images.shape[1]) if flat else f"{images.shape[1]} × {images.shape[-1]}²"
                axes.text(x, -tall / 2 - 0.15, f"{name}: {shape}", fontsize=6, rotation=-45, va="top")
            x += wide + 0.06
    for (kind, colour), row in zip(LAYER_COLOURS.items(), range(len(LAYER_COLOURS)), strict=True):
        axes.text(x + 0.1, 2.0 - 0.35 * row, kind.__name__, color=colour, fontsize=8, weight="bold")
    total = sum(values.numel() for values in network.parameters())
    axes.set(xlim=(-0.1, x + 1.0), ylim=(-3.2, 2.4), xticks=[], yticks=[])
    axes.axis("off")
    axes.set_title(f"{member}: {total:,} parameters; layer numbers and output shapes as in the paper's tables", fontsize=9)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as error:
        raise OutputError.of(path, error) from None
