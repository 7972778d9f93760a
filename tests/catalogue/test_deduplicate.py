from collections.abc import Callable
from typing import NamedTuple

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy_healpix import boundaries_lonlat, lonlat_to_healpix
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_catalogue import with_rule_columns

from scanner.catalogue import columns
from scanner.catalogue import merge as rule
from scanner.catalogue.merge import SAME_ID_RADIUS_ARCSEC, Cell, Rule
from scanner.sphere import healpix_29

RADIUS = 0.5
ARCSEC = 1 / 3600
#: Places where naive arithmetic on RA and Dec goes wrong, and one where it does not.
FIELDS = [(0.0, 0.0), (359.99999, 60.0), (12.0, 89.99995), (200.0, -90.0), (52.82, -27.8)]


def kept(rows: pa.Table, radius: float) -> np.ndarray:
    return rule.deduplicate(with_rule_columns(rows), Rule(radius)).kept


def deduplicate(rows: pa.Table, radius: float) -> pa.Table:
    return rows.filter(pa.array(kept(rows, radius)))


class Row(NamedTuple):
    tile: str
    target: int
    east: int
    north: int
    bad: int
    scored: bool


ROWS = st.lists(
    st.builds(Row, st.sampled_from("ABC"), st.integers(0, 4), *[st.integers(-12, 12)] * 2, st.integers(0, 2), st.booleans()),
    min_size=1,
    max_size=14,
    unique_by=lambda row: (row.tile, row.target),
)


def positions(rows: list[Row], field: tuple[float, float]) -> SkyCoord:
    """Steps of 0.21", so that no two rows are exactly a radius apart."""
    east, north = np.array([(row.east, row.north) for row in rows]).T * 0.21 * ARCSEC
    origin = SkyCoord(*field, unit="deg")
    return origin.spherical_offsets_by(east * origin.ra.unit, north * origin.dec.unit)


def table_of(make_rows: Callable[..., pa.Table], rows: list[Row], where: SkyCoord) -> pa.Table:
    return make_rows(
        tile_id=[row.tile for row in rows],
        target_id=[row.target for row in rows],
        ra=where.ra.deg,
        dec=where.dec.deg,
        **{"bad_*": [row.bad / 10 for row in rows], "p_ou*": [0.5 if row.scored else np.nan for row in rows]},
    )


def brute_force(rows: list[Row], where: SkyCoord) -> set[tuple[str, int]]:
    """The rule of the module's docstring, in the plainest way."""
    best_first = sorted(range(len(rows)), key=lambda i: (not rows[i].scored, rows[i].bad, rows[i].tile, rows[i].target))
    kept_rows: list[int] = []
    for i in best_first:
        for j in kept_rows:
            separation = where[i].separation(where[j]).arcsec
            close = separation <= RADIUS or (rows[i].target == rows[j].target and separation <= SAME_ID_RADIUS_ARCSEC)
            if rows[i].tile != rows[j].tile and close:
                break
        else:
            kept_rows.append(i)
    return {(rows[i].tile, rows[i].target) for i in kept_rows}


@settings(max_examples=30)
@given(data=st.data(), field=st.sampled_from(FIELDS))
def test_against_brute_force_in_any_order(
    make_rows: Callable[..., pa.Table], data: st.DataObject, field: tuple[float, float]
) -> None:
    rows = data.draw(ROWS)
    expected = brute_force(rows, positions(rows, field))
    for shuffled in (rows, data.draw(st.permutations(rows))):
        left = deduplicate(table_of(make_rows, shuffled, positions(shuffled, field)), RADIUS)
        found = list(zip(left["tile_id"].to_pylist(), left["target_id"].to_pylist(), strict=True))
        assert set(found) == expected
        assert found == [(row.tile, row.target) for row in shuffled if (row.tile, row.target) in expected]
        assert kept(left, RADIUS).all()


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(("arcsec", "n_left"), [(0.49, 1), (0.51, 2)])
def test_the_radius_is_a_true_angle(
    make_rows: Callable[..., pa.Table], field: tuple[float, float], arcsec: float, n_left: int
) -> None:
    first = SkyCoord(*field, unit="deg")
    for angle in (0.0, 45.0, 90.0, 200.0):
        second = first.directional_offset_by(angle * first.ra.unit, arcsec * ARCSEC * first.ra.unit)
        rows = make_rows(tile_id=["1", "2"], ra=[first.ra.deg, second.ra.deg], dec=[first.dec.deg, second.dec.deg])
        assert len(deduplicate(rows, RADIUS)) == n_left


def test_same_id_reaches_further_but_not_without_end(make_rows: Callable[..., pa.Table]) -> None:
    ids = {"target_id": [5, 5], "tile_id": ["1", "2"], "ra": [10.0, 10.0]}
    assert len(deduplicate(make_rows(dec=[0.0, 2.9 * ARCSEC], **ids), RADIUS)) == 1
    assert len(deduplicate(make_rows(dec=[0.0, 3.1 * ARCSEC], **ids), RADIUS)) == 2
    assert len(deduplicate(make_rows(dec=[0.0, 2.9 * ARCSEC], **ids | {"target_id": [5, 6]}), RADIUS)) == 2


def test_neighbours_in_one_tile_both_stay(make_rows: Callable[..., pa.Table]) -> None:
    assert len(deduplicate(make_rows(tile_id=["1", "1"], ra=[10.0, 10.0], dec=[0.0, 0.0]), RADIUS)) == 2


