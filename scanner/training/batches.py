"""What a trainer feeds a member: windows of the scaled images, turned and mirrored alike for both classes.

In: :class:`~scanner.training.scaled.ScaledImages`, row numbers, a window. Out: float32 arrays (n, channels, p, p) with the
channels of :data:`~scanner.records.MEMBER_BANDS`. Refused: nothing. Every draw is a pure function of (seed, stage, step), so
that a resumed run sees what an uninterrupted one does.

Real PSFs are not round. A network that saw one class turned and the other not would learn the PSF's angle (section 3.2), so the
eight orientations are drawn without looking at the label.
"""

from __future__ import annotations

import numpy as np

from scanner.cutouts.orientation import ORIENTATIONS
from scanner.ensemble.preprocessing import resize_matrix, scale_minmax
from scanner.records import (
    MEMBER_BANDS,
    MEMBER_PIXELS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    Float32,
    Int64,
    MemberName,
)
from scanner.training.network import CROP_STRIDE
from scanner.training.scaled import Float16, ScaledImages


def draw_orientations(n: int, seed: tuple[int, ...]) -> Int64:
    """Draw ``n`` orientations, (n,) int64 in 0..7, uniform, whatever the labels are."""
    return np.random.default_rng(seed).integers(0, ORIENTATIONS, n)


class Feed:
    """Reads windows of one member's input.

    Parameters
    ----------
    images
        The scaled images.
    member
        Whose bands, order and size.
    pixels
        Side of the window in the member's pixels: its full side, or a central crop.
    """

    def __init__(self, images: ScaledImages, member: MemberName, pixels: int) -> None:
        self.images = images
        self.member: MemberName = member
        self.side = MEMBER_PIXELS[member]
        self.pixels = pixels
        stride = CROP_STRIDE[self.side]
        #: First row and column of the window, at a whole multiple of the twin's pooling.
        self.start = (self.side - pixels) // 2 // stride * stride
        self.enlarge = resize_matrix(NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS).astype(np.float32)

    def read(self, rows: Int64, shifts: Int64 | None = None) -> Float32:
        """Windows of ``rows``.

        Parameters
        ----------
        rows
            (n,) row numbers.
        shifts
            (n, 2) pixels (y, x) by which each window is moved off the centre, as far as the image reaches; None: not at all.

        Returns
        -------
        numpy.ndarray
            (n, channels, pixels, pixels) float32.
        """
        moved = np.zeros((len(rows), 2), dtype=np.int64) if shifts is None else shifts
        starts = np.clip(self.start + moved, 0, self.side - self.pixels)
        return np.stack([self._band(band, rows, starts) for band in MEMBER_BANDS[self.member]], axis=1)

    def _band(self, band: Band, rows: Int64, starts: Int64) -> Float32:
        if band == "VIS":
            source: Float16 = self.images.vis if self.side == VIS_CUTOUT_PIXELS else self.images.vis66
            return self._windows(source, rows, starts)
        source = self.images.nisp[:, NISP_BANDS.index(band)]
        if self.side == NISP_CUTOUT_PIXELS:
            return self._windows(source, rows, starts)
        lines = starts[:, :, None] + np.arange(self.pixels)
        vertical, horizontal = self.enlarge[lines[:, 0]], self.enlarge[lines[:, 1]]
        enlarged = vertical @ source[rows].astype(np.float32) @ horizontal.transpose(0, 2, 1)
        if self.images.preprocessing == "minmax":
            # The paper scaled after resizing; a second min-max of min-max scaled pixels is that of the pixels themselves.
            return np.asarray(scale_minmax(enlarged), dtype=np.float32)
        return np.asarray(enlarged, dtype=np.float32)

    def _windows(self, source: Float16, rows: Int64, starts: Int64) -> Float32:
        windows = np.empty((len(rows), self.pixels, self.pixels), dtype=np.float32)
        for window, row, (y, x) in zip(windows, rows, starts, strict=True):
            window[...] = source[row, y : y + self.pixels, x : x + self.pixels]
        return windows
