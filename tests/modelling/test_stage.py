"""``scanner model`` on a run: what it writes, how it goes on, that one bad object stops nothing; and the hand-over."""

import io
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from damage import flipped
from PIL import Image
from scans import first_worker_killed

import scanner
from scanner.atomic_file import PARTIAL_PREFIX
from scanner.catalogue.columns import MODEL_SCHEMA
from scanner.cli.main import main
from scanner.config import load
from scanner.errors import InputMissingError, OutputError
from scanner.modelling import lens_model
from scanner.modelling.candidate import lens_probability
from scanner.modelling.panels import PANEL, PANELS, lens_of_record
from scanner.modelling.stage import model_run
from scanner.recovery.look import ModelReach
from scanner.simulation.lensing import deflection
from scanner.storage import open_store
from scanner.survey import candidate_stage
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.run import RunRequest, run_survey

N = 2


@pytest.fixture(scope="module")
def run(finished_run, finished_run_settings, tmp_path_factory):
    """A copy of a finished run whose best objects are modelled, and what was reported.

    It is done on a real cluster, whose one worker is killed after the first object.
    """
    out = shutil.copytree(finished_run, tmp_path_factory.mktemp("run") / "out")
    config = load(None, finished_run_settings | {"engine.workers": 1, "engine.backoff_s": 0.0}, {})
    with first_worker_killed(out, lens_model.RECORD) as killed:
        report = model_run(str(out), config, lambda done, wanted: None, N)
    assert len(killed) == 1
    # Nothing half-written is left of what the killed worker was at.
    assert not any(path.name.startswith(PARTIAL_PREFIX) for path in (out / "models").rglob("*"))
    return out, report


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_best_objects_are_modelled_best_first_though_a_worker_is_killed(run):
    out, report = run
    best = scanner.open(out).query(top=N, columns=["rank", "tile_id", "target_id"], arrow=True).to_pylist()
    assert [(one.tile_id, one.target_id) for one in report.models] == [(row["tile_id"], row["target_id"]) for row in best]
    assert (report.n_before, report.n_done, report.failed) == (0, N, ())
    table = pq.read_table(out / "models.parquet")
    by_place = {(one.tile_id, one.target_id): one for one in report.models}
    assert list(zip(table["tile_id"].to_pylist(), table["target_id"].to_pylist(), strict=True)) == sorted(by_place)
    assert table["model_verdict"].to_pylist() == [by_place[place].verdict for place in sorted(by_place)]
    networks = scanner.open(out).query(top=N, columns=["p_calibrated"], arrow=True)["p_calibrated"].to_pylist()
    assert [one.p_lens_modelled for one in report.models] == [
        lens_probability(one, p) for one, p in zip(report.models, networks, strict=True)
    ]
    assert table["theta_e_network"].to_pylist() == pytest.approx(
        [by_place[place].seen_radius.theta_e_arcsec for place in sorted(by_place)]
    )
    # The tiles' headers have the zero point, that of the objects' own magnitudes too.
    assert {*report.models[0].zero_points} == {"VIS", "Y", "J", "H"}
    assert np.isfinite(table["source_magnitude_h"].to_numpy()).all()
    assert table["p_lens_modelled"].to_pylist() == pytest.approx(
        [by_place[place].p_lens_modelled for place in sorted(by_place)]
    )
    assert set(scanner.open(out).record.sha256) >= {"models.parquet", "candidates.fits"}


def test_each_has_a_picture_and_images(run):
    out, report = run
    store = open_store(str(out), scanner.open(out).record.config.storage)
    for model in report.models:
        with Image.open(io.BytesIO(lens_model.read_file(store, model, lens_model.PICTURE))) as picture:
            assert picture.size == (len(PANELS) * (PANEL + 4) - 4, PANEL + 14)
        with fits.open(io.BytesIO(lens_model.read_file(store, model, lens_model.IMAGES))) as hdus:
            named = {hdu.name: hdu.data for hdu in hdus[1:]}
        parts = named["DEFLECTOR_VIS"] + named["LENSED_VIS"] + named["OTHERS_VIS"]
        assert np.allclose(named["DATA_VIS"] - parts, named["RESIDUAL_VIS"], atol=1e-5)
        assert named["PSF_H"].sum() == pytest.approx(1.0, abs=1e-5)


def test_what_is_modelled_is_not_modelled_again(run, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "out")
    before = contents(out)
    again = scanner.model(out, top=N, progress=False)
    assert (again.n_before, again.n_done, contents(out)) == (N, 0, before)


