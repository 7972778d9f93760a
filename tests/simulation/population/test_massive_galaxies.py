import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from scanner.simulation import lensing
from scanner.simulation.lensing import find_images
from scanner.simulation.light.components import Kind
from scanner.simulation.population import classes, lenses, neighbours
from scanner.simulation.population.deflectors import (
    GALAXY_SIGMA_RANGE,
    MAX_OFFSET,
    NEAR_LENS_OFFSET,
    draw_deflector,
    magnitude_of,
)
from scanner.simulation.population.galaxies import TRAINING, Options, System, early_type, faber_jackson, velocity_dispersion
from scanner.simulation.population.neighbours import FIELD_DENSITY, LARGEST_SHEAR, members
from scanner.simulation.telescope.noise import magnitude

AROUND_DEFLECTORS = ("lens", "near_lens", "elliptical", "companion", "tangential")
WIDE = Options(wide=True, flat_share=1.0)


def main_galaxies(name, count, seed, options=TRAINING):
    """Magnitude, size, index, axis ratio and two colours of the first profile of each object, (N, 6)."""
    rng = np.random.default_rng(seed)
    first = [classes.draw_object(rng, name, options).components[0] for _ in range(count)]
    rows = []
    for part in first:
        vis, y, _, h = (magnitude(value, band) for value, band in zip(part.flux, ("VIS", "Y", "J", "H"), strict=True))
        rows.append((vis, part.radius, part.index, part.q, vis - y, vis - h))
    return np.array(rows)


@pytest.mark.parametrize("options", [TRAINING, Options(wide=True, flat_share=0.5)], ids=["narrow", "wide"])
def test_the_galaxy_in_the_middle_tells_nothing_of_the_class(options):
    # Kolmogorov-Smirnov on each quantity: with 4 classes and 6 quantities the smallest of 24 is above 1e-3 in 98% of cases.
    lenses = main_galaxies("lens", 700, 1, options)
    for number, name in enumerate(AROUND_DEFLECTORS[1:]):
        others = main_galaxies(name, 700, 10 + number, options)
        for column in range(lenses.shape[1]):
            assert ks_2samp(lenses[:, column], others[:, column]).pvalue > 1e-3, (name, column)


def test_sources_of_lenses_and_near_lenses_are_alike():
    def sources(name, seed):
        rng = np.random.default_rng(seed)
        systems = [classes.draw_object(rng, name).systems[0] for _ in range(600)]
        return np.array([(s.source_magnitude, s.source[0].radius, s.source[0].q, s.z_source, s.lens.theta_e) for s in systems])

    lenses, near = sources("lens", 3), sources("near_lens", 4)
    for column in range(lenses.shape[1]):
        assert ks_2samp(lenses[:, column], near[:, column]).pvalue > 1e-3, column


def test_deflectors_have_the_einstein_radii_of_the_recipe():
    rng = np.random.default_rng(3)
    drawn = [draw_deflector(rng, TRAINING) for _ in range(800)]
    theta = np.array([deflector.lens.theta_e for _, deflector in drawn])
    assert theta.min() > 0.5
    assert theta.max() < 3.0
    # 5, 50, 95%: .54, .90, 1.70 in the recipe.
    np.testing.assert_allclose(np.percentile(theta, [5, 50, 95]), [0.54, 0.90, 1.70], rtol=0.1)
    galaxy, deflector = drawn[0]
    radius = lensing.einstein_radius_arcsec(deflector.sigma_v_kms, deflector.z_lens, deflector.z_source)
    assert deflector.lens.theta_e == pytest.approx(float(radius), rel=1e-12)
    assert galaxy.z == deflector.z_lens
    # Brightness follows the mass: Faber-Jackson with 0.35 mag of scatter.
    off = [found.magnitude - magnitude_of(mass.sigma_v_kms, mass.z_lens) for found, mass in drawn]
    assert np.mean(off) == pytest.approx(0.0, abs=0.04)
    assert np.std(off) == pytest.approx(0.35, abs=0.03)


def test_surveys_hold_smaller_lenses():
    rng = np.random.default_rng(4)
    theta = np.array([draw_deflector(rng, Options(survey=True))[1].lens.theta_e for _ in range(400)])
    assert 0.3 < theta.min() < 0.35
    assert np.mean(theta < 0.5) > 0.15


