"""Merging in parts gives, to the byte, what all rows at once give: whatever their order, wherever on the sky they lie."""

import errno
import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy_healpix import boundaries_lonlat
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_catalogue import listed, merged
from scipy.spatial import KDTree

from scanner.catalogue import merge as module
from scanner.catalogue.columns import CANDIDATE_SCHEMA, column, with_column
from scanner.catalogue.hats import write_hats
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule
from scanner.errors import ContentError, OutputError
from scanner.sphere import chord, unit_vectors

ARCSEC = 1 / 3600
#: Where right ascension begins again, both poles, corners of base pixels, and a plain place.
PLACES = [(0.0, 0.0), (359.9999, 60.0), (10.0, 89.9999), (200.0, -90.0), (45.0, 41.8103), (90.0, 0.0), (52.82, -27.8)]
BUNDLES = ("new 2", "old 1")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def crowd(make_rows, seed, place, n=100, spread_arcsec=40.0):
    """Rows of overlapping tiles, of two runs with a bundle each: chains of the same objects, and lone ones far away."""
    random = np.random.default_rng(seed)
    # Around a place as a vector and not in right ascension and declination, which mean little at a pole.
    centre = unit_vectors(*np.asarray(place, dtype=np.float64))
    spread = np.radians(spread_arcsec * ARCSEC) * random.choice([0.05, 1.0, 300.0], (n, 1))
    x, y, z = (centre + spread * random.normal(size=(n, 3))).T
    runs = random.integers(0, 2, n)
    # Two objects of each id: in the same tile and run they would not be told apart.
    tiles = (np.arange(n) % 2 + random.integers(0, 4, n // 2).repeat(2)) % 4
    grid = random.random(n).round(1)
    return make_rows(
        target_id=np.arange(n) // 2,
        tile_id=[f"tile-{tile}" for tile in tiles],
        run=[f"run-{run}" for run in runs],
        bundle=[BUNDLES[run] for run in runs],
        ra=np.degrees(np.arctan2(y, x)) % 360.0,
        dec=np.degrees(np.arctan2(z, np.hypot(x, y))),
        grid_value=np.where(random.random(n) < 0.1, np.nan, grid),
        p_calibrated=random.random(n).round(1),
        is_candidate=grid > 0.7,
        **{"bad_*": random.random(n).round(1), "p_ou*": np.where(random.random(n) < 0.1, np.nan, 0.5)},
    )


def lenses(rows):
    """A known lens near every tenth row."""
    ra, dec = (rows[name].to_numpy()[::10] for name in ("ra", "dec"))
    names = tuple(f"lens {i}" for i in range(len(ra)))
    return KnownLensMatcher(KnownLenses(ra, np.clip(dec + 0.3 * ARCSEC, -90, 90), names, ("a paper",) * len(ra)), 1.0)


def test_ranked_by_the_grid_as_in_the_paper(make_rows, tmp_path):
    # The paper has one score, the grid value; of equals ours puts the more probable first.
    rows = make_rows(
        target_id=[1, 2, 3, 4],
        ra=[10.0, 20.0, 30.0, 40.0],
        grid_value=[0.5, 0.9, np.nan, 0.5],
        p_calibrated=[0.9, 0.1, 0.8, 0.95],
        is_candidate=[True] * 4,
    )
    orders = {}
    for by in ("probability", "grid"):
        with Merging(tmp_path / by, Rule(0.5, ranked_by=by), KnownLensMatcher(None, 1.0)) as merging:
            merging.add(rows)
            merging.merge()
            orders[by] = merging.listed(10)["target_id"].to_pylist()
    assert orders == {"probability": [4, 1, 3, 2], "grid": [2, 4, 1, 3]}


@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**32 - 1), place=st.sampled_from(PLACES), together=st.sampled_from([3, 20, 10_000]),
    n_parts=st.integers(1, 5), shuffle=st.randoms(use_true_random=False),
)  # fmt: skip
def test_in_parts_as_at_once(make_rows, tmp_path_factory, seed, place, together, n_parts, shuffle) -> None:
    folder = tmp_path_factory.mktemp("merging")
    rows = crowd(make_rows, seed, place)
    rule, known = Rule(0.5, BUNDLES), lenses(rows)
    expected = merged(rows, rule, known)
    assert 10 < len(expected) < len(rows)
    write_hats(expected, folder / "at-once", "made", rows_per_partition=20)

    order = list(range(len(rows)))
    shuffle.shuffle(order)
    with Merging(folder / "merging", rule, known, rows_together=together) as merging:
        for part in np.array_split(np.asarray(order), n_parts):
            merging.add(rows.take(pa.array(part)))
        merging.merge()
        merging.write(folder / "in-parts", "made", rows_per_partition=20)
        assert str(merging.listed(15).to_pylist()) == str(listed(expected, 15).to_pylist())
        assert (merging.n_rows, merging.n_unique) == (len(rows), len(expected))
        assert merging.n_candidates == sum(expected["is_candidate"].to_pylist())
    assert files(folder / "in-parts") == files(folder / "at-once")
    assert not (folder / "merging").exists()


