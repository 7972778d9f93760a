"""From cutouts to scores: the networks, the embedding grid, the calibration, the decision.

In: cutouts without NaN with their sky, σ, bad fractions and flags. Out: :class:`~scanner.records.Scores` in the same order.
Refused: what :mod:`scanner.ensemble.session` and :meth:`~scanner.ensemble.bundle.Bundle.threshold` refuse.

A bundle without a grid has no embedding: position and grid value are NaN and the cell count 0, the threshold applies to the
calibrated probability.
"""

from __future__ import annotations

import numpy as np

from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import open_session
from scanner.records import MEMBERS, Flag, Float32, Scores, UInt32


class Scorer:
    """Scores batches of cutouts with one bundle on one provider.

    ``provider``: what the session runs on. ``threshold``: of the grid value, or of the calibrated probability where the bundle
    has no grid (``bundle.manifest.decides_on``).
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        threads: int = 1,
        beta: float | None = None,
        max_bad_fraction: float = 0.25,
        parallel: int = 1,
    ) -> None:
        self.bundle = bundle
        self.threshold = bundle.threshold(beta)
        self.max_bad_fraction = max_bad_fraction
        self._session = open_session(bundle, provider, threads, parallel)
        self.provider = self._session.provider

    @property
    def core_seconds(self) -> float:
        """Processor time, so far, of scoring threads other than the caller's."""
        return self._session.core_seconds

    def score(self, vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, bad_fraction: Float32, flags: UInt32) -> Scores:
        """Score ``N`` cutouts.

        Parameters
        ----------
        vis, nisp
            (N, 200, 200) and (N, 3, 66, 66; Y, J, H) float32, bad pixels already filled.
        sky, sigma
            (N, 4) float32: median and robust σ of VIS, Y, J, H.
        bad_fraction
            (N, 4) float32: above ``max_bad_fraction`` in any band the object is not scored (TOO_MANY_BAD_PIXELS). Nor is one
            whose pixels overflow float32, which is flagged alike.
        flags
            (N,) uint32 of :class:`~scanner.records.Flag`; the embedding's are added.

        Returns
        -------
        Scores
            NaN, and ``decision`` False, where an object was not scored.
        """
        n = len(vis)
        flagged = flags.astype(np.uint32)
        usable = np.flatnonzero((bad_fraction <= self.max_bad_fraction).all(axis=1))
        logits = np.full((n, len(MEMBERS)), np.nan, dtype=np.float32)
        if len(usable) == n:
            logits[:] = self._session.logits(vis, nisp, sky, sigma)
        elif len(usable):
            logits[usable] = self._session.logits(vis[usable], nisp[usable], sky[usable], sigma[usable])
        scored = np.isfinite(logits).all(axis=1)
        logits[~scored] = np.nan
        flagged[~scored] |= np.uint32(Flag.TOO_MANY_BAD_PIXELS)

        tsne = np.full((n, 2), np.nan, dtype=np.float32)
        grid_value = np.full(n, np.nan, dtype=np.float32)
        cell_count = np.zeros(n, dtype=np.int64)
        calibrated = self.bundle.calibration.apply(logits)
        if self.bundle.grid is not None:
            found = self.bundle.grid.lookup(logits[scored])
            tsne[scored], grid_value[scored], cell_count[scored] = found.positions, found.value, found.cell_count
            flagged[scored] |= found.flags
        deciding = calibrated if self.bundle.grid is None else grid_value
        return Scores(
            logits=logits,
            tsne=tsne,
            grid_value=grid_value,
            cell_count=cell_count,
            calibrated=calibrated,
            # In float32, as the scores are: a threshold is a score that occurred, and must select it.
            decision=deciding >= np.float32(self.threshold),
            flags=flagged,
        )
