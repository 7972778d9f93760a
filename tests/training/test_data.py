import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.training.data import Split, TrainingData, apart, joined_splits, scale_batch, scale_data, split, split_fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_dataset):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", 24, 1)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "set")


@given(st.integers(10, 5000), st.integers(0, 9))
def test_the_split_is_a_partition(n, seed):
    parts = split(n, seed)
    rows = np.concatenate([parts.train, parts.validation, parts.calibration])
    assert sorted(rows) == list(range(n))
    assert len(parts.train) == round(0.84 * n)
    assert all((np.diff(part) > 0).all() for part in (parts.train, parts.validation, parts.calibration))
    np.testing.assert_array_equal(parts.train, split(n, seed).train)


@given(st.lists(st.integers(0, 30), min_size=3, max_size=400), st.integers(0, 3))
def test_fields_are_never_torn_apart(numbers, seed):
    fields = np.array([f"field-{number}" for number in numbers])
    is_lens = np.random.default_rng(seed).random(len(fields)) < 0.4
    n_fields = len(set(numbers))
    if n_fields < 3:
        with pytest.raises(ContentError, match=rf"lie in {n_fields} fields?, and training, validation and calibration need"):
            split_fields(fields, is_lens, seed)
        return
    parts = split_fields(fields, is_lens, seed)
    of_part = [set(fields[part]) for part in (parts.train, parts.validation, parts.calibration)]
    assert all(of_part)
    assert sum(map(len, of_part)) == n_fields
    assert sorted(np.concatenate([parts.train, parts.validation, parts.calibration])) == list(range(len(fields)))
    np.testing.assert_array_equal(parts.validation, split_fields(fields, is_lens, seed).validation)


def test_many_small_fields_are_split_by_the_shares():
    fields = np.repeat([f"{number}" for number in range(200)], 5)
    parts = split_fields(fields, np.arange(1000) % 5 == 0)
    assert (len(parts.validation), len(parts.calibration), len(parts.train)) == (60, 100, 840)
    other = split_fields(fields, np.arange(1000) % 5 == 0, seed=1)
    assert len(np.intersect1d(parts.calibration, other.calibration)) < 50


def test_fields_beside_simulated_rows_that_are_split_one_by_one():
    fields = np.array([""] * 100 + ["a"] * 5 + ["b"] * 5)
    parts = joined_splits([60, 50], fields, np.zeros(110, bool))
    # Two fields are too few for a split of their own: they are trained on, and the simulated rows are split as always.
    assert set(range(100, 110)) <= set(parts.train.tolist())
    plain = joined_splits([60, 40])
    np.testing.assert_array_equal(parts.calibration, plain.calibration)
    np.testing.assert_array_equal(parts.validation, plain.validation)


def test_cutouts_that_share_pixels_are_not_on_two_sides():
    # 20" and 40" from the calibration row 0, 20" from the validation row 3, far from all, nowhere.
    ra = np.array([0.0, 20.0, 40.0, 1000.0, 1020.0, 5000.0, np.nan]) / 3600
    rows = [np.array(part, dtype=np.int64) for part in ([1, 2, 4, 5, 6], [3], [0])]
    found = apart(Split(*rows), ra, np.where(np.isnan(ra), np.nan, 0.0))
    assert found.train.tolist() == [2, 5, 6]
    assert (found.validation.tolist(), found.calibration.tolist()) == ([3], [0])


def test_truth_and_cutouts_are_row_aligned(folder, drawn):
    dataset = LabelledSet(folder)
    vis, nisp, _, _, truth = drawn(24, 1)
    np.testing.assert_array_equal(dataset.truth.is_lens, truth.is_lens)
    np.testing.assert_array_equal(dataset.truth.class_name, truth.class_name)
    rows = np.array([3, 4, 17])
    (batch, found_vis, found_nisp), *rest = dataset.batches(rows, 2)
    assert batch.targets.target_id.tolist() == [3, 4]
    assert len(rest) == 1
    # The compact codec keeps an eighth of the noise's σ and better.
    np.testing.assert_allclose(found_vis, vis[rows[:2]], atol=0.13)
    np.testing.assert_allclose(found_nisp, nisp[rows[:2]], atol=0.13)


