"""The classes of labelled objects: lenses, and everything that has been mistaken for one.

A class says what was *drawn*; the label says whether it is a lens by the paper's definition
(:mod:`~scanner.simulation.population.truth`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import total_flux
from scanner.simulation.population import discs, lenses, neighbours
from scanner.simulation.population.galaxies import TRAINING, LabelledObject, Options
from scanner.simulation.population.neighbours import draw_field_galaxy, draw_stars, isotropic
from scanner.simulation.telescope.noise import magnitude

#: Share of each class among the non-lenses of a mosaic.
NON_LENS_MIX: dict[str, float] = {
    "elliptical": 0.18,
    "companion": 0.13,
    "tangential": 0.12,
    "near_lens": 0.09,
    "spiral": 0.16,
    "merger": 0.07,
    "edge_on": 0.06,
    "ring": 0.06,
    "group": 0.04,
    "cluster": 0.02,
    "star": 0.03,
    "artefact": 0.02,
    "empty": 0.02,
}
LENS = "lens"
CLASSES = (LENS, "quasar_lens", "compound_arc", "double_ring", *NON_LENS_MIX, "beside_lens")
#: Classes whose galaxy has the wide sky's satellites added; massive galaxies have theirs already.
_ADD_SATELLITES = ("spiral", "merger", "edge_on", "ring")


def draw_object(rng: Generator, class_name: str, options: Options = TRAINING) -> LabelledObject:
    """Draw one object of a class.

    Raises
    ------
    KeyError
        No such class.
    """
    drawn = _DRAW[class_name](rng, options)
    if options.wide and class_name in _ADD_SATELLITES:
        vis = magnitude(total_flux(drawn.components)[0], "VIS")
        return replace(drawn, components=drawn.components + isotropic(rng, vis))
    return drawn


def draw_class(rng: Generator, mix: Mapping[str, float]) -> str:
    """Class of one object; ``mix``: share of each class, in any unit."""
    edges = np.cumsum(list(mix.values()))
    return list(mix)[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(edges) - 1)]


def _empty(rng: Generator, options: Options) -> LabelledObject:
    return LabelledObject("empty", [])


def _artefact(rng: Generator, options: Options) -> LabelledObject:
    """What stands under a detector artefact, which the telescope adds: nothing, or a faint galaxy."""
    galaxy = draw_field_galaxy(rng, 0.0, 0.0, rng.uniform(22.0, 25.5)) if rng.random() < 0.5 else []
    return LabelledObject("artefact", galaxy)


def _star(rng: Generator, options: Options) -> LabelledObject:
    return LabelledObject("star", draw_stars(rng, rng.uniform(15.0, 22.5)))


_DRAW: dict[str, Callable[[Generator, Options], LabelledObject]] = {
    LENS: lenses.single_lens,
    "quasar_lens": lenses.quasar_lens,
    "compound_arc": lenses.compound_arc,
    "double_ring": lenses.double_ring,
    "near_lens": lenses.near_lens,
    "beside_lens": lenses.beside_lens,
    "elliptical": lenses.elliptical,
    "companion": lenses.with_companions,
    "tangential": lenses.tangential,
    "spiral": discs.spiral,
    "merger": neighbours.merger,
    "edge_on": discs.edge_on,
    "ring": discs.ring,
    "group": neighbours.group,
    "cluster": neighbours.cluster,
    "star": _star,
    "artefact": _artefact,
    "empty": _empty,
}
