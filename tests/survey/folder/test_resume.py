import hashlib
import os

import pytest
from made_records import commit_tile, run_record
from waiting import LIMIT_S

from scanner.config import StorageConfig
from scanner.errors import ContentError
from scanner.records import BANDS, BandFiles, ImageRef, Tile
from scanner.storage import open_store
from scanner.survey.folder import fingerprint
from scanner.survey.folder.ledger import COMMIT, SCORES
from scanner.survey.folder.resume import committed_inputs, input_checks, open_run

STORAGE = StorageConfig()


@pytest.fixture
def tiles(tmp_path):
    """Three tiles of small files."""
    made = []
    for tile_id in ("a", "b", "c"):
        files = {band: tmp_path / f"{tile_id}-{band}.fits" for band in BANDS}
        for path in files.values():
            path.write_bytes(os.urandom(5000))
        bands = {band: BandFiles(image=ImageRef(path=str(path))) for band, path in files.items()}
        made.append(Tile(tile_id=tile_id, bands=bands))
    return made


def by_id(tiles):
    return {tile.tile_id: tile for tile in tiles}


@pytest.fixture
def folder(tmp_path, tiles):
    """A run folder in which ``a`` and ``b`` are committed."""
    with open_run(str(tmp_path / "out"), STORAGE, run_record(tile_ids=("a", "b", "c"))) as opened:
        for tile in tiles[:2]:
            files = fingerprint.of_files(tile, STORAGE)
            commit_tile(opened, tile.tile_id, input_files=files, input_fingerprint=fingerprint.combined(files))
        yield opened


def test_tiles_that_stand(folder, tiles):
    inputs = committed_inputs(folder, folder.record())
    assert inputs == {tile.tile_id: fingerprint.of_tile(tile, STORAGE) for tile in tiles[:2]}
    with input_checks(folder, by_id(tiles), inputs, STORAGE) as checks:
        assert checks.unreadable() == []
        checks.raise_if_changed()


def test_tiles_of_other_lists_are_passed_over(folder):
    assert set(committed_inputs(folder, run_record(tile_ids=("b", "c")))) == {"b"}


@pytest.mark.parametrize("damage", ["record", "a byte of the scores", "no scores", "no cutouts", "no record"])
def test_a_damaged_tile_is_discarded_to_be_scanned_again(folder, tmp_path, damage, caplog):
    path = tmp_path / "out" / "tiles" / "b"
    match damage:
        case "record":
            (path / COMMIT).write_text("{")
        case "a byte of the scores":
            content = bytearray((path / SCORES).read_bytes())
            content[9] ^= 1
            (path / SCORES).write_bytes(content)
        case "no scores":
            (path / SCORES).unlink()
        case "no cutouts":
            folder.discard("b")
            commit_tile(folder, "b", lost={"cutouts.zarr/zarr.json": "0" * 64})
        case "no record":
            (path / COMMIT).unlink()
    assert set(committed_inputs(folder, folder.record())) == {"a"}
    assert not path.exists()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (damage != "no record")
    assert all(f"{path}/" in line and "scans the tile again" in line for line in lines)
    commit_tile(folder, "b")
    assert set(committed_inputs(folder, folder.record())) == {"a", "b"}


def test_cutouts_are_hashed_where_that_is_asked_for(folder, tmp_path, caplog):
    folder.discard("b")
    commit_tile(folder, "b", lost={"cutouts.zarr/vis/c/0": hashlib.sha256(b"pixels").hexdigest()})
    shard = tmp_path / "out" / "tiles" / "b" / "cutouts.zarr" / "vis" / "c" / "0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"pixels")
    assert set(committed_inputs(folder, folder.record(), deep=True)) == {"a", "b"}
    shard.write_bytes(b"pixelt")
    assert set(committed_inputs(folder, folder.record())) == {"a", "b"}
    assert set(committed_inputs(folder, folder.record(), deep=True)) == {"a"}
    assert f"{shard}: damaged" in caplog.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config_fingerprint": "old"}, "settings old instead of c"),
        ({"bundle_fingerprint": "other"}, "bundle other instead of b"),
    ],
)
def test_a_tile_committed_with_something_else_is_refused(folder, changes, told):
    commit_tile(folder, "c", **changes)
    with pytest.raises(ContentError, match=rf"tiles/c: .*{told}.*--restart"):
        committed_inputs(folder, folder.record())


def test_changed_input_files_are_named(folder, tiles, tmp_path):
    with (tmp_path / "b-Y.fits").open("ab") as file:
        file.write(b"\0")
    inputs = committed_inputs(folder, folder.record())
    with input_checks(folder, by_id(tiles), inputs, STORAGE) as checks:
        with pytest.raises(ContentError, match=r"tiles/b: .*b-Y\.fits \(Y\.image\)") as caught:
            checks.wait(LIMIT_S)
        assert "b-VIS" not in str(caught.value)
        assert "--restart" in str(caught.value)
        with pytest.raises(ContentError):
            checks.raise_if_changed()


def test_an_added_companion_is_a_change(folder, tiles, tmp_path):
    bands = tiles[0].bands | {"H": BandFiles(image=tiles[0].bands["H"].image, flag=ImageRef(path=str(tmp_path / "a-J.fits")))}
    changed = tiles[0].model_copy(update={"bands": bands})
    with (
        input_checks(folder, by_id([changed]), committed_inputs(folder, folder.record()), STORAGE) as checks,
        pytest.raises(ContentError, match=r"\(H\.flag\)"),
    ):
        checks.unreadable()
    before = tiles[0].model_copy(update={"bands": tiles[0].bands | {"H": bands["H"].model_copy(update={"flag": None})}})
    without = tiles[1].model_copy(update={"bands": {band: files for band, files in tiles[1].bands.items() if band != "H"}})
    with (
        input_checks(folder, by_id([before, without]), committed_inputs(folder, folder.record()), STORAGE) as checks,
        pytest.raises(ContentError, match=r"no H\.image any more"),
    ):
        checks.unreadable()


def test_a_committed_tile_whose_files_are_gone_is_listed(folder, tiles, tmp_path):
    (tmp_path / "a-VIS.fits").unlink()
    with input_checks(folder, by_id(tiles), committed_inputs(folder, folder.record()), STORAGE) as checks:
        (failed,) = checks.unreadable()
    assert failed.tile_id == "a"
    assert "a-VIS.fits" in failed.reason
    assert "scanned before" in failed.reason


def test_a_changed_object_of_a_store_is_named(folder, s3):
    location = s3.fresh()
    store = open_store(location, s3.config)
    for band in BANDS:
        store.write(f"{band}.fits", os.urandom(1000))
    bands = {band: BandFiles(image=ImageRef(path=f"{location}/{band}.fits")) for band in BANDS}
    tile = Tile(tile_id="c", bands=bands)
    files = fingerprint.of_files(tile, s3.config)
    assert fingerprint.of_files(tile, s3.config) == files
    commit_tile(folder, "c", input_files=files, input_fingerprint=fingerprint.combined(files))
    store.write("J.fits", os.urandom(1000))
    with (
        input_checks(folder, by_id([tile]), committed_inputs(folder, folder.record()), s3.config) as checks,
        pytest.raises(ContentError, match=rf"{location}/J\.fits \(J\.image\)") as caught,
    ):
        checks.unreadable()
    assert "VIS.fits" not in str(caught.value)
    store.delete("J.fits")
    with input_checks(folder, by_id([tile]), committed_inputs(folder, folder.record()), s3.config) as checks:
        (failed,) = checks.unreadable()
    assert f"{location}/J.fits" in failed.reason
