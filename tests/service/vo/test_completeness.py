"""A recovery that is served with its run: TAP's table of completeness, the page, and what is refused."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from painted import drawn_sky, painted_table, pictures, run_of

import scanner
from scanner.config import StorageConfig
from scanner.errors import ContentError, UsageError
from scanner.recovery import products
from scanner.recovery.lenses import LENSES, PICTURES
from scanner.recovery.purity import Assumptions
from scanner.recovery.selection import PAGE, SELECTION, TABLE, SelectionFunction
from scanner.service.settings import load
from scanner.storage import open_store


@pytest.fixture(scope="module")
def recovery(served_run, tmp_path_factory):
    """A recovery of the served run, of lenses that were drawn from a known law."""
    folder = tmp_path_factory.mktemp("served") / "recovery"
    folder.mkdir()
    sky = drawn_sky(1)
    pq.write_table(painted_table(2, 400, sky), folder / LENSES)
    (folder / PICTURES).write_bytes(pictures())
    run_id = scanner.open(served_run).record.run_id
    products.write(open_store(str(folder), StorageConfig()), run_of(sky).model_copy(update={"run": run_id}), Assumptions())
    return folder


def settings(tmp_path, *recoveries):
    return load(
        None, {"grading.path": str(tmp_path / "grades.sqlite"), "files.recoveries": [str(one) for one in recoveries]}, {}
    )


@pytest.fixture(scope="module")
def recovery_server(served_run, recovery, make_server, tmp_path_factory):
    """The real server over the run and its recovery; only to be read from."""
    with make_server(settings(tmp_path_factory.mktemp("grades"), recovery), served_run) as running:
        yield running


def asked(server, query):
    return server.get("/tap/sync", params={"LANG": "ADQL", "QUERY": query, "MAXREC": 100_000}).content


def test_tap_has_every_bin_with_units_and_ucds(recovery_server, recovery, served_run, read):
    table = pq.read_table(recovery / TABLE)
    _, found = read(asked(recovery_server, "SELECT * FROM completeness"))
    assert found.colnames == ["run", *table.column_names]
    assert set(found["run"]) == {scanner.open(served_run).record.run_id}
    for name in ("n_painted", "n_found", "completeness", "completeness_low", "completeness_high", "low"):
        np.testing.assert_array_equal(np.asarray(found[name]), table[name].to_numpy(), err_msg=name)
    query = "SELECT column_name, unit, ucd FROM tap_schema.columns WHERE table_name LIKE '%.completeness'"
    _, described = read(asked(recovery_server, query))
    assert list(described["column_name"]) == found.colnames
    assert all(described["ucd"])


def test_votlint_finds_nothing_wrong_with_it(recovery_server, votlint):
    votlint(asked(recovery_server, "SELECT * FROM completeness"))


def test_the_page_of_a_run_says_what_it_would_have_found(recovery_server, recovery):
    selection = SelectionFunction.from_bytes((recovery / SELECTION).read_bytes(), SELECTION, "")
    (collection,) = recovery_server.context.collections
    address = f"/c/{collection.slug}/completeness/{selection.run.run}"
    tiles = recovery_server.get(f"/c/{collection.slug}/tiles").text
    assert selection.sentences() in tiles
    assert address in tiles
    page = recovery_server.get(address)
    assert page.content == (recovery / PAGE).read_bytes()
    assert "sandbox" in page.headers["content-security-policy"]
    assert recovery_server.get(f"/c/{collection.slug}/completeness/another").status_code == 404


def test_what_is_not_of_a_served_run_or_damaged_is_refused(served_run, recovery, make_server, tmp_path):
    other = shutil.copytree(recovery, tmp_path / "other")
    sky = drawn_sky(1)
    products.write(open_store(str(other), StorageConfig()), run_of(sky), Assumptions())
    damaged = shutil.copytree(recovery, tmp_path / "damaged")
    (damaged / TABLE).write_bytes(b"PAR1")
    for folder, error, said in (
        (other, UsageError, "is a recovery of the run .*, which is not served"),
        (damaged, ContentError, r"completeness.parquet: is not the file that selection-function.json names"),
    ):
        with pytest.raises(RuntimeError, match=said) as caught, make_server(settings(tmp_path, folder), served_run):
            pass
        assert error.__name__ in str(caught.value)