def test_the_command_lists_the_best_first_by_networks_and_model(run, monkeypatch, capsys):
    out, report = run
    assert report.models[0].p_lens_modelled > report.models[1].p_lens_modelled
    # As if the networks had ranked them the other way round.
    turned = replace(report, ranks=(2, 1))
    monkeypatch.setattr("scanner.cli.model.model", lambda *args, **options: turned)
    with pytest.raises(SystemExit, match="0"):
        main(["model", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["rank", "2", "1"]


def test_models_are_columns_of_every_table(run):
    out, report = run
    opened = scanner.open(out)
    best = opened.query(top=N + 1, arrow=True)
    assert best["theta_e"].to_pylist()[:N] == pytest.approx([one.mass.theta_e_arcsec for one in report.models])
    assert best["model_verdict"].to_pylist() == [*(one.verdict for one in report.models), ""]
    assert (math.isnan(best["theta_e"][N].as_py()), best["n_images"][N].as_py()) == (True, 0)
    assert best.schema.field("mass_pa").metadata[b"unit"] == b"deg"
    by_radius = opened.query(top=N, order="-theta_e", columns=["rank"], arrow=True)["rank"].to_pylist()
    assert sorted(by_radius) == list(report.ranks)
    of_sql = opened.query(sql="SELECT theta_e FROM objects WHERE model_verdict <> '' ORDER BY rank", arrow=True)
    assert of_sql["theta_e"].to_pylist() == best["theta_e"].to_pylist()[:N]
    assert of_sql.schema.field("theta_e").metadata[b"ucd"] == b"phys.angSize"
    row = best.slice(0, 1).to_pylist()[0]
    near = opened.query(cone=f"{row['ra']} {row['dec']} 0.1arcsec", sql="SELECT theta_e FROM objects", arrow=True)
    assert near["theta_e"].to_pylist() == [row["theta_e"]]
    for name, form in (("fits", "fits"), ("ecsv", "ascii.ecsv"), ("vot", "votable")):
        table = Table.read(out / f"candidates.{name}", format=form)
        assert table["theta_e"].unit == units.arcsec
        assert np.asarray(table["theta_e"])[:N] == pytest.approx(best["theta_e"].to_numpy()[:N])
    # The objects themselves are as the scan wrote them.
    assert "theta_e" not in opened.objects.schema.names
    # What a recovery asks.
    assert ModelReach.of(opened.published.open_catalogue()) == ModelReach(rank=N, all_candidates=False)


def test_position_angles_are_those_of_the_tile(run):
    """Each mass's angle on the pixels, and the position angle that the WCS of its cutout gives the same axis."""
    out, report = run
    for rank, model in zip(report.ranks, report.models, strict=True):
        wcs = scanner.open(out).cutout(rank).wcs
        ends = wcs.pixel_to_world(
            100 + np.cos(model.mass.angle_rad) * np.array([0, 9]), 100 + np.sin(model.mass.angle_rad) * np.array([0, 9])
        )
        expected = ends[0].position_angle(ends[1]).deg % 180
        assert model.mass.position_angle_deg == pytest.approx(expected, abs=0.1)


def test_a_merged_survey_carries_them(run, tmp_path):
    out, report = run
    survey = scanner.merge(out, tmp_path / "survey", progress=False)
    best = survey.query(top=N + 1, arrow=True)
    assert best["model_verdict"].to_pylist() == [*(one.verdict for one in report.models), ""]
    assert float(survey.candidates["theta_e"][0].value) == pytest.approx(report.models[0].mass.theta_e_arcsec)
    assert len(scanner.merge(out, tmp_path / "survey", progress=False).versions) == 1
    assert scanner.verify(tmp_path / "survey").is_whole


@pytest.mark.usefixtures("without_workers")
def test_a_run_models_its_candidates_when_it_is_through(finished_run, run, sky, finished_run_settings, tmp_path, capsys):
    """One, as the sheet of this run shows one: here in this process the bytes of the cluster whose worker was killed."""
    out = shutil.copytree(finished_run, tmp_path / "out")
    settings = tmp_path / "settings.toml"
    settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in finished_run_settings.items()))
    words = ["run", f"{sky}/tile-list.txt", "--out", out, "--config", settings, "--model", "candidates"]
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert not caught.value.code
    best = run[1].models[0]
    assert f"1 candidate modelled: 1 {best.verdict}; their numbers are in all tables." in capsys.readouterr().out
    verdicts = scanner.open(out).query(top=2, columns=["model_verdict"], arrow=True)["model_verdict"].to_pylist()
    assert verdicts == [best.verdict, ""]
    record = lens_model.key(best.tile_id, best.target_id)
    assert contents(out / record) == contents(run[0] / record)


