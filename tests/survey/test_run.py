import json
import shutil
from pathlib import Path

import astropy.units as u
import numpy as np
import onnxruntime
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from damage import resealed
from disturbed.results import leftovers, promised
from mocpy import MOC
from scans import plain_bundle, quick_bundle

import scanner
from scanner.catalogue import columns
from scanner.catalogue.columns import TILE_SCHEMA
from scanner.catalogue.rank import leaders
from scanner.config import StorageConfig, load
from scanner.cutouts.store import CutoutStore
from scanner.ensemble import bundles
from scanner.errors import ContentError, InputMissingError
from scanner.records import Flag
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.storage import open_store
from scanner.survey import status
from scanner.survey.finish import RESULTS
from scanner.survey.folder.cost import RunCost
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.messages import MergeStarted, RunStarted, TileFinished, TileProgress
from scanner.survey.run import RunRequest, run_survey
from scanner.survey.scan.tile import scan_tile

#: So many objects are decided in the tests that there is something to keep and to draw.
FLAGS = {
    "scoring.beta": 2.0,
    "targets.magnitude_limit": 22.0,
    "cutouts.batch_size": 8,
    "catalogue.sheet_candidates": 3,
}
KEPT = {"engine.workers": 1, "cutouts.keep": "all"}


def request(sky, out, storage=None, **flags):
    config = load(None, FLAGS | {"scoring.bundle": quick_bundle()} | flags, {})
    if storage is not None:
        config = config.model_copy(update={"storage": storage})
    return RunRequest(f"{sky}/tile-list.txt", str(out), config)


def results(out):
    """Every byte that a run in a local folder promises to give again."""
    return promised(str(out), StorageConfig())


@pytest.fixture
def in_this_process(monkeypatch):
    """Scan tiles in a plain loop instead of on a cluster, which takes seconds to start; gives the ids of what was scanned."""
    scanned = []

    def run_on_workers(jobs, n_jobs, config, steps, on_progress, *, on_gpu):
        for job in jobs:
            scanned.append(job.tile.tile_id)
            yield scan_tile(job, on_progress)

    monkeypatch.setattr("scanner.survey.run.run_on_workers", run_on_workers)
    return scanned


@pytest.fixture(scope="session")
def finished(sky, tmp_path_factory):
    """A run of the three tiles on one worker, with its events and its report."""
    out = tmp_path_factory.mktemp("run") / "out"
    events = []
    report = run_survey(request(sky, out, **KEPT), events.append)
    return out, events, report


def test_everything_promised_is_there(finished):
    out, _, report = finished
    assert {entry.name for entry in out.iterdir()} == {*RESULTS, "run.json", "status.json", "tiles", ".lock"}
    assert report.n_tiles == 3
    assert report.failed == ()
    assert len(Table.read(out / "candidates.ecsv")) == len(report.listed) > 0
    assert len(Table.read(out / "failed-tiles.ecsv")) == 0
    page = (out / "candidates.html").read_text()
    shown = leaders(report.listed)["name"].to_pylist()[: FLAGS["catalogue.sheet_candidates"]]
    assert [name for name in report.listed["name"].to_pylist() if name in page] == shown
    assert leftovers(str(out), StorageConfig()) == []


def test_the_tables_say_which_run_and_bundle_it_was_and_where(finished):
    out, _, report = finished
    record = RunFolder(open_store(str(out), StorageConfig())).record()
    assert record.run_id.startswith("tile-list-")
    rows = dataset.parquet_dataset(out / "catalogue/dataset/_metadata").to_table()
    assert rows.schema.equals(columns.CATALOGUE_SCHEMA, check_metadata=True)
    assert set(rows["run"].to_pylist()) == {record.run_id}
    assert set(rows["bundle"].to_pylist()) == {record.bundle}
    tiles = pq.read_table(out / "tiles.parquet")
    assert tiles.schema.equals(TILE_SCHEMA, check_metadata=True)
    assert sum(tiles["n_targets"].to_pylist()) == report.n_targets
    assert sum(tiles["n_scored"].to_pylist()) == report.n_scored
    # Three tiles of 64″ in a row, 0.3 of a side in common with each neighbour: counted once.
    assert report.sky_area_deg2 == pytest.approx(2.4 / 3 * sum(tiles["sky_area_deg2"].to_pylist()), rel=0.1)
    files = [json.loads(text) for text in tiles["files"].to_pylist()]
    assert all(names["VIS.image"].startswith("EUC_MER_BGSUB-MOSAIC-VIS_TILE") for names in files)
    footprint = MOC.load(out / "footprint.fits", format="fits")
    assert footprint.contains_lonlat(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg).all()
    assert footprint.contains_lonlat(tiles["ra"].to_numpy() * u.deg, tiles["dec"].to_numpy() * u.deg).all()


