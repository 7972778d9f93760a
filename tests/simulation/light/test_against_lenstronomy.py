"""A sample of what ``benchmarks/raytracing.py`` measures on hundreds of systems."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from scanner.simulation.light import scene

pytest.importorskip("lenstronomy", reason="the referee lenstronomy is not installed")


@pytest.fixture(scope="module")
def raytracing():
    path = Path(__file__).parents[3] / "benchmarks" / "raytracing.py"
    spec = importlib.util.spec_from_file_location("raytracing", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["raytracing"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["raytracing"]


def test_forty_systems_agree_with_lenstronomy_to_a_thousandth_of_the_peak(raytracing):
    rng = np.random.default_rng(7)
    systems = [raytracing.random_system(rng, 1 + int(k % 4 == 3)) for k in range(40)]
    seen, before = np.array(raytracing.residuals(systems, pixels=56)).T
    assert np.median(seen) < 2e-4
    assert seen.max() < 1e-3
    assert np.median(before) < 5e-4


def test_arcs_alone_agree_with_lenstronomy(raytracing):
    """Without the bright deflector, whose peak would hide what is wrong with the arcs."""
    rng = np.random.default_rng(8)
    systems = [raytracing.random_system(rng, 1 + int(k % 3 == 2)) for k in range(9)]
    raster = scene.centred_raster(56, raytracing.PIXEL)
    for system in systems:
        (mine,) = scene.render([[system.components[-1]]], raster, ("VIS",))[:, 0]
        theirs = raytracing.lenstronomy_image(system, raster, first=len(system.components) - 1)
        transfer = raytracing.mean_psf("VIS").transfer(56, 56)
        seen = raytracing.convolve(theirs.astype(np.float32), transfer)
        assert np.abs(raytracing.convolve(mine, transfer) - seen).max() < 1.5e-3 * seen.max()
