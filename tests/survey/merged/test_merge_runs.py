"""Surveys of several runs: the same to the byte in any order, whole or not at all, in versions that stay."""

import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made_run, score_rows
from mocpy import MOC
from plain_catalogue import merged
from programs import start_scanner

from scanner.catalogue import columns
from scanner.catalogue.columns import TILE_SCHEMA
from scanner.catalogue.merge import Rule
from scanner.config import CatalogueConfig, StorageConfig
from scanner.ensemble.calibration import DecisionRule
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.storage import open_store
from scanner.survey.merge_runs import MergeRequest, merge_runs
from scanner.survey.published import SURVEY_RECORD, SurveyRecord, VersionRecord, open_published, read_record


def request(runs, out, *names, **others):
    return MergeRequest(tuple(str(runs[name]) for name in names or ("north", "south")), str(out), **others)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_of(out, version=1):
    return ds.parquet_dataset(out / f"versions/{version}/catalogue/dataset/_metadata").to_table().sort_by("rank")


def test_every_object_once_with_its_run(runs, tables, tmp_path) -> None:
    made = merge_runs(request(runs, tmp_path / "survey"))
    found = rows_of(tmp_path / "survey")
    sources = [
        columns.with_source(table, next(run.run_id for run in made.version.runs if run.run_id.startswith(name)), "ou 1")
        for name in ("north", "south")
        for table in tables[name].values()
    ]
    expected = merged(pa.concat_tables(sources), Rule(0.5, ("ou 1",)))
    assert str(found.select(expected.column_names).to_pylist()) == str(expected.to_pylist())
    assert (made.version.n_targets, made.version.n_objects) == (260, 200)
    assert made.version.n_candidates == sum(expected["is_candidate"].to_pylist())
    version = tmp_path / "survey" / "versions" / "1"
    tables_of_best = {f"candidates.{kind}" for kind in ("fits", "ecsv", "vot", "reg")}
    assert {path.name for path in version.iterdir()} == tables_of_best | {
        "catalogue", "catalogue_10arcs", "collection.properties", "tiles.parquet", "footprint.fits", "version.json",
    }  # fmt: skip
    assert Table.read(version / "candidates.fits")["rank"].tolist() == list(range(1, 201))
    tiles = pq.read_table(version / "tiles.parquet")
    assert tiles.schema.equals(TILE_SCHEMA, check_metadata=True)
    assert [(row["run"].split("-")[0], row["tile_id"], row["state"]) for row in tiles.to_pylist()] == [
        ("north", "t1", "done"), ("north", "t3", "done"), ("south", "t2", "done"), ("south", "t9", "failed"),
    ]  # fmt: skip
    assert tiles["reason"][3].as_py() == "vis.fits: gone."
    footprint = MOC.load(version / "footprint.fits", format="fits")
    assert footprint.contains_skycoords(SkyCoord([0.0, 0.0, 359.999], [0.005, 0.025, 0.055], unit="deg")).all()
    assert not footprint.contains_skycoords(SkyCoord([0.0, 180.0], [0.045, 0.0], unit="deg")).any()


@settings(max_examples=2)
@given(order=st.permutations(["north", "south", "again"]))
def test_the_order_of_the_runs_changes_no_byte(runs, tmp_path_factory, order) -> None:
    out = tmp_path_factory.mktemp("surveys")
    for name, given_order in (("plain", ("north", "south", "again")), ("shuffled", order)):
        merge_runs(request(runs, out / name, *given_order))
    assert files(out / "plain/versions") == files(out / "shuffled/versions")


def test_versions_stay_and_the_same_again_makes_none(runs, tmp_path) -> None:
    out = tmp_path / "survey"
    first = merge_runs(request(runs, out, "north"))
    before = files(out / "versions" / "1")
    second = merge_runs(request(runs, out))
    assert (first.version.number, second.version.number) == (1, 2)
    assert first.is_new
    assert second.is_new
    assert read_record(open_store(str(out), StorageConfig()), SURVEY_RECORD, SurveyRecord).current == 2
    back = merge_runs(request(runs, out, "north"))
    assert (back.version, back.is_new) == (first.version, False)
    assert files(out / "versions" / "1") == before
    survey = read_record(open_store(str(out), StorageConfig()), SURVEY_RECORD, SurveyRecord)
    assert (survey.current, [one.number for one in survey.versions], survey.title) == (1, [1, 2], "survey")
    assert merge_runs(request(runs, out, catalogue=CatalogueConfig(duplicate_radius_arcsec=0.01))).version.number == 3
    assert not list(out.rglob(".partial-*"))


