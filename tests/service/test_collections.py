import json
import shutil
import threading

import pytest
from damage import resealed
from prometheus_client import CollectorRegistry
from waiting import LIMIT_S, wait_for

from scanner.atomic_file import file_sha256
from scanner.errors import ContentError, InputMissingError
from scanner.query.catalogue import CandidateId
from scanner.query.processes import QueryProcesses
from scanner.service import collections as registry
from scanner.service.collections import (
    Collections,
    UnknownCandidateError,
    UnknownCollectionError,
)
from scanner.service.errors import BusyError
from scanner.service.security import ServiceInstruments
from scanner.service.settings import load


@pytest.fixture
def processes():
    processes = QueryProcesses(256)
    yield processes
    processes.close()


@pytest.fixture
def collections_of(processes):
    def made(*locations, **settings):
        config = load(None, settings, {})
        return Collections([str(one) for one in locations], config, processes, ServiceInstruments(CollectorRegistry()))

    return made


@pytest.fixture
def copy(served_run, tmp_path):
    """The run without its tiles: what is served of it, to be changed."""
    return shutil.copytree(served_run, tmp_path / "copy", ignore=shutil.ignore_patterns("tiles"))


def test_the_first_folder_is_the_default_and_names_are_distinct(served_run, copy, collections_of):
    collections = collections_of(copy, served_run)
    with pytest.raises(BusyError):
        _ = collections.default
    collections.open_all()
    slugs = [one.slug for one in collections]
    assert slugs == [slugs[0], f"{slugs[0]}-2"]
    assert collections.default is collections.get(slugs[0])
    assert [one.published.location for one in collections] == [str(copy), str(served_run)]
    with pytest.raises(UnknownCollectionError):
        collections.get("nowhere")


def test_objects_are_found_by_their_ids(served_run, rows, listed_ids, collections_of):
    collections = collections_of(served_run)
    collections.open_all()
    other = next(row for row in rows.to_pylist() if not row["is_candidate"])
    for name in (listed_ids[2], str(CandidateId.of(other))):
        collection, row = collections.find(name)
        assert collection is collections.default
        assert row.schema.equals(collection.catalogue.schema)
        assert str(CandidateId.of(row.to_pylist()[0])) == name
    run, tile_id, _ = listed_ids[0].split("/")
    for wrong in ("", "a", f"{run}/{tile_id}/1", f"{run}/{tile_id}/x", f"x/{listed_ids[0]}", "a/b/1'--", "/".join("abcd")):
        with pytest.raises(UnknownCandidateError):
            collections.find(wrong)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("run-01ab/102018211/-5", CandidateId("run-01ab", "102018211", -5)),
        ("a/b/9223372036854775807", CandidateId("a", "b", 2**63 - 1)),
        ("a/b/9223372036854775808", None),
        ("a/b/0", CandidateId("a", "b", 0)),
        ("a/b/007", None),
        ("a/b/-0", None),
        ("a/../1", None),
        ("a/b/1\n", None),
        ("a/b/١", None),
        ("\x00/b/1", None),
    ],
)
def test_ids_are_text(text, known):
    assert CandidateId.parse(text) == known
    assert known is None or str(known) == text


def merge_again(run):
    """Put another catalogue, which has a note, in the place of a run's."""
    again = run / "again"
    shutil.copytree(run / "catalogue", again)
    with (again / "hats.properties").open("a") as properties:
        properties.write("hats_note=again\n")
    shutil.rmtree(run / "catalogue")
    again.rename(run / "catalogue")
    sha256 = json.loads((run / "run.json").read_text())["sha256"]
    name = "catalogue/hats.properties"
    resealed(run / "run.json", sha256=sha256 | {name: file_sha256(run / name)})


def test_a_run_that_is_merged_again_takes_the_place_of_the_old_one_in_one_step(copy, collections_of):
    collections = collections_of(copy)
    collections.open_all()
    old = collections.default
    collections.renew()
    assert collections.default is old
    merge_again(copy)
    collections.renew()
    new = collections.default
    assert new is not old
    assert (new.slug, new.catalogue.n_rows, new.n_candidates) == (old.slug, old.catalogue.n_rows, old.n_candidates)
    # Who has asked the old one is still answered.
    assert len(old.database.query("SELECT * FROM served.listed")) == old.n_listed


def test_a_folder_that_goes_away_stays_as_it_was(copy, caplog, collections_of):
    collections = collections_of(copy)
    collections.open_all()
    old = collections.default
    shutil.rmtree(copy)
    collections.renew()
    assert collections.default is old
    assert "stays as it was" in caplog.text


def test_a_catalogue_that_is_damaged_stays_as_it_was_and_is_looked_at_again(copy, caplog, collections_of):
    collections = collections_of(copy)
    collections.open_all()
    old = collections.default
    merge_again(copy)
    tiles = copy / "tiles.parquet"
    good = tiles.read_bytes()
    tiles.write_bytes(b"PAR1 of sorts")
    collections.renew()
    assert collections.default is old
    assert "tiles.parquet: damaged (its SHA-256 is not the one that was recorded)" in caplog.text
    tiles.write_bytes(good)
    collections.renew()
    assert collections.default is not old


def test_what_cannot_be_opened_is_told_to_whoever_waits(copy, collections_of):
    (copy / "catalogue" / "partition_info.csv").write_text("Norder,Npix\nx\n")
    collections = collections_of(copy)
    with pytest.raises(ContentError):
        collections.open_all()
    assert not collections.is_ready
    background = collections_of(copy)
    background.start()
    assert background.wait(LIMIT_S)
    assert isinstance(background.error, ContentError)
    with pytest.raises(InputMissingError):
        collections_of(copy / "nowhere")


def test_folders_are_waited_for_where_that_is_wished(copy, tmp_path, monkeypatch, caplog, collections_of):
    """As of a survey whose first scan is not through: the service is there, and opens the catalogue when it is."""
    monkeypatch.setattr(registry, "RENEWAL_S", 0.05)
    (tmp_path / "later").mkdir()
    collections = collections_of(tmp_path / "later", **{"files.wait": True})
    collections.start()
    wait_for("the first try", lambda: "not served yet" in caplog.text)
    assert not collections.wait(0)
    assert (collections.error, collections.is_ready, len(collections)) == (None, False, 1)
    for question in (lambda: collections.default, lambda: collections.get("later"), lambda: list(collections)):
        with pytest.raises(BusyError):
            question()
    shutil.copytree(copy, tmp_path / "later", dirs_exist_ok=True)
    assert collections.wait(LIMIT_S)
    assert collections.is_ready
    assert collections.default.catalogue.n_rows > 0
    collections.close()


def test_many_threads_ask_at_once(served_run, rows, collections_of):
    collections = collections_of(served_run)
    collections.open_all()
    wrong = []

    def ask():
        for _ in range(20):
            n = collections.default.database.query("SELECT count(*) AS n FROM served.listed WHERE rank > ?", (0,))["n"][
                0
            ].as_py()
            if n != len(rows):
                wrong.append(n)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_database_reads_nothing_else(served_run, collections_of):
    import duckdb

    collections = collections_of(served_run)
    collections.open_all()
    for sql in (
        "SELECT * FROM read_text('/etc/passwd')",
        f"SELECT * FROM read_text('{served_run}/run.json')",
        "SET threads = 8",
    ):
        with pytest.raises(duckdb.Error):
            collections.default.database.query(sql)