def test_lists_show_the_best_by_rank_and_every_candidate(random_rows, tmp_path) -> None:
    rows = random_rows(1000)
    with Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0)) as merging:
        merging.add(rows)
        merging.merge()
        found = merging.listed(10_000)
        assert merging.listed(7)["target_id"].to_pylist() == found["target_id"].to_pylist()[:7]
    assert found.schema.equals(CANDIDATE_SCHEMA, check_metadata=True)
    ranks, is_candidate = (found[name].to_pylist() for name in ("rank", "is_candidate"))
    assert ranks[:200] == list(range(1, 201))
    assert 50 < sum(is_candidate) == merging.n_candidates < 150
    # Below the best there are candidates alone, and the last object of the list is one.
    assert all(is_candidate[200:])
    assert ranks[200:] == sorted(set(ranks[200:]))
    assert 200 < ranks[-1] == merging.last_candidate_rank
    assert found["p_calibrated"].to_pylist() == sorted(found["p_calibrated"].to_pylist(), reverse=True)


def test_without_a_candidate_lists_show_the_best(random_rows, tmp_path) -> None:
    rows = random_rows(300)
    rows = with_column(rows, column("is_candidate"), np.zeros(300, np.bool_))
    with Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0)) as merging:
        merging.add(rows)
        merging.merge()
        assert (merging.n_candidates, merging.last_candidate_rank) == (0, 0)
        assert merging.listed(10_000)["rank"].to_pylist() == list(range(1, 201))


def test_a_chain_over_many_cells_is_one(make_rows, tmp_path) -> None:
    """Each is the same object as the next, over the whole sky's edge at right ascension 0: no cell can decide it alone."""
    n = 1000
    chain = make_rows(
        tile_id=[str(i % 2) for i in range(n)], target_id=np.arange(n), ra=(np.arange(n) - n // 2) * 0.4 * ARCSEC % 360.0,
        dec=np.zeros(n), bad_vis=np.linspace(0, 0.9, n), run=["a"] * n, bundle=["b 1"] * n,
    )  # fmt: skip
    expected = merged(chain)
    parts = []
    with Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0), rows_together=60) as merging:
        merging.add(chain)
        merging.merge()
        merging.write(tmp_path / "catalogue", "made", parts.append)
    found = pa.concat_tables(parts).sort_by("rank")
    assert found["target_id"].to_pylist() == expected["target_id"].to_pylist()
    assert len(found) < n // 2 + 50


def test_what_memory_does_not_hold_is_put_into_the_folder(random_rows, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MEMORY", "25MB")
    rows = random_rows(60_000)
    with Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0), rows_together=5_000) as merging:
        for start in range(0, len(rows), 6_000):
            merging.add(rows.slice(start, 6_000))
        merging.merge()
        on_disk = sum(path.stat().st_size for path in (tmp_path / "merging").iterdir())
        merging.write(tmp_path / "in-parts", "made", rows_per_partition=10_000)
    assert on_disk > 0
    write_hats(merged(rows), tmp_path / "at-once", "made", rows_per_partition=10_000)
    assert files(tmp_path / "in-parts") == files(tmp_path / "at-once")


