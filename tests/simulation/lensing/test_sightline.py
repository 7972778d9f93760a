import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.simulation import lensing
from scanner.simulation.lensing import Lens, Sightline, deflection, magnification, trace, trace_with_jacobian


def random_lens(rng):
    return Lens(
        rng.uniform(0.3, 1.5),
        rng.uniform(0.5, 0.98),
        rng.uniform(0, math.pi),
        *rng.uniform(-0.3, 0.3, 2),
        *rng.uniform(-0.05, 0.05, 2),
    )


def random_sightline(rng, planes):
    """Redshifts of planes and source, and what lies on them."""
    z = np.cumsum(rng.uniform(0.2, 0.8, planes + 1))
    couplings = [float(lensing.coupling(z[i], z[j], z[-1])) for j in range(planes) for i in range(j)]
    return z, Sightline(tuple(random_lens(rng) for _ in range(planes)), tuple(couplings))


def test_a_sightline_needs_a_coupling_for_each_pair_of_planes():
    lens = Lens(1.0, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="needs 3 couplings, not 1"):
        Sightline((lens, lens, lens), (0.5,))
    with pytest.raises(ValueError, match="0 lenses"):
        Sightline(())


def test_lenses_at_one_distance_deflect_together():
    rng = np.random.default_rng(1)
    near, far = random_lens(rng), random_lens(rng)
    x, y = rng.uniform(-3, 3, (2, 30))
    found = trace(x, y, Sightline((near, far), (0.0,)))
    bent = np.add(deflection(x, y, near), deflection(x, y, far))
    np.testing.assert_allclose(found, np.array([x, y]) - bent, atol=1e-14)


def test_the_last_plane_is_what_no_other_mass_bends_light_before():
    one, two, three = (Lens(theta, 1.0, 0.0, x, 0.0, 0.0, 0.0) for theta, x in ((1.0, 0.5), (0.4, 4.5), (0.2, 0.5)))
    group = Sightline((one, two), (0.0,))
    assert group.last_plane == (one, two)
    assert group.front == ()
    # Isothermal spheres pull by their θ_E at any distance: what lies behind the first is moved away from the second.
    assert group.middle == pytest.approx((0.5 + 0.4, 0.0), abs=1e-8)
    compound = Sightline((one, two, three), (0.6, 0.7, 0.0))
    assert compound.last_plane == (two, three)
    assert compound.front == (one,)
    assert Sightline((one,)).middle == (0.5, 0.0)


@settings(max_examples=40)
@given(theta_1=st.floats(0.2, 2.0), theta_2=st.floats(0.2, 2.0), share=st.floats(0.0, 1.0), r=st.floats(0.1, 10.0))
def test_two_spheres_in_line_follow_the_closed_form(theta_1, theta_2, share, r):
    # On the axis: θ_2 = r - β θ_E1, and each plane pulls by its Einstein radius towards the middle.
    spheres = tuple(Lens(theta, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0) for theta in (theta_1, theta_2))
    x, y = trace(np.array([r]), np.array([0.0]), Sightline(spheres, (share,)))
    at_second = r - share * theta_1
    if abs(at_second) > 1e-6:
        assert x[0] == pytest.approx(r - theta_1 - math.copysign(theta_2, at_second), abs=1e-6)
    assert y[0] == 0.0


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), planes=st.integers(1, 3))
def test_the_jacobian_is_that_of_the_map(seed, planes):
    rng = np.random.default_rng(seed)
    _, line = random_sightline(rng, planes)
    (x, y), step = rng.uniform(-3, 3, (2, 1)), 1e-6
    beta_x, beta_y, a = trace_with_jacobian(x, y, line)
    np.testing.assert_allclose((beta_x, beta_y), trace(x, y, line), atol=1e-13)
    right, left, up, down = (trace(x + dx, y + dy, line) for dx, dy in ((step, 0), (-step, 0), (0, step), (0, -step)))
    scale = max(1.0, *(abs(float(v[0])) for v in vars(a).values()))
    assert a.xx[0] == pytest.approx((right[0][0] - left[0][0]) / (2 * step), abs=1e-4 * scale**2)
    assert a.yx[0] == pytest.approx((right[1][0] - left[1][0]) / (2 * step), abs=1e-4 * scale**2)
    assert a.xy[0] == pytest.approx((up[0][0] - down[0][0]) / (2 * step), abs=1e-4 * scale**2)
    assert a.yy[0] == pytest.approx((up[1][0] - down[1][0]) / (2 * step), abs=1e-4 * scale**2)