def test_magnitudes_and_colours_of_old_galaxies():
    assert faber_jackson(220.0) == pytest.approx(-22.3)
    assert faber_jackson(velocity_dispersion(-21.0)) == pytest.approx(-21.0)
    # -22.3 + 42.27 + (0.05 + 0.525 + 0.0625) at z = 0.5.
    assert magnitude_of(220.0, 0.5) == pytest.approx(-22.3 + 42.265 + 0.6375, abs=0.01)
    assert magnitude_of(220.0, 0.5, scatter_mag=0.4) == pytest.approx(magnitude_of(220.0, 0.5) + 0.4)
    rng = np.random.default_rng(5)
    for z, vis_y in ((0.05, 0.71), (0.5, 1.22), (1.0, 1.80)):
        drawn = [early_type(rng, z, -22.3) for _ in range(300)]
        colours = [magnitude(g.components[0].flux[0], "VIS") - magnitude(g.components[0].flux[1], "Y") for g in drawn]
        assert np.mean(colours) == pytest.approx(vis_y, abs=0.02)
        assert np.std(colours) == pytest.approx(0.08, abs=0.015)
    # Smaller in the past, at the same luminosity: (1+z)^-1.1 in kpc.
    near, far = (np.median([early_type(rng, z, -22.3).radius for _ in range(400)]) for z in (0.3, 0.9))
    kpc = [float(radius / lensing.arcsec_per_kpc(z)) for radius, z in ((near, 0.3), (far, 0.9))]
    assert kpc[1] / kpc[0] == pytest.approx((1.9 / 1.3) ** -1.1, rel=0.06)
    assert kpc[0] == pytest.approx(10**0.64, rel=0.06)


def test_light_of_an_early_type_adds_up():
    rng = np.random.default_rng(6)
    for _ in range(200):
        galaxy = early_type(rng, 0.6, -22.5)
        total = sum(part.flux[0] for part in galaxy.components)
        # Shells add a few per cent.
        assert -0.1 < magnitude(total, "VIS") - galaxy.magnitude < 1e-9


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_as_many_have_shells_as_are_asked_for_lenses_or_not(share):
    for draw in (lenses.single_lens, lenses.elliptical):
        rng = np.random.default_rng(8)
        shelled = []
        for _ in range(200):
            parts = draw(rng, Options(shell_fraction=share)).components
            # Neighbours have shells, too, but not about the origin.
            shells = [part for part in parts if part.kind is Kind.ANNULUS and (part.x, part.y) == (0.0, 0.0)]
            assert sum(part.flux[0] for part in shells) < 0.1 * sum(part.flux[0] for part in parts)
            shelled.append(bool(shells))
        assert np.mean(shelled) == pytest.approx(share, abs=0.11)


def test_sources_stand_where_their_class_says():
    rng = np.random.default_rng(7)
    for _ in range(200):
        lens: System = lenses.single_lens(rng, TRAINING).systems[0]
        assert lens.source_offset <= MAX_OFFSET * lens.lens.theta_e
        near: System = lenses.near_lens(rng, TRAINING).systems[0]
        assert near.source_offset > NEAR_LENS_OFFSET[0] * near.lens.theta_e
        assert near.z_source > near.z_lens


def test_red_sources_are_as_many_as_asked_for():
    rng = np.random.default_rng(8)
    for share in (0.0, 0.18, 1.0):
        options = Options(red_source_fraction=share)
        red = [lenses.single_lens(rng, options).systems[0].red_source for _ in range(400)]
        assert np.mean(red) == pytest.approx(share, abs=0.05)


def test_a_group_pulls_along_the_direction_to_its_members():
    rng = np.random.default_rng(9)
    galaxy, deflector = draw_deflector(rng, TRAINING)
    for _ in range(50):
        around = members(rng, galaxy, 1, (3.0, 3.0), deflector.z_source)
        x, y = around.components[0].x, around.components[0].y
        size = math.hypot(around.gamma1, around.gamma2)
        assert 0.0 < size <= LARGEST_SHEAR + 1e-12
        turn = math.atan2(y, x)
        assert around.gamma1 == pytest.approx(-size * math.cos(2.0 * turn), abs=0.25 * size)
    assert members(rng, galaxy, 3, (2.0, 5.0)).gamma1 == 0.0


