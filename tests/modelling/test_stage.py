"""``scanner model`` on a run: what it writes, how it goes on, that one bad object stops nothing; and the hand-over."""

import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image
from scans import in_this_process

import scanner
from scanner.cli.main import main
from scanner.errors import InputMissingError, OutputError
from scanner.modelling import stage
from scanner.modelling.panels import PANEL, PANELS
from scanner.storage import open_store
from scanner.survey import candidate_stage

N = 2


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A copy of a finished run whose best objects are modelled, and what was reported."""
    out = shutil.copytree(finished_run, tmp_path_factory.mktemp("run") / "out")
    with in_this_process():
        return out, scanner.model(out, top=N, progress=False)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_best_objects_are_modelled_best_first(run):
    out, report = run
    best = scanner.open(out).query(top=N, columns=["rank", "tile_id", "target_id"], arrow=True).to_pylist()
    assert [(one.tile_id, one.target_id) for one in report.models] == [(row["tile_id"], row["target_id"]) for row in best]
    assert (report.n_before, report.n_done, report.failed) == (0, N, ())
    table = pq.read_table(out / "models.parquet")
    assert table["target_id"].to_pylist() == [row["target_id"] for row in best]
    assert table["model_verdict"].to_pylist() == [one.verdict for one in report.models]
    assert set(scanner.open(out).record.sha256) >= {"models.parquet", "candidates.fits"}


def test_each_has_a_picture_and_images(run):
    out, report = run
    store = open_store(str(out), scanner.open(out).record.config.storage)
    for model in report.models:
        with Image.open(io.BytesIO(stage.read_file(store, model, stage.PICTURE))) as picture:
            assert picture.size == (len(PANELS) * (PANEL + 4) - 4, PANEL + 14)
        with fits.open(io.BytesIO(stage.read_file(store, model, stage.IMAGES))) as hdus:
            named = {hdu.name: hdu.data for hdu in hdus[1:]}
        parts = named["DEFLECTOR_VIS"] + named["LENSED_VIS"] + named["OTHERS_VIS"]
        assert np.allclose(named["DATA_VIS"] - parts, named["RESIDUAL_VIS"], atol=1e-5)
        assert named["PSF_H"].sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.usefixtures("without_workers")
def test_a_run_goes_on_where_it_was_and_gives_the_same_bytes(run, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "out")
    before = contents(out)
    again = scanner.model(out, top=N, progress=False)
    assert (again.n_before, again.n_done, contents(out)) == (N, 0, before)
    # As if it had been killed between two objects: the table, and one of the models, are not there yet.
    lost = run[1].models[0]
    shutil.rmtree(out / stage.key(lost.tile_id, lost.target_id))
    (out / stage.TABLE).unlink()
    again = scanner.model(out, top=N, progress=False)
    assert (again.n_before, again.n_done, contents(out)) == (N - 1, 1, before)


@pytest.mark.usefixtures("without_workers")
def test_one_bad_object_stops_nothing(run, tmp_path, monkeypatch):
    out = shutil.copytree(run[0], tmp_path / "out")
    shutil.rmtree(out / stage.MODELS)
    first = run[1].models[0]
    gathered = candidate_stage.candidate_cutouts

    def damaged(*arguments):
        batch = gathered(*arguments)
        batch.vis[batch.targets.target_id == first.target_id] = np.nan
        return batch

    monkeypatch.setattr(candidate_stage, "candidate_cutouts", damaged)
    report = scanner.model(out, top=N, progress=False)
    assert [one.verdict for one in report.models] == ["refused", run[1].models[1].verdict]
    assert report.models[0].reason == "VIS is masked here"
    with pytest.raises(scanner.errors.UsageError, match="has no model to hand over"):
        scanner.export_model(out, 1, tmp_path / "given")


def test_a_model_is_handed_over(run, tmp_path):
    out, report = run
    folder = scanner.export_model(out, 1, tmp_path / "given", to="lenstronomy")
    assert sorted(path.name for path in folder.iterdir()) == ["lenstronomy.json", "model.fits", "model.json", "panels.png"]
    given = json.loads((folder / "lenstronomy.json").read_text())
    assert given["kwargs_lens"][0]["theta_E"] == report.models[0].mass.theta_e_arcsec
    with pytest.raises(OutputError, match="is there already"):
        scanner.export_model(out, 1, folder)


def test_what_is_not_modelled_says_how_it_would_be(run, tmp_path):
    with pytest.raises(InputMissingError, match="--top 4"):
        scanner.export_model(run[0], 4, tmp_path / "given")


@pytest.mark.usefixtures("without_workers")
def test_the_commands_say_what_they_found(run, tmp_path, capsys):
    out, report = run
    for words in (["model", out, "--top", N], ["export-model", out, "#1", "--out", tmp_path / "given"]):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        assert not caught.value.code
    said = capsys.readouterr().out
    assert f"0 modelled now, {N} before" in said
    assert report.models[0].verdict in said
    assert f"Written: {tmp_path / 'given' / 'model.fits'}" in said