@pytest.mark.parametrize(
    ("bad", "scored", "left"),
    [
        ((0.2, 0.1), (True, True), "2"),
        ((0.1, 0.2), (True, True), "1"),
        ((0.1, 0.0), (True, False), "1"),
        ((0.10001, 0.1), (True, True), "1"),
        ((np.nan, 0.9), (True, True), "2"),
    ],
)
def test_which_row_is_left(
    make_rows: Callable[..., pa.Table], bad: tuple[float, float], scored: tuple[bool, bool], left: str
) -> None:
    rows = make_rows(
        tile_id=["1", "2"],
        ra=[10.0, 10.0],
        dec=[0.0, 0.0],
        bad_vis=[0.0, 0.0],
        bad_h=bad,
        **{"bad_y": [0.0, 0.0], "bad_j": [0.0, 0.0], "p_ou*": np.where(scored, 0.5, np.nan)},
    )
    assert deduplicate(rows, RADIUS)["tile_id"].to_pylist() == [left]


def test_no_rows_and_one_row(make_rows: Callable[..., pa.Table]) -> None:
    assert len(deduplicate(columns.SOURCE_SCHEMA.empty_table(), RADIUS)) == 0
    assert len(deduplicate(make_rows(ra=[1.0]), RADIUS)) == 1


def test_two_tiles_of_the_same_sky(random_rows: Callable[..., pa.Table]) -> None:
    rows = random_rows(5000, n_tiles=1)
    generator = np.random.default_rng(3)
    shifted = columns.with_column(rows, columns.column("ra"), rows["ra"].to_numpy() + generator.normal(0, 0.05 * ARCSEC, 5000))
    shifted = columns.with_column(shifted, columns.column("tile_id"), ["tile-1"] * 5000).select(rows.column_names)
    shifted = columns.with_column(shifted, columns.column("target_id"), np.arange(5000) + 10_000).select(rows.column_names)
    keep = kept(pa.concat_tables([rows, shifted]), RADIUS)
    assert keep[:5000].all()
    assert not keep[5000:].any()


EVERYWHERE = [
    (0.0, 0.0),
    (359.99999, 60.0),
    (12.0, 89.99995),
    (200.0, -90.0),
    (45.0, 41.8103),
    (315.0, -41.8103),
    (52.82, -27.8),
]


@settings(max_examples=30)
@given(data=st.data(), place=st.sampled_from(EVERYWHERE), order=st.sampled_from([3, 8, 12, 13]))
def test_what_a_cell_decides_the_whole_sky_decides_alike(
    make_rows: Callable[..., pa.Table], data: st.DataObject, place: tuple[float, float], order: int
) -> None:
    """Around a corner of cells, where up to eight meet: what is decided in one stays, and what is not decided there can be."""
    rows = data.draw(ROWS)
    # Rows lie around the corner of a cell, and not around its middle.
    pixel = lonlat_to_healpix(*place * u.deg, 2**order, order="nested")
    corner = SkyCoord(*(angle[0, 0] for angle in boundaries_lonlat([pixel], 1, 2**order, order="nested")))
    where = positions(rows, (corner.ra.deg, np.clip(corner.dec.deg, -89.9999, 89.9999)))
    table = with_rule_columns(table_of(make_rows, rows, where))
    index = healpix_29(table["ra"].to_numpy(), table["dec"].to_numpy())
    table = table.append_column("_healpix_29", pa.array(index))
    whole = rule.deduplicate(table, Rule(RADIUS))
    assert not whole.undecided.any()
    inside = index >> 2 * (29 - order)
    for number in np.unique(inside):
        here = inside == number
        verdict = rule.deduplicate(table.filter(pa.array(here)), Rule(RADIUS), Cell(order, int(number)))
        decided = ~verdict.undecided
        np.testing.assert_array_equal(verdict.kept[decided], whole.kept[here][decided])
        assert not verdict.kept[verdict.undecided].any()


def test_far_from_the_edge_of_a_cell_everything_is_decided(random_rows: Callable[..., pa.Table]) -> None:
    rows = with_rule_columns(random_rows(2000))
    index = healpix_29(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    largest = np.bincount((index >> 58).astype(int)).argmax()
    rows = rows.append_column("_healpix_29", pa.array(index)).filter(pa.array(index >> 58 == largest))
    verdict = rule.deduplicate(rows, Rule(RADIUS), Cell(0, int(largest)))
    assert verdict.undecided.mean() < 0.1
    assert verdict.kept.mean() > 0.85


def test_the_bundle_that_is_preferred_wins(make_rows: Callable[..., pa.Table]) -> None:
    rows = make_rows(
        tile_id=["1", "1"], target_id=[1, 1], run=["a", "b"], bundle=["old 1", "new 2"], ra=[10.0] * 2, dec=[0.0] * 2
    )
    for bundles, left in (((), "a"), (("new 2", "old 1"), "b"), (("old 1", "new 2"), "a"), (("new 2",), "b")):
        kept_rows = rule.deduplicate(with_rule_columns(rows, bundles), Rule(RADIUS, bundles)).kept
        assert rows.filter(pa.array(kept_rows))["run"].to_pylist() == [left]


def test_a_tile_that_was_scanned_in_two_runs_is_there_once(make_rows: Callable[..., pa.Table]) -> None:
    rows = make_rows(
        tile_id=["1"] * 4, target_id=[1, 2, 1, 2], run=["a", "a", "b", "b"], ra=[10.0, 10.0] * 2, dec=[0.0, 0.0] * 2
    )
    assert deduplicate(rows, RADIUS)["run"].to_pylist() == ["a", "a"]
