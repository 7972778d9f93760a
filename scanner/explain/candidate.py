"""The explanation of one candidate: occlusion and guided Grad-CAM of the two networks that see most, and the votes of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from torch import nn

from scanner.ensemble.bundle import Bundle
from scanner.explain.display import overlaid, placed, png
from scanner.explain.maps import SHOWN_FROM, guided_grad_cam, occlusion, strength
from scanner.explain.networks import Disagreement, disagreement, member_log_odds, network_input, sky_level
from scanner.records import MEMBERS, VIS_CUTOUT_PIXELS, CutoutBatch, Float32, MemberName
from scanner.report import colour
from scanner.report.colour import UInt8
from scanner.report.contact_sheet import member_kind
from scanner.report.explanations import MAPS, STRIP

#: Of the panels' pictures, and of what lies between them, in pixels.
PANEL, GAP = VIS_CUTOUT_PIXELS, 4
#: What each panel shows, from the left.
PANELS = ("occlusion, OU-200", "occlusion, OU-66", "guided Grad-CAM, OU-200", "votes")
_GROUND, _TRACK = np.array([24, 24, 27], np.uint8), np.array([63, 63, 70], np.uint8)
_BARS = {"vis": np.array([86, 180, 233], np.uint8), "nisp": np.array([230, 159, 0], np.uint8)}
_HALF = np.array([212, 212, 216], np.uint8)
#: The members that are explained: all four bands at either resolution.
EXPLAINED: tuple[MemberName, ...] = ("OU-200", "OU-66")
#: What the arrays of ``maps.zarr`` hold, by method.
MEANING = {
    "occlusion": "change of the log-odds where this part is covered with blank sky",
    "guided_grad_cam": "how strongly this pixel speaks for a lens, 0 to 1",
}
METHODS = tuple(MEANING)


@dataclass(frozen=True)
class ExplainedCandidate:
    """``cutout``: a batch of one. ``maps``: by ``<method>_<member>``, see :func:`map_name`. ``votes``: of one object."""

    cutout: CutoutBatch
    maps: Mapping[str, Float32]
    votes: Disagreement

    @property
    def picture(self) -> bytes:
        """The strip as PNG."""
        return png(strip(self.cutout, self.maps, self.votes.probabilities[0].tolist()))


def explained(
    bundle: Bundle, networks: Mapping[MemberName, nn.Sequential], cutouts: CutoutBatch
) -> Iterator[ExplainedCandidate]:
    """Explain objects one by one, so that memory does not grow with their number.

    Occlusion covers with blank sky: 0, which the paper covers with, is a hole in an asinh scaled image. See :data:`MEANING`.

    Parameters
    ----------
    bundle, networks
        See :func:`scanner.explain.networks.restore`.
    cutouts
        N objects.
    """
    for row in range(len(cutouts)):
        cutout = cutouts.take(np.array([row]))
        inputs = {member: network_input(bundle, member, cutout) for member in EXPLAINED}
        maps: dict[str, Float32] = {}
        for member in EXPLAINED:
            maps[map_name("occlusion", member)] = occlusion(networks[member], inputs[member], fill=sky_level(inputs[member]))[0]
            maps[map_name("guided_grad_cam", member)] = strength(guided_grad_cam(networks[member], inputs[member]))[0]
        yield ExplainedCandidate(cutout, maps, disagreement(member_log_odds(bundle, networks, cutout)))


def map_name(method: str, member: MemberName) -> str:
    """Name of an array of ``maps.zarr``: ``occlusion_ou_200``."""
    return f"{method}_{member.lower().replace('-', '_')}"


def write_files(candidate: ExplainedCandidate, folder: Path) -> None:
    """Write ``strip.png`` and ``maps.zarr`` into a folder.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    (folder / STRIP).write_bytes(candidate.picture)
    group = zarr.create_group(folder / MAPS, overwrite=True)
    for name, values in candidate.maps.items():
        array = group.create_array(name, data=values)
        array.attrs["description"] = MEANING[name.rpartition("_ou_")[0]]


def strip(cutout: CutoutBatch, maps: Mapping[str, Float32], probabilities: Sequence[float]) -> UInt8:
    """Draw what speaks for a lens, and what the members say, side by side; y upwards.

    From the left: occlusion of OU-200 on VIS (blue where covering lowers the lens output: what speaks for a lens) and of OU-66;
    guided Grad-CAM of OU-200, the pixels of the 0.05 rule in their own light; the votes.

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
