"""Graded candidates of a real run as a dataset: read back by what trains and evaluates, pixel for pixel."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.cutouts.store import CutoutStore
from scanner.errors import OutputError, UsageError
from scanner.grading.grade import Place
from scanner.grading.labels import label_rows
from scanner.grading.store import GradeStore
from scanner.grading.training_set import graded_rows, write_training_set
from scanner.labelled_set import LabelledSet
from scanner.survey.published import open_published
from scanner.training.data import TrainingData

ARCSEC = 1 / 3600


@pytest.fixture(scope="module")
def candidates(finished_run):
    rows = pq.read_table(finished_run / "catalogue" / "dataset", partitioning=None).sort_by("rank")
    return [row for row in rows.to_pylist() if row["is_candidate"]]


def place(row, **changes):
    values = {**row, **changes}
    return Place(f"{values['run']}/{values['tile_id']}/{values['target_id']}", values["name"], values["ra"], values["dec"])


@pytest.fixture(scope="module")
def made(candidates, finished_run, tmp_path_factory):
    """Eight graded candidates: lens, no lens, unclear, one of each under ids that no catalogue has now, one that is nowhere."""
    folder = tmp_path_factory.mktemp("graded")
    store = GradeStore(folder / "grades.sqlite")
    for row, grade in zip(candidates, "AXCBX", strict=False):
        store.give(place(row), "Ann", grade)
    store.give(place(candidates[0]), "Bob", "X", "I do not believe it")
    store.give(place(candidates[0]), "Cyd", "B")
    # Graded in another merging, where another tile's row stood for it.
    store.give(place(candidates[5], tile_id="gone", target_id=1, dec=candidates[5]["dec"] + 0.3 * ARCSEC), "Ann", "X")
    store.give(place(candidates[6], tile_id="gone", target_id=2, dec=candidates[6]["dec"] + 30.0), "Ann", "A")
    places = store.places()
    labels = label_rows(store.standing(), places)
    found = graded_rows(places, [open_published(str(finished_run))])
    record = write_training_set(labels, found, 1, folder / "set")
    return folder / "set", record, labels, found


def test_counts(made, finished_run):
    _, record, _, found = made
    assert len(found) == 6
    counts = (record.n_objects, record.n_lenses, record.n_unclear, record.n_missing)
    assert counts == (5, 2, 1, 1)
    assert record.sources == (str(finished_run),)


def test_rows_are_found_by_id_and_else_by_position(made, candidates):
    _, _, labels, found = made
    ids = {row.object: row.row["target_id"][0].as_py() for row in found}
    graded_elsewhere = next(number for number, label in labels.items() if label["candidate_id"].endswith("gone/1"))
    assert ids[graded_elsewhere] == candidates[5]["target_id"]
    assert {candidates[number]["target_id"] for number in range(6)} == set(ids.values())


def test_evaluation_reads_it(made, candidates):
    folder = made[0]
    dataset = LabelledSet(folder)
    truth = dataset.truth
    lenses = {int(target) for target in truth.target_id[truth.is_lens]}
    assert lenses == {candidates[0]["target_id"], candidates[3]["target_id"]}
    assert (truth.visible == truth.is_lens).all()
    assert np.isnan(truth.arc_snr).all()
    assert set(truth.class_name) == {"grade B", "grade X"}
    table = pq.read_table(folder / "truth.parquet")
    votes = {row["target_id"]: (row["votes_a"], row["votes_b"], row["votes_x"]) for row in table.to_pylist()}
    assert votes[candidates[0]["target_id"]] == (1, 1, 1)
    assert "Bob: I do not believe it" in table["comments"].to_pylist()
    assert dataset.preset == folder.name


def test_pixels_and_positions_are_those_that_were_scored(made, candidates, finished_run):
    dataset = LabelledSet(made[0])
    for number in range(len(dataset)):
        kept = dataset.store.read(number)
        (row,) = (row for row in candidates if row["target_id"] == kept.targets.target_id[0])
        stored = CutoutStore(finished_run / "tiles" / row["tile_id"] / "cutouts.zarr")
        scored = stored.read(int(np.flatnonzero(stored.target_id == row["target_id"])[0]))
        np.testing.assert_array_equal(kept.vis, scored.vis)
        np.testing.assert_array_equal(kept.nisp, scored.nisp)
        # (y, x) of the object off the cutout's centre.
        offset = np.array([row["offset_y"], row["offset_x"]]) * 0.1
        np.testing.assert_allclose(dataset.truth.position[number], offset, rtol=1e-6)


def test_training_takes_it(made):
    data = TrainingData([made[0]])
    assert (len(data), int(data.labels.is_lens.sum())) == (5, 2)
    assert np.isnan(data.labels.arc_snr[data.labels.is_lens]).all()
    assert json.loads(data.description)["origin"] == "grades"


def test_what_is_refused(made, tmp_path):
    folder, _, labels, found = made
    with pytest.raises(OutputError, match="is there already"):
        write_training_set(labels, found, 1, folder)
    unclear = {number: {**label, "label": "unclear"} for number, label in labels.items()}
    with pytest.raises(UsageError, match="clear label"):
        write_training_set(unclear, found, 1, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_makes_it_too(candidates, finished_run, tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    for row, grade in zip(candidates, "AXC", strict=False):
        store.give(place(row), "Ann", grade)
    words = ["grades", "dataset", "--grades", str(store.path), str(finished_run), "--out", str(tmp_path / "set")]
    told = CliRunner().invoke(scanner, words, standalone_mode=False, catch_exceptions=False).output
    assert told == (f"{tmp_path / 'set'}: 2 objects, 1 of them lenses; left out: 1 unclear, 0 that these folders do not have\n")
    assert sorted(LabelledSet(tmp_path / "set").truth.is_lens) == [False, True]
