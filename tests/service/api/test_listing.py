"""Lists against brute force: the same rows in the same order, every one of them once, whatever the size of a page."""

import base64
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.catalogue.rank import LEAST_LISTED
from scanner.query.catalogue import CandidateId
from scanner.query.region import parse_cone
from scanner.service.api.listing import MAX_CURSOR_LENGTH, SCORES, Cursor, Selection, page
from scanner.service.errors import BadRequestError


def ids(rows):
    return list(zip(rows["run"].to_pylist(), rows["tile_id"].to_pylist(), rows["target_id"].to_pylist(), strict=True))


def listed(collection, selection, limit):
    """All pages, one after the other; the totals that they tell."""
    found, totals, after = [], [], None
    while True:
        one = page(collection, selection, limit, after)
        assert len(one.rows) <= limit
        found += ids(one.rows)
        totals.append(one.total)
        after = one.next
        if after is None:
            return found, totals
        assert len(one.rows) == limit


def expected(rows, selection):
    """The same by sorting and choosing in Python."""
    cone = None if selection.cone is None else parse_cone(selection.cone)

    def chosen(row):
        score, magnitude = row["p_calibrated"], row["magnitude_vis"]
        single = np.float32
        return (
            (selection.objects or row["is_candidate"] or row["rank"] <= LEAST_LISTED)
            and (not selection.candidates or row["is_candidate"])
            and (selection.min_score is None or score >= single(selection.min_score))
            and (selection.max_score is None or score <= single(selection.max_score))
            and (selection.min_magnitude is None or magnitude >= single(selection.min_magnitude))
            and (selection.max_magnitude is None or magnitude <= single(selection.max_magnitude))
            and (selection.tile is None or row["tile_id"] == selection.tile)
            and (selection.known == "any" or (row["known_name"] != "") == (selection.known == "yes"))
            and (selection.flags in (None, "any", "none") or row["flags"] & int(selection.flags) != 0)
            and (selection.flags not in ("any", "none") or (row["flags"] != 0) == (selection.flags == "any"))
            and (selection.name is None or selection.name.upper() in row["name"].upper())
            and (selection.min_rank is None or row["rank"] >= selection.min_rank)
            and (not selection.systems or row["rank"] == row["system_id"])
            and (cone is None or bool(cone.contains(row["ra"], row["dec"])))
        )

    def place(row):
        value = row[selection.column]
        if isinstance(value, float) and not math.isfinite(value):
            return (1, 0, *(row[name] for name in selection.ties))
        return (0, -value if selection.descending else value, *(row[name] for name in selection.ties))

    kept = sorted((row for row in rows.to_pylist() if chosen(row)), key=place)
    return [(row["run"], row["tile_id"], row["target_id"]) for row in kept]


some = st.none() | st.floats(0, 1, width=32)
selections = st.builds(
    Selection,
    sort=st.sampled_from(["rank", "place", "magnitude_vis", "ra", "dec", *SCORES]),
    order=st.sampled_from([None, "asc", "desc"]),
    min_score=some,
    max_score=some,
    min_magnitude=st.none() | st.floats(17, 25),
    max_magnitude=st.none() | st.floats(17, 25),
    flags=st.sampled_from([None, None, "any", "none", "1", "2", "3"]),
    tile=st.sampled_from([None, None, "102018211", "nowhere"]),
    known=st.sampled_from(["any", "any", "yes", "no"]),
    cone=st.sampled_from([None, None, "0 88 5", "359.9 90 3deg", "12:00:00 +87:00:00 200arcmin"]),
    name=st.sampled_from([None, None, None, "eucl j0", "+89", "%", "_"]),
    min_rank=st.none() | st.integers(1, 2500),
    systems=st.booleans(),
    candidates=st.booleans(),
    objects=st.booleans(),
)


@settings(max_examples=40)
@given(selection=selections, limit=st.integers(40, 1000))
def test_lists_equal_brute_force(made, selection, limit):
    collection, rows = made
    found, totals = listed(collection, selection, limit)
    assert found == expected(rows, selection)
    assert totals == [len(found), *[None] * (len(totals) - 1)]


@pytest.mark.parametrize("sort", ["rank", "place", "grid_value", "p_ou_j"])
def test_single_rows_one_after_the_other(made, sort):
    collection, rows = made
    selection = Selection(sort=sort, tile="102018211")
    found, _ = listed(collection, selection, 1)
    assert found == expected(rows, selection)
    assert len(found) > 15


def test_a_random_order_is_that_of_its_seed_whatever_the_pages(made):
    collection, rows = made
    all_ids = expected(rows, Selection(objects=True))
    orders = {seed: listed(collection, Selection(sort="random", seed=seed, objects=True), 1000)[0] for seed in (1, 2)}
    assert listed(collection, Selection(sort="random", objects=True), 170)[0] == orders[1]
    assert orders[1] != orders[2] != all_ids
    assert sorted(orders[1]) == sorted(orders[2]) == sorted(all_ids)
    # By chance: neither seed says anything of ranks, or of the other seed.
    ranks = {name: rank for rank, name in enumerate(all_ids)}
    first, second = (np.array([ranks[name] for name in order]) for order in orders.values())
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.08
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08


