import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from scanner.records import BANDS
from scanner.simulation.telescope import exposure as observing
from scanner.simulation.telescope.artefacts import SATURATION, Star
from scanner.simulation.telescope.exposure import Background
from scanner.simulation.telescope.noise import flux, vis_kernel


def exposures(n, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [observing.draw_exposure(rng, 0.5, **options) for _ in range(n)]


def generators(n):
    return [np.random.default_rng([7, k]) for k in range(n)]


def canvases(n, seed=1):
    side = observing.CANVAS_PIXELS
    return np.random.default_rng(seed).random((n, len(BANDS), side, side), dtype=np.float32)


STAR = Star(1.0, -2.0, tuple(flux(15.0, band) for band in BANDS))


def test_an_image_is_the_same_in_any_batch():
    drawn, stars = exposures(5), [[STAR], [], [STAR], [], []]
    light = observing.blur(canvases(5), drawn)
    observing.add_stars(light, drawn, stars)
    alone = [observing.expose(light[k : k + 1].copy(), drawn[k : k + 1], generators(5)[k : k + 1]) for k in range(5)]
    vis, nisp = observing.expose(light, drawn, generators(5))
    for k in range(5):
        np.testing.assert_array_equal(vis[k], alone[k][0][0])
        np.testing.assert_array_equal(nisp[k], alone[k][1][0])
        np.testing.assert_array_equal(
            observing.blur(canvases(5)[k : k + 1, 1:2], drawn[k : k + 1], (1,))[0, 0],
            observing.blur(canvases(5), drawn)[k, 1],
        )
    assert vis.dtype == nisp.dtype == np.float32
    assert vis.shape == (5, 200, 200)
    assert nisp.shape == (5, 3, 66, 66)


def test_torch_blurs_and_exposes_as_numpy_does():
    torch = pytest.importorskip("torch")
    drawn = [replace(item, artefacts=()) for item in exposures(6)]
    light = observing.blur(canvases(6), drawn)
    same = observing.blur(torch.from_numpy(canvases(6)), drawn)
    np.testing.assert_allclose(same.numpy(), light, atol=2e-5)
    observing.add_stars(light, drawn, [[STAR]] * 6)
    observing.add_stars(same, drawn, [[STAR]] * 6)
    np.testing.assert_allclose(same.numpy(), light, rtol=1e-5, atol=2e-5)
    many = drawn * 8
    dark = np.zeros((48, *light.shape[1:]), dtype=np.float32)
    vis, nisp = observing.expose(dark, many, generators(48))
    vis_t, nisp_t = observing.expose(torch.zeros(dark.shape), many, torch.Generator().manual_seed(1))
    for mine, theirs in ((vis, vis_t.numpy()), (nisp, nisp_t.numpy())):
        assert mine.shape == theirs.shape
        assert theirs.dtype == np.float32
        kept = range(0, 48, 6)
        for k in range(6):
            a, b = (values[[first + k for first in kept]] for values in (mine, theirs))
            np.testing.assert_allclose(a.std(axis=(0, -1, -2)), b.std(axis=(0, -1, -2)), rtol=0.05)
    torch.testing.assert_close(
        vis_t, observing.expose(torch.zeros(dark.shape), many, torch.Generator().manual_seed(1))[0], rtol=0, atol=0
    )


def test_nothing_in_an_exposure_depends_on_what_is_looked_at():
    """The object's place, and whether an artefact is put on it, change nothing else."""
    plain = exposures(30)
    rng = np.random.default_rng(0)
    for expected in plain:
        state = rng.bit_generator.state
        forced = observing.draw_exposure(rng, 0.5, artefact_on_object=True, at=(3.0, 1.0))
        rng.bit_generator.state = state
        observing.draw_exposure(rng, 0.5)
        assert forced.roll == expected.roll
        assert forced.level == expected.level
        assert forced.phases == expected.phases
        assert forced.background == expected.background
        assert forced.shallow == expected.shallow
        assert forced.artefacts[: -forced.n_on_object] == expected.artefacts
        assert expected.n_on_object == 0


def test_orientations_are_uniform():
    rolls = [item.roll for item in exposures(400)]
    assert stats.kstest(rolls, stats.uniform(0, 2 * math.pi).cdf).pvalue > 1e-3


def test_native_and_resampled_noise_are_white_and_correlated():
    rng = np.random.default_rng(3)
    for native, sigma, correlation in ((True, 6.3, 0.0), (False, 4.2, 0.35)):
        drawn = [observing.draw_exposure(rng, float(native)) for _ in range(60)]
        drawn = [replace(item, artefacts=(), shallow=(None, None), level=1.0) for item in drawn]
        _, nisp = observing.expose(np.zeros((60, 4, 240, 240), np.float32), drawn, generators(60))
        nisp = nisp[:, 0] - np.mean(nisp[:, 0], axis=(1, 2), keepdims=True)
        assert nisp.std() == pytest.approx(sigma, rel=0.06)
        found = (nisp[..., 1:] * nisp[..., :-1]).mean() / nisp.var()
        assert found == pytest.approx(correlation, abs=0.06)


def test_fewer_exposures_make_more_noise_on_one_side():
    item = exposures(1)[0]
    line = observing.Shallow(0.0, 0.0, 0.0, math.sqrt(2.0))
    item = replace(item, artefacts=(), shallow=(line, line))
    vis, nisp = observing.expose(np.zeros((1, 4, 240, 240), np.float32), [item], generators(1))
    for image in (vis[0], nisp[0, 1]):
        middle = image.shape[1] // 2
        assert image[:, middle + 2 :].std() / image[:, : middle - 2].std() == pytest.approx(math.sqrt(2.0), rel=0.08)


def test_bright_stars_saturate_and_bleed_along_the_columns_in_vis_only():
    item = replace(exposures(1)[0], artefacts=(), roll=0.0)
    canvas = np.zeros((1, 4, 240, 240), dtype=np.float32)
    observing.add_stars(canvas, [item], [[replace(STAR, x=0.0, y=0.0)]])
    vis, nisp = observing.expose(canvas, [item], generators(1))
    saturated = vis[0] > 0.7 * SATURATION["VIS"]
    assert vis.max() < 1.1 * SATURATION["VIS"]
    rows, columns = np.nonzero(saturated)
    assert np.ptp(rows) > 3 * np.ptp(columns)
    rows, columns = np.nonzero(nisp[0, 0] > 0.5 * SATURATION["Y"])
    assert np.ptp(rows) < 1.5 * np.ptp(columns) + 2


def test_faint_stars_do_not_bleed():
    item = replace(exposures(1)[0], artefacts=())
    canvas = np.zeros((1, 4, 240, 240), dtype=np.float32)
    star = Star(0.0, 0.0, tuple(flux(20.0, band) for band in BANDS))
    observing.add_stars(canvas, [item], [[star]])
    assert canvas[0, 0].sum() == pytest.approx(star.flux[0], rel=0.01)


def test_other_telescopes_are_sharper_and_blunter_deeper_and_shallower():
    drawn = exposures(400, variety=1.0)
    radii, turns = np.linspace(0.0, 2.0, 81)[:, None], np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)[None, :]
    fwhm = []
    for item in drawn:
        profile = item.psfs[0].values(radii * np.cos(turns), radii * np.sin(turns)).mean(axis=1)
        fwhm.append(0.2 * float(radii[np.argmax(profile < 0.5 * profile[0]), 0]))
    assert 0.125 < min(fwhm) < 0.14
    assert 0.24 < max(fwhm) < 0.26
    depth = np.array([item.depth for item in drawn])
    assert 0.4 <= depth.min() < 0.5
    assert 4.0 < depth.max() <= 5.0
    assert np.median(depth) == pytest.approx(math.sqrt(0.4 * 5.0), rel=0.15)
    plain = exposures(60)
    assert {item.depth for item in plain} == {1.0}
    assert {item.missing for item in plain} == {()}
    assert np.mean([item.depth != 1.0 for item in exposures(400, variety=0.3)]) == pytest.approx(0.3, abs=0.08)


