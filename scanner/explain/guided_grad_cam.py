"""Guided Grad-CAM at the last convolution, its ReLU applied (section 5.6; Selvaraju et al. 2017), by captum."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.networks import LENS
from scanner.records import Float32

with warnings.catch_warnings():
    # tqdm, which captum imports, misses the widgets of notebooks; captum's bars are never shown.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from captum.attr import GuidedGradCam

#: "when the pixel value in that position in the Guided Grad-CAM image is greater than or equal to 0.05".
SHOWN_FROM = 0.05


def last_feature_maps(network: nn.Sequential) -> nn.Module:
    """The layer whose feature maps Grad-CAM weighs: the ReLU after the last convolution (layer 20 of OU-200, 27 of OU-66).

    "All the feature maps in the last convolutional layer with ReLU applied": before the ReLU, kernels that do not respond count
    with their negative values, and the map is often empty.

    Raises
    ------
    ValueError
        The network has no convolution that a ReLU follows.
    """
    for layer, following in reversed(list(pairwise(network))):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.ReLU):
            return following
    raise ValueError("the network has no convolution that a ReLU follows")


def guided_grad_cam(network: nn.Sequential, images: torch.Tensor, *, target: int = LENS) -> Float32:
    """Which pixels of each channel speak for a class: guided back-propagation times Grad-CAM.

    Grad-CAM is enlarged to the image by bilinear interpolation, as the paper enlarges smoothly; captum's default is in blocks.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`; its ReLUs are hooked while this runs, so one thread at a time.
    images
        (N, channels, side, side) as the network sees them.
    target
        Class, by number of the logit.

    Returns
    -------
    numpy.ndarray
        (N, channels, side, side) float32, in units of the logit over a unit of the image.

    Raises
    ------
    ValueError
        The network has no convolution that a ReLU follows.
    """
    method = GuidedGradCam(network, last_feature_maps(network))
    with warnings.catch_warnings():
        # That hooks are set, and taken away again, is what was asked for.
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU", category=UserWarning)
        found = method.attribute(images.detach().clone().requires_grad_(), target=target, interpolate_mode="bilinear")
    return np.asarray(found.detach().numpy(), dtype=np.float32)


def strength(attribution: Float32) -> Float32:
    """What speaks for the class in any channel, in units of the image's largest value.

    The paper does not say in what unit its limit of 0.05 is. A gradient has the unit of the logit, which differs between
    bundles.

    Parameters
    ----------
    attribution
        (N, channels, side, side) of :func:`guided_grad_cam`.

    Returns
    -------
    numpy.ndarray
        (N, side, side) float32, 0..1; all 0 where no pixel speaks for the class.
    """
    positive = np.maximum(attribution, 0.0).max(axis=1)
    largest = positive.max(axis=(1, 2), keepdims=True)
    return np.asarray(positive / np.where(largest > 0.0, largest, 1.0), dtype=np.float32)


def shown(attribution: Float32, limit: float = SHOWN_FROM) -> NDArray[np.bool_]:
    """The pixels that Fig. 17 shows, (N, side, side) bool: those of :func:`strength` ``limit`` or more."""
    return np.asarray(strength(attribution) >= limit)