@pytest.mark.parametrize(("ra", "dec"), [(45.0, 0.0), (0.0, -41.8103), (123.0, 89.95), (52.9, -28.0)])
def test_a_margin_cache_has_what_lies_near_each_partition(make_rows, tmp_path, ra, dec) -> None:
    """Inside a base pixel, where seven pixels meet, at a pole, anywhere: whoever is within 10 arcsec is in one's margin."""
    random = np.random.default_rng(3)
    n, half = 2500, 0.12
    decs = np.clip(dec + random.uniform(-half, half, n), -90, 90)
    ras = (ra + random.uniform(-half, half, n) / np.cos(np.radians(dec))) % 360
    rows = make_rows(target_id=np.arange(n), ra=ras, dec=decs, tile_id=["1"] * n, run=["a"] * n, bundle=["b 1"] * n)
    with Merging(tmp_path / "merging", Rule(0.01), KnownLensMatcher(None, 1.0)) as merging:
        merging.add(rows)
        merging.merge()
        merging.write(tmp_path / "catalogue", "made", rows_per_partition=150)
    inside, outside = (read_partitions(tmp_path / name) for name in ("catalogue", "catalogue_10arcs"))
    assert len(inside) > 10
    places, n_near = unit_vectors(ras, decs), 0
    for path, targets in inside.items():
        order, pixel = (int(found) for found in re.findall(r"Norder=(\d+).*Npix=(\d+)", path)[0])
        # Points 3 arcsec apart along the border of the pixel.
        lon, lat = boundaries_lonlat([pixel], 2 ** (16 - order), 2**order, order="nested")
        distance, _ = KDTree(unit_vectors(lon.deg.ravel(), lat.deg.ravel())).query(places)
        others = [row for row in range(n) if row not in targets]
        near = {row for row in others if distance[row] < chord(10.0)}
        assert near <= outside.get(path, set()) <= {row for row in others if distance[row] < chord(60.0)}
        n_near += len(near)
    assert n_near > 50
    properties = dict(
        line.split("=", 1) for line in (tmp_path / "catalogue_10arcs" / "hats.properties").read_text().splitlines()[1:]
    )
    assert (properties["dataproduct_type"], properties["hats_primary_table_url"]) == ("margin", "catalogue")
    assert float(properties["hats_margin_threshold"]) == 10.0
    assert int(properties["hats_nrows"]) == sum(map(len, outside.values()))
    assert "default_margin=catalogue_10arcs\n" in (tmp_path / "collection.properties").read_text()


def read_partitions(folder):
    """Ids of the objects in each file of a catalogue, by its path."""
    files = sorted((folder / "dataset").rglob("Npix=*.parquet"))
    return {
        str(path.relative_to(folder)): set(pq.read_table(path, partitioning=None)["target_id"].to_pylist()) for path in files
    }


def test_nothing_at_all(tmp_path) -> None:
    with Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0)) as merging:
        merging.merge()
        merging.write(tmp_path / "catalogue", "made")
        assert len(merging.listed(5)) == merging.n_unique == 0
    for name in ("catalogue", "catalogue_10arcs"):
        assert (tmp_path / name / "partition_info.csv").read_text() == "Norder,Npix\n"
    # Where nothing is near a border, there is no margin to open.
    assert "margin" not in (tmp_path / "collection.properties").read_text()


def test_objects_without_a_position_are_refused(make_rows, tmp_path) -> None:
    with (
        Merging(tmp_path / "merging", Rule(0.5), KnownLensMatcher(None, 1.0)) as merging,
        pytest.raises(ContentError, match="tile 7: its table holds objects without a position"),
    ):
        merging.add(make_rows(ra=[np.nan], tile_id=["7"]))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (duckdb.IOException("IO Error: Could not write: No space left on device"), "disk is full; make space"),
        (duckdb.OutOfMemoryException("failed to offload: see max_temp_directory_size"), "disk is full; make space"),
        (duckdb.IOException("IO Error: Cannot open file"), "cannot be merged here"),
    ],
)
def test_a_disk_without_room_is_one_sentence(tmp_path, raised, said) -> None:
    def telling():
        with module._one_sentence(tmp_path):
            raise raised

    with pytest.raises(OutputError, match=said) as caught:
        telling()
    assert str(tmp_path) in str(caught.value)
    assert not isinstance(caught.value.__cause__, OSError) or caught.value.__cause__.errno == errno.ENOSPC
