"""The Einstein radius that a network sees in a candidate: where fits start, and what the best one should agree with."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble.bundles import models_folder, user_models_folder
from scanner.ensemble.preprocessing import ORIENTATIONS, nisp_on_vis, scale_asinh_mad, turn
from scanner.errors import ContentError, InputMissingError
from scanner.records import NISP_BANDS, VIS_CUTOUT_PIXELS, Band, CutoutBatch, Float32, Float64, Record, SealedRecord

#: The network's folder, beside those of the bundles, and its files; the manifest is written last.
FOLDER, MANIFEST, NETWORK, CARD = "einstein-radius", "radius-network.json", "network.onnx", "MODEL_CARD.md"
#: What it sees: the bands in the order of its channels, and the side in VIS pixels of 0.1".
BANDS: tuple[Band, ...] = ("J", "Y", "H", "VIS")
PIXELS = 128
#: Einstein radii that it tells apart, arcsec; bins are alike in ln θ_E.
LOWEST_ARCSEC, HIGHEST_ARCSEC, BINS = 0.28, 5.0, 58
#: What every bin has at least: the network has never seen a sky like this one.
FLOOR = 1e-4
#: How near is "the same radius".
NEAR = 0.1


class RadiusFigures(Record):
    """How good a network is on lenses that it was not trained on.

    ``set``: their preset. ``n``: how many. ``median_error``: of the histogram's median, relative. ``within_10_percent``,
    ``off_by_20_percent``: shares. ``inside_68``: share whose true radius lies in the middle 68 % of the histogram.
    """

    set: str
    n: int
    median_error: float
    within_10_percent: float
    off_by_20_percent: float
    inside_68: float


class RadiusManifest(SealedRecord):
    """``radius-network.json``: a network of Einstein radii, what it was trained on, and how good it is."""

    format_version: Literal[1] = 1
    name: str
    version: str
    licence: str | None = Field(default=None, description="of the weights, an SPDX expression")
    lowest_arcsec: float = Field(default=LOWEST_ARCSEC, gt=0.0)
    highest_arcsec: float = Field(default=HIGHEST_ARCSEC, gt=0.0)
    bins: int = Field(default=BINS, ge=2, description="equal in ln θ_E")
    trained_on: tuple[str, ...] = Field(description="fingerprints of the labelled sets")
    lenses: int = Field(description="visible lenses that were trained on")
    begins_as: str | None = Field(description="SHA-256 of the weights of the residual network that it began as")
    passes: float = Field(description="how often each of them was shown")
    minutes: float
    seed: int
    figures: tuple[RadiusFigures, ...]
    network_sha256: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True)
class RadiusPosterior:
    """A histogram of ln θ_E, (n,) float64, that sums to one; ``edges``: (n + 1,), ln arcsec; ``network``: its fingerprint."""

    edges: Float64
    probability: Float64
    network: str = ""

    @classmethod
    def flat(cls) -> RadiusPosterior:
        """What is known where no network is asked: each ln θ_E is as likely."""
        return cls(np.linspace(math.log(LOWEST_ARCSEC), math.log(HIGHEST_ARCSEC), BINS + 1), np.full(BINS, 1.0 / BINS))

    def ln_density(self, theta_e_arcsec: float) -> float:
        """Natural logarithm of the probability per unit of ln θ_E."""
        width = float(self.edges[1] - self.edges[0])
        return float(np.log(self._in_bin(np.log(theta_e_arcsec)) / width))

    def near(self, theta_e_arcsec: float, by: float = NEAR) -> float:
        """Probability of a radius within ``by`` (relative) of one."""
        low, high = np.interp(np.log(theta_e_arcsec * np.array([1.0 - by, 1.0 + by])), self.edges, self._cumulative)
        return float(high - low)

    def together(self, theta_e_arcsec: float, error_arcsec: float) -> tuple[float, float]:
        """Middle of ln θ_E and its error, if a measurement is a Gaussian of ln θ_E that knows nothing of the histogram.

        They are the median, and half the width of the middle 68 %, of the product of both.
        """
        fine = np.linspace(self.edges[0], self.edges[-1], 40 * len(self.probability) + 1)
        off = (fine - math.log(theta_e_arcsec)) / (error_arcsec / theta_e_arcsec)
        total = np.cumsum(self._in_bin(fine) * np.exp(-0.5 * (off**2 - (off**2).min())))
        low, middle, high = np.interp((0.16, 0.5, 0.84), total / total[-1], fine)
        return float(middle), float(0.5 * (high - low))

    def quantile(self, share: float) -> float:
        """The radius, arcsec, below which lies ``share`` of the probability."""
        return float(np.exp(np.interp(share, self._cumulative, self.edges)))

    def _in_bin(self, ln_theta_e: Any) -> Any:
        """Probability of a bin about ln θ_E, which may lie between two."""
        return np.interp(ln_theta_e, 0.5 * (self.edges[1:] + self.edges[:-1]), self.probability) + FLOOR

    @property
    def _cumulative(self) -> Float64:
        return np.concatenate([[0.0], np.cumsum(self.probability)])


class RadiusNetwork:
    """A network at work, on one thread: the same cutout gives the same histogram, whatever else is scored.

    Parameters
    ----------
    folder
        With the three files.

    Raises
    ------
    InputMissingError, ContentError
        A file is missing, altered or not what it should be; the message says which.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        text = _read(folder / MANIFEST)
        #: SHA-256 of the manifest, which has that of the network.
        self.fingerprint = hashlib.sha256(text).hexdigest()
        self.manifest = RadiusManifest.from_bytes(
            text, folder / MANIFEST, "fetch the folder again", wrong="describes no network"
        )
        content = _read(folder / NETWORK)
        if hashlib.sha256(content).hexdigest() != self.manifest.network_sha256:
            raise ContentError(
                f"{folder / NETWORK}: altered (its SHA-256 is not the one in {MANIFEST}); fetch the folder again."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        low, high = math.log(self.manifest.lowest_arcsec), math.log(self.manifest.highest_arcsec)
        self.edges: Float64 = np.linspace(low, high, self.manifest.bins + 1)

    def posterior(self, cutout: CutoutBatch) -> RadiusPosterior:
        """The histogram of one cutout, a batch of one: the mean of its eight orientations."""
        seen = radius_input(cutout)
        images = (np.ascontiguousarray(turn(seen, orientation)) for orientation in range(ORIENTATIONS))
        answers = [self._session.run(None, {"images": one})[0][0] for one in images]
        return RadiusPosterior(self.edges, np.mean(answers, axis=0, dtype=np.float64), self.fingerprint)


@functools.cache
def in_use() -> RadiusNetwork:
    """The network that models are made with: the user's own, or the one that comes with scanner; opened once a process."""
    own = user_models_folder() / FOLDER
    return RadiusNetwork(own if own.is_dir() else models_folder() / FOLDER)


def radius_input(cutouts: CutoutBatch) -> Float32:
    """What the network sees, (N, 4, 128, 128): :data:`BANDS` of the central 12.8", scaled as by ``asinh_mad``, on VIS's pixels.

    A bad pixel shows the sky.
    """
    vis, nisp = fill_bad_pixels(cutouts)
    start = (VIS_CUTOUT_PIXELS - PIXELS) // 2
    crop = vis[:, start : start + PIXELS, start : start + PIXELS]
    images: dict[Band, Float64] = {"VIS": scale_asinh_mad(crop, cutouts.sky[:, 0], cutouts.sigma[:, 0])}
    enlarge, scaled = nisp_on_vis(PIXELS), scale_asinh_mad(nisp, cutouts.sky[:, 1:], cutouts.sigma[:, 1:])
    images |= {band: enlarge @ scaled[:, column] @ enlarge.T for column, band in enumerate(NISP_BANDS)}
    return np.stack([images[band] for band in BANDS], axis=1).astype(np.float32)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read ({error.strerror or error}); install scanner again.") from None