@given(beta=st.floats(0.05, 0.95), theta_e=st.floats(0.5, 2.0))
def test_a_sphere_magnifies_by_one_plus_and_one_minus_theta_e_over_beta(beta, theta_e):
    beta *= theta_e
    images = np.array([beta + theta_e, beta - theta_e])
    mu = magnification(images, np.zeros(2), Sightline((Lens(theta_e, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),)))
    np.testing.assert_allclose(mu, [1 + theta_e / beta, 1 - theta_e / beta], rtol=1e-6)


def test_turning_and_moving_turn_and_move_the_map():
    rng = np.random.default_rng(4)
    _, line = random_sightline(rng, 2)
    (x, y), (c, s) = rng.uniform(-2, 2, (2, 20)), (math.cos(0.7), math.sin(0.7))
    beta_x, beta_y = trace(x, y, line)
    turned = trace(c * x - s * y, s * x + c * y, line.rotated(0.7))
    np.testing.assert_allclose(turned, [c * beta_x - s * beta_y, s * beta_x + c * beta_y], atol=1e-12)
    moved = trace(x + 2.0, y - 3.0, line.moved(2.0, -3.0))
    np.testing.assert_allclose(moved, [beta_x + 2.0, beta_y - 3.0], atol=1e-12)


@pytest.mark.parametrize("planes", [2, 3])
def test_several_planes_agree_with_lenstronomy(planes):
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", reason="the referee lenstronomy is not installed")
    from astropy.cosmology import FlatLambdaCDM

    universe = FlatLambdaCDM(H0=lensing.HUBBLE_KM_S_MPC, Om0=lensing.OMEGA_MATTER, Tcmb0=0.0)
    rng = np.random.default_rng(planes)
    for _ in range(12):
        z, line = random_sightline(rng, planes)
        x, y = rng.uniform(-3, 3, (2, 60))
        parameters = []
        for lens in line.lenses:
            e = (1 - lens.q) / (1 + lens.q)
            shape = {"e1": e * math.cos(2 * lens.angle), "e2": e * math.sin(2 * lens.angle)}
            parameters += [
                {"theta_E": lens.theta_e, "center_x": lens.x, "center_y": lens.y, **shape},
                {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
            ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns whenever it is told a cosmology
            model = lens_model.LensModel(
                ["SIE", "SHEAR"] * planes, lens_redshift_list=list(np.repeat(z[:-1], 2)), z_source=z[-1],
                multi_plane=True, cosmo=universe,
            )  # fmt: skip
        np.testing.assert_allclose(trace(x, y, line), model.ray_shooting(x, y, parameters), atol=5e-6)
        expected = 1 / model.magnification(x, y, parameters)
        np.testing.assert_allclose(1 / magnification(x, y, line), expected, rtol=2e-3, atol=2e-3)


def test_torch_computes_the_same():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(9)
    _, line = random_sightline(rng, 2)
    x, y = rng.uniform(-2, 2, (2, 40))
    there = torch.asarray(x), torch.asarray(y)
    np.testing.assert_allclose([value.numpy() for value in trace(*there, line)], trace(x, y, line), atol=1e-12)
    np.testing.assert_allclose(magnification(*there, line).numpy(), magnification(x, y, line), rtol=1e-9)
