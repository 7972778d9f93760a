"""``scanner catalogue``: what it prints and refuses. What it makes is tested with the survey itself."""

import numpy as np
import pytest
from made_runs import made_run, score_rows

from scanner.cli.main import main

USAGE, MISSING = 64, 66


def told(capsys, *words):
    """Exit code, standard output and standard error of ``scanner catalogue …``."""
    with pytest.raises(SystemExit) as caught:
        main(["catalogue", *map(str, words)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return caught.value.code, captured.out, captured.err


@pytest.fixture(scope="module", name="runs")
def runs_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    random = np.random.default_rng(1)
    for number, name in enumerate(("east", "west"), start=1):
        rows = score_rows(10.0 * number + random.random(50), random.random(50), f"t{number}", seed=number)
        made_run(folder / name, {f"t{number}": rows}, tile_list=f"/sky/{name}.txt")
    one = score_rows(np.array([50.0]), np.array([1.0]), "t5")
    made_run(folder / "new", {"t5": one}, tile_list="/sky/new.txt", bundle_version="2", bundle_fingerprint="n")
    return folder


def test_merge_and_list(runs, tmp_path, capsys) -> None:
    out = tmp_path / "survey"
    code, said, _ = told(capsys, "merge", runs / "east", "--out", out)
    assert code == 0
    assert f"{out}: version 1 of 1 run and 1 tile (0 failed): 50 rows, 50 objects, " in said
    assert f"{out}/versions/1/candidates.fits (.ecsv, .vot), all: {out}/versions/1/catalogue" in said
    code, said, _ = told(capsys, "merge", runs / "west", runs / "east", "--out", out)
    assert "version 2 of 2 runs and 2 tiles (0 failed): 100 rows, 100 objects" in said
    code, said, _ = told(capsys, "merge", runs / "east", runs / "west", "--out", out)
    assert (code, said) == (0, f"{out}: these runs were merged before, as version 2; it is the current one.\n")
    code, said, _ = told(capsys, "list", out)
    assert code == 0
    lines = [line.split() for line in said.splitlines()]
    assert lines[1][0] == "1"
    assert lines[2][:2] == ["*", "2"]
    assert lines[2][4:7] == ["2", "2", "100"]
    assert f"{runs / 'east'}" in said
    assert "1 tile, bundle ou 1" in said


def test_what_is_refused(runs, tmp_path, capsys) -> None:
    code, _, said = told(capsys, "merge", runs / "east", runs / "new", "--out", tmp_path / "survey")
    assert code == USAGE
    assert "--prefer 'ou 1' --prefer 'ou 2'" in said
    code, said, _ = told(
        capsys, "merge", runs / "east", runs / "new", "--out", tmp_path / "survey", "--prefer", "ou 2", "--prefer", "ou 1"
    )
    assert code == 0
    code, _, said = told(capsys, "merge", tmp_path / "gone", "--out", tmp_path / "survey")
    assert code == MISSING
    assert f"{tmp_path / 'gone'}: neither a run folder" in said
    code, _, said = told(capsys, "merge", runs / "east", "--out", tmp_path / "survey", "--known-lenses", tmp_path / "gone.csv")
    assert code == MISSING
    assert "gone.csv: the table of known lenses is not there" in said
    code, _, said = told(capsys, "list", tmp_path)
    assert code == MISSING
    assert "name a survey folder" in said
    assert told(capsys, "merge", "--out", tmp_path)[0] == USAGE
