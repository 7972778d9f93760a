"""Replaying objects of real runs: equal on the machine of the run, and told where something has changed since."""

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_skycoord, skycoord_to_pixel
from damage import resealed
from PIL import Image
from scans import in_this_process, quick_bundle

from scanner.config import load
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.records import BANDS
from scanner.storage import open_store
from scanner.survey.objects import ReplayRequest, replay
from scanner.survey.run import RunRequest, run_survey

SETTINGS = {"scoring.beta": 2.0, "targets.magnitude_limit": 21.5, "cutouts.batch_size": 4, "engine.workers": 1}


def scan(tile_list, out, **settings):
    """A run in this process."""
    with in_this_process():
        return run(tile_list, out, **settings)


def run(tile_list, out, **settings):
    return run_survey(RunRequest(str(tile_list), str(out), load(None, SETTINGS | settings, {})))


def again(run_folder, candidate, **more):
    return replay(ReplayRequest(str(run_folder), str(candidate), **more))


@pytest.fixture(scope="module")
def finished(sky, tmp_path_factory):
    """A run of three overlapping tiles, on a worker, that keeps the candidates' cutouts, compact, and its report."""
    out = tmp_path_factory.mktemp("replay") / "out"
    return out, run(sky / "tile-list.txt", out)


@pytest.fixture(scope="module")
def one_tile(sky, tmp_path_factory):
    """A sky of one tile and a run of it, without test-time augmentation, that keeps every cutout as it is."""
    folder = tmp_path_factory.mktemp("one")
    tile = sorted(path for path in sky.iterdir() if path.is_dir())[0]
    shutil.copytree(tile, folder / tile.name)
    (folder / "tile-list.txt").write_text(f"{tile.name}\n")
    exact = {"cutouts.keep": "all", "cutouts.codec": "exact", "scoring.bundle": quick_bundle()}
    report = scan(folder / "tile-list.txt", folder / "out", **exact)
    return folder, tile.name, report


@pytest.fixture
def copied(one_tile, tmp_path):
    """A copy of that sky and run that a test may damage, and the name of the best object."""
    folder, tile_id, report = one_tile
    shutil.copytree(folder, tmp_path / "copy")
    record = tmp_path / "copy" / "out" / "run.json"
    resealed(record, **json.loads(record.read_text().replace(str(folder), str(tmp_path / "copy"))))
    return tmp_path / "copy", tile_id, report.listed["name"][0].as_py()


def test_every_third_object_comes_out_bit_for_bit(finished):
    out, report = finished
    scored = [row for row in report.listed.to_pylist() if not math.isnan(row["p_calibrated"])]
    assert len(scored[::3]) > 3
    for row in scored[::3]:
        found = again(out, row["name"])
        assert (found.rank, found.tile_id, found.target_id) == (row["rank"], row["tile_id"], row["target_id"])
        assert found.differences == ()
        assert found.same_machine
        assert {value.agreement for value in found.values} == {"equal"}
        assert {value.name: value.now for value in found.values}["p_ou_66"] == row["p_ou_66"]
        assert (found.pixels.agreement, found.pixels.codec) == ("equal", "compact")
        assert 0 < found.pixels.largest_distance <= 1
        assert found.passed


def test_every_object_of_a_tile_comes_out_bit_for_bit_with_all_its_pixels(one_tile):
    folder, tile_id, report = one_tile
    rows = pq.read_table(folder / "out" / "tiles" / tile_id / "scores.parquet")
    assert len(rows) == report.n_targets > 5
    for target_id in rows["target_id"].to_pylist():
        found = again(folder / "out", f"{tile_id}/{target_id}")
        assert found.agreement == "equal"
        assert (found.pixels.codec, found.pixels.largest_distance) == ("exact", 0.0)


def test_objects_are_found_by_rank_with_and_without_a_sign_candidates_or_not(finished):
    out, report = finished
    first, *others = [row for row in report.listed.to_pylist() if not math.isnan(row["p_calibrated"])]
    assert again(out, f"#{first['rank']}").name == first["name"]
    last = next(row for row in reversed(others) if not row["is_candidate"])
    found = again(out, str(last["rank"]))
    assert (found.rank, found.name) == (last["rank"], last["name"])
    assert found.passed
    assert again(out, last["name"].removeprefix("EUCL ")).rank == last["rank"]


def test_a_row_that_lost_to_another_tile_is_replayed_without_a_rank(finished):
    out, report = finished
    assert report.n_unique < report.n_targets
    unique = pq.read_table(out / "catalogue" / "dataset", columns=["tile_id", "target_id"]).to_pylist()
    merged = {(row["tile_id"], row["target_id"]) for row in unique}
    tables = [pq.read_table(path) for path in sorted((out / "tiles").glob("*/scores.parquet"))]
    every = {(row["tile_id"], row["target_id"]) for table in tables for row in table.to_pylist()}
    for tile_id, target_id in sorted(every - merged)[:2]:
        found = again(out, f"{tile_id}/{target_id}")
        assert found.rank is None
        assert found.agreement == "equal"