def test_known_lenses(runs, tables, tmp_path) -> None:
    table = tmp_path / "lenses.csv"
    ra, dec = (tables["north"]["t3"][name][4].as_py() for name in ("ra", "dec"))
    table.write_text(f"name,ra,dec,ref\nJackpot,{ra},{dec + 1 / 3600},2024paper\n")
    merge_runs(request(runs, tmp_path / "survey", catalogue=CatalogueConfig(known_lenses=str(table), known_radius_arcsec=2.0)))
    (row,) = [row for row in rows_of(tmp_path / "survey").to_pylist() if row["known_name"]]
    assert (row["known_name"], row["known_reference"], row["tile_id"], row["target_id"]) == ("Jackpot", "2024paper", "t3", 904)
    assert abs(row["known_separation"] - 1) < 1e-3
    assert merge_runs(request(runs, tmp_path / "survey")).version.number == 2


def test_bundles_are_not_mixed_unless_one_is_preferred(runs, other_bundle, tmp_path) -> None:
    both = {**runs, "other": other_bundle}
    with pytest.raises(UsageError, match=r"2 bundles \(new 2, ou 1\).*--prefer 'new 2' --prefer 'ou 1'"):
        merge_runs(request(both, tmp_path / "survey", "again", "other"))
    with pytest.raises(UsageError, match="--prefer best: scored none of these runs; there are: new 2, ou 1"):
        merge_runs(request(both, tmp_path / "survey", "again", "other", preferred=("best",)))
    with pytest.raises(UsageError, match="say which come first, for instance --prefer 'new 2' --prefer 'ou 1'"):
        merge_runs(request(both, tmp_path / "survey", "again", "other", preferred=("new",)))
    assert not (tmp_path / "survey").exists()
    for number, (preferred, bundle) in enumerate(((("ou 1", "new"), "ou 1"), (("new", "ou"), "new 2")), start=1):
        made = merge_runs(request(both, tmp_path / "survey", "again", "other", preferred=preferred))
        assert made.version.number == number
        assert set(rows_of(tmp_path / "survey", number)["bundle"].to_pylist()) == {bundle}


def test_what_ranks_first_where_bundles_are_mixed(runs, other_bundle, tmp_path) -> None:
    both = {**runs, "other": other_bundle}
    merge_runs(request(both, tmp_path / "survey", "south", "other", preferred=("ou", "new")))
    found = rows_of(tmp_path / "survey")
    keys = [(row["bundle"] != "ou 1", -row["p_calibrated"]) for row in found.to_pylist()]
    assert keys == sorted(keys)
    assert {other for other, _ in keys} == {False, True}