def test_scaling_happens_once(folder, tmp_path):
    data = TrainingData([folder])
    images = scale_data(data, tmp_path, "asinh_mad")
    written = (tmp_path / "vis.npy").stat().st_mtime_ns
    again = scale_data(data, tmp_path, "asinh_mad")
    assert (tmp_path / "vis.npy").stat().st_mtime_ns == written
    np.testing.assert_array_equal(images.vis66, again.vis66)
    _, vis, nisp = next(data.batches(np.arange(24), 24))
    expected = scale_batch(vis, nisp, np.full((24, 4), 5, np.float32), np.ones((24, 4), np.float32), "asinh_mad")
    np.testing.assert_array_equal(images.nisp, expected.nisp)
    exact = scale_data(data, tmp_path / "exact", "asinh_mad", image_type="float32")
    assert exact.vis.dtype == np.float32
    np.testing.assert_array_equal(exact.vis.astype(np.float16), images.vis)
    assert (exact.nisp != images.nisp).any()
    other = scale_data(data, tmp_path, "minmax")
    assert other.preprocessing == "minmax"
    assert (tmp_path / "vis.npy").stat().st_mtime_ns != written


@pytest.mark.parametrize("part", ["cutouts.zarr", "truth.parquet", "dataset.json"])
def test_a_missing_part_is_named(copy, part):
    target = copy / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(InputMissingError, match=part):
        LabelledSet(copy)


def test_bad_truth_is_named(copy):
    table = pq.read_table(copy / "truth.parquet")
    for change, message in (
        (table.drop_columns("arc_snr"), "arc_snr is missing"),
        (table.slice(0, 20), "24 cutouts but 20 rows"),
        (table.take(list(range(23, -1, -1))), "target_id"),
    ):
        pq.write_table(change, copy / "truth.parquet")
        with pytest.raises(ContentError, match=message):
            LabelledSet(copy)
    (copy / "truth.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ContentError, match="not a readable Parquet"):
        LabelledSet(copy)


def test_one_class_trains_nothing(copy):
    table = pq.read_table(copy / "truth.parquet")
    column = table.column_names.index("is_lens")
    pq.write_table(table.set_column(column, "is_lens", [[True] * 24]), copy / "truth.parquet")
    with pytest.raises(ContentError, match="one class"):
        TrainingData([copy])


def test_what_is_for_evaluation_is_never_trained_on(copy):
    (copy / "dataset.json").write_text(json.dumps({"preset": {"name": "eval", "purpose": "evaluation"}}))
    with pytest.raises(UsageError, match="for evaluation only"):
        TrainingData([copy])


def test_the_brighter_of_two_systems_decides_what_is_faint(copy):
    table = pq.read_table(copy / "truth.parquet")
    second = np.linspace(0, 100, 24).astype(np.float32)
    pq.write_table(table.append_column("arc_snr_2", [second]), copy / "truth.parquet")
    first = table["arc_snr"].to_numpy()
    np.testing.assert_array_equal(TrainingData([copy]).labels.arc_snr, np.fmax(first, second))


def test_two_datasets_are_one_after_the_other(folder, tmp_path, write_dataset):
    other = write_dataset(tmp_path / "other", 40, 2)
    data = TrainingData([folder, other])
    assert len(data) == 64
    one, two = LabelledSet(folder), LabelledSet(other)
    np.testing.assert_array_equal(data.labels.is_lens, np.concatenate([one.truth.is_lens, two.truth.is_lens]))
    # Each is split by itself: rows of one do not move when another is added.
    np.testing.assert_array_equal(data.split.train[: len(split(24).train)], split(24).train)
    np.testing.assert_array_equal(data.split.calibration, joined_splits([24, 40]).calibration)
    assert set(data.split.calibration[data.split.calibration >= 24] - 24) == set(split(40).calibration)
    read = np.concatenate([vis for _, vis, _ in data.batches(np.array([5, 23, 24, 60]), 2)])
    expected = [next(part.batches(np.array([row]), 1))[1][0] for part, row in ((one, 5), (one, 23), (two, 0), (two, 36))]
    np.testing.assert_array_equal(read, expected)
    images = scale_data(data, tmp_path / "scaled", "asinh_mad", workers=2)
    alone = scale_data(TrainingData([other]), tmp_path / "alone", "asinh_mad")
    np.testing.assert_array_equal(images.vis[24:], alone.vis)
    with pytest.raises(UsageError, match="given twice"):
        TrainingData([folder, folder])


def test_further_columns_are_read_when_asked_for(copy):
    dataset = LabelledSet(copy)
    np.testing.assert_array_equal(dataset.column("arc_snr"), dataset.truth.arc_snr)
    assert dataset.column("colour_of_its_eyes") is None
    assert dataset.preset == "set"


def test_the_fingerprint_follows_the_truth(copy):
    before = LabelledSet(copy).fingerprint
    (copy / "dataset.json").write_text(json.dumps({"seed": 2}))
    assert LabelledSet(copy).fingerprint != before
