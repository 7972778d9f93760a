import math

import numpy as np
import pytest

from scanner.simulation.lensing import Images, Lens, Sightline, find_images
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.galaxies import TRAINING, Options, System
from scanner.simulation.population.lenses import (
    FAINTEST_SECOND,
    LARGEST_MAGNIFICATION,
    QUADS,
    quasar_flux,
    quasar_lens,
    with_quasar,
)
from scanner.simulation.telescope.noise import flux, magnitude


def drawn(count, seed=0, options=TRAINING):
    rng = np.random.default_rng(seed)
    return [quasar_lens(rng, options) for _ in range(count)]


def host():
    sightline = Sightline((Lens(1.0, 0.75, 0.3, 0.0, 0.0, 0.02, 0.0),))
    galaxy = Component(Kind.SERSIC, 0.1, 0.05, (flux(24.0, "VIS"), 1.0, 1.0, 1.0), seen_through=sightline)
    return System((galaxy,), sightline, 0.5, 2.0, 220.0, 24.0, 0.1, 0.05, False)


def test_every_quasar_is_seen_at_least_twice_and_a_quarter_four_times():
    objects = drawn(120)
    counts = np.array([len(item.systems[0].point_images) for item in objects])
    assert set(counts.tolist()) <= {2, 3, 4}
    assert np.mean(counts == 4) == pytest.approx(QUADS, abs=4.0 * math.sqrt(QUADS * (1.0 - QUADS) / 120))


def test_images_are_where_the_centre_of_the_host_is_seen():
    for item in drawn(20):
        (system,) = item.systems
        images = find_images(system.source_x, system.source_y, system.sightline)
        seen = sorted((p.x, p.y) for p in system.point_images)
        expected = sorted(zip(images.x[0, : images.count[0]], images.y[0, : images.count[0]], strict=True))
        np.testing.assert_allclose(seen, expected, atol=1e-9)
        assert all(p.kind is Kind.POINT and p.seen_through is None for p in system.point_images)
        assert (system.source[0].x, system.source[0].y) == (system.source_x, system.source_y)


def test_fluxes_are_the_magnifications_on_average():
    point = (1.0, 2.0, 3.0, 4.0)
    system = host()
    images = find_images(0.1, 0.05, system.sightline)
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(600):
        stars = with_quasar(rng, system, point, images).point_images
        ratios.append([[star.flux[band] / point[band] for band in range(4)] for star in stars])
    measured = -2.5 * np.log10(np.array(ratios) / np.abs(images.magnification[0, : images.count[0]])[:, None])
    assert images.count[0] == 4
    np.testing.assert_allclose(np.median(measured, axis=0), 0.0, atol=0.08)
    # Saddle points twinkle more, and the infrared less.
    scatter = measured.std(axis=0)
    saddle = images.magnification[0, :4] < 0
    assert saddle.sum() == 2
    assert scatter[saddle, 0].min() > scatter[~saddle, 0].max()
    assert np.all(scatter[:, 3] < scatter[:, 0])


def test_the_sum_of_the_images_is_the_total_magnification():
    system = host()
    images = find_images(0.1, 0.05, system.sightline)
    rng = np.random.default_rng(4)
    sums = [sum(star.flux[0] for star in with_quasar(rng, system, (1.0,) * 4, images).point_images) for _ in range(800)]
    assert np.median(sums) == pytest.approx(np.nansum(np.abs(images.magnification)), rel=0.05)


def test_a_critical_curve_does_not_magnify_without_end():
    x = np.array([[1.0, -1.0]])
    images = Images(x=x, y=0.0 * x, magnification=np.array([[1e6, -1e6]]), count=np.array([2]))
    stars = with_quasar(np.random.default_rng(0), host(), (1.0,) * 4, images).point_images
    assert all(star.flux[0] < 5.0 * LARGEST_MAGNIFICATION for star in stars)


def test_host_and_quasar_add_up():
    rng = np.random.default_rng(0)
    system = host()
    point = quasar_flux(rng, 22.0, 2.0)
    together = with_quasar(rng, system, point, find_images(0.1, 0.05, system.sightline))
    assert together.unlensed_flux == pytest.approx([a + b for a, b in zip(system.source[0].flux, point, strict=True)])
    assert together.source_magnitude == pytest.approx(magnitude(together.unlensed_flux[0], "VIS"))
    assert host().unlensed_flux == host().source[0].flux


def test_quasars_are_blue_until_the_forest_dims_them():
    rng = np.random.default_rng(0)
    colours = [
        np.mean([magnitude(f[0], "VIS") - magnitude(f[1], "Y") for f in (quasar_flux(rng, 21.0, z) for _ in range(200))])
        for z in (2.0, 5.0)
    ]
    assert colours[0] == pytest.approx(0.2, abs=0.04)
    assert colours[1] == pytest.approx(0.2 + 0.35 * 1.5, abs=0.04)


def test_the_second_image_is_bright_enough_to_be_seen():
    faintest = flux(FAINTEST_SECOND + 1.5, "VIS")  # microlensing aside
    for item in drawn(30):
        assert sorted(p.flux[0] for p in item.systems[0].point_images)[-2] > faintest
    survey = [sorted(p.flux[0] for p in o.systems[0].point_images)[-2] for o in drawn(30, options=Options(survey=True))]
    assert np.median(survey) < np.median([sorted(p.flux[0] for p in o.systems[0].point_images)[-2] for o in drawn(30)])


def test_a_seed_is_an_object_and_moving_moves_the_images():
    first, again = drawn(1, seed=7)[0], drawn(1, seed=7)[0]
    assert first == again
    system = first.systems[0]
    there = system.moved(0.5, -1.0)
    for a, b in zip(system.point_images, there.point_images, strict=True):
        assert (b.x - a.x, b.y - a.y) == pytest.approx((0.5, -1.0))
        assert a.flux == b.flux
    assert there.point_flux == system.point_flux
