"""Lens models of the running server: as columns of every answer, and their files."""

import io
import json
import shutil

import pytest
from astropy.io import votable
from PIL import Image

from scanner.grading.grade import Place
from scanner.grading.training_set import finder_probabilities, graded_rows
from scanner.modelling import lens_model
from scanner.service.settings import load


@pytest.fixture(scope="module")
def asked(modelled_server):
    """What a list of the server answers: its items."""

    def ask(**filters):
        (collection,) = modelled_server.context.collections
        return modelled_server.get(f"/api/v1/collections/{collection.slug}/candidates", params=filters)

    return ask


def test_votes_begin_from_what_networks_and_model_say_together(modelled_server, rows, listed_ids):
    best, *_, other = (
        Place(one, row["name"], row["ra"], row["dec"]) for one, row in zip(listed_ids[:3], rows.to_pylist(), strict=False)
    )
    published = modelled_server.context.collections.default.published
    found = finder_probabilities(graded_rows({1: (best,), 2: (other,)}, [published]))
    assert found == {1: pytest.approx(0.93), 2: pytest.approx(rows["p_calibrated"][2].as_py())}


def test_lists_have_them_and_can_be_filtered_and_ordered(asked, listed_ids):
    best, second, third = asked(limit=3).json()["items"]
    assert (best["theta_e"], best["model_verdict"], best["shear"], best["n_images"]) == (1.25, "certified", 0.05, 4)
    assert (second["theta_e"], second["model_verdict"]) == (None, "refused")
    assert (third["theta_e"], third["model_verdict"], third["n_images"]) == (None, "", 0)
    certified = asked(verdict="certified").json()
    assert ([item["id"] for item in certified["items"]], certified["total"]) == (listed_ids[:1], 1)
    assert [item["id"] for item in asked(verdict="certified", objects=True).json()["items"]] == listed_ids[:1]
    assert asked(sort="p_lens_modelled", limit=1).json()["items"][0]["p_lens_modelled"] == pytest.approx(0.93)
    ordered = asked(sort="theta_e", limit=2).json()
    assert ordered["items"][0]["id"] == listed_ids[0]
    # The rest, whose radius is not known, comes behind.
    assert len(asked(sort="theta_e", limit=1000, after=ordered["next"]).json()["items"]) == len(listed_ids) - 2


def test_without_models_they_cannot_be_asked_for(server):
    (collection,) = server.context.collections
    for filters in ({"verdict": "certified"}, {"sort": "theta_e"}):
        answer = server.get(f"/api/v1/collections/{collection.slug}/candidates", params=filters)
        assert answer.status_code == 400
        assert "have no lens models" in answer.json()["error"]["message"]


def test_tap_and_cone_search_have_them(modelled_server, rows):
    (collection,) = modelled_server.context.collections
    schema = collection.slug.lower().replace("-", "_")
    for table in ("objects", "candidates"):
        query = f"SELECT theta_e, model_verdict FROM {schema}.{table} WHERE theta_e > 1"
        answer = modelled_server.get("/tap/sync", params={"LANG": "ADQL", "QUERY": query})
        found = votable.parse_single_table(io.BytesIO(answer.content))
        assert [(row["theta_e"], row["model_verdict"]) for row in found.to_table()] == [(1.25, "certified")]
        field = found.get_field_by_id_or_name("theta_e")
        assert (field.unit.to_string(), field.ucd) == ("arcsec", "phys.angSize")
    query = (
        f"SELECT column_name, unit FROM tap_schema.columns WHERE table_name = '{schema}.objects' AND column_name = 'mass_pa'"
    )
    answer = modelled_server.get("/tap/sync", params={"LANG": "ADQL", "QUERY": query})
    assert [row["unit"] for row in votable.parse_single_table(io.BytesIO(answer.content)).to_table()] == ["deg"]
    best = rows.to_pylist()[0]
    answer = modelled_server.get("/scs", params={"RA": best["ra"], "DEC": best["dec"], "SR": 1e-4})
    (row,) = votable.parse_single_table(io.BytesIO(answer.content)).to_table()
    assert (row["theta_e"], row["mass_pa"], row["model_status"]) == (1.25, 72.0, "converged")


def test_files_of_a_model_and_links_to_them(modelled_server, listed_ids):
    def get(number, form):
        return modelled_server.get("/lens-model", params={"ID": listed_ids[number], "FORMAT": form})

    assert Image.open(io.BytesIO(get(0, "png").content)).size == (916, 194)
    assert get(0, "json").json()["mass"]["theta_e_arcsec"] == 1.25
    assert get(0, "fits").headers["content-type"] == "application/fits"
    assert get(1, "json").json()["reason"] == "VIS is masked here"
    assert (get(1, "png").status_code, "VIS is masked here" in get(1, "png").text) == (404, True)
    assert (get(2, "png").status_code, get(0, "gif").status_code) == (404, 400)
    content = modelled_server.get("/datalink", params={"ID": listed_ids[0]}).content
    links = votable.parse_single_table(io.BytesIO(content)).to_table()
    addresses = [row["access_url"] for row in links if str(row["local_semantics"]).startswith("lens-model")]
    assert [modelled_server.client.get(str(address)).status_code for address in addresses] == [200] * 3


def test_a_damaged_picture_is_not_shown(modelled_run, listed_ids, make_server, tmp_path):
    run = shutil.copytree(modelled_run, tmp_path / "run")
    _, tile_id, target_id = listed_ids[0].split("/")
    path = run / lens_model.key(tile_id, int(target_id)) / lens_model.PICTURE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with make_server(load(None, {"grading.path": str(tmp_path / "grades.sqlite")}, {}), run) as server:
        answer = server.get("/lens-model", params={"ID": listed_ids[0]})
    assert answer.status_code == 404
    assert "damaged; model it again" in json.loads(answer.content)["error"]["message"]
