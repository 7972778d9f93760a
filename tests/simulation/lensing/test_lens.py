import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.simulation.lensing import Lens, deflection, hessian

LENSES = st.builds(
    Lens,
    theta_e=st.floats(0.3, 3.0),
    q=st.floats(0.2, 1.0),
    angle=st.floats(0.0, math.pi),
    x=st.floats(-1.0, 1.0),
    y=st.floats(-1.0, 1.0),
    gamma1=st.floats(-0.1, 0.1),
    gamma2=st.floats(-0.1, 0.1),
)


def sphere(theta_e, x=0.0, y=0.0):
    return Lens(theta_e, 1.0, 0.0, x, y, 0.0, 0.0)


@given(theta_e=st.floats(0.1, 5.0), r=st.floats(1e-3, 50.0), turn=st.floats(0.0, 6.28))
def test_a_sphere_deflects_by_its_einstein_radius_towards_itself_everywhere(theta_e, r, turn):
    x, y = np.array([0.3 + r * math.cos(turn)]), np.array([-0.2 + r * math.sin(turn)])
    alpha_x, alpha_y = deflection(x, y, sphere(theta_e, 0.3, -0.2))
    assert alpha_x[0] == pytest.approx(theta_e * math.cos(turn), abs=1e-7 * theta_e)
    assert alpha_y[0] == pytest.approx(theta_e * math.sin(turn), abs=1e-7 * theta_e)


@given(theta_e=st.floats(0.3, 3.0), q=st.floats(0.1, 0.99), sign=st.sampled_from([-1.0, 1.0]), r=st.floats(0.01, 20.0))
def test_an_ellipsoid_deflects_on_its_axes_as_kormann_et_al_have_it(theta_e, q, sign, r):
    # Equation 27a of Kormann, Schneider & Bartelmann (1994) at φ = 0 and π/2.
    lens, f = Lens(theta_e, q, 0.0, 0.0, 0.0, 0.0, 0.0), math.sqrt(1 - q * q)
    along = deflection(np.array([sign * r]), np.array([0.0]), lens)
    across = deflection(np.array([0.0]), np.array([sign * r]), lens)
    assert along[0][0] == pytest.approx(sign * theta_e * math.sqrt(q) / f * math.acos(q))
    assert across[1][0] == pytest.approx(sign * theta_e * math.sqrt(q) / f * math.acosh(1 / q))
    assert along[1][0] == pytest.approx(0.0, abs=1e-12)
    assert across[0][0] == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=50)
@given(theta_e=st.floats(0.3, 3.0), q=st.floats(0.2, 1.0))
def test_the_mass_within_the_critical_curve_is_that_of_a_point_with_the_same_einstein_radius(theta_e, q):
    # Gauss: the flux of the deflection through a closed curve is twice the mass within. For a point mass it is 2π θ_E².
    turn = (np.arange(4000) + 0.5) * (2 * math.pi / 4000)
    a, b = theta_e / math.sqrt(q), theta_e * math.sqrt(q)
    alpha_x, alpha_y = deflection(a * np.cos(turn), b * np.sin(turn), Lens(theta_e, q, 0.0, 0.0, 0.0, 0.0, 0.0))
    flux = np.sum(alpha_x * b * np.cos(turn) + alpha_y * a * np.sin(turn)) * (2 * math.pi / 4000)
    assert flux == pytest.approx(2 * math.pi * theta_e**2, rel=1e-6)


@settings(max_examples=50)
@given(lens=LENSES)
def test_the_critical_curve_of_an_ellipsoid_is_its_isodensity_ellipse(lens):
    turn = np.linspace(0.0, 2 * math.pi, 50)
    along, across = lens.theta_e / math.sqrt(lens.q) * np.cos(turn), lens.theta_e * math.sqrt(lens.q) * np.sin(turn)
    c, s = math.cos(lens.angle), math.sin(lens.angle)
    plain = Lens(lens.theta_e, lens.q, lens.angle, lens.x, lens.y, 0.0, 0.0)
    h_xx, h_xy, h_yy = hessian(lens.x + c * along - s * across, lens.y + s * along + c * across, plain)
    np.testing.assert_allclose((1 - h_xx) * (1 - h_yy) - h_xy**2, 0.0, atol=1e-9)
    np.testing.assert_allclose(0.5 * (h_xx + h_yy), 0.5, atol=1e-9)


