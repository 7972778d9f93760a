"""The torch networks of a bundle: what they see, what they say, and how far they disagree."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import MODEL_FILE, Bundle
from scanner.ensemble.calibration import MEMBER_THRESHOLD, sigmoid
from scanner.ensemble.preprocessing import average_orientations, member_input
from scanner.ensemble.session import open_session
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBERS, CutoutBatch, Float32, Float64, Int64, MemberName
from scanner.report.explanations import ClassName
from scanner.training.export import read_members

#: What a network says of an object: z_lens - z_non-lens, or its sigmoid, which is the softmax of the lens class.
Output = Literal["log_odds", "probability"]
#: Number of the logit of each class, by name.
CLASSES: dict[ClassName, int] = {"non-lens": NON_LENS, "lens": LENS}


def restore(bundle: Bundle) -> dict[MemberName, nn.Sequential]:
    """Rebuild the seven networks of a bundle from the constants of its ONNX graph.

    Parameters
    ----------
    bundle
        See :func:`scanner.ensemble.bundles.load`.

    Returns
    -------
    dict
        The members in evaluation mode, float32, on the CPU, their weights frozen. Modules carry the layer numbers of Tables 3
        and 4.

    Raises
    ------
    ContentError
        The graph was not exported by scanner.
    """
    networks = read_members(bundle.path / MODEL_FILE)
    for network in networks.values():
        network.requires_grad_(False)
    return networks


def network_input(bundle: Bundle, member: MemberName, cutouts: CutoutBatch) -> torch.Tensor:
    """Compute what one member sees of ``N`` cutouts, as the bundle's graph does.

    What is explained is a network: from its input, already scaled and resized, to its output. The scaling mixes pixels (the
    minimum and maximum of an image are two of its pixels), so a map of the cutout itself would explain the scaling too.

    Parameters
    ----------
    bundle
        Its preprocessing is used.
    member
        The bands are :data:`scanner.records.MEMBER_BANDS`, the side :data:`scanner.records.MEMBER_PIXELS`.
    cutouts
        Bad pixels are filled as in a scan.

    Returns
    -------
    torch.Tensor
        (N, channels, side, side) float32; 0..1 for ``minmax``, about 0..1 for ``asinh_mad``.
    """
    return _seen(bundle, member, *fill_bad_pixels(cutouts), cutouts.sky, cutouts.sigma)


def _seen(bundle: Bundle, member: MemberName, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> torch.Tensor:
    scaled = member_input(member, vis, nisp, sky, sigma, bundle.manifest.preprocessing)
    # Turned cutouts have negative strides, which torch does not take.
    return torch.from_numpy(np.ascontiguousarray(scaled)).to(torch.float32)


def sky_level(images: torch.Tensor) -> torch.Tensor:
    """The median of every channel, (N, channels): blank sky, in the units that the network sees."""
    return images.flatten(2).median(dim=2).values


def lens_output(network: nn.Module, images: torch.Tensor, output: Output = "log_odds") -> torch.Tensor:
    """The lens output of a network, (N,), differentiable.

    Parameters
    ----------
    network, images
        (N, channels, side, side) as of :func:`network_input`.
    output
        See :data:`Output`.
    """
    return of_logits(network(images), output)


def member_log_odds(bundle: Bundle, networks: Mapping[MemberName, nn.Sequential], cutouts: CutoutBatch) -> Float32:
    """What the paper's seven say of N cutouts, (N, 7), as a scan has it: with test-time augmentation if the bundle asks."""
    arrays = (*fill_bad_pixels(cutouts), cutouts.sky, cutouts.sigma)
    if bundle.manifest.further:
        # All members decide which objects are augmented, and the others are no torch networks.
        return open_session(bundle, "cpu").logits(*arrays)[:, : len(MEMBERS)]

    def logits(members: Collection[int], vis: Float32, nisp: Float32, sky: Float32, sigma: Float32) -> Float32:
        found = np.zeros((len(vis), len(MEMBERS)), dtype=np.float32)
        with torch.inference_mode():
            for column in members:
                member = MEMBERS[column]
                found[:, column] = lens_output(networks[member], _seen(bundle, member, vis, nisp, sky, sigma)).numpy()
        return found

    once, augmentation = partial(logits, range(len(MEMBERS))), bundle.augmentation
    if augmentation is None:
        return once(*arrays)
    return average_orientations(once, partial(logits, augmentation.columns.tolist()), augmentation, *arrays)


def of_logits(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """The lens output (N,) from the two logits (N, 2) of a network."""
    log_odds = logits[:, LENS] - logits[:, NON_LENS]
    return torch.sigmoid(log_odds) if output == "probability" else log_odds


@dataclass(frozen=True)
class Disagreement:
    """What the members say of ``N`` objects.

    The entropy of the mean probability is all of the uncertainty of the ensemble. What is left of it when the mean entropy of
    the members is taken away is their disagreement (the mutual information of outcome and member; Houlsby et al. 2011): seven
    members that all say 0.5 are unsure, but of one mind (0 bits); three that say 1 and four that say 0 are sure, and at odds (1
    bit).

    ``probabilities`` (N, 7) float64 in the order of :data:`~scanner.records.MEMBERS`. ``mean`` and ``spread`` (N,): of the
    seven, ``spread`` their standard deviation. ``votes`` (N,) int64: members that say 0.5 or more. ``shared_bits`` and
    ``disagreement_bits`` (N,): mean entropy of the members, and what the entropy of the mean exceeds it by.
    """

    probabilities: Float64
    mean: Float64
    spread: Float64
    votes: Int64
    shared_bits: Float64
    disagreement_bits: Float64


def disagreement(logits: Float32) -> Disagreement:
    """Compare the seven members; where one is NaN, so are the figures of the object.

    Parameters
    ----------
    logits
        (N, 7) lens log-odds, as in :class:`~scanner.records.Scores`.

    Raises
    ------
    ValueError
        Not seven columns.
    """
    if logits.ndim != 2 or logits.shape[1] != len(MEMBERS):
        raise ValueError(f"log-odds have shape {logits.shape}, not (N, {len(MEMBERS)})")
    probabilities = sigmoid(logits.astype(np.float64))
    mean = probabilities.mean(axis=1)
    shared = _entropy_bits(probabilities).mean(axis=1)
    return Disagreement(
        probabilities=probabilities,
        mean=mean,
        spread=probabilities.std(axis=1),
        votes=np.asarray((probabilities >= MEMBER_THRESHOLD).sum(axis=1), dtype=np.int64),
        shared_bits=shared,
        disagreement_bits=np.maximum(_entropy_bits(mean) - shared, 0.0),
    )


def _entropy_bits(probability: Float64) -> Float64:
    """Entropy of a yes-or-no outcome; 0 where it is certain."""
    inside = np.clip(probability, np.finfo(np.float64).tiny, 1.0)
    outside = np.clip(1.0 - probability, np.finfo(np.float64).tiny, 1.0)
    return np.asarray(-(probability * np.log2(inside) + (1.0 - probability) * np.log2(outside)))
