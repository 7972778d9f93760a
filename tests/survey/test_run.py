import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from scanner.config import load
from scanner.cutouts.store import CutoutStore
from scanner.ensemble import bundle as bundles
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.survey.finish import RESULTS
from scanner.survey.messages import TileProgress
from scanner.survey.run import Merging, RunRequest, RunStarted, TileFinished, run_survey

#: So many objects are decided in the tests that there is something to keep and to draw.
FLAGS = {"scoring.beta": 2.0, "targets.magnitude_limit": "none", "cutouts.batch_size": 8}


def request(sky, out, **flags):
    return RunRequest(str(sky / "tile-list.txt"), str(out), load(None, FLAGS | flags, {}))


def results(out):
    """Every byte that a run promises to give again: the results, and the tiles' tables and cutouts."""
    paths = [out / name for name in RESULTS] + sorted((out / "tiles").glob("*/scores.parquet"))
    paths += sorted((out / "tiles").glob("*/cutouts.zarr"))
    files = sorted(file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="session")
def finished(sky, tmp_path_factory):
    """A run of the three tiles on one worker, with its events and its report."""
    out = tmp_path_factory.mktemp("run") / "out"
    events = []
    report = run_survey(request(sky, out, **{"engine.workers": 1, "cutouts.keep": "all"}), events.append)
    return out, events, report


def test_everything_promised_is_there(finished):
    out, _, report = finished
    assert {entry.name for entry in out.iterdir()} == {*RESULTS, "run.json", "tiles", ".lock"}
    assert report.n_tiles == 3
    assert report.failed == ()
    assert len(Table.read(out / "candidates.ecsv")) == len(report.candidates) > 0
    assert len(Table.read(out / "failed-tiles.ecsv")) == 0
    page = (out / "candidates.html").read_text()
    assert all(name in page for name in report.candidates["name"].to_pylist())


def test_events_tell_the_story(finished):
    out, events, report = finished
    assert events[0] == RunStarted(n_tiles=3, n_done_before=0, n_workers=1, provider="cpu")
    assert events[-1] == Merging()
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


def test_scores_equal_a_plain_computation(tmp_path):
    """Cut one object by hand, scale nothing, run the graph: the logits in the table are those."""
    # Without planes that mask pixels: these would be filled with noise.
    unmasked = TilesRequest(n_tiles=1, size=640, seed=3, lenses_per_tile=6, density=0.5, companions=False)
    draw_tiles(unmasked, tmp_path / "sky", 1)
    out = tmp_path / "out"
    run_survey(request(tmp_path / "sky", out, **{"engine.workers": 1}), [].append)
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


def test_workers_do_not_change_a_byte(sky, finished, tmp_path):
    run_survey(request(sky, tmp_path / "out", **{"engine.workers": 3, "cutouts.keep": "all"}))
    assert results(tmp_path / "out") == results(finished[0])


def test_keep_nothing_still_draws_the_sheet(sky, finished, tmp_path):
    report = run_survey(request(sky, tmp_path / "out", **{"cutouts.keep": "none"}))
    assert not list((tmp_path / "out" / "tiles").glob("*/cutouts.zarr"))
    assert report.candidates == finished[2].candidates
    kept = results(finished[0])
    for name in ("candidates.fits", "candidates.vot", "scores.png", "tsne.png"):
        if name.endswith(".png"):
            assert (tmp_path / "out" / name).read_bytes() == kept[name]
    assert (tmp_path / "out" / "candidates.html").stat().st_size > 10_000 * min(len(report.candidates), 100)


def test_keep_candidates(sky, finished, tmp_path):
    report = run_survey(request(sky, tmp_path / "out", **{"cutouts.keep": "candidates", "cutouts.codec": "exact"}))
    stored = [CutoutStore(path) for path in sorted((tmp_path / "out" / "tiles").glob("*/cutouts.zarr"))]
    commits = [pq.read_table(path) for path in sorted((tmp_path / "out" / "tiles").glob("*/scores.parquet"))]
    assert sum(len(store) for store in stored) == sum(int(np.asarray(rows["is_candidate"]).sum()) for rows in commits)
    assert len(report.candidates) <= sum(len(store) for store in stored)


