"""What a network is given: scaling and the paper's resize, in float64 as the reference of the ONNX graph; orientations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scanner.ensemble.calibration import Calibration
from scanner.records import (
    BANDS,
    MEMBER_BANDS,
    MEMBER_PIXELS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_PIXEL_SCALE_ARCSEC,
    Finite,
    Float32,
    Float64,
    Int64,
    MemberName,
    Record,
)

Preprocessing = Literal["minmax", "asinh_mad"]
PREPROCESSINGS: tuple[Preprocessing, ...] = get_args(Preprocessing)
#: Of members beyond the paper's seven; ``sigma``: (v - sky) / σ.
Scaling = Literal["sigma", "asinh_mad", "minmax"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
#: ``sigma`` is limited to this, above and below: what overflows float32 has no score.
MOST_SIGMA = 1e6

#: Pixels are clipped to this many σ below and above the sky.
CLIP_SIGMA = (-4.0, 1000.0)
#: The asinh is linear up to about this many σ.
SOFTENING_SIGMA = 2.0
#: ``(asinh + OFFSET) / RANGE`` spans about 0 to 1, as asinh(-4 / 2) = -1.44 and asinh(1000 / 2) = 6.91.
ASINH_OFFSET = 1.44
ASINH_RANGE = 8.35
#: Smallest maximum - minimum divided by: a constant image becomes 0 instead of NaN.
MINMAX_FLOOR = float(np.finfo(np.float32).tiny)
#: ``skimage.transform.resize`` cuts its Gaussian at this many standard deviations.
GAUSSIAN_TRUNCATE = 4.0


def _mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Reflect indices at the centres of the outer pixels (``d c b | a b c d | c b a``)."""
    if n == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * (n - 1))
    return np.asarray(np.minimum(folded, 2 * (n - 1) - folded), dtype=np.int64)


def resize_matrix(n_in: int, n_out: int) -> Float64:
    """Matrix that resizes one axis as ``skimage.transform.resize`` does by default.

    The paper resized with ``skimage.transform.resize`` (section 3.2): linear interpolation after a Gaussian filter when
    shrinking. That is linear and separable, hence two constant matrices; ``torch.nn.functional.interpolate`` is something else.

    Order 1, mode ``reflect``, and, when shrinking by a factor f, a Gaussian filter of standard deviation (f - 1) / 2 first.
    An image is resized by ``rows @ image @ columns.T``.

    Parameters
    ----------
    n_in, n_out
        Pixels along the axis before and after.

    Returns
    -------
    numpy.ndarray
        (n_out, n_in) float64; every row sums to 1.
    """
    factor = n_in / n_out
    position = (np.arange(n_out) + 0.5) * factor - 0.5
    below = np.floor(position).astype(np.int64)
    fraction = position - below
    rows = np.arange(n_out)
    interpolation = np.zeros((n_out, n_in))
    np.add.at(interpolation, (rows, _mirror(below, n_in)), 1.0 - fraction)
    np.add.at(interpolation, (rows, _mirror(below + 1, n_in)), fraction)
    if factor <= 1.0:
        return interpolation

    deviation = (factor - 1.0) / 2.0
    radius = int(GAUSSIAN_TRUNCATE * deviation + 0.5)
    shift = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * (shift / deviation) ** 2)
    weight /= weight.sum()
    pixels = np.arange(n_in)
    smoothing = np.zeros((n_in, n_in))
    for step, value in zip(shift, weight, strict=True):
        np.add.at(smoothing, (pixels, _mirror(pixels + step, n_in)), value)
    return interpolation @ smoothing


def resize(values: NDArray[Any], side: int) -> Float64:
    """Resize square images ``(..., n, n)`` to ``(..., side, side)`` float64 with :func:`resize_matrix`."""
    pixels = np.asarray(values, dtype=np.float64)
    if pixels.shape[-1] == side:
        return pixels
    matrix = resize_matrix(pixels.shape[-1], side)
    return np.asarray(matrix @ pixels @ matrix.T)


def nisp_on_vis(pixels: int) -> Float64:
    """Matrix (pixels, 66) that puts one axis of a NISP cutout on the central pixels of the VIS cutout, bilinearly.

    The two cutouts share their centre, at VIS pixel 99.5 and NISP pixel 32.5, so pixel i of the crop lies at NISP pixel
    32.5 + (i - (pixels - 1) / 2) / 3. Beyond the centre of NISP's last pixel, that one's value holds.
    """
    from_centre = (np.arange(pixels) - (pixels - 1) / 2) * VIS_PIXEL_SCALE_ARCSEC / NISP_PIXEL_SCALE_ARCSEC
    place = np.clip((NISP_CUTOUT_PIXELS - 1) / 2 + from_centre, 0, NISP_CUTOUT_PIXELS - 1)
    below = np.minimum(np.floor(place).astype(np.int64), NISP_CUTOUT_PIXELS - 2)
    matrix = np.zeros((pixels, NISP_CUTOUT_PIXELS))
    rows = np.arange(pixels)
    matrix[rows, below] = 1.0 - (place - below)
    matrix[rows, below + 1] = place - below
    return matrix


