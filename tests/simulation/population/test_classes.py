import collections
import math

import numpy as np
import pytest

from scanner.simulation.light import scene
from scanner.simulation.light.components import Kind, total_flux
from scanner.simulation.population import classes
from scanner.simulation.population.galaxies import TRAINING, Options
from scanner.simulation.population.truth import labels, measure_arcs
from scanner.simulation.telescope.psf import convolve, mean_psf

SYSTEMS = {"lens": 1, "near_lens": 1, "beside_lens": 1, "quasar_lens": 1, "compound_arc": 2, "double_ring": 2}
MAY_BE_EMPTY = ("empty", "artefact")


def drawn(name, count, seed=0, options=TRAINING):
    rng = np.random.default_rng(seed)
    return [classes.draw_object(rng, name, options) for _ in range(count)]


def test_the_mix_is_as_stated():
    assert sum(classes.NON_LENS_MIX.values()) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    counts = collections.Counter(classes.draw_class(rng, classes.NON_LENS_MIX) for _ in range(20_000))
    for name, share in classes.NON_LENS_MIX.items():
        assert counts[name] / 20_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", classes.CLASSES)
def test_every_class_draws_possible_light(name):
    for item in drawn(name, 40, seed=1):
        assert item.class_name == name
        assert len(item.systems) == SYSTEMS.get(name, 0)
        assert bool(item.components) or name in MAY_BE_EMPTY
        for part in [*item.components, *(part for system in item.systems for part in system.source)]:
            # Dust is light that is missing from the start: nothing is taken away.
            assert all(math.isfinite(value) and value > 0 for value in part.flux)
            assert part.radius > 0
            assert part.width > 0
            assert 0.03 < part.q <= 1
        assert {part.kind for part in item.components} == {Kind.POINT} if name == "star" else True


@pytest.mark.parametrize("name", [name for name in classes.CLASSES if name not in ("star", "empty")])
def test_every_class_renders_positive_light_that_is_all_there(name):
    items = [item for item in drawn(name, 4, seed=2) if item.components]
    pixels = scene.render([item.components for item in items], scene.centred_raster(400, 0.1), ("VIS", "H"))
    assert pixels.min() >= 0
    for item, image in zip(items, pixels, strict=True):
        vis, _, _, h = total_flux([part for part in item.components if part.kind is not Kind.POINT])
        # What lies beyond the edge of 40" or below the faintest level that is drawn is not.
        assert 0.9 * vis < image[0].sum() < 1.01 * vis
        assert 0.9 * h < image[1].sum() < 1.01 * h


@pytest.mark.parametrize("name", classes.CLASSES)
def test_objects_come_from_their_random_numbers_alone(name):
    first, again, other = drawn(name, 3, seed=5), drawn(name, 3, seed=5), drawn(name, 3, seed=6)
    assert first == again
    assert name == "empty" or first != other


def test_unknown_classes_are_refused():
    with pytest.raises(KeyError):
        classes.draw_object(np.random.default_rng(0), "wormhole")


def verdicts(items):
    """Labels of the first systems through the average PSF."""
    systems = [item.systems[0] for item in items]
    pixels = scene.render([system.source for system in systems], scene.centred_raster(160, 0.1), ("VIS",))[:, 0]
    transfer = mean_psf("VIS").transfer(160, 160)
    arcs = [
        measure_arcs(convolve(image, transfer), float(image.sum()) / total_flux(system.source)[0])
        for image, system in zip(pixels, systems, strict=True)
    ]
    return labels(systems, arcs)


@pytest.mark.parametrize(
    ("name", "options", "lenses", "visible"),
    [
        ("lens", TRAINING, (0.93, 1.0), (0.5, 0.75)),
        ("lens", Options(survey=True), (0.8, 1.0), (0.25, 0.5)),
        ("near_lens", TRAINING, (0.0, 0.03), (0.0, 0.03)),
    ],
)
def test_most_lenses_are_lenses_by_the_definition_and_no_near_lens_is(name, options, lenses, visible):
    found = verdicts(drawn(name, 150, seed=7, options=options))
    assert lenses[0] <= np.mean([verdict.is_lens for verdict in found]) <= lenses[1]
    assert visible[0] <= np.mean([verdict.visible for verdict in found]) <= visible[1]
