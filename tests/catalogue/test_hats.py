from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import ICRS, SkyCoord
from astropy_healpix import HEALPix
from hypothesis import given
from hypothesis import strategies as st

from scanner.catalogue import columns
from scanner.catalogue.hats import partition, write_hats
from scanner.errors import OutputError

LAST = 12 * 4**29 - 1


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(name="written", scope="module")
def written_fixture(random_rows: Callable[..., pa.Table], tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, Path]:
    rows, folder = random_rows(3000), tmp_path_factory.mktemp("hats") / "catalogue"
    write_hats(rows, folder, "scanner", rows_per_partition=500)
    return rows, folder


def test_every_row_is_in_the_file_of_its_pixel(written: tuple[pa.Table, Path]) -> None:
    rows, folder = written
    pixels = [tuple(map(int, line.split(","))) for line in (folder / "partition_info.csv").read_text().split()[1:]]
    assert (folder / "partition_info.csv").read_text().startswith("Norder,Npix\n")
    assert len(list((folder / "dataset").rglob("*.parquet"))) == len(pixels) > 6
    seen = []
    for order, pixel in pixels:
        part = pq.read_table(
            folder / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}.parquet",
            partitioning=None,
        )
        assert 0 < len(part) <= 500
        places = SkyCoord(part["ra"].to_numpy(), part["dec"].to_numpy(), unit="deg")
        assert (HEALPix(2**order, "nested", frame=ICRS()).skycoord_to_healpix(places) == pixel).all()
        index = part["_healpix_29"].to_numpy()
        assert (np.diff(index) >= 0).all()
        assert (index >> 2 * (29 - order) == pixel).all()
        seen += part["target_id"].to_pylist()
    assert sorted(seen) == sorted(rows["target_id"].to_pylist())


def test_metadata(written: tuple[pa.Table, Path]) -> None:
    rows, folder = written
    properties = dict(line.split("=", 1) for line in (folder / "hats.properties").read_text().splitlines()[1:])
    assert properties["obs_collection"] == "scanner"
    assert properties["dataproduct_type"] == "object"
    assert properties["hats_nrows"] == "3000"
    assert (properties["hats_col_ra"], properties["hats_col_dec"]) == ("ra", "dec")
    assert properties["hats_col_healpix"] == "_healpix_29"
    schema = pq.read_schema(folder / "dataset" / "_common_metadata")
    assert schema.names == ["_healpix_29", *rows.column_names]
    for field in schema:
        assert field.metadata == columns.column(field.name).field().metadata
    whole = ds.parquet_dataset(folder / "dataset" / "_metadata")
    assert whole.count_rows() == 3000
    assert whole.to_table(filter=ds.field("target_id") == 17)["ra"].to_pylist() == [
        rows["ra"][rows["target_id"].to_pylist().index(17)].as_py()
    ]


def test_same_rows_same_bytes(written: tuple[pa.Table, Path], tmp_path: Path) -> None:
    rows, folder = written
    backwards = (
        rows.take(pa.array(np.arange(3000)[::-1])).slice(0, 1000),
        rows.take(pa.array(np.arange(3000)[::-1])).slice(1000),
    )
    write_hats(pa.concat_tables(backwards), tmp_path / "again", "scanner", rows_per_partition=500)
    assert files(tmp_path / "again") == files(folder)


def test_replaces_a_catalogue_but_nothing_else(random_rows: Callable[..., pa.Table], tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    write_hats(random_rows(200), folder, "scanner", rows_per_partition=10)
    write_hats(random_rows(20), folder, "scanner")
    assert ds.parquet_dataset(folder / "dataset" / "_metadata").count_rows() == 20
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds files that are not a catalogue"):
        write_hats(random_rows(20), mine, "scanner")
    assert (mine / "thesis.tex").exists()


def test_no_rows(tmp_path: Path) -> None:
    assert write_hats(columns.SOURCE_SCHEMA.empty_table(), tmp_path / "catalogue", "scanner") == ()
    assert (tmp_path / "catalogue" / "partition_info.csv").read_text() == "Norder,Npix\n"
    assert pq.read_schema(tmp_path / "catalogue" / "dataset" / "_common_metadata").names[0] == "_healpix_29"


@given(
    index=st.lists(st.one_of(st.integers(0, LAST), st.integers(0, 5000), st.just(LAST)), max_size=60).map(sorted),
    limit=st.integers(1, 9),
)
def test_partitions_cover_every_row_once(index: list[int], limit: int) -> None:
    parts = partition(np.array(index, dtype=np.int64), limit)
    assert sorted(row for part in parts for row in range(part.start, part.stop)) == list(range(len(index)))
    for part in parts:
        assert part.stop - part.start <= limit or part.order == 10
        assert {index[row] >> 2 * (29 - part.order) for row in range(part.start, part.stop)} == {part.pixel}
    for a in parts:
        for b in parts:
            assert a == b or a.order > b.order or b.pixel >> 2 * (b.order - a.order) != a.pixel