def test_a_run_whose_tiles_are_done_scans_nothing(sky, finished):
    out, _, before = finished
    old, events = results(out), []
    report = run_survey(request(sky, out, **{"engine.workers": 1, "cutouts.keep": "all"}), events.append)
    assert events == [RunStarted(n_tiles=3, n_done_before=3, n_workers=1, provider="cpu"), Merging()]
    assert results(out) == old
    assert report.candidates == before.candidates


@pytest.mark.parametrize("delay_s", [1.5, 4.0, 7.0])
def test_a_killed_run_goes_on_where_it_was(sky, finished, tmp_path, delay_s):
    """SIGKILL the driver and its workers at different moments; the next run ends with the bytes of the undisturbed one."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "scanner", "run", str(sky / "tile-list.txt"), "--out", str(out)]
    command += ["--keep", "all", "--beta", "2.0", "--workers", "1"]
    settings = {"SCANNER_CUTOUTS__BATCH_SIZE": "8", "SCANNER_TARGETS__MAGNITUDE_LIMIT": "none"}
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, env=os.environ | settings)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    run_survey(request(sky, out, **{"engine.workers": 1, "cutouts.keep": "all"}))
    assert results(out) == results(finished[0])
    assert not list(out.rglob(".partial-*"))


def test_a_killed_worker_is_replaced(sky, finished, tmp_path):
    """SIGKILL the only worker in the middle of a tile: another takes over, and the bytes are those of the undisturbed run."""
    out = tmp_path / "out"
    killed = []

    def kill_once(event):
        if isinstance(event, TileProgress) and event.n_done > 0 and not killed:
            scanning = [
                child for child in psutil.Process().children(recursive=True) if list(out.glob(f"tiles/.partial-*-{child.pid}"))
            ]
            killed.extend(scanning)
            for child in killed:
                child.kill()

    report = run_survey(request(sky, out, **{"engine.workers": 1, "cutouts.keep": "all"}), kill_once)
    assert len(killed) == 1
    assert not list(out.rglob(".partial-*"))
    assert report.failed == ()
    assert results(out) == results(finished[0])


def test_real_images(real, tmp_path):
    """A group on one 0.1" grid, and a lens of which only 10" are there: scored and flagged, or flagged and not scored."""
    group, lens = real / "euclid-group" / "group.fits", next((real / "euclid-q1-102018665").glob("*.fits"))
    listed = tmp_path / "real.txt"
    listed.write_text(
        f"id=group VIS={group}[VIS_FLUX] Y={group}[NIR_Y_FLUX] J={group}[NIR_J_FLUX] H={group}[NIR_H_FLUX]\n"
        f"id=lens VIS={lens}[VIS_BGSUB] Y={lens}[NIR_Y_BGSUB] J={lens}[NIR_J_BGSUB] H={lens}[NIR_H_BGSUB]\n"
    )
    config = load(None, {"targets.source": "grid", "targets.grid_step_arcsec": 10.0}, {})
    report = run_survey(RunRequest(str(listed), str(tmp_path / "out"), config))
    assert report.failed == ()
    rows = {name: pq.read_table(tmp_path / "out" / "tiles" / name / "scores.parquet").to_pandas() for name in ("group", "lens")}
    assert np.isfinite(rows["group"].p_ou_200).any()
    assert not np.isfinite(rows["lens"].p_ou_200).any()
    assert (rows["lens"]["flags"] & 1 != 0).all()
    assert (rows["lens"]["flags"] & 4 != 0).all()
    assert rows["lens"].bad_vis.min() >= 0.74
    generous = load(None, {"targets.source": "grid", "targets.grid_step_arcsec": 10.0, "cutouts.max_bad_fraction": 1.0}, {})
    run_survey(RunRequest(str(listed), str(tmp_path / "generous"), generous))
    lens_rows = pq.read_table(tmp_path / "generous" / "tiles" / "lens" / "scores.parquet").to_pandas()
    assert np.isfinite(lens_rows.p_ou_200).all()
    assert (lens_rows["flags"] & 4 == 0).all()


def test_the_page_names_no_other_file(finished):
    assert str(Path.home()) not in (finished[0] / "candidates.html").read_text()
