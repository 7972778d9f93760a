import math

import numpy as np
import pytest

from scanner.simulation import lensing
from scanner.simulation.population import classes
from scanner.simulation.population.galaxies import TRAINING, faber_jackson
from scanner.simulation.population.lenses import draw_pairs, draw_paper_object, velocity_dispersion_of
from scanner.simulation.telescope.noise import magnitude

NAMES = ("compound_arc", "double_ring")


def drawn(name, count, seed=0):
    rng = np.random.default_rng(seed)
    return [draw_paper_object(rng, name, "paper") for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_within_table_1(name):
    for item in drawn(name, 200):
        nearer, farther = item.systems
        (front_light,), (rear_light,), (far_light,) = item.components, nearer.source, farther.source
        for light in (front_light, rear_light, far_light):
            assert 0.2 <= light.radius * math.sqrt(light.q) <= 7.0
            assert 1.5 <= light.index <= 4.0  # Table 1: 20; the authors' notebook: 4
            assert 0.3 <= light.q <= 1.0
            assert 0.0 <= light.angle <= math.pi
        offset = 5.0 if name == "compound_arc" else 0.25
        for lens, light in zip(farther.sightline.lenses, (front_light, rear_light), strict=True):
            assert abs(lens.x - far_light.x) <= offset
            assert abs(lens.y - far_light.y) <= offset
            assert (lens.q, lens.angle, lens.x, lens.y) == (light.q, light.angle, light.x, light.y)
            assert abs(lens.gamma1) <= 0.05  # Table 1: 0.5; the notebook: 0.05
            assert abs(lens.gamma2) <= 0.05


def test_arcs_are_offset_by_half_an_einstein_radius_as_in_the_notebook():
    # generateLensPos: uniform within θ_E / 2 of the source along x and y.
    shares = []
    for item in drawn("compound_arc", 300):
        farther = item.systems[1]
        for lens in farther.sightline.lenses:
            shares += [(lens.x - farther.source_x) / lens.theta_e, (lens.y - farther.source_y) / lens.theta_e]
    assert max(map(abs, shares)) <= 0.5
    assert np.std(shares) == pytest.approx(1 / math.sqrt(12), rel=0.1)


def test_the_ranges_of_table_1_are_used_to_their_ends():
    items = drawn("double_ring", 400)
    front, far = [item.components[0] for item in items], [item.systems[1].source[0] for item in items]
    for values, low, high in (
        ([light.radius * math.sqrt(light.q) for light in front], 0.2, 7.0),
        ([light.index for light in far], 1.5, 4.0),
        ([light.q for light in front], 0.3, 1.0),
        ([light.angle for light in front], 0.0, math.pi),
        ([light.x for light in front], -0.25, 0.25),
    ):
        assert min(values) < low + 0.03 * (high - low)
        assert max(values) > high - 0.03 * (high - low)
        assert np.mean(values) == pytest.approx(0.5 * (low + high), abs=0.06 * (high - low))


def test_redshifts_and_magnitudes_come_in_pairs_and_give_the_masses():
    # Generate_Lens_System_Mag_Z_2 and Get_Theta_E_From_Velo_Dist of the notebook.
    rng = np.random.default_rng(8)
    for _ in range(100):
        front, rear, far = draw_pairs(rng)
        assert front.z < rear.z < 3.0 < far.z
        for pair in (front, rear):
            absolute = pair.magnitude - float(lensing.distance_modulus(pair.z))
            assert faber_jackson(velocity_dispersion_of(pair)) == pytest.approx(absolute)
    for item in drawn("compound_arc", 30, seed=3):
        assert magnitude(item.components[0].flux[0], "VIS") < 30
        assert not item.systems[1].red_source


@pytest.mark.parametrize("name", NAMES)
def test_equation_1_two_thirds_and_the_middle_galaxy_behind_the_front_one(name):
    objects = drawn(name, 600)
    heavier = np.mean([item.systems[0].sigma_v_kms > item.systems[1].sigma_v_kms for item in objects])
    assert heavier == pytest.approx(2.0 / 3.0, abs=4.0 * math.sqrt(2.0 / 9.0 / 600))
    for item in objects[:50]:
        nearer, farther = item.systems
        for system in (nearer, farther):
            expected = lensing.einstein_radius_arcsec(system.sigma_v_kms, system.z_lens, system.z_source)
            assert system.lens.theta_e == pytest.approx(float(expected), rel=1e-9)
        assert nearer.source[0].seen_through == nearer.sightline
        assert nearer.z_source == farther.z_lens


@pytest.mark.parametrize("name", NAMES)
def test_physical_parameters_are_the_fast_generators_objects(name):
    pair = (
        draw_paper_object(np.random.default_rng(3), name, "physical"),
        classes.draw_object(np.random.default_rng(3), name, TRAINING),
    )
    assert pair[0] == pair[1]


def test_a_seed_is_an_object_and_other_classes_are_refused():
    assert drawn("double_ring", 2, seed=4) == drawn("double_ring", 2, seed=4)
    with pytest.raises(KeyError):
        draw_paper_object(np.random.default_rng(0), "lens", "paper")
