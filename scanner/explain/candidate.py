"""The explanation of candidates: the maps of the two networks that see most, and how the members vote.

In: cutouts and the bundle that scored them. Out: :class:`ExplainedCandidate`, one an object, and its files. Refused: what
:func:`scanner.explain.networks.restore` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from torch import nn

from scanner.ensemble.bundle import Bundle
from scanner.explain.disagreement import Disagreement, disagreement
from scanner.explain.display import png
from scanner.explain.guided_grad_cam import guided_grad_cam, strength
from scanner.explain.networks import member_log_odds, network_input, sky_level
from scanner.explain.occlusion import occlusion
from scanner.explain.strip import strip
from scanner.records import CutoutBatch, Float32, MemberName
from scanner.report.explanations import MAPS, STRIP

#: The members that are explained: all four bands at either resolution.
EXPLAINED: tuple[MemberName, ...] = ("OU-200", "OU-66")
METHODS = ("occlusion", "guided_grad_cam")
#: What the arrays of ``maps.zarr`` hold, by method.
MEANING = {
    "occlusion": "change of the log-odds where this part is covered with blank sky",
    "guided_grad_cam": "how strongly this pixel speaks for a lens, 0 to 1",
}


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


def map_name(method: str, member: MemberName) -> str:
    """Name of an array of ``maps.zarr``: ``occlusion_ou_200``."""
    return f"{method}_{member.lower().replace('-', '_')}"


def explained(
    bundle: Bundle, networks: Mapping[MemberName, nn.Sequential], cutouts: CutoutBatch
) -> Iterator[ExplainedCandidate]:
    """Explain objects one by one, so that memory does not grow with their number.

    Occlusion covers with blank sky: 0, which the paper covers with, is a hole in an asinh scaled image. See :data:`MEANING`.

    Parameters
    ----------
    bundle, networks
        See :func:`scanner.explain.restore`.
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
