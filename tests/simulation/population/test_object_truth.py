from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.truth import Label, column, columns_of, getters_of, object_light, object_verdict, part

GALAXY = Component(Kind.SERSIC, 0.0, 0.0, (1.0, 2.0, 3.0, 4.0), radius=0.5, index=2.0, q=0.7, angle=0.3)
STAR = Component(Kind.POINT, 0.0, 0.0, (10.0, 1.0, 1.0, 1.0))
LENS, VISIBLE, NONE = Label(is_lens=True), Label(is_lens=True, visible=True), Label()


@dataclass(frozen=True)
class Inner:
    size: float = column("how large", "arcsec")


@dataclass(frozen=True)
class Outer:
    name: str = column("what")
    first: Inner = part(Inner)
    number: int = column("how many")
    second: Inner = part(Inner, "_2")


def test_parts_stand_in_their_place():
    assert [item.name for item in columns_of(Outer)] == ["name", "size", "number", "size_2"]
    assert [item.unit for item in columns_of(Outer)] == ["", "arcsec", "", "arcsec"]
    row = Outer(name="a", first=Inner(1.5), number=3, second=Inner(2.5))
    assert [value(row) for value in getters_of(Outer)] == ["a", 1.5, 3, 2.5]


def test_light_is_summed_and_the_first_profile_described():
    light = object_light([GALAXY, STAR])
    assert (light.object_flux_vis, light.object_flux_h, light.n_components) == (11.0, 5.0, 2)
    assert light.magnitude_vis == pytest.approx(24.6 - 2.5 * math.log10(11.0))
    assert (light.object_radius_arcsec, light.object_index, light.object_q, light.object_angle) == (0.5, 2.0, 0.7, 0.3)


@pytest.mark.parametrize("components", [[], [STAR, GALAXY]])
def test_what_does_not_apply_is_nan(components):
    light = object_light(components)
    shape = (light.object_radius_arcsec, light.object_index, light.object_q, light.object_angle)
    assert all(math.isnan(value) for value in shape)
    assert math.isnan(light.magnitude_vis) == (not components)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ((), (False, False, False)),
        ((NONE,), (False, False, False)),
        ((LENS,), (True, False, False)),
        ((LENS, NONE), (True, False, False)),
        ((NONE, VISIBLE), (True, True, False)),
        ((LENS, VISIBLE), (True, True, True)),
    ],
)
def test_verdict_of_all_systems(labels, expected):
    verdict = object_verdict(labels)
    assert (verdict.is_lens, verdict.visible, verdict.is_compound) == expected
