"""What lens a real galaxy would be: masses of the simulated population, given the galaxy's magnitude and colour.

In: VIS magnitude and VIS - H colour of a real galaxy, and its shape. Out: a :class:`Deflector` for it, or how well the
population explains such a galaxy at all. The simulated deflectors obey the Faber-Jackson relation with its scatter, so that a
choice among those that look like the galaxy draws the velocity dispersion, both redshifts and θ_E from its magnitude.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from scanner.records import Float64
from scanner.simulation.light.components import total_flux
from scanner.simulation.population.deflectors import Deflector, draw_deflector, mass_of
from scanner.simulation.population.early_types import EarlyType
from scanner.simulation.population.options import Options
from scanner.simulation.telescope.photometry import magnitude

_POPULATION = 2000
#: How far from a galaxy's magnitude and colour its likes may lie: what an aperture of a real galaxy is known to.
MAGNITUDE_SIGMA, COLOUR_SIGMA = 0.15, 0.2
#: A galaxy is taken for a deflector if at least this many of the population look like it (weights of at most one, added up).
FEWEST_LIKES = 3.0


@dataclass(frozen=True)
class Population:
    """Simulated deflectors with what a survey would see of them: VIS magnitude and VIS - H, (K,)."""

    galaxies: tuple[EarlyType, ...]
    deflectors: tuple[Deflector, ...]
    magnitude: Float64
    colour: Float64

    def likes(self, magnitude: float, colour: float) -> Float64:
        """Weight of each member as a likeness of a galaxy, (K,), at most one."""
        miss = ((self.magnitude - magnitude) / MAGNITUDE_SIGMA) ** 2 + ((self.colour - colour) / COLOUR_SIGMA) ** 2
        return np.asarray(np.exp(-0.5 * miss))


@lru_cache(maxsize=2)
def population(options: Options) -> Population:
    """The population to choose from; always the same."""
    rng = np.random.default_rng(20260101)
    drawn = [draw_deflector(rng, options) for _ in range(_POPULATION)]
    light = [total_flux(galaxy.components) for galaxy, _ in drawn]
    vis = np.array([magnitude(item[0], "VIS") for item in light])
    colour = vis - np.array([magnitude(item[3], "H") for item in light])
    return Population(tuple(galaxy for galaxy, _ in drawn), tuple(deflector for _, deflector in drawn), vis, colour)


def explained(magnitudes: Float64, colours: Float64, options: Options) -> Float64:
    """How many of the population look like each of N galaxies, (N,); 0 where a magnitude or colour is not known."""
    everyone = population(options)
    known = np.isfinite(magnitudes) & np.isfinite(colours)
    out = np.zeros(len(magnitudes))
    out[known] = [everyone.likes(*pair).sum() for pair in zip(magnitudes[known], colours[known], strict=True)]
    return out


def choose_deflector(rng: Generator, magnitude: float, colour: float, q: float, angle: float, options: Options) -> Deflector:
    """A mass about the origin for a galaxy of this magnitude, colour and shape (axis ratio; radians from +x to +y)."""
    everyone = population(options)
    weight = everyone.likes(magnitude, colour)
    pick = int(np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), side="right"))
    pick = min(pick, len(weight) - 1)
    twin, like = everyone.galaxies[pick], everyone.deflectors[pick]
    seen = replace(twin, q=q, angle=angle if math.isfinite(angle) else 0.0)
    return replace(like, lens=mass_of(rng, seen, like.lens.theta_e))
