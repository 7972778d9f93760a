import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scanner.simulation.lensing import Lens, Sightline, find_images, trace


def random_lenses(n, seed=3, shear=0.05):
    rng = np.random.default_rng(seed)
    return Lens(
        theta_e=rng.uniform(0.5, 3.0, n),
        q=rng.uniform(0.4, 0.98, n),
        angle=rng.uniform(0, math.pi, n),
        x=rng.uniform(-1, 1, n),
        y=rng.uniform(-1, 1, n),
        gamma1=rng.uniform(-shear, shear, n),
        gamma2=rng.uniform(-shear, shear, n),
    )


def in_order(images):
    """Positions and magnifications (N, M, 3), rows sorted by polar angle."""
    rank = np.argsort(np.arctan2(images.y, images.x), axis=1)
    return np.stack([np.take_along_axis(v, rank, axis=1) for v in (images.x, images.y, images.magnification)], axis=2)


def winding(polygon_x, polygon_y):
    """How often a closed polygon runs about the origin."""
    turns = np.diff(np.unwrap(np.arctan2(polygon_y, polygon_x)))
    return round(abs(float(turns.sum())) / (2 * math.pi))


def test_images_satisfy_the_lens_equation():
    rng = np.random.default_rng(1)
    lenses = random_lenses(300)
    beta = lenses.theta_e * rng.uniform(0.05, 1.8, 300)
    turn = rng.uniform(0, 2 * math.pi, 300)
    beta_x, beta_y = lenses.x + beta * np.cos(turn), lenses.y + beta * np.sin(turn)
    images = find_images(beta_x, beta_y, Sightline((lenses,)))
    there = ~np.isnan(images.x)
    found = trace(images.x, images.y, Sightline((lenses.take((slice(None), None)),)))
    np.testing.assert_allclose((found[0] - beta_x[:, None])[there], 0.0, atol=1e-7)
    np.testing.assert_allclose((found[1] - beta_y[:, None])[there], 0.0, atol=1e-7)
    assert np.array_equal(there.sum(axis=1), images.count)
    assert set(images.count.tolist()) <= {1, 2, 3, 4}


def test_sources_behind_a_galaxy_of_a_group_are_seen_twice():
    # Galaxies of a group lie many of their own θ_E apart, so that a grid over all of them is too coarse for each.
    rng = np.random.default_rng(5)
    n, places = 60, rng.uniform(2.0, 10.0, (3, 60)) * np.exp(2j * np.pi * rng.random((3, 60)))
    main = random_lenses(n, seed=6)
    zero = np.zeros(n)
    members = [Lens(rng.uniform(0.1, 0.8, n), rng.uniform(0.5, 0.95, n), zero, z.real, z.imag, zero, zero) for z in places]
    sightline = Sightline((main, *members), (zero,) * 6)
    offset = 0.85 * main.theta_e * np.sqrt(rng.random(n)) * np.exp(2j * np.pi * rng.random(n))
    middles = np.array([Sightline(tuple(m.take(k) for m in (main, *members)), (0.0,) * 6).middle for k in range(n)])
    beta_x, beta_y = middles[:, 0] + offset.real, middles[:, 1] + offset.imag
    images = find_images(beta_x, beta_y, sightline)
    assert (images.count > 1).mean() > 0.9
    there = ~np.isnan(images.x)
    found = trace(images.x, images.y, sightline.take((slice(None), None)))
    np.testing.assert_allclose((found[0] - beta_x[:, None])[there], 0.0, atol=1e-7)
    np.testing.assert_allclose((found[1] - beta_y[:, None])[there], 0.0, atol=1e-7)


@given(theta_e=st.floats(0.3, 3.0), share=st.floats(0.01, 3.0), turn=st.floats(0.0, 6.28))
def test_images_of_a_sphere_follow_the_closed_form(theta_e, share, turn):
    assume(abs(share - 1.0) > 1e-3)
    beta, c, s = share * theta_e, math.cos(turn), math.sin(turn)
    images = find_images(beta * c, beta * s, Sightline((Lens(theta_e, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),)))
    radii = [beta + theta_e, beta - theta_e] if share < 1 else [beta + theta_e]
    assert images.count[0] == len(radii)
    order = np.argsort(-(images.x[0, : len(radii)] * c + images.y[0, : len(radii)] * s))
    np.testing.assert_allclose(images.x[0, order], [r * c for r in radii], atol=1e-6 * theta_e)
    np.testing.assert_allclose(images.y[0, order], [r * s for r in radii], atol=1e-6 * theta_e)
    expected = [1 + theta_e / beta, 1 - theta_e / beta][: len(radii)]
    np.testing.assert_allclose(images.magnification[0, order], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=200)
