import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from scanner.records import BANDS
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.mosaics import strips
from scanner.simulation.mosaics.field import PLANE, SkyObject, lay_out
from scanner.simulation.mosaics.strips import draw_mosaics, file_names
from scanner.simulation.population.galaxies import fluxes
from scanner.simulation.telescope import noise

TILES = lay_out(2, 640, 0.2)


@pytest.fixture(scope="module", params=[0, 1], ids=["resampled", "native"])
def tile(request, tmp_path_factory):
    """A tile with 36 isolated objects, every other one a star, some across strips and near edges."""
    geometry = TILES[request.param]
    folder = tmp_path_factory.mktemp("tile")
    rng = np.random.default_rng(0)
    objects = []
    for k, (column, row) in enumerate(np.ndindex(6, 6)):
        x, y = geometry.centre[0] - 26 + 10.4 * column + rng.uniform(-1, 1), -26 + 10.4 * row + rng.uniform(-1, 1)
        light = fluxes(19.8, 0.4, 0.1, 0.1)
        kind = Kind.POINT if k % 2 else Kind.SERSIC
        part = Component(kind, 0.0, 0.0, light, radius=0.25, q=0.6, angle=rng.uniform(0, 3))
        objects.append(SkyObject(k, "star" if k % 2 else "galaxy", x, y, [part], 19.8))
    files = file_names(folder, geometry, 1)
    draw_mosaics(geometry, lambda *_: objects, files, 1, companions=True)
    return geometry, objects, files


@pytest.mark.parametrize("band", BANDS)
def test_objects_lie_where_the_wcs_of_the_file_says_with_the_flux_they_have(tile, band):
    _, objects, files = tile
    with fits.open(files.image[band]) as file:
        pixels, wcs = file[0].data.astype(np.float64), WCS(file[0].header)
    flag = fits.getdata(files.flag[band])
    scale = np.sqrt(np.abs(np.linalg.det(wcs.wcs.cd))) * 3600
    rows, columns = np.indices(pixels.shape)
    errors = []
    for item in objects:
        ra, dec = PLANE.wcs.wcs_pix2world(item.x, item.y, 0)
        x, y = (float(value) for value in wcs.wcs_world2pix(ra, dec, 0))
        dx, dy = columns - x, rows - y
        near = np.hypot(dx, dy) * scale < 3.0
        if (flag[near] & ~(strips.FEWER_EXPOSURES | strips.COSMIC_RAY | strips.BAD_PIXEL | strips.SATURATED)).any():
            continue
        weight = np.exp(-0.5 * (dx**2 + dy**2) * (scale / 0.5) ** 2) * pixels
        errors.append(((weight * dx).sum() / weight.sum(), (weight * dy).sum() / weight.sum()))
        assert pixels[near].sum() == pytest.approx(noise.flux(_magnitude(band), band), rel=0.04 if band == "VIS" else 0.08)
    assert len(errors) > 25
    # Pixels of the band: 0.1 is 0.01" in VIS and on MER's grid, 0.03" on native NISP.
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03
    assert np.std(errors, axis=0).max() < 0.06


def _magnitude(band):
    return {"VIS": 19.8, "Y": 19.4, "J": 19.3, "H": 19.2}[band]


def test_noise_near_objects_is_what_the_rms_map_says(tile):
    geometry, _, files = tile
    for band in BANDS:
        rms, flag = fits.getdata(files.rms[band]), fits.getdata(files.flag[band])
        good = flag == 0
        native = band != "VIS" and geometry.native
        expected = 1.5 * noise.SKY_SIGMA[band] if native else noise.RMS[band]
        assert np.median(rms[good]) == pytest.approx(expected, rel=0.08)
        assert rms[good].max() > 1.2 * np.median(rms[good])


def test_strips_join_without_a_seam(tile, tmp_path, monkeypatch):
    geometry, objects, files = tile
    monkeypatch.setattr(strips, "_STRIP_PIXELS", 640 * 97)
    again = file_names(tmp_path, geometry, 1)
    draw_mosaics(geometry, lambda *_: objects, again, 1, companions=True)
    for band in BANDS:
        rms = fits.getdata(files.rms[band])
        np.testing.assert_allclose(fits.getdata(again.rms[band]), rms, rtol=2e-3)
        difference = fits.getdata(again.image[band]) - fits.getdata(files.image[band])
        # VIS is undersampled: what rings about a bright core depends a little on the size of the strip.
        assert np.abs(difference / np.minimum(rms, 1e3)).max() < 0.05
        assert (fits.getdata(again.flag[band]) != fits.getdata(files.flag[band])).mean() < 1e-4
