"""The JSON API over a real run, through the real server."""

import io
import json
import math

import numpy as np
import pyarrow.compute as pc
import pytest
from astropy.io.votable import parse_single_table

from scanner.catalogue.columns import CATALOGUE_SCHEMA, MEMBER_COLUMNS
from scanner.interface.opened import similar
from scanner.service.settings import load


@pytest.fixture(scope="module")
def slug(server):
    return server.context.collections.default.slug


@pytest.fixture(scope="module")
def best_names(rows):
    return rows["name"].to_pylist()[:4]


@pytest.fixture(scope="module")
def ask(server, slug):
    def ask(path="", status=200, **parameters):
        answer = server.get(f"/api/v1/collections/{slug}{path}", params=parameters)
        assert answer.status_code == status, answer.text
        return answer.json()

    return ask


def test_a_collection_says_what_it_is(ask, server, slug, rows, served_run):
    summary = ask()
    assert server.get("/api/v1/collections").json() == {"collections": [summary]}
    assert (summary["slug"], summary["version"], summary["runs"]) == (slug, None, [rows["run"][0].as_py()])
    assert (summary["n_objects"], summary["n_candidates"]) == (len(rows), sum(rows["is_candidate"].to_pylist()))
    assert summary["n_listed"] == len(rows)
    assert (summary["n_tiles"], summary["n_failed"]) == (3, 0)
    # Three tiles of 64″ with an overlap of 0.3 between neighbours, some pixels masked; as the run itself says.
    assert 0.9 * 2.4 * (64 / 3600) ** 2 < summary["area_deg2"] < 2.4 * (64 / 3600) ** 2
    status = json.loads((served_run / "status.json").read_text())
    assert summary["area_deg2"] == round(status["totals"]["sky_area_deg2"], 6)
    separations = np.hypot(
        (rows["ra"].to_numpy() - summary["center"]["ra"]) * np.cos(np.radians(summary["center"]["dec"])),
        rows["dec"].to_numpy() - summary["center"]["dec"],
    )
    assert separations.max() < summary["radius_deg"] < 0.1


def test_rows_have_every_column_as_it_is(ask, rows, listed_ids):
    items = ask("/candidates", limit=1000)["items"]
    assert [item["id"] for item in items] == listed_ids
    for item, row in zip(items, rows.to_pylist(), strict=True):
        assert item.keys() == {"id", "grade", "withheld", *CATALOGUE_SCHEMA.names}
        for name, value in row.items():
            if name in ("target_id", "_healpix_29"):
                assert item[name] == str(value)
            elif isinstance(value, float):
                told = item[name]
                assert (told is None and not math.isfinite(value)) or np.float32(told) == np.float32(value)
            else:
                assert item[name] == value


def test_objects_like_one_and_like_a_file(modelled_server, served_run, listed_ids, tmp_path):
    slug = modelled_server.context.collections.default.slug
    here = f"/api/v1/collections/{slug}"
    best = listed_ids[0]
    found = modelled_server.get(f"{here}/candidates/{best}/similar", params={"limit": 5}).json()["items"]
    # As the command line says, but for the object itself.
    wanted = similar(modelled_server.context.collections.default.published.location, "#1", top=6)
    assert [item["rank"] for item in found] == wanted["rank"].to_pylist()[1:]
    np.testing.assert_allclose([item["similarity"] for item in found], wanted["similarity"].to_numpy()[1:], atol=1e-6)
    # The service's own cutout of an object is most like that object.
    file = modelled_server.get("/cutout", params={"id": listed_ids[3]}).content
    found = modelled_server.client.post(f"{here}/similar?limit=1", content=file).json()["items"]
    assert [(item["id"], round(item["similarity"], 3)) for item in found] == [(listed_ids[3], 1.0)]
    for wrong in (b"", file[:3000], file.replace(b"NAXIS1  =                  200", b"NAXIS1  =                  199")):
        refused = modelled_server.client.post(f"{here}/similar", content=wrong)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
        assert "needs the extensions VIS (200 x 200 pixels)" in refused.json()["error"]["message"]
    assert modelled_server.client.post(f"{here}/similar", content=bytes(300_000)).status_code == 413


def test_without_features_nothing_is_like_anything(ask, server, slug, listed_ids):
    assert "scanner features" in ask(f"/candidates/{listed_ids[0]}/similar", status=404)["error"]["message"]
    assert server.client.post(f"/api/v1/collections/{slug}/similar", content=b"x").status_code == 404


