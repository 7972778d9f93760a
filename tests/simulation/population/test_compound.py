import math
from functools import cache

import numpy as np
import pytest

from scanner.simulation import lensing
from scanner.simulation.lensing import Lens, Sightline, find_images, trace
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.galaxies import TRAINING, Options, System
from scanner.simulation.population.lenses import (
    ARC_OFFSETS,
    HEAVIER_IN_FRONT,
    RING_OFFSETS,
    LineOfSight,
    compound_arc,
    compound_systems,
    double_ring,
    draw_line_of_sight,
)

CLASSES = {"compound_arc": (compound_arc, ARC_OFFSETS), "double_ring": (double_ring, RING_OFFSETS)}


@cache
def _stream(name, seed, options):
    return np.random.default_rng(seed), []


def drawn(name, count, seed=0, options=TRAINING):
    """The first objects of a seed; those that a test has drawn before are not drawn again."""
    rng, objects = _stream(name, seed, options)
    objects += [CLASSES[name][0](rng, options) for _ in range(len(objects), count)]
    return objects[:count]


@pytest.mark.parametrize("name", CLASSES)
def test_two_sources_of_which_the_nearer_is_a_deflector_too(name):
    for item in drawn(name, 50):
        assert item.class_name == name
        nearer, farther = item.systems
        front, rear = farther.sightline.lenses
        assert len(nearer.sightline.lenses) == 1
        assert 0.0 < nearer.z_lens < nearer.z_source == farther.z_lens < farther.z_source
        assert (rear.x, rear.y) == (nearer.source_x, nearer.source_y)
        assert (front.x, front.y) == (nearer.lens.x, nearer.lens.y) == (0.0, 0.0)
        assert all(c.seen_through == nearer.sightline for c in nearer.source)
        assert all(c.seen_through == farther.sightline for c in farther.source)
        assert all(c.seen_through is None for c in item.components)


@pytest.mark.parametrize("name", CLASSES)
def test_einstein_radii_are_those_of_equation_1_for_each_source(name):
    for item in drawn(name, 50):
        nearer, farther = item.systems
        front, rear = farther.sightline.lenses
        expected = lensing.einstein_radius_arcsec(
            [nearer.sigma_v_kms, nearer.sigma_v_kms, farther.sigma_v_kms],
            [nearer.z_lens, nearer.z_lens, farther.z_lens],
            [nearer.z_source, farther.z_source, farther.z_source],
        )
        np.testing.assert_allclose([nearer.lens.theta_e, front.theta_e, rear.theta_e], expected, rtol=1e-9)
        # Shear from afar grows with the distance of what it acts on as deflection does.
        assert nearer.lens.gamma1 == pytest.approx(farther.sightline.couplings[0] * front.gamma1)


@pytest.mark.parametrize("name", CLASSES)
def test_offsets_are_within_the_range_of_the_class(name):
    low, high = CLASSES[name][1]
    for item in drawn(name, 50):
        nearer, farther = item.systems
        front, rear = farther.sightline.lenses
        assert low - 1e-9 <= nearer.source_offset / nearer.lens.theta_e <= high + 1e-9
        weight = rear.theta_e / (front.theta_e + rear.theta_e)
        offset = math.hypot(farther.source_x - weight * rear.x, farther.source_y - weight * rear.y) / front.theta_e
        assert low - 1e-9 <= offset <= high + 1e-9


@pytest.mark.parametrize("survey", [False, True])
def test_the_nearer_galaxy_is_heavier_two_thirds_of_the_time(survey):
    rng = np.random.default_rng(0)
    lines = [draw_line_of_sight(rng, Options(survey=survey)) for _ in range(1000)]
    heavier = np.mean([line.sigma_front_kms > line.sigma_rear_kms for line in lines])
    assert heavier == pytest.approx(HEAVIER_IN_FRONT, abs=4.0 * math.sqrt(2.0 / 9.0 / 1000))


