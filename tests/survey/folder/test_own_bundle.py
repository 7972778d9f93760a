from datetime import UTC, datetime

import pytest
from made_records import run_record

from scanner.config import load
from scanner.ensemble.bundles import PublishedBundle
from scanner.errors import InputMissingError
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.folder.resume import with_own_bundle

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def bundles(tmp_path):
    """A store of bundles whose pointer can be set."""
    store = open_store(str(tmp_path / "bundles"), load(None, {}, {}).storage)

    def point_to(fingerprint):
        pointer = PublishedBundle(bundle=fingerprint, name="ou", version="1", before=None, since=datetime.now(UTC))
        store.write("current.json", pointer.to_bytes())
        return store.root

    return point_to


def config(bundle):
    return load(None, {"scoring.bundle": bundle, "scoring.threads": 2}, {})


def begin(folder, bundle, fingerprint):
    RunFolder(open_store(str(folder), load(None, {}, {}).storage)).write_record(
        run_record(scoring__bundle=bundle, bundle_fingerprint=fingerprint)
    )


def test_a_new_run_takes_the_bundle_that_is_current(bundles, tmp_path):
    place = bundles(OLD)
    found = with_own_bundle(config(f"{place}/current"), str(tmp_path / "run"))
    assert found.scoring.bundle == f"{place}/{OLD}"
    assert found == config(f"{place}/{OLD}")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_begun_keeps_its_bundle(bundles, tmp_path):
    place = bundles(NEW)
    begin(tmp_path / "run", f"{place}/{OLD}", OLD)
    given = config(f"{place}/current")
    assert with_own_bundle(given, str(tmp_path / "run")).scoring.bundle == f"{place}/{OLD}"
    assert with_own_bundle(given, str(tmp_path / "run"), restart=True).scoring.bundle == f"{place}/{NEW}"


def test_a_run_with_a_bundle_from_elsewhere_is_not_taken_for_one_of_the_store(bundles, tmp_path):
    place = bundles(NEW)
    begin(tmp_path / "run", "/models/ou", OLD)
    assert with_own_bundle(config(f"{place}/current"), str(tmp_path / "run")).scoring.bundle == f"{place}/{NEW}"


@pytest.mark.parametrize("bundle", [None, "ou-euclid", "/models/ou", "s3://bucket/bundles/ou"])
def test_a_bundle_that_is_named_outright_is_left_alone(bundle, tmp_path):
    assert with_own_bundle(config(bundle), str(tmp_path / "run")) == config(bundle)


def test_where_nothing_was_promoted_yet_is_said(s3, tmp_path):
    place = s3.fresh()
    given = load(None, {"scoring.bundle": f"{place}/current", "storage.endpoint": s3.endpoint}, {})
    with pytest.raises(InputMissingError, match=r"current\.json: no such file; publish a bundle .* and promote it"):
        with_own_bundle(given, str(tmp_path / "run"))
