import hashlib
import itertools
import json
import resource

import numpy as np
import pytest
import zarr

from scanner.cutouts.store import CutoutStore, CutoutWriter, largest_error
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.records import CutoutBatch, Targets

COLUMNS = ("x0", "y0", "offset", "bad_fraction", "sky", "sigma", "flags")


def write(path, batches, codec="exact", **changes):
    arguments = {
        "tile_id": "102018665",
        "wcs_header": "CTYPE1  = 'RA---TAN'",
        "zero_points": {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": float("nan")},
        "units": {"VIS": "adu", "Y": "uJy", "J": "uJy"},
    }
    with CutoutWriter(path, codec=codec, **(arguments | changes)) as writer:
        for batch in batches:
            writer.append(batch)
    return CutoutStore(path)


def digest(path):
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def assert_same(batch: CutoutBatch, other: CutoutBatch, images=True):
    for name in vars(batch.targets):
        np.testing.assert_array_equal(getattr(batch.targets, name), getattr(other.targets, name), err_msg=name)
    for name in COLUMNS + (("vis", "nisp") if images else ()):
        np.testing.assert_array_equal(getattr(batch, name), getattr(other, name), err_msg=name)
        assert getattr(batch, name).dtype == getattr(other, name).dtype


def test_exact_store_gives_back_every_bit(tmp_path, make_batch):
    batch = make_batch(300, holes=True)
    store = write(tmp_path / "cutouts.zarr", [batch])
    assert len(store) == 300
    assert_same(store.read(slice(None)), batch)
    np.testing.assert_array_equal(store.target_id, batch.targets.target_id)
    np.testing.assert_array_equal(store.ra, batch.targets.ra)
    np.testing.assert_array_equal(store.targets.magnitude, batch.targets.magnitude)


def test_compact_store_gives_back_pixels_within_its_error_and_rows_exactly(tmp_path, make_batch):
    batch = make_batch(40, holes=True)
    back = write(tmp_path / "cutouts.zarr", [batch], codec="compact").read(slice(None))
    assert_same(back, batch, images=False)
    for ours, theirs, sky, sigma in (
        (back.vis, batch.vis, batch.sky[:, 0], batch.sigma[:, 0]),
        (back.nisp, batch.nisp, batch.sky[:, 1:], batch.sigma[:, 1:]),
    ):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        error = np.abs(ours - theirs) / sigma[..., None, None]
        assert np.nanmax(error - largest_error(theirs, sky, sigma)) <= 0


def test_compact_is_four_times_smaller_on_noise(tmp_path, make_batch):
    batch = make_batch(64)
    sizes = {}
    for codec in ("exact", "compact"):
        path = tmp_path / codec
        write(path, [batch], codec=codec)
        sizes[codec] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert sizes["exact"] > 4 * sizes["compact"]


@pytest.mark.parametrize("codec", ["exact", "compact"])
def test_bytes_depend_on_the_cutouts_not_on_how_they_were_divided(tmp_path, codec, make_batch):
    batch = make_batch(290)
    write(tmp_path / "whole", [batch], codec=codec)
    cuts = [0, 1, 17, 200, 257, 290]
    parts = [batch.take(np.arange(a, b)) for a, b in itertools.pairwise(cuts)]
    write(tmp_path / "parts", parts, codec=codec)
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")


def test_reading_takes_what_numpy_takes(tmp_path, make_batch):
    batch = make_batch(50)
    store = write(tmp_path / "cutouts.zarr", [batch])
    mask = np.arange(50) % 7 == 3
    for index in (np.array([3, 3, 49, 0]), mask, slice(45, 200), slice(10, 2, -2), np.array([-1])):
        assert_same(store.read(index), batch.take(np.arange(50)[index]))
    assert_same(store.read(17), batch.take(np.array([17])))
    assert_same(store.read(-1), batch.take(np.array([49])))
    assert len(store.read(slice(0, 0))) == 0
    with pytest.raises(IndexError):
        store.read(50)


def test_batches_go_through_in_order(tmp_path, make_batch):
    batch = make_batch(20)
    store = write(tmp_path / "cutouts.zarr", [batch])
    parts = list(store.batches(8))
    assert [len(part) for part in parts] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([part.vis for part in parts]), batch.vis)


