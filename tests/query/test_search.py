import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_catalogue import files_of
from mocpy import MOC

from scanner.errors import UsageError
from scanner.query.catalogue import SEPARATION_COLUMN, Catalogue, Search, count, search
from scanner.query.region import MAX_VERTICES, Cone, MocRegion, Polygon

RADII = st.one_of(st.sampled_from([0.0, 180.0, 90.0]), st.floats(0, 180), st.floats(0, 3), st.floats(0, 0.01))


def brute_force(published, region):
    return published.rows.filter(pa.array(region.contains(published.ra, published.dec)))


@settings(max_examples=20)
@given(data=st.data(), radius=RADII)
def test_cones_equal_brute_force(assert_same, published, data, radius):
    """Around anything, and around objects themselves, which lie on the poles and at RA 0 too."""
    number = data.draw(st.one_of(st.none(), st.integers(0, 200), st.integers(0, len(published.rows) - 1)))
    centre = (
        data.draw(st.tuples(st.floats(0, 360), st.floats(-90, 90)))
        if number is None
        else (float(published.ra[number]), float(published.dec[number]))
    )
    cone = Cone(*centre, radius)
    found = search(published.catalogue, Search(cone))
    assert_same(found, brute_force(published, cone))
    assert number is None or published.rows["rank"][number] in found["rank"]
    assert count(published.catalogue, Search(cone)) == len(found)