def test_a_random_list_shows_and_tells_no_more_than_others(made):
    collection, rows = made
    found = page(collection, Selection(sort="random"), 1, None)
    assert found.rows.column_names == rows.column_names
    assert json.loads(base64.urlsafe_b64decode(found.next + "=" * (-len(found.next) % 4)))[2] is None
    with pytest.raises(BadRequestError, match="another order"):
        page(collection, Selection(sort="random", seed=2), 1, found.next)


@pytest.mark.parametrize("flags", ["0", "-1", "x", "1e3", "², ", "4294967296", "1;DROP"])
def test_flags_that_make_no_sense(made, flags):
    with pytest.raises(BadRequestError, match="flags"):
        page(made[0], Selection(flags=flags), 10, None)


@pytest.mark.parametrize("cone", ["", "1 2", "a b c", "0 91 1", "0 0 -1", "nan 0 1", "0 0 1'; DROP TABLE x"])
def test_cones_that_make_no_sense(made, cone):
    with pytest.raises(BadRequestError, match=r"^cone: "):
        page(made[0], Selection(cone=cone), 10, None)


def test_texts_of_clients_are_values_not_sql(made):
    collection, _ = made
    for hostile in ("' OR true --", "x') UNION SELECT * FROM read_csv('/etc/passwd') --", "\x00", "%", "\\"):
        assert len(page(collection, Selection(tile=hostile), 10, None).rows) == 0
        assert len(page(collection, Selection(name=hostile), 10, None).rows) == 0
    assert len(page(collection, Selection(objects=True), 10, None).rows) == 10


def test_a_place_in_a_list_is_of_that_list(made):
    collection, _ = made
    after = page(collection, Selection(sort="p_ou_y"), 5, None).next
    assert len(page(collection, Selection(sort="p_ou_y", known="any"), 5, after).rows) == 5
    for other in (Selection(sort="p_ou_h"), Selection(sort="p_ou_y", order="asc"), Selection(sort="p_ou_y", objects=True)):
        with pytest.raises(BadRequestError, match="another order"):
            page(collection, other, 5, after)
    changed = dataclasses.replace(collection, published=dataclasses.replace(collection.published, version=2))
    with pytest.raises(BadRequestError, match="another order or state"):
        page(changed, Selection(sort="p_ou_y"), 5, after)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.hex()))
def test_other_texts_are_no_place_in_a_list(text):
    with pytest.raises(BadRequestError, match=r"^after: "):
        Cursor.parse(text, "order", "state")


numbers = st.none() | st.floats(allow_nan=True) | st.integers(-(2**63), 2**63 - 1)


whole = st.integers(-(2**63), 2**63 - 1)


@given(numbers, st.none() | whole, whole)
def test_a_place_survives_being_text(value, rank, target_id):
    known, last = value is not None and math.isfinite(value), CandidateId("run-0123abcd", "102018211", target_id)
    assert Cursor.parse(Cursor(value, rank, last).text("o", "s"), "o", "s") == Cursor(value if known else None, rank, last)


def test_the_longest_ids_fit_into_a_place():
    last = CandidateId("r" * 73, "t" * 128, -(2**63))
    assert len(Cursor(-1.2345678901234567e-300, 2**63 - 1, last).text("o", "s")) <= MAX_CURSOR_LENGTH


@pytest.mark.parametrize("sort", ["place", "magnitude_vis", "ra", "dec", "rank", "p_ou_j"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_objects_of_one_place_are_on_one_page_each(made_in_one_place, sort, order):
    collection, rows = made_in_one_place
    selection = Selection(sort=sort, order=order, objects=True)
    for limit in (3, 7, 1000):
        found, _ = listed(collection, selection, limit)
        assert found == expected(rows, selection)
        assert len(set(found)) == 120


def test_a_list_by_place_tells_nothing_of_ranks(made):
    assert Selection(sort="place").used == {"_healpix_29"}
    assert Selection(sort="ra", min_score=0.1, flags="any", min_rank=2).used == {"ra", "p_calibrated", "flags", "rank"}
    assert Selection(sort="ra", systems=True).used == {"ra", "system_id"}
    assert Selection(sort="place").ties == ("run", "tile_id", "target_id")


@pytest.mark.parametrize("sort", ["place", "magnitude_vis", "ra", "dec"])
def test_cursors_of_lists_without_scores_tell_no_rank(made, sort):
    """Graders who are blind may read these lists, and decode where the next page begins."""
    collection, _ = made
    found = page(collection, Selection(sort=sort), 1, None)
    _, value, rank, last = json.loads(base64.urlsafe_b64decode(found.next + "=" * (-len(found.next) % 4)))
    row = found.rows.to_pylist()[-1]
    assert value == repr(row["_healpix_29" if sort == "place" else sort])
    assert rank is None
    assert last == f"{row['run']}/{row['tile_id']}/{row['target_id']}"


@pytest.mark.parametrize(
    "content",
    [
        '["x",null,null,null]',
        '["x",null,Infinity,"r/t/1"]',
        '["x",1,null,"r/t/1"]',
        '["x","9223372036854775808",null,"r/t/1"]',
        '["x",null,"1.5","r/t/1"]',
        '["x",null,null,"r/t/one"]',
        '["x",null,null,["r","t","1"]]',
        '["x",null,"r/t/1"]',
    ],
)
def test_a_cursor_that_was_changed_is_refused(content):
    text = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
    with pytest.raises(BadRequestError, match=r"^after: not"):
        Cursor.parse(text, "order", "state")