def test_the_most_probable_comes_first_and_the_list_may_be_cut_short(sky, finished, tmp_path, in_this_process):
    rows = dataset.parquet_dataset(finished[0] / "catalogue/dataset/_metadata").to_table().sort_by("rank")
    assert rows["rank"].to_pylist() == list(range(1, len(rows) + 1))
    p = rows["p_calibrated"].to_numpy()
    n_scored = int(np.isfinite(p).sum())
    assert (np.diff(p[:n_scored]) <= 0).all()
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    report = run_survey(request(sky, out, **KEPT, **{"catalogue.max_candidates": 1}))
    assert in_this_process == []
    assert report.n_candidates == finished[2].n_candidates == sum(rows["is_candidate"].to_pylist()) > 1
    assert report.listed.select(["rank", "name"]).to_pylist() == [{"rank": 1, "name": rows["name"][0].as_py()}]
    assert json.loads((out / "status.json").read_text())["totals"]["n_candidates"] == report.n_candidates
    assert f"{report.n_candidates} candidates" in (out / "candidates.html").read_text()


def test_known_lenses_are_looked_up_without_a_new_scan(sky, finished, tmp_path, in_this_process):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    first = finished[2].listed.slice(0, 1).to_pylist()[0]
    listed = tmp_path / "lenses.csv"
    listed.write_text(f"name,ra,dec,reference\nThe Spectacles,{first['ra']},{first['dec'] + 1 / 3600},2026paper\n")
    known = {"catalogue.known_lenses": str(listed), "catalogue.known_radius_arcsec": 1.5}
    report = run_survey(request(sky, out, **KEPT, **known))
    assert in_this_process == []
    row = report.listed.slice(0, 1).to_pylist()[0]
    assert (row["known_name"], row["known_reference"]) == ("The Spectacles", "2026paper")
    assert abs(row["known_separation"] - 1) < 1e-3
    but = ["known_name", "known_separation", "known_reference"]
    assert candidates(report, *but) == candidates(finished[2], *but)
    before = results(out)
    listed.unlink()
    with pytest.raises(InputMissingError, match=r"lenses\.csv: the table of known lenses is not there"):
        run_survey(request(sky, out, **KEPT, **known))
    assert results(out) == before


def test_events_tell_the_story(finished):
    out, events, report = finished
    manifest = bundles.load(quick_bundle()).manifest
    assert events[0] == RunStarted(
        n_tiles=3,
        n_done_before=0,
        n_workers=1,
        provider="cpu",
        run_folder=str(out),
        bundle_name=manifest.name,
        bundle_version=manifest.version,
    )
    assert events[-1] == MergeStarted()
    done = [event.commit for event in events if isinstance(event, TileFinished)]
    assert sum(commit.n_targets for commit in done) == report.n_targets
    progress = [event for event in events if isinstance(event, TileProgress)]
    for commit in done:
        steps = [event.n_done for event in progress if event.tile_id == commit.tile_id]
        assert steps == sorted(steps)
        assert steps[0] == 0
        assert steps[-1] == commit.n_targets
        rows = pq.read_table(out / "tiles" / commit.tile_id / "scores.parquet")
        assert len(rows) == commit.n_targets
        assert np.isfinite(rows["p_calibrated"].to_numpy()).sum() == commit.n_scored