def test_heavier_galaxies_are_brighter_as_faber_and_jackson_say():
    speed, absolute = [], []
    for item in drawn("double_ring", 150):
        far = item.systems[0]
        if far.red_source:
            z = far.z_source
            k_correction = 0.05 + 1.05 * z + 0.25 * min(z, 1.5) ** 2
            absolute.append(far.source_magnitude - float(lensing.distance_modulus(z)) - k_correction)
            speed.append(math.log10(item.systems[1].sigma_v_kms / 220.0))
    slope, zero = np.polyfit(speed, absolute, 1)
    assert slope == pytest.approx(-10.0, abs=1.0)
    assert zero == pytest.approx(-22.3, abs=0.1)


@pytest.mark.parametrize("name", CLASSES)
def test_both_sources_are_multiply_imaged(name):
    for item in drawn(name, 40, seed=1):
        assert all(find_images(s.source_x, s.source_y, s.sightline).count[0] > 1 for s in item.systems)


def test_the_rings_of_the_jackpot_have_its_radii():
    # SDSS J0946+1006 (Gavazzi et al. 2008): deflectors of 287 and about 100 km/s, rings of 1.43" and 2.07".
    line = LineOfSight(z_front=0.222, z_rear=0.609, z_far=2.4, sigma_front_kms=287.0, sigma_rear_kms=100.0)
    front, rear = (Lens(theta_e, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0) for theta_e in (line.front_theta_e, line.rear_theta_e))
    small = Component(Kind.SERSIC, 0.0, 0.0, (1.0, 1.0, 1.0, 1.0), radius=0.04)
    behind = Sightline((front,))
    far = System((small,), behind, 0.222, 2.4, 287.0, 24.6, 0.0, 0.0, False)
    systems = compound_systems(line, front, rear, [small], far, quiescent=False)
    raster = scene.centred_raster(80, 0.1)
    rings = scene.render([system.source for system in systems], raster, ("VIS",))[:, 0]
    x, y = np.meshgrid(*2 * (raster.x0 + raster.scale * np.arange(80),))
    nearer, farther = (float(np.sum(ring * np.hypot(x, y)) / np.sum(ring)) for ring in rings)
    assert nearer == pytest.approx(systems[0].lens.theta_e, abs=0.02)
    assert nearer == pytest.approx(1.43, abs=0.03)
    # Behind round, aligned deflectors the deflections add up.
    assert farther == pytest.approx(front.theta_e + rear.theta_e, abs=0.02)
    assert farther == pytest.approx(2.07, abs=0.15)


@pytest.mark.parametrize("name", CLASSES)
def test_images_found_are_where_the_light_comes_from(name):
    for item in drawn(name, 10):
        for system in item.systems:
            images = find_images(system.source_x, system.source_y, system.sightline)
            seen = slice(0, int(images.count[0]))
            x, y = trace(images.x[0, seen], images.y[0, seen], system.sightline)
            np.testing.assert_allclose(x, system.source_x, atol=1e-7)
            np.testing.assert_allclose(y, system.source_y, atol=1e-7)


def test_a_seed_is_an_object():
    assert drawn("compound_arc", 3, seed=5) == drawn("compound_arc", 3, seed=5)
    assert drawn("compound_arc", 3, seed=5) != drawn("double_ring", 3, seed=5)


def test_a_survey_holds_smaller_ones():
    rng = np.random.default_rng(0)
    lines = {survey: [draw_line_of_sight(rng, Options(survey=survey)) for _ in range(300)] for survey in (False, True)}
    smallest = {survey: min(line.coupling * line.front_theta_e for line in those) for survey, those in lines.items()}
    assert smallest[False] > 0.5 > smallest[True] > 0.3


def test_moving_moves_everything():
    item = drawn("compound_arc", 1)[0]
    far = item.systems[1]
    there = far.moved(1.5, -2.0)
    for before, after in zip(far.sightline.lenses, there.sightline.lenses, strict=True):
        assert (after.x, after.y) == pytest.approx((before.x + 1.5, before.y - 2.0))
    assert there.source[0].seen_through == there.sightline
    assert there.source_offset == pytest.approx(far.source_offset)