def test_who_moved_most_comes_first(modelled_server, ask, best_names):
    here = f"/api/v1/collections/{modelled_server.context.collections.default.slug}/moved"
    first, second, third, fourth = best_names

    def names(**query):
        return [item["name"] for item in modelled_server.get(here, params=query).json()["items"]]

    # Of the best nine: from behind them to 3, from 9 out; then those that changed places.
    assert names() == [third, first, second, fourth]
    assert names(order="up") == [third, first]
    assert names(order="down") == [second, fourth]
    assert names(order="rank") == [first, second, third, fourth]
    page = modelled_server.get(here, params={"limit": 2, "order": "rank"}).json()
    assert (page["before"], page["after"], page["total"], page["next"]) == ("old 1", "new 2", 4, 2)
    assert names(order="rank", limit=2, after=2) == [third, fourth]
    said = page["items"][0]
    assert (said["rank_before"], said["rank_after"], said["candidate_before"], said["candidate_after"]) == (2, 1, False, True)
    assert said["p_after"] == pytest.approx(0.9)
    found = modelled_server.get(f"{here.removesuffix('/moved')}/candidates/{said['id']}").json()
    assert found["row"]["name"] == first
    assert names(order="up", limit=1) == [third]
    assert "scanner rescore" in ask("/moved", status=404)["error"]["message"]


def test_pages_are_told_how_they_go_on(ask, listed_ids):
    first = ask("/candidates", limit=5, sort="p_ou_66")
    second = ask("/candidates", limit=1000, sort="p_ou_66", after=first["next"])
    assert (first["total"], second["total"], second["next"]) == (len(listed_ids), None, None)
    found = [*first["items"], *second["items"]]
    assert sorted(item["id"] for item in found) == sorted(listed_ids)
    scores = [-1.0 if item["p_ou_66"] is None else item["p_ou_66"] for item in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sort": "rank; DROP TABLE x"},
        {"limit": 0},
        {"limit": 1001},
        {"min_score": "nan"},
        {"min_score": "1e400"},
        {"unknown": 1},
        {"after": "x"},
        {"cone": "here"},
        {"flags": "some"},
        {"known": "maybe"},
        {"min_rank": 2**63},
        {"name": "x" * 61},
    ],
)
def test_wrong_parameters_are_named(ask, wrong):
    error = ask("/candidates", 400, **wrong)["error"]
    assert error["message"].startswith(next(iter(wrong)))


def test_one_object_and_those_beside_it(ask, rows, listed_ids):
    ranks = rows["rank"].to_pylist()
    for place in (0, 1, 20, len(listed_ids) - 1):
        name = listed_ids[place]
        found = ask(f"/candidates/{name}")
        assert (found["id"], found["row"]["id"], found["row"]["rank"]) == (name, name, ranks[place])
        assert found["previous"] == (listed_ids[place - 1] if place else None)
        assert found["next"] == (listed_ids[place + 1] if place + 1 < len(listed_ids) else None)
    assert found["position"]["ra_text"].startswith("03h31m")
    assert [link["name"] for link in found["links"]] == ["ESASky", "Aladin", "Legacy"]
    assert all(link["href"].startswith("https://") for link in found["links"])


def test_candidates_alone_can_be_asked_for(ask, rows, candidate_ids):
    found = ask("/candidates", candidates=True, limit=1000)
    assert [item["id"] for item in found["items"]] == candidate_ids
    assert 0 < found["total"] == len(candidate_ids) < len(rows)


def test_the_list_as_a_file(server, slug, rows):
    limit = sorted(rows["magnitude_vis"].to_pylist())[10]
    wanted = {"max_magnitude": limit, "sort": "magnitude_vis", "order": "asc"}
    answer = server.get(f"/api/v1/collections/{slug}/table", params=wanted | {"format": "csv"})
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{slug}.csv"'
    header, *lines = answer.text.splitlines()
    place = header.replace('"', "").split(",").index("magnitude_vis")
    found = [np.float32(line.split(",")[place]) for line in lines]
    assert found == sorted(np.float32(value) for value in rows["magnitude_vis"].to_pylist() if value <= limit)
    votable = server.get(f"/api/v1/collections/{slug}/table", params={"format": "votable", "candidates": True})
    table = parse_single_table(io.BytesIO(votable.content)).to_table()
    assert list(table["name"]) == [row["name"] for row in rows.to_pylist() if row["is_candidate"]]


def test_objects_that_are_no_candidates_can_be_had_too(ask, rows):
    other = next(row for row in rows.to_pylist() if not row["is_candidate"])
    name = f"{other['run']}/{other['tile_id']}/{other['target_id']}"
    assert ask(f"/candidates/{name}")["row"]["is_candidate"] is False
    listed = ask("/candidates", objects=True, limit=1000)
    assert [item["rank"] for item in listed["items"]] == rows["rank"].to_pylist()


@pytest.mark.parametrize("name", ["a/b/1", "a/b/c", "../../1", "%2e%2e/%2e%2e/1", "a/b/99999999999999999999"])
def test_objects_that_there_are_not(server, slug, name):
    answer = server.get(f"/api/v1/collections/{slug}/candidates/{name}")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


