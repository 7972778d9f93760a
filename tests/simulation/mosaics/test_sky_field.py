import math

import numpy as np
import pytest

from scanner.simulation.light.components import Kind
from scanner.simulation.mosaics.field import CELL_ARCSEC, LENS_MIX, FieldParameters, _placed, draw_cell, draw_rectangle
from scanner.simulation.population.classes import draw_object

FIELD = FieldParameters(seed=3, lens_density=12 / 200**2)


def test_a_cell_is_the_same_whoever_asks():
    alone = draw_cell(FIELD, -1, 2)
    among = [item for item in draw_rectangle(FIELD, -120, 60, 60, 160) if item.object_id in {i.object_id for i in alone}]
    assert [repr(item) for item in among] == [repr(item) for item in alone]
    assert all(-CELL_ARCSEC <= item.x < 0 and 2 * CELL_ARCSEC <= item.y < 3 * CELL_ARCSEC for item in alone)


def test_fields_differ_and_ids_do_not_collide():
    objects = list(draw_rectangle(FIELD, -90, 90, -90, 90))
    assert len({item.object_id for item in objects}) == len(objects)
    other = draw_cell(FIELD.model_copy(update={"seed": 4}), 0, 0)
    assert [item.x for item in other] != [item.x for item in draw_cell(FIELD, 0, 0)]


def test_densities_are_as_asked():
    objects = list(draw_rectangle(FIELD, -175, 174, -175, 174))
    area = 350.0**2 + 2 * 350 * 50 + 50**2  # eight by eight cells
    galaxies = sum(item.class_name == "galaxy" for item in objects)
    assert galaxies / area == pytest.approx(FIELD.galaxy_density, rel=0.06)
    lenses = [item for item in objects if item.class_name in LENS_MIX]
    assert len(lenses) / area == pytest.approx(FIELD.lens_density, rel=0.1)
    assert np.mean([item.visible for item in lenses]) > 0.95
    assert all(item.is_lens for item in lenses if item.visible)
    for item in objects:
        assert len(item.arcs) == len(item.labels) == len(item.systems)
    assert len([item for item in objects if item.class_name == "unseen"]) == 64


def test_what_is_unseen_is_nobodys_object_but_shines():
    found = [item for item in draw_cell(FIELD, 2, -3) if item.class_name == "unseen"]
    assert len(found) == 1
    assert math.isinf(found[0].magnitude)
    assert len(found[0].light) == pytest.approx(FIELD.unseen_density * CELL_ARCSEC**2, rel=0.4)
    assert all(abs(part.x) <= CELL_ARCSEC / 2 and abs(part.y) <= CELL_ARCSEC / 2 for part in found[0].light)


def test_images_of_quasars_shine():
    rng = np.random.default_rng(0)
    item = _placed(1, draw_object(rng, "quasar_lens"), 0.0, 0.0)
    points = [part for part in item.light if part.kind is Kind.POINT]
    assert len(points) == len(item.systems[0].point_images) >= 2
    assert item.arcs[0].mag_eff > 1.0


def test_a_field_without_lenses_has_none():
    bare = FIELD.model_copy(update={"lens_density": 0.0})
    assert not [item for item in draw_rectangle(bare, -80, 80, -80, 80) if item.class_name in LENS_MIX]
