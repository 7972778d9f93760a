import json
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from programs import start_scanner
from waiting import LIMIT_S, wait_for

from scanner.cli import status
from scanner.cli.main import main
from scanner.config import StorageConfig
from scanner.records import FailedTile
from scanner.storage import open_store
from scanner.survey.folder.cost import CostLedger
from scanner.survey.messages import TileProgress
from scanner.survey.status import RunStatus, RunTotals


def told(capsys, *words):
    """Exit code, standard output and standard error of ``scanner status …``."""
    with pytest.raises(SystemExit) as caught:
        main(["status", *map(str, words)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return caught.value.code, captured.out, captured.err


def a_status(**changes):
    now = datetime.now(UTC)
    values = {
        "state": "running",
        "reason": None,
        "tile_list": "/sky/tiles.txt",
        "host": "elsewhere",
        "pid": 12,
        "started": now - timedelta(minutes=10),
        "updated": now,
        "interval_s": 60.0,
        "n_tiles": 50_000,
        "n_done": 1_200,
        "n_failed": 1,
        "failed": (FailedTile(tile_id="7", reason="/sky/7[VIS].fits: no such file; check the tile list."),),
        "running": (TileProgress(tile_id="9", n_done=64, n_targets=5000),),
        "objects_per_s": 210.5,
        "eta_s": 7200.0,
        "totals": None,
    }
    return RunStatus(**(values | changes))


def write(folder, known, storage=StorageConfig()):
    open_store(str(folder), storage).write("status.json", known.model_dump_json().encode())


def test_a_run_that_goes_on(tmp_path, capsys):
    write(tmp_path, a_status())
    code, out, _ = told(capsys, tmp_path)
    assert code == 0
    assert f"{tmp_path}: scanning for 10 min" in out
    assert "1,200 of 50,000 done, 1 failed, 1 running" in out
    assert "210.5 objects/s" in out
    assert "to go    2.0 h" in out
    assert "running  9: 64 of 5,000 objects" in out
    assert "failed   7: /sky/7[VIS].fits: no such file; check the tile list." in out
    assert "driver" not in out


@pytest.mark.parametrize("hours", [3, -3])
def test_a_driver_whose_clock_is_hours_off_is_alive_while_it_writes(tmp_path, capsys, monkeypatch, hours):
    now = datetime.now(UTC) + timedelta(hours=hours)
    write(tmp_path, a_status(updated=now))
    monkeypatch.setattr(
        status.time, "sleep", lambda seconds: write(tmp_path, a_status(updated=now + timedelta(seconds=seconds)))
    )
    code, out, _ = told(capsys, tmp_path)
    assert code == 0
    assert "Its driver" not in out
    monkeypatch.setattr(status.time, "sleep", lambda seconds: None)
    assert "Its driver (process 12 on elsewhere) has not been heard of since" in told(capsys, tmp_path)[1]


def test_a_driver_that_was_killed(tmp_path, capsys):
    hours = {"updated": datetime(2026, 12, 1, 6, tzinfo=UTC), "started": datetime(2026, 12, 1, 5, tzinfo=UTC)}
    write(tmp_path, a_status(interval_s=0.1, **hours))
    for tile_id in ("1", "2"):
        (tmp_path / "tiles" / tile_id).mkdir(parents=True)
    code, out, _ = told(capsys, tmp_path)
    assert code == 0
    since = "has not been heard of since 2026-12-01 06:00:00 UTC by its clock; 2 tiles are committed."
    assert f"Its driver (process 12 on elsewhere) {since}" in out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "failed", "reason": "out: the disk is full."}, "UTC: out: the disk is full."),
        ({"state": "interrupted"}, "give the same 'scanner run' again"),
        ({"state": "merging"}, "merging and ranking"),
    ],
)
def test_other_states(tmp_path, capsys, changes, said):
    write(tmp_path, a_status(**changes))
    assert said in told(capsys, tmp_path)[1]


def test_many_failures_are_cut_short(tmp_path, capsys):
    failed = tuple(FailedTile(tile_id=str(number), reason="bad") for number in range(30))
    write(tmp_path, a_status(n_failed=30, failed=failed))
    _, out, _ = told(capsys, tmp_path)
    assert out.count("bad") == 20
    assert "10 more" in out


def test_a_run_is_seen_while_it_goes_on_and_sigterm_is_its_last_word(sky, tmp_path, capsys):
    words = ["run", str(sky / "tile-list.txt"), "--out", str(tmp_path / "out"), "--workers", "1"]
    # Far more objects than are scanned until it is stopped.
    command, log = [*words, "--targets", "grid", "--log-format", "text"], tmp_path / "log"
    many = os.environ | {"SCANNER_TARGETS__GRID_STEP_ARCSEC": "1"}
    process = start_scanner(command, log=log, environment=many, folder=tmp_path)
    wait_for("the scan", lambda: "scanning on 1 worker" in log.read_text() or process.poll() is not None)
    code, out, _ = told(capsys, tmp_path / "out")
    assert code == 0
    assert "out: scanning for " in out
    assert "of 3 done" in out
    process.send_signal(signal.SIGTERM)
    code, said = process.wait(LIMIT_S), log.read_text()
    assert code == 130, said
    assert "Traceback" not in said
    assert "out: interrupted at " in told(capsys, tmp_path / "out")[1]


def test_a_finished_run_on_an_object_store(s3, capsys):
    location = s3.fresh()
    totals = RunTotals(n_targets=900, n_scored=800, n_unique=700, n_candidates=3, sky_area_deg2=0.5, cost=CostLedger().cost())
    known = a_status(state="done", n_done=49_999, running=(), eta_s=None, objects_per_s=0.0, totals=totals)
    write(location, known, s3.config)
    code, out, _ = told(capsys, location, "--endpoint", s3.endpoint)
    assert code == 0
    assert f"{location}: done at " in out
    assert "900, 700 distinct, 800 scored" in out
    assert "3 candidates in 0.5000 deg²" in out
    code, out, _ = told(capsys, location, "--endpoint", s3.endpoint, "--json")
    assert RunStatus.model_validate(json.loads(out)) == known


def test_where_there_is_no_run(tmp_path, capsys):
    code, _, err = told(capsys, tmp_path / "nowhere")
    assert code == 66
    assert err.count("\n") == 1
    assert "nowhere: there is no run here" in err