def test_neighbours_on_the_map(ask, rows, listed_ids):
    candidates = [row for row in rows.to_pylist() if math.isfinite(row["tsne_x"])]
    centre = candidates[3]
    assert centre["rank"] == 4
    distances = {
        f"{row['run']}/{row['tile_id']}/{row['target_id']}": math.hypot(
            row["tsne_x"] - centre["tsne_x"], row["tsne_y"] - centre["tsne_y"]
        )
        for row in candidates
        if row is not centre
    }
    nearest = ask(f"/candidates/{listed_ids[3]}/neighbours", limit=4)["items"]
    assert [item["id"] for item in nearest] == sorted(distances, key=distances.get)[:4]
    assert [item["distance"] for item in nearest] == pytest.approx([distances[item["id"]] for item in nearest])


def test_the_map_and_the_sky_count_every_candidate_once(ask, rows, listed_ids):
    chosen = rows.filter(pc.is_finite(rows["tsne_x"]))
    for bins in (1, 7):
        found = ask("/tsne", bins=bins)
        x, y = chosen["tsne_x"].to_numpy(), chosen["tsne_y"].to_numpy()
        counts, _, _ = np.histogram2d(y, x, bins, ((y.min(), y.max()), (x.min(), x.max())))
        assert found["counts"] == counts.astype(int).ravel().tolist()
        assert (found["x_min"], found["y_max"]) == (x.min(), y.max())
        assert [value is None for value in found["grid_value"]] == [n == 0 for n in found["counts"]]
    sky = ask("/sky", max_cells=12)
    assert sum(cell["n"] for cell in sky["cells"]) == len(listed_ids)
    assert len(sky["cells"]) <= 12
    assert all(abs(cell["dec"] + 28) < 58.6 / 2 ** sky["order"] for cell in sky["cells"])


def test_tiles(ask):
    found = ask("/tiles")
    assert [tile["state"] for tile in found["items"]] == ["done"] * 3
    assert found["next"] is None
    assert all(tile["s_region"].startswith("POLYGON ICRS ") for tile in found["items"])
    one, rest = ask("/tiles", limit=1), ask("/tiles", limit=5, after=1)
    assert one["next"] == 1
    assert one["items"] + rest["items"] == found["items"]


@pytest.mark.parametrize("column", ["p_calibrated", "grid_value", *[column.name for column in MEMBER_COLUMNS.values()]])
def test_histograms_equal_numpys(ask, rows, column):
    found = ask("/histogram", column=column, bins=8)
    values, is_candidate = rows[column].to_numpy().astype(np.float64), np.asarray(rows["is_candidate"].to_pylist())
    known = np.isfinite(values)
    assert found["edges"] == np.linspace(0, 1, 9).tolist()
    assert found["objects"] == np.histogram(values[known], 8, (0, 1))[0].tolist()
    assert found["candidates"] == np.histogram(values[known & is_candidate], 8, (0, 1))[0].tolist()
    assert sum(found["candidate_sum"]) == pytest.approx(values[known & is_candidate].sum())


def test_histograms_with_other_edges(ask, rows):
    found = ask("/histogram", scale="log", bins=6)
    assert found["edges"] == pytest.approx([10.0**-i for i in range(6, -1, -1)])
    values = np.clip(rows["p_calibrated"].to_numpy().astype(np.float64), 1e-6, None)
    assert found["objects"] == np.histogram(values[np.isfinite(values)], found["edges"])[0].tolist()
    magnitudes = rows["magnitude_vis"].to_numpy()
    found = ask("/histogram", column="magnitude_vis", bins=3)
    assert found["edges"][0] <= magnitudes.min() < magnitudes.max() < found["edges"][-1]
    assert sum(found["objects"]) == len(magnitudes)


def test_blind_grading_withholds_scores_and_what_would_tell_them(served_run, tmp_path, make_server, listed_ids):
    config = load(None, {"grading.blind": True, "grading.path": str(tmp_path / "grades.sqlite")}, {})
    with make_server(config, served_run) as server:
        base = f"/api/v1/collections/{server.context.collections.default.slug}"
        items = server.get(f"{base}/candidates?limit=1000").json()["items"]
        assert {item["id"] for item in items} == set(listed_ids)
        assert [item["_healpix_29"] for item in items] == sorted((item["_healpix_29"] for item in items), key=int)
        assert all(item["withheld"] and item["rank"] is None and item["p_calibrated"] is None for item in items)
        one = server.get(f"{base}/candidates/{items[1]['id']}").json()
        assert (one["previous"], one["next"]) == (items[0]["id"], items[2]["id"])
        assert one["row"]["p_ou_j"] is None
        for path in (
            "/candidates?sort=rank",
            "/candidates?min_score=0.1",
            "/candidates?flags=any",
            "/candidates?candidates=true",
            "/table?format=csv",
            "/tsne",
            "/histogram",
            "/candidates?objects=true",
            "/candidates?objects=1&sort=ra",
        ):
            refused = server.get(f"{base}{path}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