def test_attributes_say_what_a_reader_needs(tmp_path, make_batch):
    store = write(tmp_path / "cutouts.zarr", [make_batch(2)], codec="compact")
    attributes = store.attributes
    assert attributes.tile_id == "102018665"
    assert attributes.codec == "compact"
    assert attributes.units == {"VIS": "adu", "Y": "uJy", "J": "uJy", "H": ""}
    assert attributes.zero_points == {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": None}
    assert attributes.wcs == "CTYPE1  = 'RA---TAN'"


def test_plain_zarr_reads_an_exact_store(tmp_path, make_batch):
    batch = make_batch(5)
    write(tmp_path / "cutouts.zarr", [batch])
    group = zarr.open_group(tmp_path / "cutouts.zarr", mode="r")
    np.testing.assert_array_equal(group["vis"][3], batch.vis[3])
    np.testing.assert_array_equal(group["target_id"][:], batch.targets.target_id)
    assert group.attrs["bands"] == ["VIS", "Y", "J", "H"]


def test_an_empty_store_is_a_store(tmp_path):
    store = write(tmp_path / "cutouts.zarr", [])
    assert len(store) == 0
    assert store.read(slice(None)).vis.shape == (0, 200, 200)
    assert list(store.batches()) == []


def test_an_error_leaves_nothing_behind(tmp_path, make_batch):
    def fail():
        with CutoutWriter(
            tmp_path / "cutouts.zarr", tile_id="1", wcs_header="", zero_points={}, units={}, codec="exact"
        ) as writer:
            writer.append(make_batch(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "cutouts.zarr").mkdir()
    with pytest.raises(OutputError, match="already there"):
        write(tmp_path / "cutouts.zarr", [])


def test_a_place_that_cannot_be_written_is_told(tmp_path, make_batch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "cutouts.zarr", [make_batch(1)])


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, make_batch):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(File too large\)"):
            write(tmp_path / "cutouts.zarr", [make_batch(300)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_column_is_told(tmp_path, make_batch):
    path = tmp_path / "cutouts.zarr"
    write(path, [make_batch(40)])
    file = path / "ra/c/0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ContentError, match="a column is damaged"):
        CutoutStore(path).read(3)


def test_a_missing_store_is_told(tmp_path):
    with pytest.raises(InputMissingError, match="no such cutout store"):
        CutoutStore(tmp_path / "none.zarr")


def test_a_folder_that_is_no_store_is_told(tmp_path):
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(ContentError, match="not a cutout store"):
        CutoutStore(tmp_path)
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(ContentError, match="not a cutout store"):
        CutoutStore(tmp_path / "other.zarr")


def test_a_missing_shard_is_told_not_read_as_blank(tmp_path, make_batch):
    path = tmp_path / "cutouts.zarr"
    write(path, [make_batch(260)])
    (path / "vis/c/1/0/0").unlink()
    with pytest.raises(ContentError, match=r"vis/c/1/0/0 is missing"):
        CutoutStore(path)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_shard_is_told(tmp_path, damage, make_batch):
    path = tmp_path / "cutouts.zarr"
    batch = make_batch(40)
    write(path, [batch], codec="compact")
    file = path / "nisp/c/0/0/0/0"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[1000] ^= 4
    else:
        del content[-5000:]
    file.write_bytes(content)
    with pytest.raises(ContentError, match=r"'nisp' is damaged"):
        CutoutStore(path).read(3)


def test_a_count_that_does_not_match_is_told(tmp_path, make_batch):
    path = tmp_path / "cutouts.zarr"
    write(path, [make_batch(3)])
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["n_objects"] = 4
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(ContentError, match="3 rows instead of 4"):
        CutoutStore(path)


def test_targets_travel_unchanged(tmp_path, make_batch):
    ids = np.array([-570040238507752998, 2**62], dtype=np.int64)
    batch = make_batch(2)
    targets = Targets(**(vars(batch.targets) | {"target_id": ids, "magnitude": np.full(2, np.nan, np.float32)}))
    store = write(tmp_path / "cutouts.zarr", [CutoutBatch(**(vars(batch) | {"targets": targets}))])
    assert store.target_id.tolist() == ids.tolist()
    assert np.isnan(store.targets.magnitude).all()