@settings(max_examples=15)
@given(st.floats(0, 360), st.floats(-90, 90), st.lists(st.floats(0.1, 1), min_size=3, max_size=9), st.floats(0.01, 50))
def test_polygons_equal_brute_force(assert_same, published, ra, dec, radii, size):
    """Stars around any centre: a corner's distance is its radius."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    d, up = np.radians(size * np.array(radii)), np.radians(dec)
    z = np.cos(d) * np.sin(up) + np.sin(d) * np.cos(angles) * np.cos(up)
    east = np.arctan2(np.sin(d) * np.sin(angles), np.cos(d) * np.cos(up) - np.sin(d) * np.cos(angles) * np.sin(up))
    polygon = Polygon(np.stack([(ra + np.degrees(east)) % 360, np.degrees(np.arcsin(np.clip(z, -1, 1)))], axis=1))
    assert_same(search(published.catalogue, Search(polygon)), brute_force(published, polygon))


def test_a_polygon_of_many_sides(assert_same, published):
    angles = np.linspace(0, 2 * np.pi, MAX_VERTICES, endpoint=False)
    radii = 0.4 + 0.3 * (np.arange(MAX_VERTICES) % 2)
    polygon = Polygon(np.stack([radii * np.cos(angles) / 0.87, radii * np.sin(angles) - 30], axis=1))
    assert_same(search(published.catalogue, Search(polygon)), brute_force(published, polygon))


def test_objects_on_a_polygon_s_corners_are_found(published):
    corners = [5, 17, 33]
    polygon = Polygon(np.stack([published.ra[corners], published.dec[corners]], axis=1))
    assert set(published.rows["rank"].take(corners).to_pylist()) <= set(
        search(published.catalogue, Search(polygon))["rank"].to_pylist()
    )


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12 * 4**9 - 1)), min_size=1, max_size=300))
def test_mocs_equal_brute_force(assert_same, published, cells):
    orders = np.array([order for order, _ in cells], dtype=np.uint8)
    pixels = np.array([pixel % (12 * 4**order) for order, pixel in cells], dtype=np.uint64)
    region = MocRegion(MOC.from_healpix_cells(pixels, orders, max_depth=9))
    assert_same(search(published.catalogue, Search(region)), brute_force(published, region))


def test_all_are_counted_whatever_is_shown(published):
    assert count(published.catalogue, Search(top=3)) == len(published.rows)
    assert count(published.catalogue, Search(Cone(0, 0, 180), top=0)) == len(published.rows)


def test_answers_keep_units_and_order(assert_same, published):
    found = search(published.catalogue, Search(top=5, columns=("ra", "rank", "name")))
    assert_same(found, published.rows.slice(0, 5).select(["ra", "rank", "name"]))
    assert found.schema.field("ra").metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    by_magnitude = search(published.catalogue, Search(order="-magnitude_vis", top=9))
    assert by_magnitude["magnitude_vis"].to_pylist() == sorted(published.rows["magnitude_vis"].to_pylist())[:-10:-1]


def test_what_is_not_known_comes_last_and_has_no_score(published):
    p = published.rows["p_calibrated"].to_numpy()
    assert np.isnan(p).sum() > 100
    for order in ("p_calibrated", "-p_calibrated"):
        sorted_ = search(published.catalogue, Search(order=order, columns=("p_calibrated",)))["p_calibrated"].to_numpy()
        known = np.sort(p[np.isfinite(p)])
        np.testing.assert_array_equal(sorted_[: len(known)], known if order[0] != "-" else known[::-1])
        assert np.isnan(sorted_[len(known) :]).all()
    least = float(np.float32(0.7))
    scored = search(published.catalogue, Search(min_score=0.7))
    np.testing.assert_array_equal(scored["p_calibrated"].to_numpy(), p[p >= np.float32(least)])


def test_scores_on_the_edge_count(published):
    """A score that is printed as .9 is at least .9, though a float32 is not."""
    exact = float(published.rows["p_calibrated"][0].as_py())
    assert len(search(published.catalogue, Search(min_score=exact))) >= 1
    assert search(published.catalogue, Search(min_score=exact))["rank"][0].as_py() == 1


def test_separations(published):
    cone = Cone(0, -30, 0.3)
    found = search(published.catalogue, Search(cone, columns=("ra", "dec", "separation"), order="separation"))
    a, d = np.radians(found["ra"].to_numpy()), np.radians(found["dec"].to_numpy())
    h = np.sin((d + np.radians(30)) / 2) ** 2 + np.cos(d) * np.cos(np.radians(30)) * np.sin(a / 2) ** 2
    expected = np.degrees(2 * np.arcsin(np.sqrt(h))) * 3600
    np.testing.assert_allclose(found["separation"].to_numpy(), expected, rtol=1e-9, atol=1e-6)
    assert (np.diff(found["separation"].to_numpy()) >= 0).all()
    assert len(found) > 100
    assert found.schema.field("separation").equals(SEPARATION_COLUMN.field())


def test_names(assert_same, published):
    row = published.rows.slice(70, 1)
    name = row["name"][0].as_py()
    for text in (name, name.lower(), name.removeprefix("EUCL ")):
        assert_same(search(published.catalogue, Search(name=text)), row)
    beginning = name[:9]
    expected = published.rows.filter([one.startswith(beginning) for one in published.rows["name"].to_pylist()])
    for text in (beginning, beginning.removeprefix("EUCL ")):
        assert_same(search(published.catalogue, Search(name=text)), expected)
    known = published.rows.filter([bool(one) for one in published.rows["known_name"].to_pylist()])
    assert_same(search(published.catalogue, Search(name="j0000+0000")), known)
    assert len(known) > 100
    assert len(search(published.catalogue, Search(name="%"))) == 0
    assert len(search(published.catalogue, Search(Cone(180, 0, 1), name=name))) == 0


def test_a_whole_name_is_looked_for_where_it_lies(assert_same, published, tmp_path):
    """Other files may be missing: nobody looks into them."""
    row = published.rows.slice(70, 1)
    place = Cone(row["ra"][0].as_py(), row["dec"][0].as_py(), 1 / 3600)
    needed = published.catalogue.files(place.ranges())
    shutil.copytree(published.folder, tmp_path / "copy")
    for path in published.catalogue.files():
        if path not in needed:
            (tmp_path / "copy" / path.relative_to(published.folder)).unlink()
    assert_same(search(Catalogue.open(files_of(tmp_path / "copy")), Search(name=row["name"][0].as_py())), row)


def test_ids_and_candidates(assert_same, published):
    row = published.rows.slice(1234, 1)
    run, tile, target = (row[name][0].as_py() for name in ("run", "tile_id", "target_id"))
    assert_same(search(published.catalogue, Search(candidate_id=f"{run}/{tile}/{target}")), row)
    assert len(search(published.catalogue, Search(candidate_id=f"{run}/{tile}/{target + 10**9}"))) == 0
    candidates = search(published.catalogue, Search(candidates_only=True))
    assert_same(candidates, published.rows.filter(published.rows["is_candidate"]))
    assert len(candidates) > 100
    region = Cone(0, -30, 1)
    both = search(published.catalogue, Search(region, min_score=0.6, candidates_only=True, top=3))
    inside = region.contains(published.ra, published.dec) & (published.rows["p_calibrated"].to_numpy() >= np.float32(0.6))
    assert_same(both, published.rows.filter(inside & published.rows["is_candidate"].to_numpy()).slice(0, 3))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Search(columns=("rank", "p_calibratd")), 'no column "p_calibratd"; did you mean p_calibrated'),
        (Search(columns=("xyzzy",)), 'no column "xyzzy"; there are _healpix_29, rank'),
        (Search(columns=('ra" FROM x --',)), "no column"),
        (Search(columns=("separation",)), 'no column "separation"'),
        (Search(columns=()), "at least one column"),
        (Search(columns=("ra", "ra")), "each only once"),
        (Search(order="-rnk"), 'no column "rnk"; did you mean rank'),
        (Search(candidate_id="a/b"), '"a/b" is no id of an object; write run/tile_id/target_id'),
        (Search(candidate_id="a/b/99999999999999999999"), "is no id of an object"),
        (Search(name="  "), "An empty name"),
    ],
)
def test_questions_that_make_no_sense(published, question, message):
    with pytest.raises(UsageError, match=message):
        search(published.catalogue, question)
