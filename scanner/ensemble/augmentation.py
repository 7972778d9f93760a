"""The eight orientations of a cutout (quarter turns, mirrored or not), and test-time augmentation with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field

from scanner.ensemble.calibration import Calibration
from scanner.records import Float32, Int64, Record

ORIENTATIONS = 8


def turn(images: Float32, orientation: int) -> Float32:
    """Square images (..., y, x) after ``orientation % 4`` quarter turns, from orientation 4 on mirrored first."""
    if orientation >= 4:
        images = images[..., ::-1]
    return np.rot90(images, orientation % 4, axes=(-2, -1))


def augment(images: Float32, orientations: Int64) -> Float32:
    """Turn image ``i`` of (n, ..., p, p) by ``orientations[i]``; a new array."""
    turned = np.empty_like(images)
    for orientation in range(ORIENTATIONS):
        chosen = orientations == orientation
        turned[chosen] = turn(images[chosen], orientation)
    return turned


class SecondLook(Record):
    """Which objects are scored in all orientations."""

    log_odds_above: float = Field(
        allow_inf_nan=False,
        description="Calibrated log-odds, at the sky's prevalence, from which an object is looked at again.",
    )
    share: float = Field(gt=0, lt=1, description="Share of the calibration set's non-lenses for which that was so.")


#: From (vis, nisp, sky, sigma) to (N, M) log-odds of the members.
ScoreCutouts = Callable[[Float32, Float32, Float32, Float32], Float32]


def average_orientations(
    look: ScoreCutouts, rule: SecondLook, calibration: Calibration, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32
) -> Float32:
    """Score cutouts as they are, and those that stand high in all eight orientations.

    Nothing on the sky has an up, so what an object gains or loses by being turned is an error, and a mean over the eight
    orientations is free of most of it. It costs eight times as much, and the objects that are far from being candidates are not
    worth it: only those whose calibrated log-odds reach a limit are averaged, which the bundle sets such that few objects do.

    Parameters
    ----------
    look
        What scores cutouts as they are.
    rule, calibration
        Of the bundle.
    vis, nisp, sky, sigma
        As :meth:`scanner.ensemble.session.EnsembleSession.logits` takes them.

    Returns
    -------
    numpy.ndarray
        (N, M) float32: log-odds, or their means over the orientations; which of the two does not depend on other rows.
    """
    found = look(vis, nisp, sky, sigma)
    again = np.flatnonzero(calibration.log_odds(found) >= rule.log_odds_above)
    if len(again):
        total = found[again].astype(np.float64)
        for orientation in range(1, ORIENTATIONS):
            total += look(turn(vis[again], orientation), turn(nisp[again], orientation), sky[again], sigma[again])
        found[again] = (total / ORIENTATIONS).astype(np.float32)
    return found
