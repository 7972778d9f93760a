import re

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable.ucd import check_ucd

from scanner.catalogue import columns
from scanner.records import CutoutBatch, Flag, Scores, Targets


def a_batch(n: int) -> tuple[CutoutBatch, Scores]:
    generator = np.random.default_rng(n)
    targets = Targets(
        target_id=np.arange(n) - 5_000_000_000_000_000_000,
        ra=generator.uniform(0, 360, n),
        dec=generator.uniform(-90, 90, n),
        x=generator.uniform(0, 1000, n),
        y=generator.uniform(0, 1000, n),
        magnitude=generator.uniform(18, 23, n).astype(np.float32),
    )
    batch = CutoutBatch(
        targets=targets,
        vis=np.zeros((n, 200, 200), np.float32),
        nisp=np.zeros((n, 3, 66, 66), np.float32),
        x0=np.zeros(n, np.int64),
        y0=np.zeros(n, np.int64),
        offset=generator.uniform(-0.5, 0.5, (n, 2)).astype(np.float32),
        bad_fraction=generator.random((n, 4)).astype(np.float32),
        sky=np.zeros((n, 4), np.float32),
        sigma=np.ones((n, 4), np.float32),
        flags=np.full(n, Flag.OUTSIDE_MOSAIC, np.uint32),
    )
    logits = generator.normal(size=(n, 7)).astype(np.float32)
    logits[0] = np.nan
    scores = Scores(
        logits=logits,
        tsne=generator.normal(size=(n, 2)).astype(np.float32),
        grid_value=np.where(np.arange(n) == 0, np.nan, 0.5).astype(np.float32),
        cell_count=np.arange(n),
        calibrated=generator.random(n).astype(np.float32),
        decision=np.arange(n) == 1,
        flags=np.full(n, Flag.FAR_FROM_TRAINING, np.uint32),
    )
    return batch, scores


@pytest.mark.parametrize("column", columns.all_columns(), ids=lambda column: column.name)
def test_every_column_is_described(column: columns.Column) -> None:
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", column.name)
    assert check_ucd(column.ucd, check_controlled_vocabulary=True)
    assert u.Unit(column.unit, format="fits").to_string("vounit") == column.unit
    assert column.description
    assert column.description.isascii()
    assert column.field().metadata == {
        b"unit": column.unit.encode(),
        b"description": column.description.encode(),
        b"ucd": column.ucd.encode(),
    }


def test_main_identifiers_are_unique() -> None:
    ucds = [column.ucd for column in columns.all_columns()]
    for main in ("meta.id;meta.main", "pos.eq.ra;meta.main", "pos.eq.dec;meta.main"):
        assert ucds.count(main) == 1
    assert len({column.name for column in columns.all_columns()}) == len(ucds)


def test_rows_of_a_batch() -> None:
    batch, scores = a_batch(4)
    rows = columns.score_table(batch, scores, "102018665")
    assert rows.schema.equals(columns.SCORE_SCHEMA, check_metadata=True)
    assert rows["target_id"].to_pylist() == batch.targets.target_id.tolist()
    assert rows["tile_id"].to_pylist() == ["102018665"] * 4
    assert rows["ra"].to_pylist() == batch.targets.ra.tolist()
    np.testing.assert_array_equal(rows["offset_y"], batch.offset[:, 1])
    np.testing.assert_array_equal(rows["bad_j"], batch.bad_fraction[:, 2])
    np.testing.assert_allclose(rows["p_ou_h"], 1 / (1 + np.exp(-scores.logits[:, 2].astype(float))), rtol=1e-6)
    np.testing.assert_allclose(rows["p_ou_200"], 1 / (1 + np.exp(-scores.logits[:, 6].astype(float))), rtol=1e-6)
    assert rows["is_candidate"].to_pylist() == [False, True, False, False]
    assert rows["flags"].to_pylist() == [int(Flag.OUTSIDE_MOSAIC | Flag.FAR_FROM_TRAINING)] * 4
    assert rows["grid_value"].null_count == 0
    assert np.isnan(rows["grid_value"].to_numpy()[0])
    assert columns.scored(rows).tolist() == [False, True, True, True]


def test_parquet_keeps_the_meaning(tmp_path: object) -> None:
    rows = columns.score_table(*a_batch(3), "1")
    path = f"{tmp_path}/scores.parquet"
    pq.write_table(pa.concat_tables([rows, columns.SCORE_SCHEMA.empty_table()]), path)
    back = pq.read_table(path)
    assert back.schema.equals(columns.SCORE_SCHEMA, check_metadata=True)
    assert back["target_id"].to_pylist() == rows["target_id"].to_pylist()


def test_with_column_replaces() -> None:
    rows = columns.score_table(*a_batch(3), "1")
    once = columns.with_column(rows, columns.RANK_COLUMN, [3, 2, 1], position=0)
    twice = columns.with_column(once, columns.RANK_COLUMN, [1, 2, 3], position=0)
    assert twice.column_names == ["rank", *rows.column_names]
    assert twice["rank"].to_pylist() == [1, 2, 3]


def test_unknown_column() -> None:
    with pytest.raises(KeyError, match="colour"):
        columns.column("colour")
