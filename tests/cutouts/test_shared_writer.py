import hashlib

import numpy as np
import pytest

from scanner.cutouts.store import (
    CutoutStore,
    CutoutWriter,
    begin_store,
    column_values,
    finish_store,
    store_attributes,
    write_shards,
)

ARGUMENTS = ("sky", "", {"VIS": 24.6}, {"VIS": "adu"})


def digest(path):
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("codec", ["exact", "compact"])
def test_shards_in_any_order_give_the_bytes_of_the_other_writer(tmp_path, make_batch, codec):
    batch = make_batch(300, holes=True)
    names = ("tile_id", "wcs_header", "zero_points", "units")
    with CutoutWriter(tmp_path / "one", **dict(zip(names, ARGUMENTS, strict=True)), codec=codec) as writer:
        writer.append(batch)
    path = tmp_path / "other"
    attributes = store_attributes(*ARGUMENTS, codec).model_copy(update={"n_objects": 300})
    begin_store(path, attributes)
    write_shards(path, 256, batch.take(np.arange(256, 300)))
    begin_store(path, attributes)  # the shard that is there stays
    write_shards(path, 0, batch.take(np.arange(256)))
    assert not path.exists()
    columns = column_values(batch)
    finish_store(path, {name: [values[:256], values[256:]] for name, values in columns.items()})
    assert digest(path) == digest(tmp_path / "one")
    assert len(CutoutStore(path)) == 300


@pytest.mark.parametrize(("first", "stop"), [(16, 272), (0, 128), (256, 299)])
def test_parts_of_shards_are_refused(tmp_path, make_batch, first, stop):
    begin_store(tmp_path / "s", store_attributes(*ARGUMENTS, "compact").model_copy(update={"n_objects": 300}))
    with pytest.raises(ValueError, match="whole shards"):
        write_shards(tmp_path / "s", first, make_batch(stop - first))