def test_noise_falls_with_depth_and_its_correlation_grows_with_the_kernel():
    [exposure] = exposures(1)
    dark = np.zeros((1, len(BANDS), observing.CANVAS_PIXELS, observing.CANVAS_PIXELS), dtype=np.float32)

    def seen(**changes):
        plain = replace(exposure, artefacts=(), shallow=(None, None), background=(Background(0.0, 0.0, 0.0),) * 4)
        vis, nisp = observing.expose(dark.copy(), [replace(plain, **changes)], generators(1))
        return vis[0], nisp[0]

    (vis, nisp), (deep_vis, deep_nisp) = seen(), seen(depth=4.0)
    np.testing.assert_allclose(deep_vis, 0.5 * vis, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(deep_nisp, 0.5 * nisp, rtol=1e-5, atol=1e-4)

    def neighbours(image):
        return float(np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1])

    for side in (0.0, 0.3, 0.6):
        smooth = seen(vis_kernel=vis_kernel(side))[0]
        # A kernel of (s, 1, s) correlates neighbours by 2s / (1 + 2s²).
        assert neighbours(smooth) == pytest.approx(2.0 * side / (1.0 + 2.0 * side**2), abs=0.03)


def test_missing_bands_have_no_pixel_and_the_others_all():
    drawn = [replace(item, missing=gone) for item, gone in zip(exposures(4), ((), (2,), (1, 2, 3), (0,)), strict=True)]
    vis, nisp = observing.expose(canvases(4), drawn, generators(4))
    bands = np.concatenate([vis.reshape(4, 1, -1)[..., : 66 * 66], nisp.reshape(4, 3, -1)], axis=1)
    lost = np.isnan(bands)
    assert (lost.all(axis=2) == lost.any(axis=2)).all()
    assert [tuple(np.flatnonzero(row)) for row in lost.all(axis=2)] == [(), (2,), (1, 2, 3), (0,)]
    dropped = [item.missing for item in exposures(600, dropout=0.25)]
    assert np.mean([bool(gone) for gone in dropped]) == pytest.approx(0.25, abs=0.06)
    assert set(dropped) >= {(), (0,), (1,), (2,), (3,), (1, 2, 3)}
