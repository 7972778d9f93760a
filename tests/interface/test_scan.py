"""Scanning from Python: the command's own code, settings by their short names, and scripts without a guard."""

import json
import subprocess
import sys

import pytest
from scans import quick_bundle

import scanner
from scanner.config import RunConfig
from scanner.errors import InputMissingError, TileListError, UsageError
from scanner.interface.scan import run_config, run_request
from scanner.sky import tile_list

FEW = {"magnitude_limit": 20.0, "workers": 1}


def test_settings_by_short_names_are_those_of_the_command():
    config = run_config({"targets.detection_sigma": 2.0}, {"magnitude_limit": None, "keep": "all", "workers": 2})
    assert config.targets.detection_sigma == 2.0
    assert config.targets.magnitude_limit is None
    assert (config.cutouts.keep, config.engine.workers) == ("all", 2)


def test_a_whole_configuration_is_taken_as_it_is(monkeypatch):
    monkeypatch.setenv("SCANNER_SCORING__BETA", "1.5")
    given = RunConfig.model_validate({"scoring": {"threads": 3}, "targets": {"magnitude_limit": None}})
    assert run_config(given, {}) == given
    assert run_config(given, {"beta": 2.0}).scoring.beta == 2.0
    assert run_config(None, {}).scoring.beta == 1.5


def test_all_targets_lifts_both_limits_and_a_limit_beside_it_counts():
    assert run_config(None, {"all_targets": True}).targets.magnitude_limit is None
    limited = run_config(None, {"all_targets": True, "magnitude_limit": 21.0}).targets
    assert (limited.magnitude_limit, limited.min_area_pixels) == (21.0, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"magnitude_limt": 3}, "There is no setting magnitude_limt; did you mean magnitude_limit?"),
        ({"zzz": 3}, "There is no setting zzz; config takes all others by their full names (section.key)."),
        ({"keep": "most"}, "cutouts.keep"),
        ({"provider": None}, "scoring.provider"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(settings, said):
    with pytest.raises(UsageError) as caught:
        run_config(None, settings)
    assert said in str(caught.value)


def test_tiles_become_a_tile_list_beside_the_run_folder(sky, tmp_path):
    first, second, third = sorted(sky.glob("9*"))
    files = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
    named = {band: next(second.glob(f"*BGSUB-MOSAIC-{name}_*")) for band, name in files.items()}
    record = tile_list.read(sky / "tile-list.txt").tile(third.name)
    request = run_request([first, {"id": "own", **named}, record], tmp_path / "out")
    assert request.tile_list == f"{tmp_path / 'out'}-tiles.txt"
    tiles = tile_list.read(request.tile_list).tiles
    assert list(tiles) == [first.name, "own", third.name]
    assert tiles["own"].bands["H"].image.path == str(named["H"])
    assert tiles[third.name] == record


def test_tiles_without_a_name_or_without_any_tile_are_refused(sky, tmp_path):
    with pytest.raises(UsageError, match="Name a run folder"):
        scanner.scan([{"id": "own", "VIS": sky / "none.fits"}])
    with pytest.raises(TileListError, match="No tile was given"):
        scanner.scan([], tmp_path / "out")
    with pytest.raises(InputMissingError, match=r"nowhere\.txt"):
        scanner.scan(tmp_path / "nowhere.txt")


def test_a_plan_writes_nothing(sky, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = scanner.plan(sorted(sky.glob("9*"))[:1], "out", **FEW)
    assert plan.n_targets > 0
    assert not list(tmp_path.iterdir())


SCRIPT = """
import scanner

open("started", "a").write("x")
run = scanner.scan({tiles!r}, "out", magnitude_limit=20, workers=1, bundle={bundle!r})
print(run.status.n_done, run.status.state)
"""


def test_a_script_without_a_guard_scans_once(sky, tmp_path):
    """Worker processes that imported the script would scan again, each with workers of its own."""
    tiles = [str(path) for path in sorted(sky.glob("9*"))[:2]]
    (tmp_path / "look.py").write_text(SCRIPT.format(tiles=tiles, bundle=quick_bundle()))
    done = subprocess.run([sys.executable, "look.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 done\n", "")
    assert (tmp_path / "started").read_text() == "x"
    assert json.loads((tmp_path / "out" / "status.json").read_text())["n_done"] == 2
