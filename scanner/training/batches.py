"""What a trainer feeds a member: windows of the scaled images, turned and mirrored alike for both classes.

In: :class:`~scanner.training.scaled.ScaledImages`, row numbers, a window. Out: float32 tensors (n, channels, p, p) with the
channels of :data:`~scanner.records.MEMBER_BANDS`, on the device where the images are wanted. Refused: nothing. Every draw is a
pure function of (seed, stage, step), so that a resumed run sees what an uninterrupted one does.

Real PSFs are not round. A network that saw one class turned and the other not would learn the PSF's angle (section 3.2), so the
eight orientations are drawn without looking at the label.
"""

from __future__ import annotations

import numpy as np
import torch

from scanner.ensemble.augmentation import ORIENTATIONS
from scanner.ensemble.preprocessing import MINMAX_FLOOR, resize_matrix
from scanner.records import (
    MEMBER_BANDS,
    MEMBER_PIXELS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    Int64,
    MemberName,
)
from scanner.training.network import CROP_STRIDE
from scanner.training.scaled import SHAPES, ScaledImages


def draw_orientations(n: int, seed: tuple[int, ...]) -> Int64:
    """Draw ``n`` orientations, (n,) int64 in 0..7, uniform, whatever the labels are."""
    return np.random.default_rng(seed).integers(0, ORIENTATIONS, n)


def turn(images: torch.Tensor, orientations: Int64) -> torch.Tensor:
    """Turn image ``i`` of (n, ..., p, p) as :func:`scanner.ensemble.augmentation.turn` does; a new tensor."""
    turned = torch.empty_like(images)
    for orientation in range(ORIENTATIONS):
        chosen = torch.from_numpy(np.flatnonzero(orientations == orientation)).to(images.device)
        part = images[chosen]
        if orientation >= 4:
            part = part.flip(-1)
        turned[chosen] = torch.rot90(part, orientation % 4, dims=(-2, -1))
    return turned


class Feed:
    """Reads windows of one member's input.

    Parameters
    ----------
    images
        The scaled images; moved to ``device`` as a whole if they are not there (115 kB an object).
    member
        Whose bands, order and size.
    pixels
        Side of the window in the member's pixels: its full side, or a central crop.
    device
        Where windows are cut and turned.
    """

    def __init__(self, images: ScaledImages, member: MemberName, pixels: int, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.preprocessing = images.preprocessing
        arrays = {name: getattr(images, name) for name in SHAPES}
        self.images: dict[str, torch.Tensor] = {
            name: (array if isinstance(array, torch.Tensor) else torch.from_numpy(array)).to(self.device)
            for name, array in arrays.items()
        }
        self.member: MemberName = member
        self.side = MEMBER_PIXELS[member]
        self.pixels = pixels
        stride = CROP_STRIDE[self.side]
        #: First row and column of the window, at a whole multiple of the twin's pooling.
        self.start = (self.side - pixels) // 2 // stride * stride
        matrix = resize_matrix(NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS).astype(np.float32)
        self.enlarge = torch.from_numpy(matrix).to(self.device)

    def read(self, rows: Int64, shifts: Int64 | None = None) -> torch.Tensor:
        """Windows of ``rows``.

        Parameters
        ----------
        rows
            (n,) row numbers.
        shifts
            (n, 2) pixels (y, x) by which each window is moved off the centre, as far as the image reaches; None: not at all.

        Returns
        -------
        torch.Tensor
            (n, channels, pixels, pixels) float32.
        """
        moved = np.zeros((len(rows), 2), dtype=np.int64) if shifts is None else shifts
        starts = np.clip(self.start + moved, 0, self.side - self.pixels)
        lines = torch.from_numpy(starts[:, :, None] + np.arange(self.pixels)).to(self.device)
        chosen = torch.from_numpy(rows).to(self.device)
        return torch.stack([self._band(band, chosen, lines) for band in MEMBER_BANDS[self.member]], dim=1)

    def _band(self, band: Band, rows: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
        if band == "VIS":
            return self._windows(self.images["vis" if self.side == VIS_CUTOUT_PIXELS else "vis66"], rows, lines)
        source = self.images["nisp"][:, NISP_BANDS.index(band)]
        if self.side == NISP_CUTOUT_PIXELS:
            return self._windows(source, rows, lines)
        enlarged = self.enlarge[lines[:, 0]] @ source[rows].float() @ self.enlarge[lines[:, 1]].transpose(1, 2)
        if self.preprocessing == "minmax":
            # The paper scaled after resizing; a second min-max of min-max scaled pixels is that of the pixels themselves.
            low, high = enlarged.amin(dim=(1, 2), keepdim=True), enlarged.amax(dim=(1, 2), keepdim=True)
            return (enlarged - low) / (high - low).clamp(min=MINMAX_FLOOR)
        return enlarged

    def _windows(self, source: torch.Tensor, rows: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
        if self.pixels == self.side:
            return source[rows].float()
        return source[rows[:, None, None], lines[:, 0, :, None], lines[:, 1, None, :]].float()