@given(q=st.floats(0.2, 0.95), r=st.floats(0.01, 2.0), turn=st.floats(0.0, 6.28))
def test_an_ellipsoid_shows_as_many_images_as_its_cut_and_caustic_say(q, r, turn):
    lens = Lens(1.0, q, 0.0, 0.0, 0.0, 0.0, 0.0)
    beta_x, beta_y = r * math.cos(turn), r * math.sin(turn)
    t = np.linspace(0.0, 2 * math.pi, 4001)
    caustic = trace(np.cos(t) / math.sqrt(q), np.sin(t) * math.sqrt(q), Sightline((lens,)))
    cut = trace(1e-9 * np.cos(t), 1e-9 * np.sin(t), Sightline((lens,)))
    assume(min(np.hypot(curve[0] - beta_x, curve[1] - beta_y).min() for curve in (caustic, cut)) > 5e-3)
    inside_cut, inside_caustic = (winding(curve[0] - beta_x, curve[1] - beta_y) for curve in (cut, caustic))
    # Kormann et al. (1994), section 3: one image, one more inside the cut, two more inside the astroid.
    assert find_images(beta_x, beta_y, Sightline((lens,))).count[0] == 1 + inside_cut + 2 * inside_caustic


@given(r=st.floats(0.05, 0.95), turn=st.floats(0.0, 6.28), gamma=st.floats(0.05, 0.3))
def test_signed_magnifications_of_a_quad_add_up_to_what_theory_says(r, turn, gamma):
    # Σ μ = 2 / (1 - γ²) for four images of a sheared sphere (Dalal 1998; Witt & Mao 2000).
    lens = Lens(1.0, 1.0, 0.0, 0.0, 0.0, gamma, 0.0)
    # The astroid reaches 2γ/(1±γ) along the axes.
    beta_x = r * 2 * gamma / (1 + gamma) * math.cos(turn) ** 3
    beta_y = r * 2 * gamma / (1 - gamma) * math.sin(turn) ** 3
    images = find_images(beta_x, beta_y, Sightline((lens,)))
    assume(images.count[0] == 4)
    assert np.nansum(images.magnification) == pytest.approx(2 / (1 - gamma**2), rel=1e-4)


def test_most_of_the_tested_quads_are_quads():
    gamma, t = 0.1, np.linspace(0, 6.28, 200)
    beta_x, beta_y = 1.0 / (1 + gamma) * gamma * np.cos(t) ** 3, 1.0 / (1 - gamma) * gamma * np.sin(t) ** 3
    images = find_images(beta_x, beta_y, Sightline((Lens(1.0, 1.0, 0.0, 0.0, 0.0, gamma, 0.0),)))
    assert np.mean(images.count == 4) > 0.9


@pytest.mark.parametrize(("beta_x", "beta_y", "count"), [(0.05, 0.03, 4), (0.3, 0.35, 2)])
def test_magnifications_inside_a_caustic_add_up_to_the_area_that_shows_the_source(beta_x, beta_y, count):
    line = Sightline((Lens(1.0, 0.6, 0.4, 0.0, 0.0, 0.03, 0.02),))
    images = find_images(beta_x, beta_y, line)
    assert images.count[0] == count
    radius, step = 0.02, 0.002
    side = np.arange(-1.6, 1.6, step)
    seen_x, seen_y = trace(side[None, :] + 0.0 * side[:, None], side[:, None] + 0.0 * side[None, :], line)
    area = np.sum(np.hypot(seen_x - beta_x, seen_y - beta_y) < radius) * step**2
    assert np.nansum(np.abs(images.magnification)) == pytest.approx(area / (math.pi * radius**2), rel=0.02)


def test_far_from_the_lens_there_is_one_image_displaced_by_theta_e_and_hardly_magnified():
    images = find_images(300.0, 400.0, Sightline((Lens(1.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),)))
    assert images.count[0] == 1
    assert math.hypot(images.x[0, 0], images.y[0, 0]) == pytest.approx(501.5, abs=1e-5)
    assert images.magnification[0, 0] == pytest.approx(1.003, abs=1e-6)