def test_one_in_five_massive_galaxies_stands_in_a_group():
    rng = np.random.default_rng(10)
    stretched = 0
    for _ in range(600):
        galaxy, deflector = draw_deflector(rng, TRAINING)
        _, sheared = lenses.with_neighbours(rng, galaxy, deflector, TRAINING)
        stretched += sheared.lens.gamma1 != deflector.lens.gamma1
    assert stretched / 600 == pytest.approx(0.2, abs=0.04)


def test_arc_like_light_lies_where_arcs_would_and_is_as_bright():
    rng = np.random.default_rng(11)
    distances, magnitudes = [], []
    for _ in range(400):
        light = neighbours.arc_like(rng, 1.0)
        ours = [part for part in light if math.isinf(part.extent)]
        distances += [math.hypot(part.x, part.y) for part in ours]
        magnitudes.append(neighbours.arc_magnitude(rng))
    assert np.mean([0.4 < distance < 3.0 for distance in distances]) > 0.95
    # A median source of VIS 25.2 magnified 3.5 times.
    assert np.median(magnitudes) == pytest.approx(25.2 - 2.5 * math.log10(3.5), abs=0.15)


def test_companions_stand_at_the_distances_of_arcs():
    rng = np.random.default_rng(12)
    for _ in range(100):
        light = neighbours.companions(rng)
        assert 1 <= len(light) <= 3 * 7
        assert min(math.hypot(part.x, part.y) for part in light) > 0.0
        assert 0.4 < math.hypot(light[0].x, light[0].y) < 3.2


@pytest.fixture(scope="module")
def wide():
    """1,500 deflectors of the wide sky whose θ_E is flat."""
    rng = np.random.default_rng(20)
    return [draw_deflector(rng, WIDE) for _ in range(1_500)]


def test_einstein_radii_of_the_wide_sky_are_flat_and_end_in_a_tail(wide):
    theta = np.array([deflector.lens.theta_e for _, deflector in wide])
    assert theta.min() > 0.3
    assert theta.max() <= 10.0
    # 93 % over 0.3 to 6", the rest exponential beyond; 4 standard deviations of a share are 0.05 at most.
    for theta_e in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        assert np.mean(theta < theta_e) == pytest.approx(0.93 * (theta_e - 0.3) / 5.7, abs=0.05)
    assert 0.005 < np.mean(theta > 8.0) < 0.04
    rng, halved = np.random.default_rng(28), Options(wide=True, flat_share=0.5)
    half = np.array([draw_deflector(rng, halved)[1].lens.theta_e for _ in range(600)])
    assert np.median(half) == pytest.approx(1.2, abs=0.2)


def test_deflectors_of_the_wide_sky_have_every_brightness_and_the_mass_of_their_radius(wide):
    magnitude_vis = np.array([galaxy.magnitude for galaxy, _ in wide])
    shares = [np.mean(magnitude_vis < 18), np.mean((magnitude_vis > 18) & (magnitude_vis < 20)), np.mean(magnitude_vis > 25)]
    assert shares == pytest.approx([0.14, 0.38, 0.03], abs=0.06)
    for galaxy, deflector in wide[:200]:
        radius = lensing.einstein_radius_arcsec(deflector.sigma_v_kms, deflector.z_lens, deflector.z_source)
        assert deflector.lens.theta_e == pytest.approx(float(radius), rel=1e-9)
        assert deflector.magnitude == galaxy.magnitude
        light = sum(part.flux[0] for part in galaxy.components)
        # Shells and light between a group's galaxies come on top.
        assert -0.45 < magnitude(light, "VIS") - galaxy.magnitude < 1e-9
    groups = [deflector for _, deflector in wide if deflector.is_group]
    assert 0.6 < len(groups) / len(wide) < 0.85
    assert min(deflector.lens.theta_e for deflector in groups) >= 2.0
    assert min(deflector.sigma_v_kms for _, deflector in wide) >= GALAXY_SIGMA_RANGE[0]


