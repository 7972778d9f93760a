import hashlib
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from damage import flipped

import scanner
from scanner.cutouts import store
from scanner.cutouts.store import CutoutStore
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.labelled_set import LabelledSet
from scanner.simulation.datasets import dataset
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.dataset import DatasetRecord, DatasetRequest, draw_dataset
from scanner.simulation.datasets.presets import PRESETS

REQUEST = DatasetRequest(preset="quick", n_objects=40, seed=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("dataset") / "quick"
    draw_dataset(REQUEST, out)
    return out


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_store_truth_and_record_belong_together(folder):
    assert {path.name for path in folder.iterdir()} == {"cutouts.zarr", "truth.parquet", "components.parquet", "dataset.json"}
    store, truth = CutoutStore(folder / "cutouts.zarr"), pq.read_table(folder / "truth.parquet")
    record = DatasetRecord.from_bytes((folder / "dataset.json").read_bytes(), folder, "")
    assert len(store) == truth.num_rows == record.request.n_objects == 40
    assert record.complete
    assert store.target_id.tolist() == truth["target_id"].to_pylist() == list(range(40))
    assert record.n_lenses == sum(truth["is_lens"].to_pylist())
    assert record.n_visible == sum(truth["visible"].to_pylist())
    batch = store.read(slice(0, 40))
    np.testing.assert_allclose(batch.offset[:, 0], np.array(truth["x_arcsec"]) * 10, atol=1e-5)
    np.testing.assert_allclose(batch.targets.x, 99.5 + batch.offset[:, 0], atol=1e-5)


def test_a_flipped_bit_is_named(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    assert scanner.verify(out, deep=True).problems == ()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        for place in flipped(path, 4, 2):
            (problem,) = scanner.verify(out, deep=True).problems
            assert problem.startswith(f"{path if 'c' not in path.parts else out / 'cutouts.zarr'}: "), (path, place)
            if "c" not in path.parts:
                with pytest.raises(ContentError, match=re.escape(f"{path}: ")):
                    LabelledSet(out)
    (out / "components.parquet").unlink()
    with pytest.raises(InputMissingError, match=r"components\.parquet: is missing"):
        LabelledSet(out)


def test_pixels_are_those_that_were_drawn_within_the_codec_s_steps(folder):
    drawn = draw(PRESETS["quick"], 9, [3, 17])
    batch = CutoutStore(folder / "cutouts.zarr").read(np.array([3, 17]))
    for found, true, sigma in (
        (batch.vis, drawn.vis, batch.sigma[:, 0, None, None]),
        (batch.nisp, drawn.nisp, batch.sigma[:, 1:, None, None]),
    ):
        limit = 0.13 * sigma + 0.02 * np.abs(true)
        assert (np.abs(found - true) < limit).all()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(store, "SHARD_OBJECTS", 16)
    for module in (dataset, dataset):
        monkeypatch.setattr(module, "PART_OBJECTS", 16)


def interrupted(out, after):
    """Draw until ``after`` objects are there, then press Ctrl-C."""

    def stop(done, total):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(REQUEST, out, progress=stop)


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_dataset_goes_on_where_it_was(tmp_path):
    draw_dataset(REQUEST, tmp_path / "whole")
    out = tmp_path / "again"
    interrupted(out, after=16)
    assert {path.name for path in (out / "parts").iterdir()} == {"000000.parquet", "000000.npz", "000000.components.parquet"}
    assert not json.loads((out / "dataset.json").read_text())["complete"]
    written = (out / "parts" / "000000.parquet").stat().st_mtime_ns
    seen = []

    def watch(done, total):
        seen.append((done, total))
        assert (out / "parts" / "000000.parquet").stat().st_mtime_ns == written

    draw_dataset(REQUEST, out, progress=watch)
    assert seen == [(16, 40), (32, 40), (40, 40)]
    assert hashes(out) == hashes(tmp_path / "whole")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("step", ["finish_store", "record", "rmtree"])
def test_a_run_killed_while_it_puts_the_parts_together_goes_on(tmp_path, monkeypatch, step):
    draw_dataset(REQUEST, tmp_path / "whole")
    out = tmp_path / "again"

    write_record = dataset.write_record

    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    def killed_at_the_end(path, record):
        if record.complete:
            raise KeyboardInterrupt
        write_record(path, record)

    with monkeypatch.context() as patch:
        if step == "record":
            patch.setattr(dataset, "write_record", killed_at_the_end)
        else:
            patch.setattr(dataset if step == "finish_store" else dataset.shutil, step, killed)
        with pytest.raises(KeyboardInterrupt):
            draw_dataset(REQUEST, out)
    draw_dataset(REQUEST, out)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_finished_dataset_is_left_alone(folder):
    before = hashes(folder)
    assert draw_dataset(REQUEST, folder).n_lenses is not None
    assert hashes(folder) == before


@pytest.mark.parametrize("change", [{"seed": 10}, {"n_objects": 41}, {"preset": "eval"}, {"codec": "exact"}])
def test_another_dataset_is_refused(folder, change):
    with pytest.raises(OutputError, match="holds another dataset") as error:
        draw_dataset(REQUEST.model_copy(update=change), folder)
    assert str(error.value).count("\n") == 0


def test_foreign_and_unwritable_folders_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        draw_dataset(REQUEST, tmp_path / "full")
    (tmp_path / "full" / "dataset.json").write_text("{}")
    with pytest.raises(ContentError, match="no dataset's record"):
        draw_dataset(REQUEST, tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        draw_dataset(REQUEST, tmp_path / "file" / "sky")
