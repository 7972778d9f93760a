import hashlib
import json
import shutil

import pyarrow.parquet as pq
import pytest
from made_catalogue import files_of, made_rows

from scanner.atomic_file import tree_sha256
from scanner.catalogue.columns import CATALOGUE_SCHEMA
from scanner.catalogue.hats import write_hats
from scanner.errors import ContentError, InputMissingError
from scanner.query.catalogue import Catalogue, Search, search
from scanner.query.region import Cone, Polygon
from scanner.storage import open_store

PLACES = [
    Cone(0, -30, 10 / 3600),
    Cone(359.9, -30.2, 0.1),
    Cone(0, 90, 0.2),
    Cone(200, 10, 2),
    Polygon([(0.2, -30), (359.8, -30.1), (0, -29.8)]),
]


def test_what_it_says_of_itself(published):
    catalogue = published.catalogue
    assert catalogue.schema.equals(CATALOGUE_SCHEMA)
    assert catalogue.schema.field("ra").metadata == CATALOGUE_SCHEMA.field("ra").metadata
    assert catalogue.n_rows == len(published.rows) == sum(pq.read_metadata(path).num_rows for path in catalogue.files())
    for part, path in zip(catalogue.partitions, catalogue.files(), strict=True):
        index = pq.read_table(path, columns=["_healpix_29"], partitioning=None)["_healpix_29"].to_numpy()
        assert (index >= part.start).all()
        assert (index < part.stop).all()
    assert (catalogue.bounds[0, 0], catalogue.bounds[-1, 1]) == (0, 12 * 4**29)


@pytest.mark.parametrize("place", PLACES)
def test_only_files_that_the_place_touches_are_opened(assert_same, published, place, tmp_path):
    needed = published.catalogue.files(place.ranges())
    assert 1 <= len(needed) <= 4 < len(published.catalogue.partitions)
    shutil.copytree(published.folder, tmp_path / "copy")
    for path in published.catalogue.files():
        if path not in needed:
            (tmp_path / "copy" / path.relative_to(published.folder)).unlink()
    found = search(Catalogue.open(files_of(tmp_path / "copy")), Search(place))
    assert_same(found, published.rows.filter(place.contains(published.ra, published.dec)))


@pytest.mark.parametrize("place", PLACES)
def test_only_row_groups_that_the_place_touches_are_read(published, place):
    source = published.catalogue.source(place.ranges())
    where = f"{source.within.sql}"
    sql = f"EXPLAIN (ANALYZE, FORMAT json) SELECT ra FROM {source.relation.sql} WHERE {where}"
    explained = published.catalogue.connection().execute(sql, [*source.relation.parameters, *source.within.parameters])
    query = json.loads(explained.fetchone()[1])["query"]
    total = sum(pq.read_metadata(path).num_row_groups for path in published.catalogue.files())
    assert total > 90
    # A small cone may lie on the edge of large cells, which are far apart in the order of the file.
    assert query["total_row_groups_scanned"] <= 5 + total * 0.02


def test_no_file_where_nothing_is(assert_same, tmp_path):
    write_hats(made_rows([10.0, 10.1], [5.0, 5.1]), tmp_path / "catalogue", "small")
    catalogue = Catalogue.open(files_of(tmp_path))
    assert [path.name for path in catalogue.files(Cone(200, -60, 1).ranges())] == ["_common_metadata"]
    assert_same(search(catalogue, Search(Cone(200, -60, 1))), CATALOGUE_SCHEMA.empty_table())
    assert len(search(catalogue, Search(Cone(10, 5, 1)))) == 2


def test_an_empty_catalogue(assert_same, tmp_path):
    write_hats(CATALOGUE_SCHEMA.empty_table(), tmp_path / "catalogue", "empty")
    catalogue = Catalogue.open(files_of(tmp_path))
    assert (catalogue.n_rows, len(catalogue.bounds)) == (0, 0)
    assert_same(search(catalogue, Search(top=3)), CATALOGUE_SCHEMA.empty_table())


def test_what_is_no_catalogue(tmp_path):
    with pytest.raises(InputMissingError, match=r"hats\.properties: is not there; merge its runs again"):
        Catalogue.open(files_of(tmp_path))
    write_hats(made_rows([1.0], [2.0]), tmp_path / "catalogue", "small")
    (tmp_path / "catalogue" / "partition_info.csv").write_text("Norder,Npix\n1,x\n")
    with pytest.raises(ContentError, match="is no catalogue that scanner wrote"):
        Catalogue.open(files_of(tmp_path))


def test_from_an_object_store_only_what_is_needed_is_fetched_and_once(assert_same, published, s3, tmp_path):
    store = open_store(s3.fresh(), s3.config)
    for path in (published.folder / "catalogue").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(published.folder).as_posix(), path.read_bytes())
    place = Cone(0, -30, 0.1)
    for _ in range(2):
        catalogue = Catalogue.open(files_of(published.folder, store=store), tmp_path)
        assert_same(search(catalogue, Search(place)), search(published.catalogue, Search(place)))
        fetched = {path.name for path in tmp_path.rglob("*.parquet")}
        assert fetched == {path.name for path in published.catalogue.files(place.ranges())}
        assert len(list(tmp_path.iterdir())) == 1
    # Another state of the catalogue never meets old files.
    noted = store.read("catalogue/hats.properties") + b"hats_note=new\n"
    store.write("catalogue/hats.properties", noted)
    sha256 = tree_sha256(published.folder / "catalogue") | {"hats.properties": hashlib.sha256(noted).hexdigest()}
    search(Catalogue.open(files_of(published.folder, sha256, store), tmp_path), Search(place))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_passing_cache_goes_with_its_catalogue(published, s3):
    store = open_store(s3.fresh(), s3.config)
    for name in ("hats.properties", "partition_info.csv", "dataset/_common_metadata"):
        store.write(f"catalogue/{name}", (published.folder / "catalogue" / name).read_bytes())
    catalogue = Catalogue.open(files_of(published.folder, store=store))
    kept = catalogue.dataset.parent
    assert (kept / "dataset" / "_common_metadata").exists()
    del catalogue
    assert not kept.exists()
