import math

import numpy as np
import pytest

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.deflectors import (
    RADIUS_RANGE,
    background_galaxy,
    draw_clumps,
    source_radius,
)
from scanner.simulation.population.galaxies import (
    fluxes,
    power_law_magnitude,
    power_law_magnitudes,
    source_flux,
)
from scanner.simulation.telescope.noise import magnitude

BANDS = ("VIS", "Y", "J", "H")


def colours(light):
    vis, y, j, h = (magnitude(value, band) for value, band in zip(light, BANDS, strict=True))
    return vis, vis - y, y - j, j - h


def test_fluxes_have_the_colours_asked_for():
    assert colours(fluxes(22.0, 0.8, 0.3, 0.1)) == pytest.approx((22.0, 0.8, 0.3, 0.1))


def test_source_counts_rise_as_stated():
    rng = np.random.default_rng(4)
    drawn = power_law_magnitudes(rng, 21.8, 26.2, 20_000)
    assert drawn.min() >= 21.8
    assert drawn.max() <= 26.2
    counts = np.histogram(drawn, bins=[23.2, 24.2, 25.2, 26.2])[0]
    np.testing.assert_allclose(counts[1:] / counts[:-1], 10**0.3, rtol=0.1)
    assert 21.8 <= power_law_magnitude(rng, 21.8, 26.2) <= 26.2


def test_sources_have_the_sizes_of_the_recipe():
    rng = np.random.default_rng(5)
    radii = np.array([source_radius(rng, power_law_magnitude(rng, 21.8, 26.2)) for _ in range(4000)])
    assert radii.min() >= RADIUS_RANGE[0]
    assert radii.max() <= RADIUS_RANGE[1]
    assert np.median(radii) == pytest.approx(0.28, abs=0.02)
    bright, faint = (np.median([source_radius(rng, m) for _ in range(2000)]) for m in (22.0, 26.0))
    assert bright / faint == pytest.approx(math.exp(0.12 * 4.0), rel=0.12)


def test_colours_of_sources_follow_the_break_through_the_bands():
    rng = np.random.default_rng(6)

    def mean(red, z):
        return np.mean([colours(source_flux(rng, 25.0, red, z))[1:] for _ in range(1500)], axis=0)

    for red in (False, True):
        assert mean(red, 1.2)[0] > mean(red, 2.6)[0] + 0.2  # VIS - Y
        assert mean(red, 1.9)[1] > mean(red, 0.6)[1] + 0.1  # Y - J
        assert mean(red, 2.8)[2] > mean(red, 0.6)[2] + 0.1  # J - H
    # Averaged over the redshifts of sources, the recipe's VIS - Y: 0.15 for blue ones, 1.3 for red ones.
    z = np.minimum(rng.gamma(5.0, 0.42, 3000) + 0.3, 8.0)
    assert np.mean([colours(source_flux(rng, 25.0, False, value))[1] for value in z]) == pytest.approx(0.17, abs=0.05)
    assert np.mean([colours(source_flux(rng, 25.0, True, value))[1] for value in z]) == pytest.approx(1.25, abs=0.1)
    # The forest dims VIS only.
    assert mean(False, 6.0)[0] > mean(False, 4.0)[0] + 0.7


@pytest.mark.parametrize("red", [False, True])
def test_structure_keeps_the_light_of_a_galaxy(red):
    rng = np.random.default_rng(7)
    main = Component(Kind.SERSIC, 0.4, -0.3, (1.0, 2.0, 3.0, 4.0), radius=0.3, q=0.6, angle=0.5)
    kinds = set()
    for _ in range(200):
        parts = background_galaxy(rng, main, red)
        kinds.add(min(len(parts), 3))
        assert (parts[0].x, parts[0].y, parts[0].radius, parts[0].q) == (0.4, -0.3, 0.3, 0.6)
        assert sum(part.flux[0] for part in parts) == pytest.approx(1.0)
        assert 3.0 < sum(part.flux[3] for part in parts) < 5.1
    assert kinds == ({1, 2} if red else {1, 2, 3})


def test_clumps_share_the_light_and_lie_in_their_disc():
    rng = np.random.default_rng(8)
    disc = Component(Kind.SERSIC, 1.0, 2.0, (1.0, 1.0, 1.0, 1.0), radius=0.5, q=0.3, angle=0.7)
    clumps = [clump for _ in range(400) for clump in draw_clumps(rng, disc, (1.0, 2.0, 3.0, 4.0), 5)]
    assert sum(clump.flux[0] for clump in clumps) == pytest.approx(400.0)
    offsets = np.array([(clump.x - 1.0, clump.y - 2.0) for clump in clumps])
    axes = np.array([[math.cos(0.7), math.sin(0.7)], [-math.sin(0.7), math.cos(0.7)]])
    np.testing.assert_allclose((offsets @ axes.T).std(axis=0), [0.75 * 0.5, 0.75 * 0.5 * 0.3], rtol=0.08)
    assert all(0.04 <= clump.radius <= 0.2 for clump in clumps)