@pytest.mark.usefixtures("without_workers")
def test_merging_the_tiles_anew_keeps_models_of_the_same_files(run, sky, finished_run_settings, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "out")
    before = contents(out)
    config = load(None, finished_run_settings, {})
    request = RunRequest(f"{sky}/tile-list.txt", str(out), config)
    run_survey(request)
    lists = [path for path in before if path.name.startswith(("candidates.", "models.parquet"))]
    assert len(lists) == 6
    assert {path: contents(out)[path] for path in lists} == {path: before[path] for path in lists}
    # One of them is of files that are not there any more.
    folder = RunFolder(open_store(str(out), config.storage))
    models = pq.read_table(out / "models.parquet").to_pylist()
    models[0]["input_fingerprint"] = "other"
    with folder.staged_results(folder.record()) as staging:
        pq.write_table(pa.Table.from_pylist(models, MODEL_SCHEMA), staging / "models.parquet")
    run_survey(request)
    assert pq.read_table(out / "models.parquet")["target_id"].to_pylist() == [models[1]["target_id"]]


def test_a_flipped_bit_is_found_and_named(run, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "out")
    assert scanner.verify(out).is_whole
    one = run[1].models[0]
    for name in ("model.json", "panels.png", "model.fits"):
        path = out / lens_model.key(one.tile_id, one.target_id) / name
        for _ in flipped(path, seed=1, n=2):
            (problem,) = scanner.verify(out).problems
            assert str(path) in problem
            assert "model it again" in problem
    for _ in flipped(out / "models.parquet", seed=1, n=2):
        (problem,) = scanner.verify(out).problems
        assert "models.parquet" in problem
    assert scanner.verify(out).is_whole


@pytest.mark.usefixtures("without_workers")
def test_one_bad_object_stops_nothing(run, tmp_path, monkeypatch):
    out = shutil.copytree(run[0], tmp_path / "out")
    first, second = (lens_model.key(one.tile_id, one.target_id) for one in run[1].models)
    shutil.rmtree(out / first)
    gathered = candidate_stage.tile_cutouts

    def damaged(*arguments):
        cut = gathered(*arguments)
        cut.batch.vis[cut.batch.targets.target_id == run[1].models[0].target_id] = np.nan
        return cut

    monkeypatch.setattr(candidate_stage, "tile_cutouts", damaged)
    report = scanner.model(out, top=N, progress=False)
    assert (report.n_before, [one.verdict for one in report.models]) == (N - 1, ["refused", run[1].models[1].verdict])
    assert report.models[0].reason == "VIS is masked here"
    assert contents(out / second) == contents(run[0] / second)
    with pytest.raises(scanner.errors.UsageError, match="has no model to hand over"):
        scanner.export_model(out, 1, tmp_path / "given")


def test_a_model_is_handed_over(run, tmp_path):
    out, report = run
    for software in ("herculens", "lenstronomy"):
        folder = scanner.export_model(out, 1, tmp_path / software, to=software)
        assert sorted(path.name for path in folder.iterdir()) == [f"{software}.json", "model.fits", "model.json", "panels.png"]
        given = json.loads((folder / f"{software}.json").read_text())
        given = given["model"]["VIS"] if software == "herculens" else given
        assert given["kwargs_lens"][0]["theta_E"] == report.models[0].mass.theta_e_arcsec
    with pytest.raises(OutputError, match="is there already"):
        scanner.export_model(out, 1, folder)


def test_a_dataset_for_pyautolens_has_its_images_in_order_and_starts_at_the_model(run, tmp_path):
    out, report = run
    model = report.models[0]
    folder = scanner.export_model(out, 1, tmp_path / "first", to="pyautolens")
    info = json.loads((folder / "info.json").read_text())
    with fits.open(folder / "first.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "VIS_BGSUB", "VIS_PSF", "VIS_RMS"]
        image, header = hdus["VIS_BGSUB"].data, hdus["VIS_BGSUB"].header
        side = image.shape[0]
        assert (image.shape, hdus["VIS_RMS"].data.min() > 0.0) == ((90, 90), True)
    # The mass lies where the sky has the object.
    row, column = (0.5 * (side - 1) + place / info["pixel_scale"] for place in info["mask_centre"])
    here = WCS(header).celestial.pixel_to_world(column, row)
    best = scanner.open(out).query(top=1, columns=["ra", "dec"], arrow=True).to_pylist()[0]
    assert here.separation(SkyCoord(best["ra"], best["dec"], unit="deg")).arcsec < 0.5
    # Its images are where rays from the source come from.
    positions = np.array(json.loads((folder / "positions.json").read_text())["arguments"]["values"]["array"])
    window_x, window_y = header["CRVAL1A"], header["CRVAL2A"]
    y, x = positions[:, 0] + window_y, positions[:, 1] + window_x
    alpha = deflection(x, y, lens_of_record(model))
    source = max((one for one in model.galaxies if one.lensed), key=lambda one: one.flux[0])
    assert (len(positions), x - alpha[0]) == (model.n_images, pytest.approx(source.x_arcsec, abs=1e-3))
    assert y - alpha[1] == pytest.approx(source.y_arcsec, abs=1e-3)
    assert json.loads((folder / "start.json").read_text())["mass"]["centre"] == info["mask_centre"]


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
