import numpy as np
import pytest

from scanner.evaluation.biases import lenses_only
from scanner.simulation.datasets.cutouts import draw, draw_recoloured, recoloured
from scanner.simulation.datasets.presets import PRESETS, draw_scene, object_generator
from scanner.simulation.telescope.noise import magnitude

PRESET = lenses_only(PRESETS["eval"])
IDS = range(12)


@pytest.fixture(scope="module")
def in_colours():
    return dict(draw_recoloured(PRESET, 5, IDS, (0.5, 2.5)))


def test_sources_are_as_red_as_asked_and_nothing_else_changes():
    for index in IDS:
        scene = draw_scene(PRESET, object_generator("eval", 5, index))
        (before,), (after,) = scene.systems, recoloured(scene, 1.7).systems
        vis, _, _, h = after.unlensed_flux
        assert magnitude(vis, "VIS") - magnitude(h, "H") == pytest.approx(1.7, abs=1e-9)
        assert vis == before.unlensed_flux[0]
        assert recoloured(scene, 1.7).components is scene.components
        for old, new in zip(before.source, after.source, strict=True):
            assert (old.x, old.y, old.radius, old.q, old.index, old.flux[0]) == (
                new.x,
                new.y,
                new.radius,
                new.q,
                new.index,
                new.flux[0],
            )
        # Colour gradients within the source are kept.
        ratios = np.array([np.divide(new.flux, old.flux) for old, new in zip(before.source, after.source, strict=True)])
        assert np.ptp(ratios, axis=0) == pytest.approx(0, abs=1e-9)


def test_colours_lie_between_those_of_blue_and_of_red_galaxies():
    bands = []
    for colour in (0.5, 1.5, 2.5):
        scene = recoloured(draw_scene(PRESET, object_generator("eval", 5, 0)), colour)
        bands.append(
            [magnitude(flux, band) for flux, band in zip(scene.systems[0].unlensed_flux, ("VIS", "Y", "J", "H"), strict=True)]
        )
    steps = np.diff(bands, axis=0)
    # Equal steps in VIS - H are equal steps in every band, redder at longer wavelengths.
    assert steps[0] == pytest.approx(steps[1], abs=1e-9)
    assert steps[0][0] == pytest.approx(0, abs=1e-9)
    assert (np.diff(steps[0]) < 0).all()


def test_vis_is_the_same_and_nisp_differs_by_arcs_alone(in_colours):
    blue, red = in_colours[0.5], in_colours[2.5]
    # Brighter arcs are drawn more finely, in all bands at once.
    assert (np.abs(blue.vis - red.vis).max(axis=(1, 2)) < 1e-3 * blue.vis.std(axis=(1, 2))).all()
    assert [row.verdict for row in blue.truth] == [row.verdict for row in red.truth]
    assert (red.nisp.sum(axis=(2, 3)) > blue.nisp.sum(axis=(2, 3))).all()
    # The noise is the same: far from the lens hardly a pixel differs.
    corner = np.abs(red.nisp - blue.nisp)[..., :6, :6]
    assert np.median(corner) < 0.02 * blue.nisp[..., :6, :6].std()


def test_with_its_own_colour_a_lens_is_as_the_dataset_has_it():
    own = draw(PRESET, 5, [3])
    truth = own.truth[0].first
    ((_, again),) = draw_recoloured(PRESET, 5, [3], (truth.source_vis_minus_h,))
    assert np.abs(own.vis - again.vis).max() < 1e-3 * own.vis.std()
    # Y and J may lie off the line of mean colours; H does not.
    assert np.abs(own.nisp[:, 2] - again.nisp[:, 2]).max() < 2e-3 * own.nisp[:, 2].std()
