from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy_healpix import HEALPix
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.config import TargetsConfig
from scanner.errors import TileError
from scanner.records import BANDS, BandFiles, ImageRef, Targets, Tile
from scanner.sky.mosaic import Mosaic, open_mosaic
from scanner.sky.targets import TargetSelection, list_targets

REAL = Path(__file__).parents[2].parent / "shared" / "real" / "euclid-group" / "group.fits"
SHAPE = (300, 400)
EVERYTHING = TargetsConfig(magnitude_limit=None, min_area_pixels=0)


def header(ra: float = 53.0, dec: float = -28.0, frame: str = "ICRS") -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [190.3, 150.8]
    angle = np.radians(20.0)
    wcs.wcs.cd = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 0.1 / 3600
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = frame
    made = wcs.to_header()
    made["MAGZERO"] = 24.6
    return made


def vis_of(folder: Path, pixels: Any = None, **geometry: Any) -> Mosaic:
    path = folder / "vis.fits"
    data = np.zeros(SHAPE, np.float32) if pixels is None else pixels
    fits.PrimaryHDU(data, header(**geometry)).writeto(path, overwrite=True)
    return open_mosaic(BandFiles(image=ImageRef(path=str(path))), band="VIS")


def tile_of(folder: Path, table: Table | None = None) -> Tile:
    bands = {band: BandFiles(image=ImageRef(path=str(folder / f"{band}.fits"))) for band in BANDS}
    if table is None:
        return Tile(tile_id="7", bands=bands)
    table.write(folder / "catalogue.ecsv", overwrite=True)
    return Tile(tile_id="7", bands=bands, catalogue=ImageRef(path=str(folder / "catalogue.ecsv")))


def select(folder: Path, table: Table, config: TargetsConfig = EVERYTHING, **geometry: Any) -> TargetSelection:
    with vis_of(folder, **geometry) as vis:
        return list_targets(tile_of(folder, table), vis, config)


def by_id(targets: Targets) -> dict[int, tuple[float, float]]:
    return {int(i): (float(x), float(y)) for i, x, y in zip(targets.target_id, targets.x, targets.y, strict=True)}


@pytest.mark.parametrize(("ra", "dec"), [(53.0, -28.0), (0.0, 0.0), (359.9999, 45.0), (10.0, 90.0), (200.0, -89.999)])
def test_pixel_positions(tmp_path: Path, ra: float, dec: float) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.uniform(-0.5, SHAPE[1] - 0.5, 200), generator.uniform(-0.5, SHAPE[0] - 0.5, 200)
    sky = WCS(header(ra, dec)).all_pix2world(x, y, 0)
    selection = select(tmp_path, Table({"ra": sky[0], "dec": sky[1], "id": np.arange(200)}), ra=ra, dec=dec)
    assert (selection.n_seen, selection.n_outside, selection.n_rejected, selection.source) == (200, 0, 0, "catalogue")
    for number, (found_x, found_y) in by_id(selection.targets).items():
        assert found_x == pytest.approx(x[number], abs=1e-4)
        assert found_y == pytest.approx(y[number], abs=1e-4)
    order = selection.targets.target_id
    np.testing.assert_array_equal(selection.targets.ra, np.asarray(sky[0])[order] % 360)


def test_mosaic_in_another_frame(tmp_path: Path) -> None:
    """ICRS and FK5 differ by up to 23 mas, a quarter of a VIS pixel at most: small, but not to be invented."""
    place = SkyCoord(53.0, -28.0, unit="deg", frame=FK5(equinox="J2000"))
    selection = select(tmp_path, Table({"ra": [place.icrs.ra.deg], "dec": [place.icrs.dec.deg], "id": [1]}), frame="FK5")
    np.testing.assert_allclose([selection.targets.x[0], selection.targets.y[0]], [189.3, 149.8], atol=1e-5)


def test_outside_and_unusable_positions_are_counted(tmp_path: Path) -> None:
    inside = WCS(header()).all_pix2world([[-0.49, 0.0], [399.49, 299.49]], 0)
    outside = WCS(header()).all_pix2world([[-0.51, 0.0], [0.0, 299.51], [400.0, 10.0]], 0)
    far = np.array([[233.0, 28.0], [53.0, 62.0], [np.nan, -28.0], [53.0, 95.0]])
    ra, dec = np.concatenate([inside, outside, far]).T
    selection = select(tmp_path, Table({"ra": ra, "dec": dec, "id": np.arange(9)}))
    assert selection.targets.target_id.tolist() == [0, 1]
    assert (selection.n_seen, selection.n_outside, selection.n_rejected) == (9, 7, 0)


