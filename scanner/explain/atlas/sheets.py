"""The pictures of an atlas: a sheet of class images for each network, and one of kernels for each convolution.

In: arrays of :mod:`scanner.explain.atlas.member`, cutouts of the objects to be shown. Out: 8-bit images. Refused: nothing.

NISP is red H, green J, blue Y, VIS grey (section 5). What was made is shown as the network sees it, black 0 and white 1;
objects are shown as on the contact sheet of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scanner.explain.atlas.member import Layer, MemberAtlas
from scanner.explain.display import enlarged, input_pictures
from scanner.records import MEMBER_BANDS, CutoutBatch, Float32, MemberName
from scanner.report.colour import UInt8, nisp_image, vis_image

CLASS_SIDE, KERNEL_SIDE = 264, 132
GAP, LABEL_HEIGHT = 4, 40
GROUND, INK, QUIET = (23, 26, 31), (231, 234, 238), (154, 164, 175)
#: Panels side by side on a sheet of kernels.
PANELS = 8


@dataclass(frozen=True)
class Sheet:
    """``image`` (y, x, 3) uint8, the first row on top; ``name`` of its file, ``title`` and ``alt`` for the page."""

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