def test_a_finished_run_says_so_and_what_it_cost(finished):
    out, _, report = finished
    folder = RunFolder(open_store(str(out), StorageConfig()))
    known = status.read(folder.store)
    assert (known.state, known.n_done, known.n_failed, known.running, known.eta_s) == ("done", 3, 0, (), None)
    assert known.totals.n_candidates == report.n_candidates
    assert known.totals.n_targets == report.n_targets
    cost = folder.record().cost
    assert cost == report.cost == known.totals.cost
    commits = [folder.commit_of(tile_id) for tile_id in folder.committed()]
    assert cost.n_tiles == 3
    assert cost.n_objects == sum(commit.n_scored for commit in commits)
    assert cost.total.core_seconds == pytest.approx(sum(sum(c.core_seconds.values()) for c in commits), abs=0.01)
    assert cost.total.core_seconds > 0
    assert {"cut", "score", "store"} <= cost.by_stage.keys()


def test_scores_equal_a_plain_computation(in_this_process, tmp_path):
    """Cut one object by hand, scale nothing, run the graph: the logits in the table are those."""
    # Without planes that mask pixels: these would be filled with noise.
    unmasked = TilesRequest(n_tiles=1, size=640, seed=3, lenses_per_tile=6, density=0.5, companions=False)
    draw_tiles(unmasked, tmp_path / "sky", 1)
    out = tmp_path / "out"
    run_survey(request(tmp_path / "sky", out, **{"scoring.bundle": plain_bundle()}))
    (tile,) = (tmp_path / "sky").glob("9*")
    rows = pq.read_table(out / "tiles" / tile.name / "scores.parquet").to_pandas()
    scored = rows[np.isfinite(rows.p_calibrated) & (rows["flags"] & 7 == 0)]
    assert len(scored) > 0
    row = scored.iloc[len(scored) // 2]
    x0, y0 = round(row.x - row.offset_x - 99.5), round(row.y - row.offset_y - 99.5)
    images = {}
    for band, name in (("VIS", "VIS"), ("Y", "NIR-Y"), ("J", "NIR-J"), ("H", "NIR-H")):
        (file,) = tile.glob(f"*BGSUB-MOSAIC-{name}_*")
        pixels = fits.getdata(file)[y0 : y0 + 200, x0 : x0 + 200].astype(np.float64)
        images[band] = pixels if band == "VIS" else pixels[1:199, 1:199].reshape(66, 3, 66, 3).sum(axis=(1, 3))
    statistics = []
    for band in ("VIS", "Y", "J", "H"):
        sample = images[band][1::3, 1::3] if band == "VIS" else images[band]
        statistics.append((np.median(sample), 1.4826 * np.median(np.abs(sample - np.median(sample)))))
    sky_level, sigma = (np.array([values], dtype=np.float32) for values in zip(*statistics, strict=True))
    feed = {
        "vis": images["VIS"][None].astype(np.float32),
        "nisp": np.stack([images[band] for band in "YJH"])[None].astype(np.float32),
        "sky": sky_level,
        "sigma": sigma,
    }
    session = onnxruntime.InferenceSession(bundles.load(None).model, providers=["CPUExecutionProvider"])
    declared = {node.name for node in session.get_inputs()}
    logits = session.run(None, {name: value for name, value in feed.items() if name in declared})[0][0]
    stored = row[["p_ou_j", "p_ou_y", "p_ou_h", "p_ou_jyh", "p_ou_vis", "p_ou_66", "p_ou_200"]].to_numpy(dtype=np.float64)
    np.testing.assert_allclose(stored, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-4)


def test_a_tile_without_a_band_is_scored_by_the_members_that_need_none_of_it(sky, finished, tmp_path, in_this_process):
    """A lens in it would be lost otherwise. Whoever wants all bands asks for them, and then the tile fails by name."""
    tiles = shutil.copytree(sky, tmp_path / "sky")
    poor = min(path for path in tiles.iterdir() if path.is_dir())
    for path in poor.glob("*NIR-H*"):
        path.unlink()
    report = run_survey(request(tiles, tmp_path / "out"))
    assert report.failed == ()
    rows = {
        out: pq.read_table(out / "tiles" / poor.name / "scores.parquet").to_pandas().set_index("target_id")
        for out in (tmp_path / "out", finished[0])
    }
    (without, whole) = rows.values()
    scored = np.isfinite(without.p_calibrated)
    assert scored.sum() == np.isfinite(whole.p_calibrated).sum() > 0
    seen, blind = ["p_ou_j", "p_ou_y", "p_ou_vis"], ["p_ou_h", "p_ou_jyh", "p_ou_66", "p_ou_200", "grid_value"]
    assert np.isfinite(without[scored][seen]).all(axis=None)
    assert not np.isfinite(without[blind]).any(axis=None)
    assert (without["flags"][scored] & 256 != 0).all()
    # Noise in masked pixels is drawn for all bands together, and test-time augmentation goes by other limits.
    clean = scored & (without["flags"] & 3 == 0) & (without.p_calibrated < 1e-6) & (whole.p_calibrated < 1e-6)
    np.testing.assert_allclose(without[clean][seen], whole.loc[without[clean].index][seen], atol=1e-6)
    assert any("without a mosaic of H" in note for note in report.notes)
    strict = run_survey(request(tiles, tmp_path / "strict", **{"cutouts.require_all_bands": True}))
    assert [failure.tile_id for failure in strict.failed] == [poor.name]
    assert "names no H mosaic; all of VIS, Y, J and H are required" in strict.failed[0].reason


def test_workers_do_not_change_a_byte(sky, finished, tmp_path):
    run_survey(request(sky, tmp_path / "out", **KEPT | {"engine.workers": 2}))
    assert results(tmp_path / "out") == results(finished[0])


@pytest.mark.parametrize("standing", [(1,), (0, 2), (0, 1, 2)])
def test_what_is_committed_stands_and_the_rest_gives_the_same_bytes(sky, finished, tmp_path, in_this_process, standing):
    """Whatever an earlier session left: results half-written, a tile begun, its status; with other workers than now."""
    out = tmp_path / "out"
    kept = sorted((finished[0] / "tiles").iterdir())
    (out / "tiles").mkdir(parents=True)
    for number in standing:
        shutil.copytree(kept[number], out / "tiles" / kept[number].name)
    shutil.copy(finished[0] / "run.json", out)
    resealed(out / "run.json", cost=None)
    (out / "tiles" / ".partial-half").mkdir()
    (out / "candidates.fits").write_bytes(b"of an earlier session")
    events = []
    report = run_survey(request(sky, out, **KEPT | {"engine.workers": 7}), events.append)
    assert (events[0].n_tiles, events[0].n_done_before) == (3, len(standing))
    assert sorted(in_this_process) == [path.name for number, path in enumerate(kept) if number not in standing]
    assert results(out) == results(finished[0])
    assert leftovers(str(out), StorageConfig()) == []
    if len(standing) == len(kept):
        assert report.cost == RunCost.model_validate(json.loads((finished[0] / "run.json").read_text())["cost"])


def test_a_tile_whose_cutouts_cannot_be_read_is_scanned_again(sky, finished, tmp_path, in_this_process, caplog):
    """The contact sheet is drawn from them: damage that no listing shows is met there."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    tile_id = finished[2].listed["tile_id"][0].as_py()
    cutouts = out / "tiles" / tile_id / "cutouts.zarr"
    for lost in ("vis/c/0/0/0", "ra/c/0", "vis/zarr.json"):
        content = (cutouts / lost).read_bytes()
        (cutouts / lost).write_bytes(bytes(len(content)))
        with pytest.raises(ContentError, match="'scanner run --verify' scans the tile again") as caught:
            scanner.open(out).cutout(1)
        assert str(cutouts) in str(caught.value)
        (cutouts / lost).write_bytes(content)
    (cutouts / "vis/c/0/0/0").write_bytes(b"")
    run_survey(request(sky, out, **KEPT))
    assert in_this_process == [tile_id]
    assert results(out) == results(finished[0])
    assert "'scanner run --verify' scans the tile again. This is done now." in caplog.text


def test_changed_inputs_are_refused_before_anything_is_scanned(sky, finished, tmp_path, in_this_process):
    """The run's own folder, a list of other files: what changed is named, and nothing is written."""
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    changed = tmp_path / "sky"
    shutil.copytree(sky, changed)
    tile = min(changed.glob("9*"))
    mosaic = next(tile.glob("*BGSUB-MOSAIC-NIR-J_*"))
    with fits.open(mosaic, mode="update") as hdus:
        hdus[0].header["HISTORY"] = "made again"
    before = results(out)
    with pytest.raises(ContentError, match=rf"{tile.name[-9:]}.*{mosaic.name} \(J\.image\).*--restart") as caught:
        run_survey(request(changed, out, **KEPT))
    assert "NIR-Y" not in str(caught.value)
    assert in_this_process == []
    assert results(out) == before
    assert status.read(open_store(str(out), StorageConfig())).reason == str(caught.value)


def test_a_committed_tile_whose_files_have_gone_is_left_out_until_they_are_back(sky, finished, tmp_path, in_this_process):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    moved = tmp_path / "sky"
    shutil.copytree(sky, moved)
    vis = next(min(moved.glob("9*")).glob("*BGSUB-MOSAIC-VIS_*"))
    vis.rename(tmp_path / "away.fits")
    report = run_survey(request(moved, out, **KEPT))
    (failed,) = report.failed
    assert failed.tile_id == vis.parent.name
    assert "VIS" in failed.reason
    assert report.cost.n_tiles == 2
    assert status.read(open_store(str(out), StorageConfig())).failed == report.failed
    (tmp_path / "away.fits").rename(vis)
    assert run_survey(request(moved, out, **KEPT)).failed == ()
    assert results(out) == results(finished[0])
    assert in_this_process == []


def candidates(report, *but):
    """The candidate list as text, in which NaN equals itself."""
    return str(report.listed.drop_columns(list(but)).to_pylist())


def test_a_run_from_and_to_an_object_store(sky, finished, s3, in_this_process):
    """Tile list, mosaics and run folder on a server: the bytes of the local run; given again, nothing is scanned."""
    location = s3.fresh()
    store = open_store(location, s3.config)
    for path in (path for path in sky.rglob("*") if path.is_file()):
        store.write(f"sky/{path.relative_to(sky)}", path.read_bytes())
    wanted = request(f"{location}/sky", f"{location}/out", s3.config, **KEPT)
    report = run_survey(wanted)
    assert report.failed == ()
    assert promised(f"{location}/out", s3.config) == results(finished[0])
    assert leftovers(f"{location}/out", s3.config) == []
    assert status.read(open_store(f"{location}/out", s3.config)).state == "done"
    scanned = list(in_this_process)
    assert len(scanned) == 3
    assert candidates(run_survey(wanted)) == candidates(report)
    assert in_this_process == scanned


def test_keep_nothing_still_draws_the_sheet(sky, finished, tmp_path, in_this_process):
    report = run_survey(request(sky, tmp_path / "out", **{"cutouts.keep": "none"}))
    assert not list((tmp_path / "out" / "tiles").glob("*/cutouts.zarr"))
    # What is kept is part of the settings, which the run is named after.
    assert candidates(report, "run") == candidates(finished[2], "run")
    for name in ("scores.png", "tsne.png"):
        assert (tmp_path / "out" / name).read_bytes() == (finished[0] / name).read_bytes()
    assert (tmp_path / "out" / "candidates.html").stat().st_size > 10_000 * min(len(report.listed), 3)


def test_candidates_and_the_best_of_a_tile_are_kept(sky, tmp_path, in_this_process, monkeypatch):
    monkeypatch.setattr("scanner.survey.scan.output.LEAST_LISTED", 5)
    report = run_survey(request(sky, tmp_path / "out", **{"cutouts.keep": "candidates", "cutouts.codec": "exact"}))
    stored = [CutoutStore(path) for path in sorted((tmp_path / "out" / "tiles").glob("*/cutouts.zarr"))]
    commits = [pq.read_table(path) for path in sorted((tmp_path / "out" / "tiles").glob("*/scores.parquet"))]
    for store, rows in zip(stored, commits, strict=True):
        is_candidate, p, ids = (rows[name].to_numpy() for name in ("is_candidate", "p_calibrated", "target_id"))
        others = np.flatnonzero(~is_candidate & np.isfinite(p))
        best = sorted(others, key=lambda row: (-p[row], ids[row]))[:5]
        # Candidates in their order, then the best of the others in theirs.
        assert store.target_id.tolist() == [*ids[is_candidate], *ids[sorted(best)]]
    assert report.n_candidates <= sum(len(store) for store in stored)
    # What lists show beyond them is cut again.
    assert len(report.listed) > sum(len(store) for store in stored)


def test_another_beta_decides_anew_without_a_scan(sky, finished, tmp_path, in_this_process):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    report = run_survey(request(sky, out, **KEPT, **{"scoring.beta": 0.03}))
    assert in_this_process == []
    assert 0 <= report.n_candidates < finished[2].n_candidates
    record = RunFolder(open_store(str(out), StorageConfig())).record()
    assert record.decision.threshold == bundles.load(None).threshold(0.03)
    rows = dataset.parquet_dataset(out / "catalogue/dataset/_metadata").to_table()
    deciding = rows["grid_value"].to_numpy()
    known = np.isfinite(deciding)
    np.testing.assert_array_equal(
        rows["is_candidate"].to_numpy()[known], deciding[known] >= np.float32(record.decision.threshold)
    )
    assert sum(pq.read_table(out / "tiles.parquet")["n_candidates"].to_pylist()) >= report.n_candidates
    # An object is found, and its tile agrees with the catalogue, though the tile was scanned for the other β.
    assert scanner.open(out).find(1)["rank"].to_pylist() == [1]
    # Back again, and every byte is as it was.
    run_survey(request(sky, out, **KEPT))
    assert in_this_process == []
    assert results(out) == results(finished[0])


def test_real_images(in_this_process, real, tmp_path):
    """A group on one 0.1" grid, and a lens of which only 10" are there, which is scored and flagged."""
    group, lens = real / "euclid-group" / "group.fits", next((real / "euclid-q1-102018665").glob("*.fits"))
    listed = tmp_path / "real.txt"
    listed.write_text(
        f"id=group VIS={group}[VIS_FLUX] Y={group}[NIR_Y_FLUX] J={group}[NIR_J_FLUX] H={group}[NIR_H_FLUX]\n"
        f"id=lens VIS={lens}[VIS_BGSUB] Y={lens}[NIR_Y_BGSUB] J={lens}[NIR_J_BGSUB] H={lens}[NIR_H_BGSUB]\n"
    )
    grid = {"targets.source": "grid", "targets.grid_step_arcsec": 10.0, "catalogue.sheet_candidates": 1}
    config = load(None, grid, {})
    report = run_survey(RunRequest(str(listed), str(tmp_path / "out"), config))
    assert report.failed == ()
    rows = {name: pq.read_table(tmp_path / "out" / "tiles" / name / "scores.parquet").to_pandas() for name in ("group", "lens")}
    assert np.isfinite(rows["group"].p_ou_200).any()
    assert np.isfinite(rows["lens"].p_ou_200).all()
    assert (rows["lens"]["flags"] & int(Flag.OUTSIDE_MOSAIC) != 0).all()
    assert (rows["lens"]["flags"] & int(Flag.PADDED) != 0).all()
    assert (rows["lens"]["flags"] & int(Flag.TOO_MANY_BAD_PIXELS) == 0).all()
    assert rows["lens"].bad_vis.max() < 0.01


def test_the_page_names_no_other_file(finished):
    assert str(Path.home()) not in (finished[0] / "candidates.html").read_text()
