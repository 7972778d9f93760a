"""The eight orientations of a cutout (quarter turns, mirrored or not), and test-time augmentation with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from scanner.ensemble.calibration import Calibration
from scanner.records import Finite, Float32, Float64, Int64, MemberName, Record

ORIENTATIONS = 8
#: Orientations but for the one that an object has.
TURNS = range(1, ORIENTATIONS)
#: Objects whose turned cutouts are scored in one call: some 100 MB.
TURNED_TOGETHER = 64


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
    """Which objects get test-time augmentation, by which members, and what their means over the orientations are worth.

    A mean of eight scatters less than one score, so the same log-odds mean more: the members' log-odds become ``slope`` × mean
    + ``intercept``, as measured on labelled objects that get it. The bundle's calibration is then right for these objects too.
    """

    log_odds_above: float = Field(
        allow_inf_nan=False,
        description="Calibrated log-odds, at the sky's prevalence, from which an object is looked at again.",
    )
    share: float = Field(gt=0, lt=1, description="Share of the calibration set's non-lenses for which that was so.")
    members: tuple[MemberName, ...] | None = Field(
        None, min_length=1, description="Members that score the object in all orientations; none named: all of the bundle."
    )
    slope: float = Field(1.0, gt=0, allow_inf_nan=False, description="Of their log-odds against the mean.")
    intercept: Finite = Field(0.0, description="Of their log-odds against the mean.")

    def log_odds(self, means: Float64) -> Float32:
        """Log-odds of members from their means over the orientations."""
        return np.asarray(self.slope * means + self.intercept, dtype=np.float32)


#: From (vis, nisp, sky, sigma) to (N, M) log-odds of the members.
ScoreCutouts = Callable[[Float32, Float32, Float32, Float32], Float32]


@dataclass(frozen=True)
class Augmentation:
    """Test-time augmentation at work: a rule, the calibration that decides, and ``columns`` (K,) of the members that turn."""

    rule: SecondLook
    calibration: Calibration
    columns: Int64

    def as_scanned(self, turned: Float32) -> Float32:
        """What a scan has of objects that lie in each of the eight orientations.

        Parameters
        ----------
        turned
            (N, 8, M) log-odds of each orientation as it is.

        Returns
        -------
        numpy.ndarray
            (N, 8, M) float32: with means in the orientations that reach the limit.
        """
        found = turned.copy()
        means = self.rule.log_odds(turned[..., self.columns].mean(axis=1, dtype=np.float64))
        objects, orientations = np.nonzero(self.calibration.log_odds(turned) >= self.rule.log_odds_above)
        found[objects[:, None], orientations[:, None], self.columns] = means[objects]
        return found


def average_orientations(
    once: ScoreCutouts,
    turned: ScoreCutouts,
    augmentation: Augmentation,
    vis: Float32,
    nisp: Float32,
    sky: Float32,
    sigma: Float32,
) -> Float32:
    """Score cutouts as they are, and those that stand high in all eight orientations.

    Nothing on the sky has an up, so what an object gains or loses by being turned is an error, and a mean over the eight
    orientations is free of most of it. It costs up to eight times as much, and the objects that are far from being candidates
    are not worth it: only those whose calibrated log-odds reach a limit are averaged, which the bundle sets such that few do.

    Parameters
    ----------
    once
        What scores cutouts as they are.
    turned
        The same for turned ones; only the columns of the members that turn are read.
    augmentation
        Of the bundle.
    vis, nisp, sky, sigma
        As :meth:`scanner.ensemble.session.EnsembleSession.logits` takes them.

    Returns
    -------
    numpy.ndarray
        (N, M) float32: log-odds, in the rows and columns that get it from the means over the orientations
        (:meth:`SecondLook.log_odds`); which rows these are does not depend on other rows.
    """
    found = once(vis, nisp, sky, sigma)
    rule, columns = augmentation.rule, augmentation.columns
    again = np.flatnonzero(augmentation.calibration.log_odds(found) >= rule.log_odds_above)
    if len(again):
        cells = np.ix_(again, columns)
        total = found[cells].astype(np.float64)
        for some in np.array_split(np.arange(len(again)), -(-len(again) // TURNED_TOGETHER)):
            rows = again[some]
            all_vis, all_nisp = (np.concatenate([turn(one[rows], number) for number in TURNS]) for one in (vis, nisp))
            scored = turned(all_vis, all_nisp, np.tile(sky[rows], (len(TURNS), 1)), np.tile(sigma[rows], (len(TURNS), 1)))
            for one in scored[:, columns].reshape(len(TURNS), len(rows), -1):
                total[some] += one
        found[cells] = rule.log_odds(total / ORIENTATIONS)
    return found
