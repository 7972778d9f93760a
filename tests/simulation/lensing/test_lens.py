import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.simulation.lensing.images import find_images
from scanner.simulation.lensing.lens import Lens, deflection, magnification
from scanner.simulation.lensing.sightline import Sightline


def random_lenses(n, seed=3):
    rng = np.random.default_rng(seed)
    return Lens(
        theta_e=rng.uniform(0.5, 3.0, n),
        q=rng.uniform(0.4, 0.98, n),
        angle=rng.uniform(0, math.pi, n),
        x=rng.uniform(-1, 1, n),
        y=rng.uniform(-1, 1, n),
        gamma1=rng.uniform(-0.05, 0.05, n),
        gamma2=rng.uniform(-0.05, 0.05, n),
    )


def one(lenses, k):
    return Lens(**{name: float(values[k]) for name, values in vars(lenses).items()})


def test_round_lens_deflects_by_its_einstein_radius_everywhere():
    x, y = np.meshgrid(np.linspace(-3, 3, 12), np.linspace(-3, 3, 12))
    alpha_x, alpha_y = deflection(x, y, Lens(1.3, 1.0, 0.7, 0.2, -0.1, 0.0, 0.0))
    np.testing.assert_allclose(np.hypot(alpha_x, alpha_y), 1.3, rtol=2e-3)
    np.testing.assert_allclose(np.arctan2(alpha_y, alpha_x), np.arctan2(y + 0.1, x - 0.2), atol=2e-3)


def test_shear_alone_is_a_linear_map():
    alpha_x, alpha_y = deflection(np.array([2.0]), np.array([-1.0]), Lens(0.0, 0.8, 0.0, 1.0, 1.0, 0.03, -0.02))
    assert alpha_x[0] == pytest.approx(0.03 * 1.0 - 0.02 * -2.0)
    assert alpha_y[0] == pytest.approx(-0.02 * 1.0 - 0.03 * -2.0)


def test_deflection_agrees_with_lenstronomy():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model", reason="the referee lenstronomy is not installed")
    model = lens_model.LensModel(["SIE", "SHEAR"])
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-4, 4, (2, 50))
    lenses = random_lenses(20)
    for k in range(20):
        lens = one(lenses, k)
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
        expected = model.alpha(x, y, parameters)
        np.testing.assert_allclose(deflection(x, y, lens), expected, atol=2e-6)
        # det A, not its inverse: on critical curves the magnification diverges.
        np.testing.assert_allclose(1 / magnification(x, y, lens), 1 / model.magnification(x, y, parameters), atol=1e-4)


def test_images_satisfy_the_lens_equation_and_their_number_is_odd_even_as_theory_says():
    rng = np.random.default_rng(1)
    lenses = random_lenses(300)
    beta = lenses.theta_e * rng.uniform(0.05, 1.8, 300)
    turn = rng.uniform(0, 2 * math.pi, 300)
    beta_x, beta_y = lenses.x + beta * np.cos(turn), lenses.y + beta * np.sin(turn)
    images = find_images(beta_x, beta_y, Sightline((lenses,)))
    column = Lens(**{name: values[:, None] for name, values in vars(lenses).items()})
    alpha_x, alpha_y = deflection(images.x, images.y, column)
    there = ~np.isnan(images.x)
    np.testing.assert_allclose((images.x - alpha_x - beta_x[:, None])[there], 0.0, atol=1e-7)
    np.testing.assert_allclose((images.y - alpha_y - beta_y[:, None])[there], 0.0, atol=1e-7)
    assert np.array_equal(there.sum(axis=1), images.count)
    # A singular lens hides the central image: two or four images inside the cut, one outside, three beyond a naked cusp.
    assert set(images.count.tolist()) <= {1, 2, 3, 4}
    assert np.all(images.count[beta < 0.5 * lenses.theta_e] >= 2)


def test_magnifications_of_a_sphere_follow_the_closed_form():
    beta = 0.4
    images = find_images(beta, 0.0, Sightline((Lens(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),)))
    assert images.count[0] == 2
    assert sorted(images.x[0, :2]) == pytest.approx([beta - 1.0, beta + 1.0], abs=2e-3)
    assert np.nansum(np.abs(images.magnification)) == pytest.approx(2.0 / beta, rel=5e-3)


@settings(max_examples=30, deadline=None)
@given(turn=st.floats(0, 6.28), beta=st.floats(0.02, 1.5), q=st.floats(0.4, 0.95), angle=st.floats(0, 3.1))
def test_turning_everything_turns_the_images(turn, beta, q, angle):
    plain = find_images(beta, 0.3, Sightline((Lens(1.0, q, angle, 0.0, 0.0, 0.02, 0.01),)))
    c, s, c2, s2 = math.cos(turn), math.sin(turn), math.cos(2 * turn), math.sin(2 * turn)
    turned = find_images(
        c * beta - s * 0.3,
        s * beta + c * 0.3,
        Sightline((Lens(1.0, q, angle + turn, 0.0, 0.0, c2 * 0.02 - s2 * 0.01, s2 * 0.02 + c2 * 0.01),)),
    )
    assert plain.count[0] == turned.count[0]
    radii = [np.sort(np.hypot(i.x[0, : i.count[0]], i.y[0, : i.count[0]])) for i in (plain, turned)]
    np.testing.assert_allclose(radii[0], radii[1], atol=1e-6)


def test_torch_computes_the_same():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 40))
    lens = Lens(1.1, 0.7, 0.4, 0.1, -0.1, 0.02, 0.03)
    found = deflection(torch.asarray(x), torch.asarray(y), lens)
    np.testing.assert_allclose([value.numpy() for value in found], deflection(x, y, lens), atol=1e-12)
