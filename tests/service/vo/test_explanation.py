"""Explanations of the running server, and the links to them."""

import json
import shutil

import pytest

from scanner.config import StorageConfig
from scanner.report import explanations
from scanner.report.explanations import Explanation
from scanner.service.settings import load
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder

PICTURE = b"\x89PNG made"


@pytest.fixture(scope="module")
def explained(served_run, tmp_path_factory, make_server, candidate_ids):
    """A server over a copy of the run whose first candidate was explained."""
    folder = tmp_path_factory.mktemp("explained")
    run = shutil.copytree(served_run, folder / "run")
    _, tile_id, target_id = candidate_ids[0].split("/")
    record = Explanation(
        tile_id=tile_id, target_id=int(target_id), input_fingerprint="i", bundle_fingerprint="b", scanner_version="1",
        probabilities=(0.5,) * 7, votes=7, spread=0.0, disagreement_bits=0.0, methods=("occlusion",),
    )  # fmt: skip
    run_folder = RunFolder(open_store(str(run), StorageConfig()))
    with explanations.staged(run_folder.store, tile_id, int(target_id), None) as staging:
        (staging.path / explanations.STRIP).write_bytes(PICTURE)
        written = record.model_copy(update={"place": staging.place})
        (staging.path / explanations.RECORD).write_text(written.model_dump_json())
    with make_server(load(None, {"grading.path": str(folder / "grades.sqlite")}, {}), run) as running:
        yield running


def test_strip_and_record_come_as_they_were_written(explained, candidate_ids):
    strip = explained.get("/explanation", params={"ID": candidate_ids[0]})
    assert (strip.content, strip.headers["content-type"]) == (PICTURE, "image/png")
    again = explained.get("/explanation", params={"ID": candidate_ids[0]}, headers={"If-None-Match": strip.headers["etag"]})
    assert again.status_code == 304
    record = explained.get("/explanation", params={"ID": candidate_ids[0], "FORMAT": "json"}).json()
    assert (record["votes"], record["methods"], "place" in record) == (7, ["occlusion"], False)


def test_links_lead_to_it_where_there_is_one(explained, candidate_ids, read):
    def linked(identifier):
        _, table = read(explained.get("/datalink", params={"ID": identifier}).content)
        return [row["access_url"] for row in table if str(row["local_semantics"]).startswith("explanation")]

    addresses = linked(candidate_ids[0])
    assert [explained.client.get(address).status_code for address in addresses] == [200, 200]
    assert linked(candidate_ids[1]) == []


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "Name an object"),
        ("ID=x", 404, "no explanation"),
        ("ID={other}", 404, "no explanation"),
        ("ID=a/b/3", 404, "no explanation"),
        ("ID={id}&FORMAT=gif", 400, "FORMAT=gif"),
    ],
)
def test_what_there_is_not_is_refused(explained, candidate_ids, query, status, said):
    answer = explained.get(f"/explanation?{query.format(id=candidate_ids[0], other=candidate_ids[1])}")
    assert answer.status_code == status
    assert said in json.loads(answer.content)["error"]["message"]