@pytest.mark.parametrize(
    ("wanted", "kind", "said"),
    [
        ("Castor", UsageError, "'Castor' is no id of an object"),
        ("#0", InputMissingError, "no object has rank 0"),
        ("#999999", InputMissingError, "no object has rank 999999"),
        ("EUCL J000000.00+000000.0", InputMissingError, "no object is called EUCL J000000.00+000000.0"),
        ("nowhere/7", InputMissingError, "no finished tile nowhere"),
        ("../7", UsageError, "is no id of an object"),
    ],
)
def test_what_is_not_there_is_told(finished, wanted, kind, said):
    with pytest.raises(kind) as caught:
        again(finished[0], wanted)
    assert said in str(caught.value)


def test_an_unknown_object_of_a_known_tile(one_tile):
    folder, tile_id, _ = one_tile
    with pytest.raises(InputMissingError, match=f"tile {tile_id} has no object -5"):
        again(folder / "out", f"{tile_id}/-5")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputMissingError, match="not a run folder"):
        again(tmp_path, "#1")


def test_a_run_that_is_not_merged_yet_knows_places_only(copied):
    folder, tile_id, name = copied
    place = again(folder / "out", name)
    shutil.rmtree(folder / "out" / "catalogue")
    for path in (folder / "out").glob("candidates.*"):
        path.unlink()
    resealed(folder / "out" / "run.json", sha256={})
    found = again(folder / "out", f"{tile_id}/{place.target_id}")
    assert (found.rank, found.agreement) == (None, "equal")
    with pytest.raises(InputMissingError, match="not been merged yet"):
        again(folder / "out", name)


def test_a_changed_mosaic_is_named_and_refused_unless_asked_for(copied):
    folder, tile_id, name = copied
    mosaic = next((folder / tile_id).glob("*BGSUB-MOSAIC-VIS_*"))
    with fits.open(mosaic, mode="update") as hdus:
        hdus[0].data += 1e-3
    with pytest.raises(ContentError) as caught:
        again(folder / "out", name)
    assert str(mosaic) in str(caught.value)
    assert "has changed since" in str(caught.value)
    found = again(folder / "out", name, anyway=True)
    assert [line.partition(":")[0] for line in found.differences] == ["inputs"]
    assert found.pixels.agreement == "different"
    assert not found.passed


def test_a_mosaic_that_is_gone(copied):
    folder, tile_id, name = copied
    mosaic = next((folder / tile_id).glob("*BGSUB-MOSAIC-NIR-H_*"))
    mosaic.unlink()
    with pytest.raises(InputMissingError, match="no mosaic of H"):
        again(folder / "out", name)


def test_a_mosaic_that_is_damaged(copied):
    folder, tile_id, name = copied
    mosaic = next((folder / tile_id).glob("*BGSUB-MOSAIC-NIR-H_*"))
    mosaic.write_bytes(mosaic.read_bytes()[:10_000])
    with pytest.raises(ContentError, match="truncated"):
        again(folder / "out", name, anyway=True)


def test_a_tile_list_that_moved_can_be_named(copied):
    folder, tile_id, name = copied
    (folder / "tile-list.txt").rename(folder / "moved.txt")
    with pytest.raises(InputMissingError, match=r"tile-list\.txt"):
        again(folder / "out", name)
    assert again(folder / "out", name, tile_list=str(folder / "moved.txt")).agreement == "equal"
    (folder / "moved.txt").write_text("id=other VIS=a Y=a J=a H=a\n")
    with pytest.raises(InputMissingError, match=f"has no tile {tile_id} any more"):
        again(folder / "out", name, tile_list=str(folder / "moved.txt"))


def test_another_bundle_is_named_and_scored(copied):
    folder, _, name = copied
    other = shutil.copytree(quick_bundle(), folder / "other")
    manifest = json.loads((other / "bundle.json").read_text())
    manifest["name"], manifest["calibration"]["intercept"] = "other", manifest["calibration"]["intercept"] + 1
    resealed(other / "bundle.json", **manifest)
    found = again(folder / "out", name, bundle=str(other))
    assert len(found.differences) == 1
    assert "→ other" in found.differences[0]
    assert [value.name for value in found.values if value.agreement != "equal"] == ["p_calibrated"]
    assert found.pixels.agreement == "equal"
    assert not found.passed


def test_a_tampered_table_is_refused(copied):
    folder, tile_id, name = copied
    path = folder / "out" / "tiles" / tile_id / "scores.parquet"
    rows = pq.read_table(path)
    better = pa.array(np.ones(len(rows), np.float32))
    pq.write_table(rows.set_column(rows.schema.get_field_index("p_ou_200"), rows.schema.field("p_ou_200"), better), path)
    with pytest.raises(ContentError, match="checksum"):
        again(folder / "out", name)