def on_a_row(n: int, step: int = 10) -> dict[str, Any]:
    ra, dec = WCS(header()).all_pix2world(20.0 + step * np.arange(n), np.full(n, 100.0), 0)
    return {"ra": ra, "dec": dec}


def test_cuts(tmp_path: Path) -> None:
    columns = {"MAG": [22.9, 23.0, 23.1, np.nan, 20.0, 20.0], "SEGMENTATION_AREA": [40.0, 40.0, 40.0, 40.0, 39.0, np.nan]}
    table = Table(on_a_row(6) | columns | {"id": np.arange(6)})
    selection = select(tmp_path, table, TargetsConfig(magnitude_limit=23.0, min_area_pixels=40))
    assert selection.targets.target_id.tolist() == [0, 1]
    assert selection.targets.magnitude.dtype == np.float32
    assert selection.targets.magnitude.tolist() == [np.float32(22.9), 23.0]
    assert (selection.n_seen, selection.n_outside, selection.n_rejected, selection.notes) == (6, 0, 4, ())
    assert len(select(tmp_path, table).targets) == 6
    assert select(tmp_path, table, TargetsConfig(magnitude_limit=None)).targets.target_id.tolist() == [0, 1, 2, 3]


def test_cuts_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    selection = select(tmp_path, Table(on_a_row(3)), TargetsConfig())
    assert len(selection.targets) == 3
    assert np.isnan(selection.targets.magnitude).all()
    assert selection.notes == (
        "magnitude limit 23.0 not applied: the catalogue gives no VIS magnitude",
        "area limit 40 pixels not applied: the catalogue gives no area",
        "target ids are HEALPix indices: the catalogue gives no whole-number id",
    )


def test_ids_made_from_positions(tmp_path: Path) -> None:
    columns = on_a_row(5)
    targets = select(tmp_path, Table(columns | {"id": list("edcba")})).targets
    expected = HEALPix(2**29, "nested", frame="icrs").skycoord_to_healpix(SkyCoord(columns["ra"], columns["dec"], unit="deg"))
    assert targets.target_id.tolist() == sorted(expected.tolist())
    assert targets.target_id.dtype == np.int64


def test_an_id_of_objects_at_different_positions_names_none_of_them(tmp_path: Path) -> None:
    """One id within 3" is one object that is there twice; beyond it is no id, and then none of this catalogue is."""
    twice = select(tmp_path, Table(on_a_row(31, step=1) | {"id": [7, *range(100, 129), 7]}))
    assert len(twice.targets) == 30
    assert twice.notes == ()
    shared = select(tmp_path, Table(on_a_row(32, step=1) | {"id": [7, *range(100, 130), 7]}))
    assert len(shared.targets) == 32
    assert 7 not in shared.targets.target_id
    assert shared.notes == ("target ids are HEALPix indices: the catalogue gives one id to objects at different positions",)


@settings(max_examples=25)
@given(data=st.data())
def test_one_target_of_each_id_whatever_the_order(tmp_path: Path, data: st.DataObject) -> None:
    row = on_a_row(8, step=4)
    ids = np.array(
        data.draw(st.lists(st.sampled_from([-(2**63), -1, 0, 5, 2**63 - 1]), min_size=8, max_size=8)), dtype=np.int64
    )
    magnitudes = np.array(data.draw(st.lists(st.sampled_from([19.0, 20.0, np.nan]), min_size=8, max_size=8)))
    order = np.array(data.draw(st.permutations(range(8))))
    table = Table(row | {"id": ids, "mag": magnitudes})
    selections = [select(tmp_path, table), select(tmp_path, table[order])]
    for selection in selections:
        assert selection.targets.target_id.tolist() == sorted(set(ids.tolist()))
        assert selection.n_rejected == 8 - len(set(ids.tolist()))
    np.testing.assert_array_equal(selections[0].targets.ra, selections[1].targets.ra)
    brightest = {i: np.nanmin(np.append(magnitudes[ids == i], 99.0)) for i in set(ids.tolist())}
    for i, magnitude in zip(selections[0].targets.target_id.tolist(), selections[0].targets.magnitude, strict=True):
        assert np.nan_to_num(magnitude, nan=99.0) == brightest[i]


