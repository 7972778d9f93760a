from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scanner.simulation.datasets import truth
from scanner.simulation.datasets.cutouts import observe
from scanner.simulation.datasets.presets import PRESETS, draw_scene, object_generator
from scanner.simulation.datasets.truth import ROLES, component_columns, markdown, truth_table
from scanner.simulation.light.components import Component

PAGE = Path(__file__).parents[3] / "docs" / "truth-columns.md"
MIX = dict.fromkeys(("lens", "compound_arc", "quasar_lens", "artefact", "empty", "star"), 1.0 / 6)


@pytest.fixture(scope="module")
def scenes():
    preset = PRESETS["quick"].model_copy(update={"mix": MIX})
    return [draw_scene(preset, object_generator("quick", 2, index)) for index in range(24)]


@pytest.fixture(scope="module")
def drawn(scenes):
    return observe(scenes, range(24))


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "run: python -m scanner.simulation.datasets.truth docs/truth-columns.md"
    )


@pytest.mark.parametrize("columns", [truth.COLUMNS, truth.COMPONENT_COLUMNS])
def test_every_column_has_a_meaning_and_a_name_of_its_own(columns):
    assert len({column.name for column in columns}) == len(columns)
    assert all(column.description for column in columns)
    for column in columns:
        assert column.name.removesuffix("_2").endswith("_arcsec") == (column.unit == "arcsec"), column.name


def test_units_and_meanings_go_into_the_files(drawn):
    for table, columns in (
        (truth_table(drawn.truth), truth.COLUMNS),
        (truth.component_table(drawn.components), truth.COMPONENT_COLUMNS),
    ):
        assert table.schema.names == [column.name for column in columns]
        for column in columns:
            field = table.schema.field(column.name)
            assert not field.nullable
            assert str(field.type) == {"float32": "float"}.get(column.dtype, column.dtype)
            assert field.metadata == {b"unit": column.unit.encode(), b"description": column.description.encode()}
        assert all(column.null_count == 0 for column in table.columns)


def test_no_field_of_a_component_is_left_out():
    told = {*truth.NUMBERS, "kind", "flux", "seen_through"}
    assert {field.name for field in fields(Component)} == told


def test_components_are_those_of_the_scenes(scenes, drawn):
    table = truth.component_table(drawn.components)
    rows = table.to_pylist()
    for target_id, scene in enumerate(scenes):
        mine = [row for row in rows if row["target_id"] == target_id]
        by_role = {role: [row for row in mine if row["role"] == role] for role in ROLES}
        assert len(by_role["object"]) == scene.n_object
        assert len(by_role["field"]) == len(scene.components) - scene.n_object
        assert len(by_role["artefact"]) == len(scene.exposure.artefacts)
        assert len(by_role["quasar_image"]) == sum(len(system.point_images) for system in scene.systems)
        for role, system in zip(("source", "source_2"), scene.systems, strict=False):
            assert [row["flux_vis"] for row in by_role[role]] == pytest.approx([c.flux[0] for c in system.source], rel=1e-6)
            assert [row["x_arcsec"] for row in by_role[role]] == pytest.approx([c.x for c in system.source], abs=1e-5)
        for row, component in zip(by_role["object"], scene.components, strict=False):
            assert row["kind"] == component.kind.name.lower()
    points = table.filter(pa.compute.equal(table["kind"], "point"))
    assert np.isnan(points["radius_arcsec"].to_numpy()).all()
    assert not np.isnan(points["flux_vis"].to_numpy()).any()


def test_truth_tells_the_camera_s_share(scenes, drawn):
    for scene, row in zip(scenes, drawn.truth, strict=True):
        kinds = {artefact.kind.value for artefact in scene.exposure.artefacts}
        assert set(row.artefact_kinds.split()) == kinds
        assert (row.n_artefacts_on_object > 0) == (row.class_name == "artefact")
        assert (row.artefact_strength > 0) == bool(kinds)
        assert row.background_vis == scene.exposure.background[0].level
        quasar = row.class_name == "quasar_lens"
        assert (row.first.n_point_images > 0) == (row.first.source_point_flux_vis > 0) == quasar
        assert row.n_systems == {"lens": 1, "compound_arc": 2, "quasar_lens": 1}.get(row.class_name, 0)


def test_without_objects_there_are_columns_all_the_same():
    table = truth.component_table(component_columns([], []))
    assert table.num_rows == 0
    assert table.schema.names == [column.name for column in truth.COMPONENT_COLUMNS]
