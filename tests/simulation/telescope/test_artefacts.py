import math
from dataclasses import replace

import numpy as np
import pytest

from scanner.records import BANDS
from scanner.simulation.telescope.artefacts import (
    HALF_SIDE_ARCSEC,
    ONE_SIGMA,
    Artefact,
    ArtefactKind,
    add_artefact,
    draw_artefacts,
    draw_on_object,
)


def painted(artefact, channel=0, x=60.0, y=60.0, side=121):
    image = np.zeros((side, side), dtype=np.float32)
    add_artefact(image, x, y, artefact, channel)
    return image / np.float32(ONE_SIGMA[channel])


@pytest.mark.parametrize("kind", list(ArtefactKind))
def test_every_kind_peaks_at_its_strength(kind):
    image = painted(Artefact(kind, (0,), 0.0, 0.0, strength=-7.0, length=3.0, width=0.1, angle=0.5))
    assert image.min() == pytest.approx(-7.0, rel=0.02)
    assert image.max() <= 0.0


def test_a_line_has_its_length_width_and_direction():
    image = painted(Artefact(ArtefactKind.COSMIC_RAY, (0,), 0.0, 0.0, 1.0, length=4.0, width=0.08, angle=math.radians(30)))
    y, x = np.nonzero(image > 0.5)
    assert np.ptp(x) == pytest.approx(40 * math.cos(math.radians(30)), abs=2)
    assert np.ptp(y) == pytest.approx(40 * math.sin(math.radians(30)), abs=2)
    assert (image > 0.5).sum() == pytest.approx(40 * 2 * 0.8 * math.sqrt(2 * math.log(2)), rel=0.1)


def test_a_ghost_is_a_disc_with_a_hole():
    image = painted(Artefact(ArtefactKind.GHOST, (0,), 0.0, 0.0, 1.0, length=3.0, width=0.1, angle=0.0))
    assert image[60, 60] < 0.01
    assert image[60, 80] == pytest.approx(1.0, abs=0.01)
    assert image[60, 95] < 0.01


def test_strips_of_an_image_make_the_image():
    artefact = Artefact(ArtefactKind.TRAIL, (0,), 0.0, 0.0, 5.0, length=100.0, width=0.3, angle=0.3)
    whole = np.zeros((90, 80), dtype=np.float32)
    add_artefact(whole, 30.3, 50.2, artefact, 0)
    strips = np.zeros_like(whole)
    for first in (0, 30, 60):
        add_artefact(strips[first : first + 30], 30.3, 50.2 - first, artefact, 0)
    np.testing.assert_allclose(strips, whole, atol=1e-5)


def test_other_bands_and_far_places_stay_clean():
    artefact = Artefact(ArtefactKind.CLUMP, (2,), 0.0, 0.0, 5.0, 1.0, 0.2, 0.0)
    assert not painted(artefact, channel=1).any()
    assert not painted(artefact, channel=2, x=-40.0).any()
    assert painted(artefact, channel=2).any()


def test_artefacts_are_as_many_as_area_asks_and_lie_in_it():
    rng = np.random.default_rng(0)
    single = [draw_artefacts(rng, 0.3) for _ in range(4000)]
    mean = np.mean([len(found) for found in single])
    assert 0.2 < mean < 0.6
    many = draw_artefacts(rng, 0.3, area=1000 * (2 * HALF_SIDE_ARCSEC) ** 2)
    assert len(many) == pytest.approx(1000 * mean, rel=0.15)
    assert all(max(abs(item.x), abs(item.y)) <= HALF_SIDE_ARCSEC for found in single for item in found)
    assert {item.kind for found in single for item in found} == set(ArtefactKind)
    for item in many:
        assert all(0 <= channel < len(BANDS) for channel in item.channels)
        if item.kind is ArtefactKind.BAD_COLUMN:
            assert math.sin(2 * (item.angle - 0.3)) == pytest.approx(0.0, abs=1e-9)


def test_what_is_put_on_an_object_is_there_and_conspicuous():
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = draw_on_object(rng, 0.0, 1.0, -2.0)
        assert 1 <= len(found) <= 2
        for item in found:
            assert math.hypot(item.x - 1.0, item.y + 2.0) <= 1.0
            assert abs(item.strength) >= 3.0


def test_torch_is_painted_as_numpy_is():
    torch = pytest.importorskip("torch")
    artefact = Artefact(ArtefactKind.GHOST, (0,), 0.0, 0.0, 2.0, 3.0, 0.1, 0.0)
    image = torch.zeros((121, 121))
    add_artefact(image, 60.0, 60.0, replace(artefact, strength=2.0 / ONE_SIGMA[0]), 0)
    np.testing.assert_allclose(image.numpy(), painted(artefact), atol=1e-5)
