import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from scanner.records import BANDS, NISP_BANDS
from scanner.simulation.injection.inject import inject, paint_stamps
from scanner.simulation.injection.painting import Brush, painted_scene, tile_exposure
from scanner.simulation.injection.places import InjectionRequest
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.galaxies import LabelledObject
from scanner.sky import tile_list
from scanner.sky.alignment import map_pixels
from scanner.sky.mosaic import open_mosaic

FLUX = (5.0, 900.0, 1000.0, 1100.0)
GALAXY = Component(Kind.SERSIC, 0.0, 0.0, FLUX, radius=0.2, index=1.0, q=0.4, angle=0.3)
QUIET = Brush({}, dict.fromkeys(BANDS, 1.0), dict.fromkeys(BANDS, 0.0), dict.fromkeys(NISP_BANDS, False))


@pytest.fixture(scope="module")
def tiles(sky):
    return tuple(tile_list.read(sky / "tile-list.txt").tiles.values())


@pytest.fixture(scope="module")
def painted(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("mosaics") / "painted"
    request = InjectionRequest(preset="train", n_objects=6, seed=2, tiles=tiles, ground="galaxies", mosaics=True)
    record = inject(request, out)
    assert record.complete
    return out


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("band", BANDS)
def test_flux_place_and_orientation_in_any_band(tiles, number, band):
    """Tile 0 has NISP on the VIS grid, tile 1 at 0.3", rotated."""
    x, y = 300.37, 251.81
    rng = np.random.default_rng(3)
    scene = painted_scene(rng, LabelledObject("companion", [GALAXY]), [], 0.0, 0.0, tile_exposure(rng, QUIET))
    with (
        open_mosaic(tiles[number].bands["VIS"], band="VIS") as vis,
        open_mosaic(tiles[number].bands[band], band=band) as mosaic,
    ):
        stamp = paint_stamps(scene, QUIET, vis, {band: mosaic}, x, y, [3, 0])[band]
        (here_x,), (here_y,) = map_pixels(vis.wcs, mosaic.wcs, np.array([x]), np.array([y]))
        turned = map_pixels(vis.wcs, mosaic.wcs, np.array([x, x + 10.0]), np.array([y, y]))
        scale = mosaic.pixel_scale_arcsec
    light = stamp.pixels.astype(np.float64)
    assert light.sum() == pytest.approx(FLUX[BANDS.index(band)], rel=5e-3)
    rows, columns = np.mgrid[: len(light), : len(light)]
    middle = (light * columns).sum() / light.sum(), (light * rows).sum() / light.sum()
    assert (middle[0] + stamp.column) == pytest.approx(here_x, abs=0.1 * 0.1 / scale)
    assert (middle[1] + stamp.row) == pytest.approx(here_y, abs=0.1 * 0.1 / scale)
    if band == "VIS":
        dx, dy = columns - middle[0], rows - middle[1]
        xx, yy, xy = ((light * product).sum() for product in (dx * dx, dy * dy, dx * dy))
        turn = np.arctan2(turned[1][1] - turned[1][0], turned[0][1] - turned[0][0])
        assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(0.3 + turn, abs=0.1)


def test_copies_differ_where_something_was_painted_and_nowhere_else(painted, tiles):
    listed = tile_list.read(painted / "tile-list.txt")
    assert listed.failed == ()
    assert list(listed.tiles) == [tile.tile_id for tile in tiles]
    truth = pq.read_table(painted / "truth.parquet").to_pylist()
    assert len(truth) == 6
    for old, new in zip(tiles, listed.tiles.values(), strict=True):
        assert new.catalogue is not None
        mine = [row for row in truth if row["tile_id"] == new.tile_id]
        for band in BANDS:
            assert new.bands[band].rms == old.bands[band].rms
            with fits.open(old.bands[band].image.path) as before, fits.open(new.bands[band].image.path) as after:
                difference = after[0].data.astype(np.float64) - before[0].data.astype(np.float64)
                assert after[0].header["MAGZERO"] == before[0].header["MAGZERO"]
                wcs, scale = WCS(after[0].header), 0.3 if before[0].data.shape[0] < 400 else 0.1
            rows, columns = np.mgrid[: difference.shape[0], : difference.shape[1]]
            near = np.zeros(difference.shape, dtype=bool)
            for row in mine:
                x, y = wcs.all_world2pix(row["ra"], row["dec"], 0)
                here = np.hypot(columns - x, rows - y) * scale < 5.0
                near |= np.hypot(columns - x, rows - y) * scale < 15.0
                assert difference[here].sum() > 0.0
            assert not difference[~near].any()


def test_equal_requests_give_equal_bytes(painted, tiles, tmp_path):
    request = InjectionRequest(preset="train", n_objects=6, seed=2, tiles=tiles, ground="galaxies", mosaics=True)
    inject(request, tmp_path / "again", workers=2)
    for path in sorted(painted.rglob("*")):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(painted)).read_bytes() == path.read_bytes()


def test_placed_objects_keep_apart(painted):
    truth = pq.read_table(painted / "truth.parquet").to_pandas()
    for _, rows in truth.groupby("tile_id"):
        place = rows[["x_pixels", "y_pixels"]].to_numpy()
        distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
        assert distance[~np.eye(len(place), dtype=bool)].min(initial=1e9) > 60.0
