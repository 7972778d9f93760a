"""The classes of labelled objects: lenses, and everything that has been mistaken for one.

In: a class name and a random generator. Out: a ``LabelledObject`` about the origin. A class says what was *drawn*; the label
says whether it is a lens by the paper's definition (:mod:`~scanner.simulation.population.labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator

from scanner.simulation.population import discs, massive_galaxies
from scanner.simulation.population.field import draw_star
from scanner.simulation.population.options import TRAINING, Options
from scanner.simulation.population.system import LabelledObject

#: Share of each class among the non-lenses.
NON_LENS_MIX: dict[str, float] = {
    "elliptical": 0.19,
    "companion": 0.14,
    "tangential": 0.13,
    "near_lens": 0.10,
    "spiral": 0.17,
    "merger": 0.08,
    "edge_on": 0.07,
    "ring": 0.06,
    "empty": 0.03,
    "star": 0.03,
}
LENS = "lens"
CLASSES = (LENS, *NON_LENS_MIX)


def draw_object(rng: Generator, class_name: str, options: Options = TRAINING) -> LabelledObject:
    """Draw one object of a class.

    Raises
    ------
    KeyError
        No such class.
    """
    return _DRAW[class_name](rng, options)


def mix_of(lens_fraction: float) -> dict[str, float]:
    """Lenses at ``lens_fraction``, everything else in the proportions of :data:`NON_LENS_MIX`."""
    return {LENS: lens_fraction} | {name: (1.0 - lens_fraction) * share for name, share in NON_LENS_MIX.items()}


def draw_class(rng: Generator, mix: Mapping[str, float]) -> str:
    """Class of one object; ``mix``: share of each class, in any unit."""
    edges = np.cumsum(list(mix.values()))
    return list(mix)[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(edges) - 1)]


def _empty(rng: Generator, options: Options) -> LabelledObject:
    return LabelledObject("empty", [])


def _star(rng: Generator, options: Options) -> LabelledObject:
    return LabelledObject("star", [draw_star(rng, 0.0, 0.0, rng.uniform(16.0, 22.5))])


_DRAW: dict[str, Callable[[Generator, Options], LabelledObject]] = {
    LENS: massive_galaxies.lens,
    "near_lens": massive_galaxies.near_lens,
    "elliptical": massive_galaxies.elliptical,
    "companion": massive_galaxies.with_companions,
    "tangential": massive_galaxies.tangential,
    "spiral": discs.spiral,
    "merger": discs.merger,
    "edge_on": discs.edge_on,
    "ring": discs.ring,
    "empty": _empty,
    "star": _star,
}
