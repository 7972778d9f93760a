"""Cutouts of a real run's objects, from its stores and from its mosaics."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.compute as pc
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import skycoord_to_pixel

from scanner.config import StorageConfig
from scanner.records import BANDS
from scanner.service.collections import Cutouts, NoCutoutError
from scanner.service.errors import BusyError
from scanner.storage import open_store
from scanner.survey import objects
from scanner.survey.folder.ledger import CUTOUTS, RunFolder


def run_folder(place):
    return RunFolder(open_store(str(place), StorageConfig()))


@pytest.fixture
def cutouts():
    made = Cutouts()
    yield made
    made.close()


@pytest.fixture
def copied(served_run, tmp_path):
    return shutil.copytree(served_run, tmp_path / "run")


def forget_cutouts(run, tile_id):
    """Make the tile one of a run that keeps nothing."""
    folder = run_folder(run)
    commit = folder.commit_of(tile_id)
    kept = {name: value for name, value in commit.sha256.items() if not name.startswith(f"{CUTOUTS}/")}
    assert len(kept) < len(commit.sha256)
    (run / folder.tile(tile_id) / "commit.json").write_bytes(commit.model_copy(update={"sha256": kept}).to_bytes())
    shutil.rmtree(run / folder.tile(tile_id) / CUTOUTS)


def test_the_object_stands_where_each_bands_wcs_says(served_run, rows, cutouts):
    """Within a tenth of the band's pixel, of every object of all three tiles, bands that were binned and resampled."""
    folder = run_folder(served_run)
    assert len(set(rows["tile_id"].to_pylist())) == 3
    for index in range(len(rows)):
        row = rows.slice(index, 1)
        framed = cutouts.find(folder, row)
        position = SkyCoord(row["ra"][0].as_py(), row["dec"][0].as_py(), unit="deg")
        offset = np.array([row["offset_x"][0].as_py(), row["offset_y"][0].as_py()])
        for image, band in zip(framed.images, BANDS, strict=True):
            assert image.band == band
            side, step = (200, 1) if band == "VIS" else (66, 3)
            assert image.pixels.shape == (side, side)
            expected = (side - 1) / 2 + offset / step
            np.testing.assert_allclose(skycoord_to_pixel(position, image.wcs), expected, atol=0.1)


def test_what_is_cut_again_is_what_was_kept(served_run, rows, copied, cutouts):
    row = rows.slice(0, 1)
    kept = cutouts.find(run_folder(served_run), row)
    forget_cutouts(copied, row["tile_id"][0].as_py())
    again = cutouts.find(run_folder(copied), row)
    np.testing.assert_array_equal(again.cutout.vis, kept.cutout.vis)
    np.testing.assert_array_equal(again.cutout.nisp, kept.cutout.nisp)
    for now, then in zip(again.images, kept.images, strict=True):
        assert (now.unit, now.zero_point) == (then.unit, then.zero_point)
        np.testing.assert_allclose(now.wcs.all_pix2world(10, 20, 0), then.wcs.all_pix2world(10, 20, 0), rtol=0, atol=0.1 / 3600)


def test_an_object_that_cannot_be_had_is_refused_without_a_path(rows, copied, cutouts, caplog):
    row = rows.slice(0, 1)
    tile_id = row["tile_id"][0].as_py()
    forget_cutouts(copied, tile_id)
    record = run_folder(copied).record()
    run_folder(copied).write_record(record.model_copy(update={"tile_list": str(copied / "gone.txt")}))
    with pytest.raises(NoCutoutError) as caught:
        cutouts.find(run_folder(copied), row)
    assert f"of tile {tile_id} was not kept" in str(caught.value)
    assert str(copied) not in str(caught.value)
    assert "gone.txt" in caplog.text


