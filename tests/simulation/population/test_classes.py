import collections
import math

import numpy as np
import pytest

from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Kind, total_flux
from scanner.simulation.population import classes
from scanner.simulation.population.colours import power_law_magnitude
from scanner.simulation.population.deflectors import draw_deflector
from scanner.simulation.population.labels import ArcMeasurement, label, measure_arcs
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, draw_source
from scanner.simulation.population.system import System


def test_the_mix_is_as_stated():
    assert sum(classes.NON_LENS_MIX.values()) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    drawn = collections.Counter(classes.draw_class(rng, classes.NON_LENS_MIX) for _ in range(20_000))
    for name, share in classes.NON_LENS_MIX.items():
        assert drawn[name] / 20_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", classes.CLASSES)
def test_every_class_draws_finite_light(name):
    rng = np.random.default_rng(1)
    for _ in range(20):
        drawn = classes.draw_object(rng, name)
        assert drawn.class_name == name
        assert len(drawn.systems) == {"compound_arc": 2, "double_ring": 2, "lens": 1, "near_lens": 1, "quasar_lens": 1}.get(name, 0)
        assert bool(drawn.components) or name in ("empty", "artefact")
        if drawn.components:
            light = total_flux(drawn.components)
            assert all(math.isfinite(value) and value > 0 for value in light)
            assert all(c.radius > 0 and 0.03 < c.q <= 1 and c.width > 0 for c in drawn.components)
        assert {c.kind for c in drawn.components} == {Kind.POINT} if name == "star" else True


def test_unknown_classes_are_refused():
    with pytest.raises(KeyError):
        classes.draw_object(np.random.default_rng(0), "quasar")


def test_deflectors_tell_nothing_of_the_class():
    # Lenses, near lenses and ellipticals come from one population: same magnitudes, sizes and colours.
    magnitudes = {}
    for name in ("lens", "near_lens", "elliptical"):
        rng = np.random.default_rng(2)
        magnitudes[name] = [classes.draw_object(rng, name).components[0].flux[0] for _ in range(400)]
    medians = [np.median(np.log10(values)) for values in magnitudes.values()]
    assert np.ptp(medians) < 0.12


def test_lens_population_has_the_einstein_radii_of_the_recipe():
    rng = np.random.default_rng(3)
    deflectors = [draw_deflector(rng, Options())[1] for _ in range(600)]
    systems = [draw_source(rng, deflector, (0.0, MAX_OFFSET), Options()) for deflector in deflectors]
    theta = np.array([system.lens.theta_e for system in systems])
    assert theta.min() > 0.5
    assert theta.max() < 3.0
    # 5, 50, 95%: .54, .90, 1.70 in the recipe.
    np.testing.assert_allclose(np.percentile(theta, [5, 50, 95]), [0.54, 0.90, 1.70], rtol=0.12)
    assert np.mean([system.red_source for system in systems]) == pytest.approx(0.18, abs=0.05)
    assert all(system.z_source > system.z_lens for system in systems)


def test_source_counts_rise_as_stated():
    rng = np.random.default_rng(4)
    drawn = np.array([power_law_magnitude(rng, 21.8, 26.2) for _ in range(20_000)])
    assert drawn.min() >= 21.8
    assert drawn.max() <= 26.2
    counts = np.histogram(drawn, bins=[23.2, 24.2, 25.2, 26.2])[0]
    np.testing.assert_allclose(counts[1:] / counts[:-1], 10**0.3, rtol=0.1)


def system_at(beta):
    return System((), Sightline((Lens(1.0, 0.8, 0.3, 0.0, 0.0, 0.02, 0.0),)), 0.5, 2.0, 220.0, 24.0, beta, 0.0, False)


def test_a_label_needs_multiple_images_magnification_and_pixels():
    enough = ArcMeasurement(mag_eff=3.0, n_pix_source=150, arc_snr=40.0)
    assert label(system_at(0.2), enough).is_lens
    assert label(system_at(0.2), enough).visible
    assert label(system_at(0.2), enough).n_source_im in (2, 4)
    single = label(system_at(2.0), enough)
    assert (single.n_source_im, single.is_lens, single.visible) == (0, False, False)
    assert single.magnification == pytest.approx(1 / (1 - 1 / 3), rel=0.2)
    assert not label(system_at(0.2), ArcMeasurement(1.5, 150, 40.0)).is_lens
    assert not label(system_at(0.2), ArcMeasurement(3.0, 20, 40.0)).is_lens
    faint = label(system_at(0.2), ArcMeasurement(3.0, 150, 20.0))
    assert (faint.is_lens, faint.visible) == (True, False)


def test_arcs_are_measured_above_one_sigma():
    arcs = np.zeros((20, 20), dtype=np.float32)
    arcs[5:9, 5:10] = 0.011  # four times the sky's scatter on 20 pixels
    arcs[15, 15] = 0.002
    measured = measure_arcs(arcs, 2.5)
    assert (measured.mag_eff, measured.n_pix_source) == (2.5, 20)
    assert measured.arc_snr == pytest.approx(4.0 * math.sqrt(20), rel=1e-5)
    assert measure_arcs(np.zeros((4, 4), np.float32), 1.0) == ArcMeasurement(1.0, 0, 0.0)
