"""Links of the running server: each leads to what it says."""

import io

import numpy as np
import pytest
from astropy.io import fits
from pyvo.dal.adhoc import DatalinkResults

from scanner.service.vo.datalink import MOST_IDS

TERMS = {"#this", "#derivation", "#preview", "#preview-image", "#thumbnail", "#cutout", "#documentation", "#auxiliary"}


@pytest.fixture(scope="module")
def links(server, candidate_ids):
    return DatalinkResults.from_result_url(f"{server.url}/datalink?ID={candidate_ids[0]}")


def test_every_link_leads_to_what_it_says(server, links, candidate_ids):
    """The page, and what else other parts of the service answer, is left to their tests."""
    assert links.status[0] == "OK"
    followed = []
    for link in links:
        assert link["ID"] == candidate_ids[0]
        assert not link["error_message"]
        if link["access_url"] and link.semantics != "#documentation":
            answer = server.client.get(link["access_url"])
            assert (answer.status_code, answer.headers["content-type"]) == (200, link.content_type)
            followed.append(link.semantics)
    assert followed.count("#derivation") == 4
    assert {link.semantics for link in links} == TERMS
    (page,) = links.bysemantics("#documentation", include_narrower=False)
    assert page["access_url"] == f"{server.url}/c/{server.context.collections.default.slug}/candidates/{candidate_ids[0]}"


def test_pyvo_gets_the_dataset(links, server, candidate_ids):
    (this,) = links.bysemantics("#this", include_narrower=False)
    with fits.open(io.BytesIO(this.getdataset().read())) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["VIS", "Y", "J", "H"]
        assert f"{hdus[0].header['RUN']}/{hdus[0].header['TILE']}/{hdus[0].header['TARGET']}" == candidate_ids[0]


def test_pyvo_cuts_through_the_described_service(links, rows):
    """SODA with a circle of 2" round the object: its pixel is in the middle of what comes."""
    (service,) = links.iter_procs()
    named = {parameter.name: parameter for parameter in service.input_params}
    assert set(named) >= {"ID", "CIRCLE", "BAND", "FORMAT", "STRETCH"}
    assert (named["CIRCLE"].xtype, str(named["CIRCLE"].unit)) == ("circle", "deg")
    row = rows.slice(0, 1).to_pylist()[0]
    content = service.processed(circle=(row["ra"], row["dec"], 2 / 3600), band="VIS").read()
    with fits.open(io.BytesIO(content)) as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ["VIS"]
        assert hdus["VIS"].data.shape == pytest.approx((41, 41), abs=1)
        assert np.isfinite(hdus["VIS"].data).any()


def test_many_objects_at_once_and_the_service_takes_each(server, candidate_ids, read):
    wanted = [candidate_ids[number] for number in (2, 0, 1)]
    document, table = read(server.get("/datalink", params=[("ID", one) for one in wanted]).content)
    counts = [list(table["ID"]).count(one) for one in wanted]
    assert counts == [counts[0]] * 3
    assert list(dict.fromkeys(table["ID"])) == wanted
    (service,) = [resource for resource in document.resources if resource.type == "meta"]
    (group,) = service.groups
    (identifier,) = [parameter for parameter in group.entries if parameter.name == "ID"]
    assert identifier.ref == "ID"


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [("x", "UsageFault"), ("a/b/c", "UsageFault"), ("nowhere/1/2", "NotFoundFault"), ("../../etc/1", "UsageFault")],
)
def test_unknown_objects_have_a_row_that_says_so(server, candidate_ids, read, wrong, fault):
    answer = server.get("/datalink", params=[("ID", wrong), ("ID", candidate_ids[0])])
    assert answer.status_code == 200
    _, table = read(answer.content)
    (row,) = table[table["ID"] == wrong]
    assert row["error_message"].startswith(f"{fault}: ")
    assert not row["access_url"]
    assert not row["service_def"]
    assert len(table[table["ID"] == candidate_ids[0]]) > 5


def test_without_an_id_there_are_no_links(server, read):
    answer = server.get("/datalink")
    assert (answer.status_code, len(read(answer.content)[1])) == (200, 0)


def test_too_many_ids_are_told(server, read):
    document, table = read(server.client.post("/datalink", data={"ID": [f"r/t/{n}" for n in range(MOST_IDS + 5)]}).content)
    assert len(table) == MOST_IDS
    infos = document.resources[0].infos + document.get_first_table().infos
    assert [info.value for info in infos if info.name == "QUERY_STATUS"][-1] == "OVERFLOW"


def test_another_format_is_refused(server):
    answer = server.get("/datalink?ID=x&RESPONSEFORMAT=json")
    assert (answer.status_code, b"RESPONSEFORMAT=json" in answer.content) == (400, True)
