import math
from functools import cmp_to_key

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_catalogue import best_first

from scanner.catalogue import rank
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule

NAMES = ("tile", "target", "grid", "p", "candidate", "scored", "bundle", "run")
VALUES = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
ROWS = st.lists(
    st.tuples(
        *(st.sampled_from(["10", "9", "a"]), st.integers(-3, 3), VALUES, VALUES, st.booleans(), st.booleans()),
        *(st.sampled_from(["new 2", "old 1", "other 1"]), st.sampled_from(["b-1", "B-1"])),
    ).map(lambda values: dict(zip(NAMES, values, strict=True))),
    min_size=1,
    max_size=12,
    unique_by=lambda row: (row["tile"], row["target"], row["run"]),
)
PREFERRED = ("new 2", "old 1")


def compare(a, b):
    """The rule of the module's docstring, read aloud."""
    if a["scored"] != b["scored"]:
        return -1 if a["scored"] else 1
    places = [PREFERRED.index(row["bundle"]) if row["bundle"] in PREFERRED else 9 for row in (a, b)]
    if places[0] != places[1]:
        return places[0] - places[1]
    for name in ("p", "grid"):
        if math.isnan(a[name]) != math.isnan(b[name]):
            return 1 if math.isnan(a[name]) else -1
        if a[name] != b[name] and not math.isnan(a[name]):
            return -1 if a[name] > b[name] else 1
    for name in ("target", "tile", "run"):
        if a[name] != b[name]:
            return -1 if a[name] < b[name] else 1
    return 0


def table_of(make_rows, rows):
    column = {name: [row[name] for row in rows] for name in NAMES}
    return make_rows(
        tile_id=column["tile"],
        target_id=column["target"],
        grid_value=column["grid"],
        p_calibrated=column["p"],
        is_candidate=column["candidate"],
        bundle=column["bundle"],
        run=column["run"],
        # Far from one another: none is another's duplicate.
        ra=10.0 + np.arange(len(rows)),
        **{"p_ou*": np.where(column["scored"], 0.5, np.nan)},
    )


def ranks(rows, folder, bundles=()):
    """(rank, run, tile, target) of rows that were merged."""
    parts = []
    with Merging(folder / "merging", Rule(0.5, bundles), KnownLensMatcher(None, 1.0)) as merging:
        merging.add(rows)
        merging.merge()
        merging.write(folder / "catalogue", "made", parts.append)
    found = pa.concat_tables(parts).sort_by("rank")
    return list(zip(*(found[name].to_pylist() for name in ("rank", "run", "tile_id", "target_id")), strict=True))


@settings(max_examples=12)
@given(data=st.data())
def test_against_a_plain_comparison(make_rows, tmp_path_factory, data) -> None:
    rows = data.draw(ROWS)
    expected = [
        (place, row["run"], row["tile"], row["target"])
        for place, row in enumerate(sorted(rows, key=cmp_to_key(compare)), start=1)
    ]
    shuffled = table_of(make_rows, data.draw(st.permutations(rows)))
    assert ranks(shuffled, tmp_path_factory.mktemp("ranks"), PREFERRED) == expected
    plain = shuffled.take(pa.array(best_first(shuffled, PREFERRED)))
    assert plain["target_id"].to_pylist() == [target for _, _, _, target in expected]


@pytest.mark.parametrize(
    ("values", "targets"),
    [
        ({"grid_value": [np.nan] * 3, "p_calibrated": [0.1, 0.9, 0.5]}, [1, 2, 0]),
        ({name: [np.nan, 0.2, 0.1] for name in ("grid_value", "p_calibrated", "p_ou*")}, [1, 2, 0]),
    ],
    ids=["without a grid the probability ranks", "what was not scored comes last"],
)
def test_what_is_not_known(make_rows, tmp_path, values, targets) -> None:
    rows = make_rows(ra=[10.0, 11.0, 12.0], **values)
    assert [target for _, _, _, target in ranks(rows, tmp_path)] == targets


def test_text_order_over_chunks() -> None:
    values = pa.chunked_array([["b", "a"], ["c", "a"], []])
    assert rank.text_order(values).tolist() == [1, 0, 2, 0]


def test_places_of_bundles() -> None:
    bundles = pa.chunked_array([["b 1", "a 1"], ["c 1"]])
    assert rank.bundle_place(bundles, ("a 1", "b 1")).tolist() == [1, 0, 2]
    assert rank.bundle_place(bundles, ()).tolist() == [0, 0, 0]
