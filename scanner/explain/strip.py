"""The explanation of one candidate as one picture: what speaks for a lens, and what the members say.

In: one cutout, the maps of OU-200 and OU-66, the seven probabilities. Out: an 8-bit image, y upwards. Refused: nothing.

From the left: occlusion of OU-200 on VIS (blue where covering lowers the lens output: what speaks for a lens) and of OU-66;
guided Grad-CAM of OU-200, the pixels of the 0.05 rule in their own light; the votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scanner.explain.display import overlaid, placed
from scanner.explain.guided_grad_cam import SHOWN_FROM
from scanner.records import MEMBERS, VIS_CUTOUT_PIXELS, CutoutBatch, Float32
from scanner.report import colour
from scanner.report.card import member_kind
from scanner.report.colour import UInt8

#: Of the panels' pictures, and of what lies between them, in pixels.
PANEL, GAP = VIS_CUTOUT_PIXELS, 4
#: What each panel shows, from the left.
PANELS = ("occlusion, OU-200", "occlusion, OU-66", "guided Grad-CAM, OU-200", "votes")
_GROUND, _TRACK = np.array([24, 24, 27], np.uint8), np.array([63, 63, 70], np.uint8)
_BARS = {"vis": np.array([86, 180, 233], np.uint8), "nisp": np.array([230, 159, 0], np.uint8)}
_HALF = np.array([212, 212, 216], np.uint8)


def strip(cutout: CutoutBatch, maps: Mapping[str, Float32], probabilities: Sequence[float]) -> UInt8:
    """Draw the strip.

    Parameters
    ----------
    cutout
        A batch of one.
    maps
        ``occlusion_ou_200`` (50, 50), ``occlusion_ou_66`` (66, 66); ``guided_grad_cam_ou_200`` (200, 200): strength, 0..1.
    probabilities
        Of the seven members.

    Returns
    -------
    numpy.ndarray
        (200, 812, 3) uint8.
    """
    vis = colour.vis_image(cutout.vis[0], cutout.sky[0], cutout.sigma[0])
    panels = [
        overlaid(vis, maps["occlusion_ou_200"]),
        overlaid(vis, maps["occlusion_ou_66"]),
        _lit(vis, maps["guided_grad_cam_ou_200"]),
        _votes(probabilities),
    ]
    gap = np.full((PANEL, GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _lit(vis: UInt8, strength: Float32) -> UInt8:
    """VIS, warm where guided Grad-CAM says that a pixel speaks for a lens, dimmed elsewhere."""
    shown = placed(strength, PANEL) >= SHOWN_FROM
    warm = np.stack([vis, np.rint(0.72 * vis), np.rint(0.2 * vis)], axis=-1)
    lit: UInt8 = np.where(shown[..., None], np.maximum(warm, 40), np.rint(0.35 * vis[..., None])).astype(np.uint8)
    return lit


def _votes(probabilities: Sequence[float]) -> UInt8:
    """A bar for each member, in the order of the catalogue from the top, and a line at one half."""
    picture = np.tile(_GROUND, (PANEL, PANEL, 1))
    height, left, right = PANEL // len(MEMBERS), 8, PANEL - 8
    for number, (member, probability) in enumerate(zip(MEMBERS, probabilities, strict=True)):
        top = PANEL - number * height
        rows = slice(top - height + 6, top - 6)
        picture[rows, left:right] = _TRACK
        picture[rows, left : left + round((right - left) * probability)] = _BARS[member_kind(member)]
    picture[:, (left + right) // 2] = _HALF
    return picture