@given(r=st.floats(0.05, 20.0), turn=st.floats(0.0, 6.28), lens=LENSES)
def test_derivatives_are_those_of_the_deflection(r, turn, lens):
    x, y, step = lens.x + r * math.cos(turn), lens.y + r * math.sin(turn), 1e-5 * r
    alpha_x, alpha_y = deflection(np.array([x + step, x - step, x, x]), np.array([y, y, y + step, y - step]), lens)
    h_xx, h_xy, h_yy = hessian(np.array([x]), np.array([y]), lens)
    scale = 1e-6 * max(1.0, lens.theta_e / (lens.q * r))
    assert h_xx[0] == pytest.approx((alpha_x[0] - alpha_x[1]) / (2 * step), abs=scale)
    assert h_yy[0] == pytest.approx((alpha_y[2] - alpha_y[3]) / (2 * step), abs=scale)
    assert h_xy[0] == pytest.approx((alpha_x[2] - alpha_x[3]) / (2 * step), abs=scale)
    assert h_xy[0] == pytest.approx((alpha_y[0] - alpha_y[1]) / (2 * step), abs=scale)


def test_shear_alone_is_a_linear_map():
    alpha_x, alpha_y = deflection(np.array([2.0]), np.array([-1.0]), Lens(0.0, 0.8, 0.0, 1.0, 1.0, 0.03, -0.02))
    assert alpha_x[0] == pytest.approx(0.03 * 1.0 - 0.02 * -2.0)
    assert alpha_y[0] == pytest.approx(-0.02 * 1.0 - 0.03 * -2.0)


def test_the_singular_centre_deflects_nothing():
    alpha = deflection(np.array([0.3]), np.array([-0.2]), Lens(1.0, 0.7, 0.4, 0.3, -0.2, 0.05, 0.05))
    assert (alpha[0][0], alpha[1][0]) == (0.0, 0.0)


def test_deflection_and_derivatives_agree_with_lenstronomy():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", reason="the referee lenstronomy is not installed")
    model = lens_model.LensModel(["SIE", "SHEAR"])
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-4, 4, (2, 50))
    for _ in range(20):
        lens = Lens(
            rng.uniform(0.5, 3), rng.uniform(0.4, 0.98), rng.uniform(0, 3), *rng.uniform(-1, 1, 2), *rng.uniform(-0.1, 0.1, 2)
        )
        e = (1 - lens.q) / (1 + lens.q)
        parameters = [
            {
                "theta_E": lens.theta_e,
                "e1": e * math.cos(2 * lens.angle),
                "e2": e * math.sin(2 * lens.angle),
                "center_x": lens.x,
                "center_y": lens.y,
            },
            {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
        ]
        np.testing.assert_allclose(deflection(x, y, lens), model.alpha(x, y, parameters), atol=2e-6)
        f_xx, f_xy, _, f_yy = model.hessian(x, y, parameters)
        np.testing.assert_allclose(hessian(x, y, lens), [f_xx, f_xy, f_yy], rtol=1e-3, atol=1e-4)


def test_torch_computes_the_same():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 40))
    lens = Lens(1.1, 0.7, 0.4, 0.1, -0.1, 0.02, 0.03)
    for function in (deflection, hessian):
        found = function(torch.asarray(x), torch.asarray(y), lens)
        np.testing.assert_allclose([value.numpy() for value in found], function(x, y, lens), atol=1e-12)
        halved = function(torch.asarray(x, dtype=torch.float32), torch.asarray(y, dtype=torch.float32), lens)
        assert all(value.dtype == torch.float32 for value in halved)
        np.testing.assert_allclose([value.numpy() for value in halved], function(x, y, lens), rtol=1e-4, atol=1e-5)
