"""The methods of an object's page, one by one: what a network says of one object, as arrays, records and pictures.

In: what the members see of one object, the cutout. Out: :class:`Panel`, and what the record says of it. Refused: what the
methods themselves refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.explain.deep_dream import deep_dream
from scanner.explain.display import enlarged, input_pictures, only, overlaid, signed_colours
from scanner.explain.faithfulness import curves, in_cells
from scanner.explain.guided_grad_cam import guided_grad_cam, shown, strength
from scanner.explain.networks import CLASSES, sky_level
from scanner.explain.occlusion import occlusion
from scanner.records import CutoutBatch, Float32, MemberName
from scanner.report.colour import UInt8, vis_image
from scanner.report.explanations import ClassName, DreamRecord, Gain, MapRecord, Method, PageRequest

#: Side of the pictures on the page, in pixels.
SIDE = 264
#: What is dreamt of, in the order of the pictures.
DREAMT: tuple[ClassName, ...] = ("lens", "non-lens")
#: Cells along a side of the maps that faithfulness compares, by side of the image: those of the occlusion maps.
FAITHFULNESS_CELLS = {200: 50, 66: 66}


@dataclass(frozen=True)
class Panel:
    """A picture (SIDE, SIDE, 3) uint8, y upwards; ``name`` of its file, ``caption`` under it."""

    name: str
    caption: str
    image: UInt8


@dataclass(frozen=True)
class Made:
    """What one method made of one member: ``arrays`` by the name that they have in ``arrays.zarr``."""

    panels: tuple[Panel, ...]
    arrays: dict[str, Float32]
    map: MapRecord | None = None
    dreams: tuple[DreamRecord, ...] = ()


def seen(member: MemberName, image: Float32) -> tuple[Panel, ...]:
    """What a member sees."""
    return tuple(
        Panel(f"{member}-{what}.png", f"{what}, as {member} sees it", enlarged(picture, SIDE))
        for what, picture in input_pictures(member, image).items()
    )


def occlusion_of(
    member: MemberName, network: nn.Sequential, images: torch.Tensor, cutout: CutoutBatch, request: PageRequest
) -> Made:
    """Occlusion, alone and on VIS."""
    found = occlusion(network, images, fill=sky_level(images) if request.fill == "sky" else 0.0)
    vis = vis_image(cutout.vis[0], cutout.sky[0], cutout.sigma[0])
    panels = (
        Panel(
            f"{member}-occlusion.png",
            f"occlusion, {found.min():+.2f} to {found.max():+.2f} in log-odds",
            enlarged(signed_colours(found[0]), SIDE),
        ),
        Panel(f"{member}-occlusion-on-vis.png", "the same on VIS", enlarged(overlaid(vis, found[0]), SIDE)),
    )
    deletion, insertion = _gains(network, images, -found, request)
    return Made(panels, {f"{member}/occlusion": found[0]}, _record("occlusion", member, found, deletion, insertion))


def guided_grad_cam_of(member: MemberName, network: nn.Sequential, images: torch.Tensor, request: PageRequest) -> Made:
    """Guided Grad-CAM: what the network sees, where it speaks for a lens (Fig. 17)."""
    attribution = guided_grad_cam(network, images)
    mask, strong = shown(attribution)[0], strength(attribution)
    panels = tuple(
        Panel(
            f"{member}-guided-grad-cam-{what}.png",
            f"guided Grad-CAM, {what} ({mask.mean():.1%} of the pixels)",
            enlarged(only(picture, mask), SIDE),
        )
        for what, picture in input_pictures(member, images[0].numpy()).items()
    )
    cells = FAITHFULNESS_CELLS[images.shape[-1]]
    deletion, insertion = _gains(network, images, in_cells(strong, cells), request)
    record = _record("guided-grad-cam", member, attribution, deletion, insertion)
    return Made(panels, {f"{member}/guided_grad_cam": attribution[0]}, record)


def dreams_of(
    member: MemberName,
    network: nn.Sequential,
    images: torch.Tensor,
    request: PageRequest,
    report: Callable[[str, int, int], None],
) -> Made:
    """Deep Dream towards either class: what the object becomes."""
    panels: list[Panel] = []
    arrays: dict[str, Float32] = {}
    records = []
    for name in DREAMT:
        dreamt = deep_dream(
            network,
            images,
            CLASSES[name],
            learning_rate=request.dream_learning_rate,
            steps=request.dream_steps,
            report=lambda done, total, name=name: report(f"{member}, towards {name}", done, total),  # type: ignore[misc]
        )
        before, reached = float(dreamt.reached[0, 0]), float(dreamt.reached[-1, 0])
        for what, picture in input_pictures(member, dreamt.images[0]).items():
            caption = f"{what} dreamt towards {name}: logit {before:.1f} → {reached:.1f}"
            panels.append(Panel(f"{member}-dream-{name}-{what}.png", caption, enlarged(picture, SIDE)))
        arrays[f"{member}/dream_{name.replace('-', '_')}"] = dreamt.images[0]
        records.append(DreamRecord(member=member, name=name, before=before, reached=reached))
    return Made(tuple(panels), arrays, dreams=tuple(records))


def _record(method: Method, member: MemberName, map_: Float32, deletion: Gain | None, insertion: Gain | None) -> MapRecord:
    return MapRecord(
        method=method,
        member=member,
        lowest=float(map_.min()),
        highest=float(map_.max()),
        deletion_gain=deletion,
        insertion_gain=insertion,
    )


def _gains(
    network: nn.Module, images: torch.Tensor, importance: NDArray[np.float32], request: PageRequest
) -> tuple[Gain | None, Gain | None]:
    """By how much the map's order beats random ones, for one object; the interval holds 95% of the random orders."""
    if not request.random_orders:
        return None, None
    orders = np.random.default_rng(request.seed).random((request.random_orders, *importance.shape[1:]))
    own = curves(network, images, importance)
    chance = curves(network, images.expand(request.random_orders, *images.shape[1:]), orders)
    return (
        _mean_gain(chance.deletion_area - own.deletion_area),
        _mean_gain(own.insertion_area - chance.insertion_area),
    )


def _mean_gain(gains: NDArray[np.float64]) -> Gain:
    low, high = np.quantile(gains, (0.025, 0.975))
    return Gain(value=float(gains.mean()), low=float(low), high=float(high))
