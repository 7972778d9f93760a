import hashlib
import math
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from scanner.errors import OutputError
from scanner.simulation.mosaics import strips
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list

REQUEST = TilesRequest(n_tiles=2, size=720, seed=5, overlap=0.3, lenses_per_tile=3)
SMALL = TilesRequest(n_tiles=2, size=400, seed=5, lenses_per_tile=0, density=0.2, companions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiles") / "sky"
    draw_tiles(REQUEST, out)
    return out


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def image(folder, number, band):
    tiles = tuple(tile_list.read(folder / "tile-list.txt").tiles.values())
    path = tiles[number].bands[band].image.path
    with fits.open(path) as file:
        return file[0].data.astype(np.float64), WCS(file[0].header), file[0].header


def test_the_tile_list_finds_all_files(folder):
    tiles = tuple(tile_list.read(folder / "tile-list.txt").tiles.values())
    assert len(tiles) == 2
    for tile in tiles:
        assert set(tile.bands) == {"VIS", "Y", "J", "H"}
        assert tile.catalogue is not None
        assert all(files.rms is not None and files.flag is not None for files in tile.bands.values())


def test_headers_and_shapes(folder):
    for number, nisp_scale in ((0, 0.1), (1, 0.3)):
        for band, zero_point in (("VIS", 24.6), ("Y", 29.8), ("J", 30.0), ("H", 29.9)):
            pixels, wcs, header = image(folder, number, band)
            assert header["MAGZERO"] == zero_point
            assert header["BUNIT"] == "adu"
            assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
            assert "DATE" not in header
            scale = np.sqrt(np.abs(np.linalg.det(wcs.wcs.cd))) * 3600
            assert scale == pytest.approx(0.1 if band == "VIS" else nisp_scale)
            assert np.isfinite(pixels).all()
    assert image(folder, 0, "H")[0].shape == image(folder, 0, "VIS")[0].shape == (720, 720)


def test_sky_is_as_measured_on_real_mosaics(folder):
    def sky(pixels):
        level = np.median(pixels)
        scatter = 1.4826 * np.median(np.abs(pixels - level))
        clean = np.where(np.abs(pixels - level) < 3 * scatter, pixels - level, 0.0)
        return scatter, (clean[:, 1:] * clean[:, :-1]).mean() / (clean**2).mean()

    scatter, correlation = sky(image(folder, 0, "VIS")[0])
    assert 0.0026 < scatter < 0.0033
    assert 0.2 < correlation < 0.32
    scatter, correlation = sky(image(folder, 0, "Y")[0])
    assert 0.5 < scatter < 0.7
    assert 0.74 < correlation < 0.87
    scatter, correlation = sky(image(folder, 1, "Y")[0])
    assert 5.8 < scatter < 7.5
    assert abs(correlation) < 0.2


def test_rms_and_flag_agree_with_each_other_and_with_the_image(folder):
    for tile in tile_list.read(folder / "tile-list.txt").tiles.values():
        for files in tile.bands.values():
            pixels, rms, flag = (fits.getdata(ref.path) for ref in (files.image, files.rms, files.flag))
            assert rms.shape == flag.shape == pixels.shape
            lost = (flag & strips.NO_DATA) != 0
            np.testing.assert_array_equal(rms == np.float32(1e16), lost)
            assert lost.mean() < 0.02
            assert (pixels[lost] == 0).all()
            assert (pixels[~lost] != 0).all()
            shallow = (flag & (strips.FEWER_EXPOSURES | strips.COSMIC_RAY | strips.BAD_PIXEL)) != 0
            assert 0.0 < shallow.mean() < 0.4
            assert np.median(rms[shallow & ~lost]) > 1.08 * np.median(rms[~shallow])


def truth(folder):
    return pq.read_table(folder / "truth.parquet").to_pylist()


def test_both_tiles_see_the_same_sky_where_they_overlap(folder):
    shared = [row for row in truth(folder) if len(row["tile_ids"]) == 2]
    assert len(shared) > 10
    (first, first_wcs, _), (second, second_wcs, _) = image(folder, 0, "VIS"), image(folder, 1, "VIS")
    fluxes = []
    for row in shared:
        pair = []
        for pixels, wcs in ((first, first_wcs), (second, second_wcs)):
            x, y = (round(float(value)) for value in wcs.wcs_world2pix(row["ra"], row["dec"], 0))
            pair.append(pixels[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7].sum())
        fluxes.append(pair)
    a, b = np.array(fluxes).T
    assert np.corrcoef(np.log(np.clip(a, 0.05, None)), np.log(np.clip(b, 0.05, None)))[0, 1] > 0.95


def test_catalogue_lists_what_the_truth_holds(folder):
    for tile in tile_list.read(folder / "tile-list.txt").tiles.values():
        assert tile.catalogue is not None
        table = fits.getdata(tile.catalogue.path)
        mine = [row for row in truth(folder) if tile.tile_id in row["tile_ids"] and row["magnitude_vis"] < 25]
        assert len(table) == len(mine)
        assert len(set(table["OBJECT_ID"].tolist())) == len(table)
        found = SkyCoord(table["RIGHT_ASCENSION"], table["DECLINATION"], unit="deg")
        true = SkyCoord([row["ra"] for row in mine], [row["dec"] for row in mine], unit="deg")
        index, separation, _ = true.match_to_catalog_sky(found)
        assert separation.arcsec.max() < 0.15
        magnitude = 23.9 - 2.5 * np.log10(table["FLUX_DETECTION_TOTAL"][index])
        difference = magnitude - [row["magnitude_vis"] for row in mine]
        assert np.median(np.abs(difference)) < 0.1
        bright = np.array([row["magnitude_vis"] for row in mine]) < 22
        assert (table["SEGMENTATION_AREA"][index][bright] > 15).all()


def test_truth_of_lenses(folder):
    lenses = [row for row in truth(folder) if row["is_lens"]]
    assert 3 <= len(lenses) <= 9
    for row in lenses:
        assert 0.3 < row["theta_e_arcsec"] < 3.5
        assert row["n_systems"] == (2 if row["class_name"] in ("compound_arc", "double_ring") else 1)
        assert math.isnan(row["theta_e_arcsec_2"]) == (row["n_systems"] < 2)
        assert row["mag_eff"] > 1.6 or row["mag_eff_2"] > 1.6
    assert sum(row["visible"] for row in lenses) >= 3
    galaxies = [row for row in truth(folder) if row["class_name"] == "galaxy"]
    assert all(row["n_systems"] == 0 and math.isnan(row["z_source"]) and row["object_flux_vis"] > 0 for row in galaxies)


def test_truth_says_units_and_meanings_and_names_every_object_once(folder):
    table = pq.read_table(folder / "truth.parquet")
    for field in table.schema:
        assert field.metadata[b"description"]
        if field.name.endswith("_arcsec"):
            assert field.metadata[b"unit"] == b"arcsec"
    ids = table["object_id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_artefacts_are_told_with_their_flags_where_they_are(folder):
    rows = pq.read_table(folder / "artefacts.parquet").to_pylist()
    assert len(rows) > 3
    tiles = tile_list.read(folder / "tile-list.txt").tiles
    for row in rows:
        assert row["tile_id"] in tiles
        band = row["bands"].split()[0]
        files = tiles[row["tile_id"]].bands[band]
        with fits.open(files.flag.path) as file:
            flag, wcs = file[0].data, WCS(file[0].header)
        x, y = (round(float(value)) for value in wcs.wcs_world2pix(row["ra"], row["dec"], 0))
        ny, nx = flag.shape
        assert -1 <= x <= nx
        assert -1 <= y <= ny
        # A ghost's middle is dark.
        if row["flag"] and row["kind"] != "ghost" and abs(row["strength"]) > 2.0 and 0 <= x < nx and 0 <= y < ny:
            assert (flag[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] & row["flag"]).any()


def test_bytes_depend_on_the_request_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "_STRIP_PIXELS", 720 * 250)
    draw_tiles(REQUEST, tmp_path / "again", workers=2)
    first, again = hashes(folder), hashes(tmp_path / "again")
    assert first == again


def test_an_interrupted_folder_is_completed_and_a_foreign_one_refused(folder, tmp_path):
    calls = []
    draw_tiles(SMALL, tmp_path / "a", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    before = hashes(tmp_path / "a")
    catalogue = next((tmp_path / "a").rglob("*CAT*"))
    catalogue.unlink()
    draw_tiles(SMALL, tmp_path / "a")
    assert hashes(tmp_path / "a") == before
    with pytest.raises(OutputError, match="another simulation"):
        draw_tiles(SMALL.model_copy(update={"seed": 6}), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        draw_tiles(SMALL, tmp_path / "b")
    assert (tmp_path / "b" / "precious.txt").read_text() == "mine"


def test_an_output_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        draw_tiles(REQUEST, tmp_path / "file" / "sky")
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)
