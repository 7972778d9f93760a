import math

import numpy as np
import pytest

from scanner.simulation.light.components import Kind
from scanner.simulation.population.neighbours import (
    FIELD_DENSITY,
    STAR_DENSITY,
    UNSEEN_DENSITY,
    draw_field,
    draw_field_galaxy,
    draw_star,
    draw_stars,
    galaxy_radii,
)
from scanner.simulation.telescope.noise import magnitude


def test_the_field_is_as_dense_as_stated_and_covers_its_square():
    rng = np.random.default_rng(0)
    drawn = [draw_field(rng, 12.0) for _ in range(60)]
    stars = sum(part.kind is Kind.POINT for field in drawn for part in field)
    area = 60 * 24.0**2
    assert stars == pytest.approx(STAR_DENSITY * area, abs=4.0 * math.sqrt(STAR_DENSITY * area))
    galaxies = [(part, magnitude(part.flux[0], "VIS")) for field in drawn for part in field if part.kind is not Kind.POINT]
    unseen = sum(vis > 27.0 for _, vis in galaxies)
    assert 0.95 * UNSEEN_DENSITY * area < unseen < 1.25 * UNSEEN_DENSITY * area  # with the clumps of brighter ones
    # Faint galaxies are one profile each: VIS 25 to 27 holds 1 - 10^-0.6 of the counts.
    faint = [part for part, vis in galaxies if 25.0 < vis < 27.0]
    expected = FIELD_DENSITY * area * (1.0 - 10.0**-0.6)
    assert expected < len(faint) < 1.5 * expected  # and some clumps and bulges of brighter ones
    places = np.array([(part.x, part.y) for part in faint])
    assert np.abs(places).max() < 13.5
    np.testing.assert_allclose(places.mean(axis=0), 0.0, atol=0.8)
    np.testing.assert_allclose(places.std(axis=0), 12.0 / math.sqrt(3.0), rtol=0.05)


def test_sizes_shrink_with_brightness():
    rng = np.random.default_rng(1)
    for vis, radius in ((20.0, 0.825), (23.0, 0.36), (26.0, 0.157)):
        radii = galaxy_radii(rng, np.full(4000, vis))
        assert np.median(radii) == pytest.approx(radius, rel=0.04)
        assert np.std(np.log10(radii)) == pytest.approx(0.22, abs=0.02)


@pytest.mark.parametrize("vis", [19.5, 23.0, 26.0])
def test_a_field_galaxy_has_the_magnitude_asked_for(vis):
    rng = np.random.default_rng(2)
    for _ in range(100):
        parts = draw_field_galaxy(rng, 3.0, -2.0, vis)
        assert magnitude(sum(part.flux[0] for part in parts), "VIS") == pytest.approx(vis, abs=1e-6)
        assert all(math.hypot(part.x - 3.0, part.y + 2.0) < 6.0 * parts[0].radius + 0.1 for part in parts)


def test_stars_cool_towards_faint_magnitudes_and_some_are_double():
    rng = np.random.default_rng(3)

    def vis_h(vis):
        flux = draw_star(rng, 0.0, 0.0, vis).flux
        return magnitude(flux[0], "VIS") - magnitude(flux[3], "H")

    bright, faint = (np.mean([vis_h(vis) for _ in range(500)]) for vis in (16.0, 23.0))
    assert 0.2 < bright < 0.6
    assert 0.7 < faint < 1.3
    doubles = [stars for stars in (draw_stars(rng, 18.0) for _ in range(1000)) if len(stars) == 2]
    assert len(doubles) / 1000 == pytest.approx(0.2, abs=0.04)
    distances = [math.hypot(second.x, second.y) for _, second in doubles]
    assert min(distances) >= 0.12
    assert max(distances) <= 3.0
