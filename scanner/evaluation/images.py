"""Scores single images, such as known lenses, over their eight orientations.

In: cutouts of one object each, a bundle. Out: :class:`~scanner.evaluation.results.ImageScore`. Refused, as
:class:`~scanner.errors.TileError`: tiles that cannot be cut.

Small images are padded as in a scan, with noise of their own σ. Nothing on the sky has a preferred orientation, so the scatter
over the orientations is a measure of how far a score can be trusted. What a score is worth depends on how many non-lenses get a
higher one: ``above`` says so for each orientation, and compares between bundles where probabilities do not. Each orientation is
one look; non-lenses that stand high are means of eight where the bundle takes a second look, as in a scan.

An image that lacks bands has them duplicated from one that is there (Table 2 of the paper). Then source and lens have one
colour, as they hardly ever have on the sky, and the members that compare bands take it for no lens. So it is judged by the
member that sees most of the bands that are there, and nothing else: :func:`judge_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.augmentation import ORIENTATIONS, turn
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.session import EnsembleSession
from scanner.errors import TileError
from scanner.evaluation.results import ImageScore
from scanner.evaluation.scores import combine
from scanner.records import (
    BANDS,
    MEMBER_BANDS,
    MEMBER_PIXELS,
    MEMBERS,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    MemberName,
    Targets,
    Tile,
)
from scanner.sky import tile_list
from scanner.sky.tile_images import open_tile


@dataclass(frozen=True)
class NonLenses:
    """What images are compared with: what each judge (None: the combination) gives to the non-lenses of the set ``name``."""

    name: str
    scores: Mapping[MemberName | None, Float64]

    def share_above(self, log_odds: Float64, judge: MemberName | None) -> tuple[float, ...] | None:
        """Share of them to which the judge gives more than each of ``log_odds``; None if there are none."""
        rising = np.sort(self.scores[judge])
        if not len(rising):
            return None
        n_above = len(rising) - np.searchsorted(rising, log_odds, side="right")
        return tuple(float(share) for share in n_above / len(rising))


def central_cutout(tile: Tile) -> CutoutBatch:
    """Cut the centre of a tile's VIS image, as a batch of one."""
    with open_tile(tile, CutoutsConfig()) as images:
        height, width = images.vis.shape
        x, y = (width - 1) / 2, (height - 1) / 2
        ra, dec = images.vis.wcs.all_pix2world([[x, y]], 0)[0]
        target = Targets(
            target_id=np.array([1], dtype=np.int64),
            ra=np.array([ra]),
            dec=np.array([dec]),
            x=np.array([x]),
            y=np.array([y]),
            magnitude=np.array([np.nan], dtype=np.float32),
        )
        return next(cut(images, target, 1))


def read_images(path: Path) -> dict[str, CutoutBatch]:
    """Cut the centre of every tile of a list, by tile id.

    Raises
    ------
    TileError
        A tile cannot be cut, or lacks a band; the message says which.
    """
    tiles = tile_list.read(path)
    for failed in tiles.failed:
        raise TileError(f"{path}: tile {failed.tile_id}: {failed.reason}")
    return {tile.tile_id: central_cutout(tile) for tile in tiles.tiles}


def orientations(images: Float32) -> Float32:
    """The eight orientations of one image or stack (1, ..., y, x): (8, ..., y, x)."""
    return np.concatenate([turn(images, orientation) for orientation in range(ORIENTATIONS)])


def image_logits(batch: CutoutBatch, session: EnsembleSession) -> Float32:
    """Log-odds of a batch of one in all orientations, (8, 7) float32."""
    vis, nisp = fill_bad_pixels(batch)
    levels = (np.repeat(values, ORIENTATIONS, axis=0) for values in (batch.sky, batch.sigma))
    return session.one_look(orientations(vis), orientations(nisp), *levels)


def judge_of(bands: Collection[Band]) -> MemberName | None:
    """The member that an image of ``bands`` is judged by; None where all are there: the combination.

    It is the one that sees most of them and no other; of equals, that of the larger image.

    Raises
    ------
    ValueError
        No band is given.
    """
    if set(bands) == set(BANDS):
        return None
    fit = [member for member in MEMBERS if set(MEMBER_BANDS[member]) <= set(bands)]
    if not fit:
        raise ValueError("no band is given")
    return max(fit, key=lambda member: (len(MEMBER_BANDS[member]), MEMBER_PIXELS[member]))


def judged(bundle: Bundle, logits: Float32, judge: MemberName | None) -> Float64:
    """What the judge gives to each row of ``logits`` (N, 7): log-odds of the member, or the combination; (N,) float64."""
    return combine(bundle, logits) if judge is None else logits[:, MEMBERS.index(judge)].astype(np.float64)


def score_image(
    name: str,
    batch: CutoutBatch,
    bundle: Bundle,
    bundle_name: str,
    session: EnsembleSession,
    *,
    judge: MemberName | None = None,
    others: NonLenses | None = None,
) -> ImageScore:
    """Score a batch of one over its eight orientations.

    Parameters
    ----------
    name, bundle_name
        To be quoted.
    batch
        One cutout.
    bundle, session
        What scores it.
    judge
        See :func:`judge_of`.
    others
        By the same bundle; None: there is nothing to compare with.
    """
    logits = image_logits(batch, session)
    probabilities = sigmoid(logits.astype(np.float64))
    log_odds = judged(bundle, logits, judge)
    bad = [float(value) for value in batch.bad_fraction[0]]
    above = None if others is None else others.share_above(log_odds, judge)
    return ImageScore(
        bundle=bundle_name,
        name=name,
        bad_fraction=(bad[0], bad[1], bad[2], bad[3]),
        probabilities=tuple(float(value) for value in probabilities.mean(axis=0)),
        scatter=tuple(float(value) for value in probabilities.std(axis=0)),
        grid_value=None if bundle.grid is None else float(bundle.grid.lookup(logits).value.mean()),
        calibrated=float(bundle.calibration.apply(logits.mean(axis=0, keepdims=True))[0]),
        judge=judge,
        log_odds=tuple(float(value) for value in log_odds),
        above=above,
        compared_with=None if others is None or above is None else others.name,
        n_compared=0 if others is None else len(others.scores[judge]),
    )
