import math

import numpy as np
import pytest

from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.simulation.datasets.cutouts import conditions, galaxy_free, observe, probe
from scanner.simulation.datasets.presets import LENS_CLASSES, PRESETS, draw_scene, object_generator

pytest.importorskip("sklearn")
N = 600


@pytest.fixture(scope="module")
def skies():
    """Numbers that tell of 600 galaxy-free images with a star in the middle, and what was there: lens or not."""
    numbers, labels = [], []
    rng = np.random.default_rng(4)
    # A band that is missing has no numbers, and is missing as often in either class: below.
    preset = PRESETS["train-wide"].model_copy(update={"dropout": 0.0})
    for start in range(0, N, 200):
        scenes = [draw_scene(preset, object_generator(preset.name, 3, start + k)) for k in range(200)]
        labels += [scene.class_name in LENS_CLASSES for scene in scenes]
        drawn = observe([galaxy_free(scene, rng.uniform(19.0, 22.0)) for scene in scenes], range(200))
        numbers.append(conditions(drawn.vis, drawn.nisp))
    return np.concatenate(numbers), np.array(labels)


def test_nothing_but_stars_is_left():
    scenes = [draw_scene(PRESETS["train"], object_generator("train", 3, k)) for k in range(40)]
    for scene, bare in ((scene, galaxy_free(scene)) for scene in scenes):
        assert not bare.systems
        assert all(component.kind.name == "POINT" for component in bare.components)
        assert bare.n_object == 0
        assert bare.exposure.psfs == scene.exposure.psfs
        assert bare.exposure.background == scene.exposure.background
    assert any(scene.exposure.n_on_object for scene in scenes) or all(s.class_name != "artefact" for s in scenes)


def test_a_probe_cannot_tell_exposures_of_lenses_from_others(skies):
    verdict = probe(*skies)
    assert verdict.low < 0.5 < verdict.high
    assert verdict.high - verdict.low < 0.12


def test_bands_are_missing_and_telescopes_other_as_often_in_either_class():
    scenes = [draw_scene(PRESETS["train-wide"], object_generator("train-wide", 5, k)) for k in range(600)]
    lens = np.array([scene.class_name in LENS_CLASSES for scene in scenes])
    for of_scene, share in ((lambda s: bool(s.exposure.missing), 0.12), (lambda s: s.exposure.depth != 1.0, 0.4)):
        found = np.array([of_scene(scene) for scene in scenes])
        assert found.mean() == pytest.approx(share, abs=4.0 * math.sqrt(share / len(scenes)))
        assert found[lens].mean() == pytest.approx(found[~lens].mean(), abs=4.0 * math.sqrt(4.0 * share / len(scenes)))


def test_a_probe_cannot_learn_shuffled_labels(skies):
    numbers, labels = skies
    assert probe(numbers, np.random.default_rng(1).permutation(labels)).blind


def test_the_probe_sees_what_a_class_of_its_own_conditions_shows(skies):
    numbers, labels = skies
    # 5% more noise in VIS for one class: the probe must be able to catch a trap.
    trapped = numbers.copy()
    trapped[labels, 1] += 0.05
    assert probe(trapped, labels).low > 0.5


def test_moments_follow_the_psf_s_orientation():
    # m = 2 moments of a star turn by 90 degrees, m = 3 moments by a third of that, when the image is turned.
    y, x = (axis - 99.5 for axis in np.indices((200, 200)))
    star = np.exp(-0.5 * ((x / 2.0) ** 2 + (y / 1.5) ** 2)) * 50.0
    noise = np.random.default_rng(0).normal(0.0, 1.0, (200, 200))
    nisp = np.random.default_rng(1).normal(0.0, 1.0, (1, 3, 66, 66)).astype(np.float32)
    numbers, turned = (
        conditions(image[None].astype(np.float32), nisp)[0] for image in (star + noise, np.rot90(star + noise).copy())
    )
    first = 2 + 8 + 4
    second = complex(*numbers[first + 1 : first + 3])
    assert second.real > 0.05
    assert complex(*turned[first + 1 : first + 3]) == pytest.approx(-second, abs=0.01)


def test_labels_are_as_frequent_under_every_orientation():
    batches = pytest.importorskip("scanner.training.trainer")
    n, epochs = 20_000, 10
    labels = np.random.default_rng(3).random(n) < 0.5
    lenses, images = np.zeros(ORIENTATIONS), np.zeros(ORIENTATIONS)
    for epoch in range(epochs):
        turned = batches.draw_orientations(n, (7, epoch))
        lenses += np.bincount(turned[labels], minlength=ORIENTATIONS)
        images += np.bincount(turned, minlength=ORIENTATIONS)
    share = labels.mean()
    # Each within 4.5 standard deviations; images are as many under each as well.
    assert np.abs(lenses / images - share).max() < 4.5 * math.sqrt(share * (1.0 - share) / images.min())
    assert np.abs(images / images.sum() - 1.0 / ORIENTATIONS).max() < 4.5 * math.sqrt(1.0 / ORIENTATIONS / images.sum())
