import math

import numpy as np
import pytest

from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.population.galaxies import System
from scanner.simulation.population.truth import ArcMeasurement, label, labels, measure_arcs


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


def test_labels_in_a_batch_are_those_of_each():
    enough = ArcMeasurement(mag_eff=3.0, n_pix_source=150, arc_snr=40.0)
    systems = [system_at(beta) for beta in (0.05, 0.3, 0.9, 1.5)]
    assert labels(systems, [enough] * 4) == [label(system, enough) for system in systems]


def test_arcs_are_measured_above_one_sigma():
    arcs = np.zeros((20, 20), dtype=np.float32)
    arcs[5:9, 5:10] = 0.011  # four times the sky's scatter on 20 pixels
    arcs[15, 15] = 0.002
    measured = measure_arcs(arcs, 2.5)
    assert (measured.mag_eff, measured.n_pix_source) == (2.5, 20)
    assert measured.arc_snr == pytest.approx(4.0 * math.sqrt(20), rel=1e-5)
    assert measure_arcs(np.zeros((4, 4), np.float32), 1.0) == ArcMeasurement(1.0, 0, 0.0)
