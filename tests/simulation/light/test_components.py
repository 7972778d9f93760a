import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import gammaincinv

from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light.components import (
    Component,
    Kind,
    extent_radius,
    norm,
    profiles,
    sersic_b,
    sersic_norm,
    surface_brightness,
    tabulate,
    total_flux,
)

ONE = (1.0, 1.0, 1.0, 1.0)


def brightness(component, x, y):
    shape = profiles(tabulate([component]), np.asarray)
    return surface_brightness(np.atleast_3d(x) * 1.0, np.atleast_3d(y) * 1.0, shape, 1e-6).ravel()


@pytest.mark.parametrize("n", [0.6, 1.0, 2.5, 4.0])
def test_half_of_a_sersic_profile_s_light_lies_within_its_radius(n):
    assert sersic_b(n) == pytest.approx(gammaincinv(2 * n, 0.5), rel=1e-3)
    total = quad(lambda r: 2 * math.pi * r * math.exp(-sersic_b(n) * (r ** (1 / n) - 1)), 0, 400, limit=400)[0]
    assert sersic_norm(n) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    "component",
    [
        Component(Kind.SERSIC, 0, 0, ONE, radius=0.7, index=1.5, q=0.5, angle=0.4),
        Component(
            Kind.SPIRAL, 0, 0, ONE, radius=0.9, index=1.0, q=0.7, angle=1.0, arms=2, contrast=2.0, winding=3.0, phase=0.3
        ),
        Component(Kind.ANNULUS, 0, 0, ONE, radius=1.2, width=0.2, q=0.8, angle=0.7),
        Component(Kind.ANNULUS, 0, 0, ONE, radius=0.5, width=0.3, q=1.0, phase=2.9, extent=0.4),
    ],
    ids=["sersic", "spiral", "ring", "tail"],
)
def test_profiles_integrate_to_one(component):
    side = np.linspace(-9, 9, 1801)
    x, y = np.meshgrid(side, side)
    assert brightness(component, x.ravel(), y.ravel()).sum() * 0.01**2 == pytest.approx(1.0, abs=2e-3)


def test_arms_are_where_the_spiral_says():
    spiral = Component(Kind.SPIRAL, 0, 0, ONE, radius=1.0, arms=2, contrast=2.0, winding=2.0, phase=0.3)
    r = 1.7
    on_arm = 0.3 + 2.0 * math.log(r)
    turns = on_arm + np.array([0.0, math.pi, 0.5 * math.pi])
    first, second, between = brightness(spiral, r * np.cos(turns), r * np.sin(turns))
    assert first == pytest.approx(second, rel=1e-9)
    assert first / between > 10


def test_a_tail_is_brightest_at_its_phase():
    tail = Component(Kind.ANNULUS, 0, 0, ONE, radius=1.0, width=0.1, phase=math.pi, extent=0.3)
    on, off = brightness(tail, np.array([-1.0, 1.0]), np.array([0.0, 0.0]))
    assert on == pytest.approx(1 / norm(tail))
    assert off < 1e-9 * on


@settings(max_examples=40)
@given(n=st.floats(0.6, 4.0), radius=st.floats(0.05, 2.0), level=st.floats(1e-5, 1e-2))
def test_beyond_the_extent_the_light_is_fainter_than_asked(n, radius, level):
    component = Component(Kind.SERSIC, 0, 0, ONE, radius=radius, index=n)
    reach = extent_radius(component, level)
    if reach > 0:
        assert brightness(component, np.array([reach]), np.array([0.0]))[0] == pytest.approx(level, rel=1e-6)


def test_turning_and_moving_carry_the_lens_along():
    lens = Lens(1.0, 0.7, 0.2, 0.5, 0.0, 0.03, 0.0)
    component = Component(Kind.SERSIC, 1.0, 0.0, ONE, angle=0.1, seen_through=Sightline((lens,)))
    turned = component.rotated(math.pi / 2).moved(10.0, 20.0)
    assert (turned.x, turned.y, turned.angle) == pytest.approx((10.0, 21.0, 0.1 + math.pi / 2))
    assert turned.seen_through is not None
    (lens,) = turned.seen_through.lenses
    assert (lens.x, lens.y) == pytest.approx((10.0, 20.5))
    assert lens.angle == pytest.approx(0.2 + math.pi / 2)
    # Shear is a spin-2 quantity: a quarter turn changes its sign.
    assert (lens.gamma1, lens.gamma2) == pytest.approx((-0.03, 0.0), abs=1e-12)


def test_fluxes_add_up_per_band():
    parts = [Component(Kind.SERSIC, 0, 0, (1.0, 2.0, 3.0, 4.0)), Component(Kind.POINT, 0, 0, (0.5, 0.5, 0.5, 0.5))]
    assert total_flux(parts) == (1.5, 2.5, 3.5, 4.5)
