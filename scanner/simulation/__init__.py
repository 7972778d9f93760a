"""Simulated Euclid-like imaging: labelled cutouts to train on, mosaics to scan, both from one renderer.

Light goes down this list, and a folder imports only from those above it: ``lensing`` bends it, ``telescope`` says what a
camera makes of it, ``light`` draws components on pixels, ``population`` says what is on the sky, ``datasets`` and ``mosaics``
write files.
"""

from __future__ import annotations

from typing import Literal, get_args

#: How objects are drawn: what each means is a :class:`~scanner.simulation.datasets.presets.Preset`.
PresetName = Literal[
    "train",
    "train-wide",
    "quick",
    "eval",
    "survey",
    "hard-negatives",
    "compound-arc",
    "double-ring",
    "red-sources",
    "quasars",
    "challenge",
    "wide-lenses",
    "invisible-deflectors",
    "bright-deflectors",
    "whole-rings",
    "other-telescopes",
]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)
#: What traces the rays, and what computes the pixels.
GeneratorName = Literal["fast", "lenstronomy"]
DeviceName = Literal["cpu", "cuda"]
#: Compound lenses as physics has them, or as Table 1 of Wilde et al. (2022) has them.
Parameters = Literal["paper", "physical"]
#: Where lenses are painted: beside real galaxies, whole lenses into empty sky, or both.
Ground = Literal["galaxies", "sky", "both"]