def from_minimum(values: NDArray[Any]) -> Float64:
    """Subtract every image's minimum: changes nothing in min-max, but a constant image stays exactly constant when resized."""
    pixels = np.asarray(values, dtype=np.float64)
    return np.asarray(pixels - pixels.min(axis=(-2, -1), keepdims=True))


def scale_minmax(values: NDArray[Any]) -> Float64:
    """Scale every image to 0..1 by its own minimum and maximum (section 3.1 and the published code).

    Parameters
    ----------
    values
        (..., y, x) pixels of one or more images, any unit, no NaN.

    Returns
    -------
    numpy.ndarray
        Same shape, float64. A constant image becomes 0.
    """
    pixels = np.asarray(values, dtype=np.float64)
    low = pixels.min(axis=(-2, -1), keepdims=True)
    high = pixels.max(axis=(-2, -1), keepdims=True)
    return np.asarray((pixels - low) / np.maximum(high - low, MINMAX_FLOOR))


def scale_asinh_mad(values: NDArray[Any], sky: NDArray[Any], sigma: NDArray[Any]) -> Float64:
    """Scale every image to asinh of its signal-to-noise ratio: x = (asinh(clip((v - sky) / σ, -4, 1000) / 2) + 1.44) / 8.35.

    Does not change when the image, its sky and its σ are multiplied by a common gain.

    Parameters
    ----------
    values
        (..., y, x) pixels of one or more images, any unit, no NaN.
    sky, sigma
        (...) median and robust σ of each image, in the unit of the pixels; σ > 0.

    Returns
    -------
    numpy.ndarray
        Same shape as ``values``, float64, about 0..1.
    """
    centre = np.asarray(sky, dtype=np.float64)[..., None, None]
    unit = np.asarray(sigma, dtype=np.float64)[..., None, None]
    signal = np.clip((np.asarray(values, dtype=np.float64) - centre) / unit, *CLIP_SIGMA)
    return np.asarray((np.arcsinh(signal / SOFTENING_SIGMA) + ASINH_OFFSET) / ASINH_RANGE)


def member_input(
    name: MemberName,
    vis: NDArray[Any],
    nisp: NDArray[Any],
    sky: NDArray[Any] | None,
    sigma: NDArray[Any] | None,
    preprocessing: Preprocessing,
) -> Float64:
    """Compute what one member sees of ``N`` cutouts: the float64 reference of the ONNX graph.

    Every band is scaled once per image side, so that the members can share it. The order matters. ``minmax`` resizes first and
    scales the resized image, as the published networks were trained: only so do their weights give their authors' figures
    (OU-66 on a real group of galaxies: .93, against .85 the other way round). ``asinh_mad`` scales first, on the pixels that
    the sky and σ were measured on, and resizes the result.

    Parameters
    ----------
    name
        The member; its bands and side are :data:`~scanner.records.MEMBER_BANDS` and :data:`~scanner.records.MEMBER_PIXELS`.
    vis, nisp
        (N, 200, 200) and (N, 3, 66, 66; Y, J, H) cutouts without NaN.
    sky, sigma
        (N, 4) median and robust σ of VIS, Y, J, H; ``minmax`` does not need them.
    preprocessing
        ``minmax`` or ``asinh_mad``.

    Returns
    -------
    numpy.ndarray
        (N, channels, side, side) float64.

    Raises
    ------
    ValueError
        Unknown preprocessing, or ``asinh_mad`` without sky and σ.
    """
    if preprocessing not in PREPROCESSINGS:
        raise ValueError(f"unknown preprocessing {preprocessing!r}: one of {', '.join(PREPROCESSINGS)}")
    side = MEMBER_PIXELS[name]
    channels = []
    for band in MEMBER_BANDS[name]:
        position = BANDS.index(band)
        image = vis if band == "VIS" else nisp[:, position - 1]
        if preprocessing == "minmax":
            channels.append(scale_minmax(resize(from_minimum(image), side)))
        elif sky is None or sigma is None:
            raise ValueError("asinh_mad needs the sky and σ of every band")
        else:
            channels.append(resize(scale_asinh_mad(image, sky[:, position], sigma[:, position]), side))
    return np.stack(channels, axis=1)


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
        description="Calibrated log-odds, at the sky's prevalence, from which an object is scored in all orientations.",
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
