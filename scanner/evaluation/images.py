"""Scores single images, such as known lenses, over their eight orientations.

In: a tile list whose tiles each hold one object at their centre, a bundle. Out: one
:class:`~scanner.evaluation.results.ImageScore` a tile. Refused, as :class:`~scanner.errors.TileError`: tiles that cannot be
cut.

Small images are padded as in a scan, with noise of their own σ. Nothing on the sky has a preferred orientation, so the scatter
over the orientations is a measure of how far a score can be trusted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut, open_tile
from scanner.cutouts.orientation import ORIENTATIONS, turn
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import EnsembleSession
from scanner.errors import TileError
from scanner.evaluation.results import ImageScore
from scanner.records import CutoutBatch, Float32, Targets, Tile
from scanner.sky import tile_list


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


def orientations(images: Float32) -> Float32:
    """The eight orientations of one image or stack (1, ..., y, x): (8, ..., y, x)."""
    return np.concatenate([turn(images, orientation) for orientation in range(ORIENTATIONS)])


def score_image(name: str, batch: CutoutBatch, bundle: Bundle, session: EnsembleSession) -> ImageScore:
    """Score a batch of one over its eight orientations; grid and calibration are applied to each, then averaged."""
    vis, nisp = fill_bad_pixels(batch)
    levels = (np.repeat(values, ORIENTATIONS, axis=0) for values in (batch.sky, batch.sigma))
    logits = session.logits(orientations(vis), orientations(nisp), *levels)
    probabilities = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    grid_value = None if bundle.grid is None else float(bundle.grid.lookup(logits).value.mean())
    bad = [float(value) for value in batch.bad_fraction[0]]
    return ImageScore(
        name=name,
        bad_fraction=(bad[0], bad[1], bad[2], bad[3]),
        probabilities=tuple(float(value) for value in probabilities.mean(axis=0)),
        scatter=tuple(float(value) for value in probabilities.std(axis=0)),
        grid_value=grid_value,
        calibrated=float(bundle.calibration.apply(logits).astype(np.float64).mean()),
    )


def score_images(path: Path, bundle: Bundle, session: EnsembleSession) -> tuple[ImageScore, ...]:
    """Score the centre of every tile of a list.

    Raises
    ------
    TileError
        A tile cannot be cut, or lacks a band; the message says which.
    """
    tiles = tile_list.read(path)
    for failed in tiles.failed:
        raise TileError(f"{path}: tile {failed.tile_id}: {failed.reason}")
    return tuple(score_image(tile.tile_id, central_cutout(tile), bundle, session) for tile in tiles.tiles)