def test_a_tampered_catalogue_is_refused(copied):
    folder, _, name = copied
    (path,) = (folder / "out" / "catalogue" / "dataset").rglob("Npix=*.parquet")
    rows = pq.read_table(path, partitioning=None)
    better = pa.array(np.ones(len(rows), np.float32))
    pq.write_table(rows.set_column(rows.schema.get_field_index("p_ou_j"), rows.schema.field("p_ou_j"), better), path)
    with pytest.raises(ContentError, match="merges its tiles anew"):
        again(folder / "out", name)


def test_a_tampered_record_is_told(copied):
    folder, _, name = copied
    path = folder / "out" / "run.json"
    config = json.loads(path.read_text())["config"]
    config["cutouts"]["max_bad_fraction"] = 0.2
    resealed(path, config=config, scanner_version="0.0.1")
    found = again(folder / "out", name)
    assert [line.partition(":")[0] for line in found.differences] == ["scanner", "settings"]
    assert found.differences[0].startswith("scanner: 0.0.1 → ")


def test_on_another_machine_what_differs_is_named_and_bits_may(copied, monkeypatch):
    folder, _, name = copied
    here = again(folder / "out", name).machine_now
    monkeypatch.setattr("scanner.survey.objects.machine_fingerprint", lambda provider: here.replace("numpy ", "numpy 9."))
    found = again(folder / "out", name)
    assert not found.same_machine
    assert len(found.differences) == 1
    assert "→ numpy 9." in found.differences[0]
    assert found.passed


def test_scratch_is_made_and_left_empty(finished, tmp_path):
    """The second tile's NISP bands lie askew and are resampled into scratch."""
    out, report = finished
    askew = sorted(path.name for path in (out / "tiles").iterdir())[1]
    row = next(row for row in report.listed.to_pylist() if row["tile_id"] == askew)
    assert again(out, row["name"], scratch=tmp_path / "new" / "scratch").agreement == "equal"
    assert list((tmp_path / "new" / "scratch").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        again(out, row["name"], scratch=tmp_path / "file")


def test_the_cutout_can_be_looked_at(one_tile, tmp_path):
    """Pixels as they are in the mosaics, each band with a WCS that puts the middle at one place, and a picture."""
    folder, tile_id, report = one_tile
    row = report.listed.slice(0, 1).to_pylist()[0]
    found = again(folder / "out", row["name"], out=tmp_path / "files")
    cutout, picture = (tmp_path / "files" / f"{row['name'].replace(' ', '_')}.{suffix}" for suffix in ("fits", "png"))
    assert found.files == (str(cutout), str(picture))
    mosaic = next((folder / tile_id).glob("*BGSUB-MOSAIC-VIS_*"))
    with fits.open(cutout) as hdus, fits.open(mosaic) as whole:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", *BANDS]
        assert (hdus[0].header["OBJECT"], hdus[0].header["TILE"]) == (row["name"], tile_id)
        x0, y0 = hdus[0].header["X0"], hdus[0].header["Y0"]
        inside = [slice(max(first, 0), first + 200) for first in (y0, x0)]
        shown = hdus["VIS"].data[inside[0].start - y0 :, inside[1].start - x0 :]
        expected = whole[0].data[inside[0], inside[1]]
        good = np.isfinite(shown[: expected.shape[0], : expected.shape[1]])
        assert good.mean() > 0.5
        np.testing.assert_array_equal(shown[: expected.shape[0], : expected.shape[1]][good], expected[good])
        position = pixel_to_skycoord(row["x"], row["y"], WCS(whole[0].header))
        offset = np.array([row["offset_x"], row["offset_y"]])
        np.testing.assert_allclose(skycoord_to_pixel(position, WCS(hdus["VIS"].header)), 99.5 + offset, atol=1e-4)
        for band in BANDS[1:]:
            assert hdus[band].data.shape == (66, 66)
            np.testing.assert_allclose(skycoord_to_pixel(position, WCS(hdus[band].header)), 32.5 + offset / 3, atol=0.1)
    with Image.open(picture) as shown:
        assert (shown.size, shown.mode) == ((1200, 400), "RGB")


def test_tiles_and_run_on_an_object_store(one_tile, s3, tmp_path):
    """A run whose tiles, list and folder lie on a store."""
    folder, tile_id, _ = one_tile
    place = s3.fresh()
    store = open_store(place, s3.config)
    for path in sorted((folder / tile_id).iterdir()):
        store.publish(shutil.copy(path, folder / "passing"), f"sky/{tile_id}/{path.name}")
    (folder / "passing").write_text(f"{tile_id}\n")
    store.publish(folder / "passing", "sky/tile-list.txt")
    scan(f"{place}/sky/tile-list.txt", f"{place}/out", **{"storage.endpoint": s3.config.endpoint})
    found = again(f"{place}/out", "#1", storage=s3.config)
    assert found.agreement == "equal"
    assert found.pixels.codec == "compact"
    # A copy of the run here knows where its tiles lie and how they are reached.
    store.fetch("out", tmp_path / "copy")
    assert again(tmp_path / "copy", f"{tile_id}/{found.target_id}").agreement == "equal"
