import math

import numpy as np
import pytest

from scanner.simulation.light.components import Kind
from scanner.simulation.population import discs, neighbours
from scanner.simulation.population.galaxies import TRAINING
from scanner.simulation.telescope.noise import magnitude


def test_galaxies_that_are_looked_at_are_as_bright_as_deflectors():
    rng = np.random.default_rng(0)
    drawn = np.array([discs.main_magnitude(rng) for _ in range(4000)])
    assert np.median(drawn) == pytest.approx(21.0, abs=0.08)
    assert drawn.min() >= 17.8
    assert drawn.max() <= 23.3
    for vis, radius in ((21.0, 0.85), (19.0, 1.48)):
        assert np.median([discs.disc_radius(rng, vis) for _ in range(2000)]) == pytest.approx(radius, rel=0.05)


def test_a_spiral_has_the_magnitude_asked_for_and_blue_arms_over_a_red_disc():
    rng = np.random.default_rng(1)
    contrast = []
    for _ in range(200):
        parts = discs.spiral_light(rng, 20.5)
        assert magnitude(sum(part.flux[0] for part in parts), "VIS") == pytest.approx(20.5, abs=0.12)  # no knots: less
        disc, arms = parts[0], parts[1]
        assert disc.kind is arms.kind is Kind.SPIRAL
        contrast.append(2.5 * math.log10(disc.flux[3] / disc.flux[0] / (arms.flux[3] / arms.flux[0])))
    assert min(contrast) > 0.3
    assert np.mean(contrast) == pytest.approx(0.975, abs=0.1)  # 1.5 (0.4 + 0.25) mag in VIS - H


def test_knots_lie_on_the_arms():
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(300):
        parts = discs.spiral_light(rng, 20.0)
        arms = [part for part in parts if part.kind is Kind.SPIRAL]
        if len(arms) != 2:
            continue  # flocculent: many arms that disagree
        pattern = arms[1]
        c, s = math.cos(pattern.angle), math.sin(pattern.angle)
        for knot in parts:
            # Small, and off the middle: bulges and bars are in it.
            if knot.kind is Kind.SERSIC and (knot.x or knot.y):
                dx, dy = knot.x - pattern.x, knot.y - pattern.y
                along, across = c * dx + s * dy, (c * dy - s * dx) / pattern.q
                phase = math.atan2(across, along) - pattern.phase - pattern.winding * math.log(math.hypot(along, across))
                off = math.remainder(pattern.arms * phase, 2.0 * math.pi) / pattern.arms
                assert abs(off) < 5.0 * 0.12
                found += 1
    assert found > 200


def test_dust_lanes_are_gaps_that_the_infrared_fills():
    rng = np.random.default_rng(3)
    lanes = 0
    for _ in range(300):
        parts = discs.edge_on(rng, TRAINING).components
        upper, lower = parts[:2]
        if upper.q != lower.q or (upper.x, upper.y) == (0.0, 0.0):
            continue
        middle = parts[2]
        lanes += 1
        assert (upper.x, upper.y) == pytest.approx((-lower.x, -lower.y))
        # Apart across the disc, not along it.
        assert abs(math.cos(upper.angle) * upper.x + math.sin(upper.angle) * upper.y) < 1e-9
        vis, h = (sum(part.flux[band] for part in (upper, lower, middle)) for band in (0, 3))
        assert middle.flux[0] / vis < 0.08
        assert middle.flux[3] / h > 1.5 * middle.flux[0] / vis
    assert lanes / 300 == pytest.approx(0.5, abs=0.1)


def test_tails_begin_at_a_galaxy_and_fade():
    rng = np.random.default_rng(4)
    for _ in range(100):
        parts = neighbours.merger(rng, TRAINING).components
        tails = [part for part in parts if part.kind is Kind.ANNULUS]
        assert len(tails) in (2, 4, 6)
        for near, far in zip(tails[::2], tails[1::2], strict=True):
            assert far.flux[0] < near.flux[0]
            assert far.width > near.width
            assert abs(far.phase) > abs(near.phase)
            # The circle of the tail passes through its base: one of the two galaxies.
            base = (near.x + near.radius * math.cos(near.angle), near.y + near.radius * math.sin(near.angle))
            others = [part for part in parts if part.kind is not Kind.ANNULUS]
            assert min(math.hypot(base[0] - part.x, base[1] - part.y) for part in others) < 1e-6


def test_rings_are_of_every_kind():
    rng = np.random.default_rng(5)
    radii, ratios, halves = [], [], 0
    for _ in range(400):
        parts = [part for part in discs.ring(rng, TRAINING).components if part.kind is Kind.ANNULUS]
        radii.append(parts[0].radius)
        ratios.append(parts[0].q)
        halves += len(parts) == 2
    assert halves / 400 == pytest.approx(0.2, abs=0.05)  # collisional ones are brighter on one side
    assert np.mean(np.array(ratios) < 0.45) == pytest.approx(0.17, abs=0.05)  # polar ones are seen from their edge
    assert 0.5 < np.median(radii) < 1.6