def test_mosaics_on_an_object_store_are_not_fetched_for_one_cutout(rows, copied, cutouts, caplog):
    row = rows.slice(0, 1)
    tile_id = row["tile_id"][0].as_py()
    forget_cutouts(copied, tile_id)
    (copied / "list.txt").write_text(f"id={tile_id} " + " ".join(f"{band}=s3://there/{band}.fits" for band in BANDS) + "\n")
    record = run_folder(copied).record()
    run_folder(copied).write_record(record.model_copy(update={"tile_list": str(copied / "list.txt")}))
    with pytest.raises(NoCutoutError):
        cutouts.find(run_folder(copied), row)
    assert "is not fetched for one cutout" in caplog.text


def test_what_a_damaged_store_held_is_made_again(rows, served_run, copied, cutouts, caplog):
    row = rows.slice(0, 1)
    for file in (copied / "tiles" / row["tile_id"][0].as_py()).rglob("vis/c/0/0/0"):
        file.write_bytes(file.read_bytes()[:-100])
    again, kept = cutouts.find(run_folder(copied), row), cutouts.find(run_folder(served_run), row)
    for one, other in zip(again.images, kept.images, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert "is made again" in caplog.text
    assert "'scanner run --verify' scans the tile again" in caplog.text


def test_few_stores_and_cutouts_are_kept_whatever_many_threads_ask_for(served_run, rows):
    """With room for one tile and two cutouts, all objects of all tiles come right from eight threads."""
    cutouts = Cutouts(kept=2, open_tiles=1)
    folder = run_folder(served_run)
    wrong = []

    def ask(first):
        for step in range(4):
            row = rows.slice((first * 5 + step * 7) % len(rows), 1)
            if cutouts.find(folder, row).cutout.targets.target_id[0] != row["target_id"][0].as_py():
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cutouts._kept) == 2
    assert len(cutouts._stores._entries) == 1
    cutouts.close()


def test_stores_are_fetched_from_an_object_store_and_removed(served_run, rows, s3, tmp_path):
    place = s3.fresh()
    open_store(place, s3.config).publish(shutil.copytree(served_run, tmp_path / "copy"), "run")
    folder = RunFolder(open_store(f"{place}/run", s3.config))
    cutouts = Cutouts(tmp_path, open_tiles=1)
    here = Cutouts()
    for index in (0, len(rows) - 1):
        row = rows.slice(index, 1)
        np.testing.assert_array_equal(cutouts.find(folder, row).cutout.vis, here.find(run_folder(served_run), row).cutout.vis)
    assert len(list(tmp_path.glob("scanner-*/store-*"))) == 1
    cutouts.close()
    here.close()
    assert list(tmp_path.glob("scanner-*")) == []


def test_who_waits_finds_what_was_cut_meanwhile_and_waits_no_longer_than_a_moment(rows, copied, cutouts, monkeypatch):
    row = rows.slice(0, 1)
    forget_cutouts(copied, row["tile_id"][0].as_py())
    folder = run_folder(copied)
    opened = []
    cut_again = objects.framed_again

    def counted(*arguments):
        opened.append(arguments)
        return cut_again(*arguments)

    monkeypatch.setattr(objects, "framed_again", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cutouts.find(folder, row), range(4)))
    assert len(opened) == 1
    assert all(one is found[0] for one in found)
    monkeypatch.setattr("scanner.service.collections.LONGEST_WAIT_S", 0.01)
    of_the_same_tile = rows.filter(pc.equal(rows["tile_id"], row["tile_id"][0]))
    with cutouts._cutting, pytest.raises(BusyError, match="being made again"):
        cutouts.find(folder, of_the_same_tile.slice(1, 1))


def test_a_store_that_does_not_answer_is_no_missing_cutout(rows, served_run, faulty_s3, s3, tmp_path, cutouts):
    place = s3.fresh()
    open_store(place, s3.config).publish(shutil.copytree(served_run, tmp_path / "copy"), "run")
    folder = RunFolder(open_store(f"{place}/run", faulty_s3.config(retries=0)))
    faulty_s3.fault = lambda number, method, path: "busy"
    with pytest.raises(BusyError, match="does not answer"):
        cutouts.find(folder, rows.slice(0, 1))
    faulty_s3.fault = lambda number, method, path: None
    assert cutouts.find(folder, rows.slice(0, 1)).images[0].band == "VIS"