def test_the_general_search_finds_what_the_angular_search_finds():
    n = 300
    rng, lenses = np.random.default_rng(2), random_lenses(300, seed=8, shear=0.1)
    beta = lenses.theta_e * rng.uniform(0.02, 1.8, n)
    turn = rng.uniform(0, 2 * math.pi, n)
    beta_x, beta_y = lenses.x + beta * np.cos(turn), lenses.y + beta * np.sin(turn)
    nothing = Lens(*(np.zeros(n) + value for value in (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)))
    one = find_images(beta_x, beta_y, Sightline((lenses,)))
    two = find_images(beta_x, beta_y, Sightline((nothing, lenses), (0.4,)))
    assert np.array_equal(one.count, two.count)
    np.testing.assert_allclose(in_order(two)[:, :4], in_order(one)[:, :4], rtol=1e-4, atol=1e-6)


def test_images_behind_two_planes_satisfy_their_lens_equation():
    n = 200
    rng, front, back = np.random.default_rng(6), random_lenses(200, seed=11), random_lenses(200, seed=12)
    back = Lens(**{**vars(back), "theta_e": 0.5 * back.theta_e, "x": front.x + 0.2 * back.x, "y": front.y + 0.2 * back.y})
    line = Sightline((front, back), (rng.uniform(0.2, 0.8, n),))
    beta_x, beta_y = front.x + rng.normal(0, 0.3, n), front.y + rng.normal(0, 0.3, n)
    images = find_images(beta_x, beta_y, line)
    there = ~np.isnan(images.x)
    found = trace(images.x, images.y, line.take((slice(None), None)))
    np.testing.assert_allclose((found[0] - beta_x[:, None])[there], 0.0, atol=1e-8)
    np.testing.assert_allclose((found[1] - beta_y[:, None])[there], 0.0, atol=1e-8)
    assert images.count.min() >= 1
    assert np.mean(images.count >= 2) > 0.9


def test_images_behind_two_planes_are_those_of_lenstronomy_and_no_fewer():
    pytest.importorskip("lenstronomy", reason="the referee lenstronomy is not installed")
    import warnings

    from astropy.cosmology import FlatLambdaCDM
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

    from scanner.simulation import lensing

    rng = np.random.default_rng(3)
    universe = FlatLambdaCDM(H0=lensing.HUBBLE_KM_S_MPC, Om0=lensing.OMEGA_MATTER, Tcmb0=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns whenever it is told a cosmology
        model = LensModel(["SIE", "SIE"], lens_redshift_list=[0.4, 1.0], z_source=2.5, multi_plane=True, cosmo=universe)
    solver, share = LensEquationSolver(model), float(lensing.coupling(0.4, 1.0, 2.5))
    for _ in range(10):
        front, back = Lens(1.2, 0.7, 0.3, 0.0, 0.0, 0.0, 0.0), Lens(0.4, 0.8, 1.0, *rng.uniform(-0.3, 0.3, 2), 0.0, 0.0)
        beta_x, beta_y = rng.uniform(-0.25, 0.25, 2)
        images = find_images(beta_x, beta_y, Sightline((front, back), (share,)))
        parameters = []
        for lens in (front, back):
            e = (1 - lens.q) / (1 + lens.q)
            shape = {"e1": e * math.cos(2 * lens.angle), "e2": e * math.sin(2 * lens.angle)}
            parameters.append({"theta_E": lens.theta_e, "center_x": lens.x, "center_y": lens.y, **shape})
        x, y = solver.image_position_from_source(beta_x, beta_y, parameters, min_distance=0.02, search_window=5.0)
        found_x, found_y = images.x[0, : images.count[0]], images.y[0, : images.count[0]]
        # Every image of ours is one by the referee's own lens equation, and whatever the referee finds, we find.
        assert np.abs(np.subtract(model.ray_shooting(found_x, found_y, parameters), [[beta_x], [beta_y]])).max() < 1e-5
        apart = np.hypot(found_x[:, None] - x[None, :], found_y[:, None] - y[None, :])
        assert apart.min(axis=0).max(initial=0.0) < 1e-3


@settings(max_examples=30)
@given(turn=st.floats(0, 6.28), beta=st.floats(0.02, 1.5), q=st.floats(0.4, 0.95), angle=st.floats(0, 3.1))
def test_turning_everything_turns_the_images(turn, beta, q, angle):
    line = Sightline((Lens(1.0, q, angle, 0.0, 0.0, 0.02, 0.01),))
    c, s = math.cos(turn), math.sin(turn)
    plain = find_images(beta, 0.3, line)
    turned = find_images(c * beta - s * 0.3, s * beta + c * 0.3, line.rotated(turn))
    assert plain.count[0] == turned.count[0]
    radii = [np.sort(np.hypot(i.x[0, : i.count[0]], i.y[0, : i.count[0]])) for i in (plain, turned)]
    np.testing.assert_allclose(radii[0], radii[1], atol=1e-6)