@pytest.mark.parametrize(("kind", "low", "high"), [("invisible", 25.0, 29.0), ("bright", 18.0, 20.0)])
def test_deflectors_are_of_the_kind_that_was_asked_for(kind, low, high):
    rng = np.random.default_rng(21)
    found = [draw_deflector(rng, WIDE.model_copy(update={"deflectors": kind}))[0].magnitude for _ in range(200)]
    assert low <= min(found)
    assert max(found) <= high
    assert np.std(found) > 0.2 * (high - low)


def test_groups_bend_light_with_several_masses_and_sources_stand_behind_them():
    rng = np.random.default_rng(22)
    systems = [lenses.single_lens(rng, WIDE).systems[0] for _ in range(80)]
    masses = np.array([len(system.sightline.lenses) for system in systems])
    assert np.mean(masses == 1 + 3) > 0.5
    assert masses.max() == 1 + 3
    for system in systems:
        assert system.lens == system.sightline.lenses[0]
        assert system.sightline.front == ()
        assert system.source_offset <= MAX_OFFSET * system.lens.theta_e + 1e-9
    seen = [find_images(s.source_x, s.source_y, s.sightline).count[0] for s in systems]
    assert np.mean(np.array(seen) > 1) > 0.97


def test_whole_rings_are_as_many_as_asked_for_bright_and_right_behind():
    rng = np.random.default_rng(23)
    systems = [lenses.single_lens(rng, WIDE.model_copy(update={"ring_share": 1.0})).systems[0] for _ in range(150)]
    assert max(system.source_offset / system.lens.theta_e for system in systems) <= 0.12 + 1e-9
    magnitudes = [system.source_magnitude for system in systems]
    assert min(magnitudes) >= 20.5
    assert max(magnitudes) <= 23.5


def test_some_arcs_of_the_wide_sky_outshine_their_galaxy():
    rng = np.random.default_rng(24)
    options = Options(wide=True, flat_share=0.5)
    systems = [lenses.single_lens(rng, options).systems[0] for _ in range(400)]
    # Before magnification, which adds a magnitude and more.
    brighter = np.mean([system.source_magnitude < system.lens_magnitude for system in systems])
    assert 0.06 < brighter < 0.18


def test_satellites_of_the_wide_sky_are_isotropic_and_two_fifths_of_the_field():
    rng = np.random.default_rng(25)
    found = [part for _ in range(4_000) for part in neighbours.isotropic(rng, 18.0)]
    distances = np.array([math.hypot(part.x, part.y) for part in found])
    turns = np.array([math.atan2(part.y, part.x) for part in found])
    # Most satellites are one profile; lumpy ones count as several, at the same place.
    whole = np.array([len(found), np.sum(distances < 2.0)]) / 4_000
    expected = 0.4 * FIELD_DENSITY * math.pi * np.array([4.0**2 - 0.4**2, 2.0**2 - 0.4**2])
    assert (expected < whole).all()
    assert (whole < 2.0 * expected).all()
    assert abs(np.mean(np.exp(2j * turns))) < 0.05
    # Elongated ones point anywhere: no alignment with the circle about the galaxy.
    long = [(part.angle - turn) for part, turn in zip(found, turns, strict=True) if part.q < 0.7]
    assert abs(np.mean(np.exp(2j * np.array(long)))) < 0.08


def test_satellites_are_fainter_than_their_galaxy():
    rng = np.random.default_rng(26)
    found = [part for _ in range(2_000) for part in neighbours.isotropic(rng, 24.0)]
    assert max(part.flux[0] for part in found) < 10 ** (0.4 * (24.6 - 24.0))


def test_a_galaxy_beside_a_lens_is_not_that_lens():
    rng = np.random.default_rng(27)
    for _ in range(150):
        item = lenses.beside_lens(rng, WIDE)
        [system] = item.systems
        distance = math.hypot(system.lens.x, system.lens.y)
        assert item.off_centre
        assert distance >= max(3.0, system.lens.theta_e + 1.2) - 1e-9
        assert distance <= max(6.0, system.lens.theta_e + 2.4) + 1e-9
        assert system.source_offset <= MAX_OFFSET * system.lens.theta_e + 1e-9
        middle = item.components[0]
        assert math.hypot(middle.x, middle.y) < 1e-9
        assert magnitude(sum(part.flux[0] for part in item.components if math.hypot(part.x, part.y) < 1.0), "VIS") + 0.6 >= 20.0
