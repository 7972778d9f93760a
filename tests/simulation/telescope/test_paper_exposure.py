"""How the paper's compound lenses are observed, against lenstronomy with the numbers of the authors' notebook."""

import numpy as np
import pytest

from scanner.simulation.telescope.exposure import CANVAS_PIXELS, blur, expose, paper_exposure
from scanner.simulation.telescope.noise import ZERO_POINT

SingleBand = pytest.importorskip("lenstronomy.SimulationAPI.observation_api").SingleBand
#: Making_Compound_Lenses.ipynb.
CAMERAS = {
    "VIS": {"read_noise": 4.2, "pixel_scale": 0.1, "ccd_gain": 3.1, "exposure_time": 1800.0},
    "J": {"read_noise": 10, "pixel_scale": 0.3, "ccd_gain": 4.5, "exposure_time": 264.0},
}
OBSERVED = {"sky_brightness": 22.35, "magnitude_zero_point": 24.0, "num_exposures": 3, "seeing": 0.16, "psf_type": "GAUSSIAN"}


@pytest.mark.parametrize("flux_of_pixel", [0.0, 400.0])
def test_noise_is_that_of_the_notebook(flux_of_pixel):
    exposure, n = paper_exposure(), 4
    canvases = np.full((n, 4, CANVAS_PIXELS, CANVAS_PIXELS), 0.0, np.float32)
    units = {band: 10.0 ** (0.4 * (ZERO_POINT[band] - 24.0)) for band in CAMERAS}
    cameras = {band: SingleBand(**CAMERAS[band], **OBSERVED) for band in CAMERAS}
    counts = flux_of_pixel * np.array([cameras["VIS"].background_noise, cameras["J"].background_noise])
    canvases[:, 0] = counts[0] * units["VIS"]
    canvases[:, 1:] = counts[1] * units["J"] / 9.0  # a 0.3" pixel holds nine
    vis, nisp = expose(canvases, [exposure] * n, [np.random.default_rng(row) for row in range(n)])
    for image, band, flux in ((vis, "VIS", counts[0]), (nisp[:, 1], "J", counts[1])):
        camera = cameras[band]
        expected = np.sqrt(camera.background_noise**2 + camera.flux_noise(np.array([flux]))[0] ** 2) * units[band]
        assert (image - flux * units[band]).std() == pytest.approx(expected, rel=0.03)
        # White: neighbours know nothing of one another.
        assert abs(np.corrcoef(image[:, :, 1:].ravel(), image[:, :, :-1].ravel())[0, 1]) < 0.03


def test_psfs_are_gaussians_of_the_notebook():
    canvas = np.zeros((1, 4, CANVAS_PIXELS, CANVAS_PIXELS), np.float32)
    canvas[0, :, 120, 120] = 1.0
    seen = blur(canvas, [paper_exposure()])[0]
    offset = np.arange(CANVAS_PIXELS) - 120
    sigma = 1.6 / 2.3548
    expected = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / sigma**2) / (2 * np.pi * sigma**2)
    for band in seen:
        assert band.sum() == pytest.approx(1.0, abs=1e-4)
        variance = (band * offset[:, None] ** 2).sum()
        assert variance == pytest.approx(sigma**2, rel=0.02)
        assert band[120, 120] == pytest.approx(expected[120, 120], rel=0.1)
        np.testing.assert_allclose(band, band.T, atol=1e-5)