def test_refusals(runs, tables, tmp_path) -> None:
    with pytest.raises(UsageError, match="is the same run as"):
        merge_runs(request(runs, tmp_path / "survey", "north", "north"))
    with pytest.raises(InputMissingError, match="neither a run folder"):
        merge_runs(MergeRequest((str(tmp_path),), str(tmp_path / "survey")))
    merge_runs(request(runs, tmp_path / "survey"))
    with pytest.raises(UsageError, match="is a survey; name the run folders"):
        merge_runs(MergeRequest((str(tmp_path / "survey"),), str(tmp_path / "other")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds files that are not a survey's"):
        merge_runs(request(runs, tmp_path / "mine"))
    with (
        open_store(str(tmp_path / "survey"), StorageConfig()).held(),
        pytest.raises(OutputError, match=r"another scanner run .* is writing to this folder"),
    ):
        merge_runs(request(runs, tmp_path / "survey"))
    made_run(
        tmp_path / "beta",
        tables["south"],
        tile_list="/sky/beta.txt",
        decision=DecisionRule(threshold=0.5, decides_on="calibrated"),
    )
    with pytest.raises(UsageError, match=r"another threshold \(0\.8\) than run .* \(0\.5\); .*--beta"):
        merge_runs(MergeRequest((str(runs["north"]), str(tmp_path / "beta")), str(tmp_path / "survey")))
    made_run(tmp_path / "forged", tables["south"], tile_list="/sky/forged.txt", bundle_fingerprint="f")
    with pytest.raises(UsageError, match="was scored with another bundle ou 1"):
        merge_runs(MergeRequest((str(runs["north"]), str(tmp_path / "forged")), str(tmp_path / "survey")))
    scores = tmp_path / "forged/tiles/t2/scores.parquet"
    scores.write_bytes(scores.read_bytes() + b"x")
    with pytest.raises(ContentError, match="not the file that was committed"):
        merge_runs(MergeRequest((str(tmp_path / "forged"),), str(tmp_path / "late")))
    assert not list((tmp_path / "late").rglob("version.json"))
    (tmp_path / "forged/tiles/t2/commit.json").unlink()
    with pytest.raises(ContentError, match="its commit record has gone"):
        merge_runs(MergeRequest((str(tmp_path / "forged"),), str(tmp_path / "late")))


def test_a_survey_on_an_object_store(runs, s3, tmp_path) -> None:
    location = s3.fresh()
    merge_runs(request(runs, location, storage=s3.config))
    merge_runs(request(runs, tmp_path / "local"))
    there = open_published(location, storage=s3.config)
    here = open_published(str(tmp_path / "local"))
    assert there.version == here.version == 1
    for name in (
        "catalogue/partition_info.csv",
        "candidates.fits",
        "tiles.parquet",
        "footprint.fits",
        "catalogue/hats.properties",
    ):
        assert there.files.read(name) == here.files.read(name)


@pytest.mark.parametrize("moment", ["added", "written"])
def test_a_merging_that_is_killed_leaves_nothing_and_can_be_given_again(runs, tmp_path, moment) -> None:
    out = tmp_path / "survey"
    merge_runs(request(runs, out, "north"))
    before = files(out)
    target = "Merging.merge" if moment == "added" else "write_tables"
    script = (
        "import os, signal\n"
        "from scanner.survey import merge_runs as merging\n"
        "from scanner.survey.merge_runs import MergeRequest, merge_runs\n"
        f"owner = merging.Merging if {target!r}.startswith('Merging') else merging\n"
        f"name = {target.rpartition('.')[2]!r}\n"
        "whole = getattr(owner, name)\n"
        "def and_die(*words, **others):\n"
        "    whole(*words, **others)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(owner, name, and_die)\n"
        f"merge_runs(MergeRequest({tuple(str(runs[name]) for name in ('north', 'south'))!r}, {str(out)!r}))\n"
    )
    killed = start_scanner(["-c", script], log=tmp_path / "log", environment=os.environ, folder=tmp_path)
    assert killed.wait() == -signal.SIGKILL
    now = files(out)
    assert {name: content for name, content in now.items() if not name.startswith(("versions/.", ".partial", ".lock"))} == {
        name: content for name, content in before.items() if name != ".lock"
    }
    assert merge_runs(request(runs, out)).version.number == 2
    assert not list(out.rglob(".partial-*"))
    merge_runs(request(runs, tmp_path / "undisturbed"))
    ours = {name: content for name, content in files(out / "versions/2").items() if name != "version.json"}
    assert ours == {k: v for k, v in files(tmp_path / "undisturbed/versions/1").items() if k != "version.json"}


def test_a_version_that_was_never_announced_is_made_again(runs, tmp_path) -> None:
    out = tmp_path / "survey"
    merge_runs(request(runs, out, "north"))
    (out / "survey.json").unlink()
    made = merge_runs(request(runs, out))
    assert (made.version.number, made.is_new) == (1, True)
    record = VersionRecord.from_bytes((out / "versions/1/version.json").read_bytes(), out, "")
    assert [run.run_id.split("-")[0] for run in record.runs] == ["north", "south"]


def test_far_apart_and_at_the_pole(tmp_path) -> None:
    """Two runs that meet at the pole, where right ascensions of one object differ by anything."""
    ra = np.array([10.0, 100.0, 190.0, 280.0])
    dec = np.full(4, 90.0 - 0.1 / 3600)
    for name, shift in (("one", 0.0), ("two", 45.0)):
        rows = score_rows(np.append((ra + shift) % 360, 50.0), np.append(dec, -30.0), name, seed=int(shift))
        made_run(tmp_path / name, {name: rows}, tile_list=f"/sky/{name}.txt")
    made = merge_runs(MergeRequest((str(tmp_path / "one"), str(tmp_path / "two")), str(tmp_path / "survey")))
    # Those of one tile stay apart, those of the other all lie within the radius of them.
    assert (made.version.n_targets, made.version.n_objects) == (10, 5)