def test_empty_catalogue(tmp_path: Path) -> None:
    selection = select(tmp_path, Table({"ra": np.empty(0), "dec": np.empty(0), "id": np.empty(0, int)}))
    assert len(selection.targets) == 0
    assert selection.n_seen == 0


def test_catalogue_asked_for_but_not_there(tmp_path: Path) -> None:
    with (
        vis_of(tmp_path) as vis,
        pytest.raises(TileError, match=r"vis.fits: tile 7 has no catalogue; name one, or use --targets"),
    ):
        list_targets(tile_of(tmp_path), vis, TargetsConfig(source="catalogue"))


def test_grid(tmp_path: Path) -> None:
    with vis_of(tmp_path) as vis:
        selection = list_targets(tile_of(tmp_path), vis, TargetsConfig(source="grid", grid_step_arcsec=5.0))
    assert (selection.n_seen, selection.n_outside, selection.n_rejected, selection.source) == (48, 0, 0, "grid")
    assert selection.notes == ()
    places = sorted(by_id(selection.targets).values(), key=lambda place: (place[1], place[0]))
    np.testing.assert_allclose(places[:2], [(24.5, 24.5), (74.5, 24.5)])
    ra, dec = WCS(header()).all_pix2world(selection.targets.x, selection.targets.y, 0)
    np.testing.assert_allclose(selection.targets.ra, ra, atol=1e-10)
    np.testing.assert_allclose(selection.targets.dec, dec, atol=1e-10)


class TestDetection:
    def pixels(self) -> Any:
        """One galaxy of AB 20.6 with zero point 24.6, one too small, one too faint for the default cuts."""
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        made = np.random.default_rng(4).standard_normal(SHAPE) * 0.002
        for x, y, flux, sigma in ((120.3, 80.7, 39.81, 4.0), (300.0, 200.0, 0.5, 0.8), (200.0, 250.0, 2.0, 5.0)):
            made += flux * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        return made.astype(np.float32)

    def test_where_there_is_no_catalogue(self, tmp_path: Path) -> None:
        with vis_of(tmp_path, self.pixels()) as vis:
            selection = list_targets(tile_of(tmp_path), vis, TargetsConfig())
        assert (selection.n_seen, selection.n_outside, selection.n_rejected, selection.source) == (3, 0, 2, "detection")
        assert selection.notes == ()
        targets = selection.targets
        np.testing.assert_allclose([targets.x[0], targets.y[0]], [120.3, 80.7], atol=0.05)
        np.testing.assert_allclose(WCS(header()).all_world2pix(targets.ra, targets.dec, 0), [[120.3], [80.7]], atol=0.05)
        assert targets.magnitude[0] == pytest.approx(20.6, abs=0.05)

    def test_without_a_zero_point(self, tmp_path: Path) -> None:
        bare = header()
        del bare["MAGZERO"]
        fits.PrimaryHDU(self.pixels(), bare).writeto(tmp_path / "bare.fits")
        with open_mosaic(BandFiles(image=ImageRef(path=str(tmp_path / "bare.fits"))), band="VIS") as vis:
            selection = list_targets(tile_of(tmp_path), vis, TargetsConfig())
        assert len(selection.targets) == 2
        assert np.isnan(selection.targets.magnitude).all()
        assert selection.notes == ("magnitude limit 23.0 not applied: the detection gives no VIS magnitude",)

    @pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
    def test_a_real_group_of_galaxies(self, tmp_path: Path) -> None:
        files = BandFiles(
            image=ImageRef(path=str(REAL), extension="VIS_FLUX"), rms=ImageRef(path=str(REAL), extension="VIS_RMS")
        )
        with open_mosaic(files, band="VIS") as vis:
            selection = list_targets(tile_of(tmp_path), vis, TargetsConfig())
        targets = selection.targets
        assert 3 <= len(targets) <= 6
        assert (targets.magnitude <= 23).all()
        with fits.open(REAL) as hdus:
            wcs = WCS(hdus["VIS_FLUX"].header)
        np.testing.assert_allclose(wcs.all_world2pix(targets.ra, targets.dec, 0), [targets.x, targets.y], atol=1e-6)
        assert np.hypot(targets.x - 150, targets.y - 150).min() < 2
        assert SkyCoord(targets.ra, targets.dec, unit="deg").separation(SkyCoord(52.82, -27.80, unit="deg")).max().arcmin < 3
