"""Each command of docs/the-paper.md is one that scanner takes, and those that cost seconds are run."""

import shlex
from pathlib import Path

import click
import pytest
from test_docs import command_lines, command_of, commands

from scanner.cli.main import main
from scanner.interface.scan import run_request
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset

PAGE = Path(__file__).parents[1] / "docs" / "the-paper.md"
LINES = list(command_lines(PAGE))


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


@pytest.mark.parametrize("words", LINES, ids=lambda words: shlex.join(words)[:60])
def test_its_arguments_are_understood(words, tmp_path, monkeypatch):
    # Relative paths of the page: nothing is read or written while a line is parsed.
    monkeypatch.chdir(tmp_path)
    path = command_of(words)
    context = commands()[path].make_context(path[-1], list(words[len(path) :]), parent=click.Context(commands()[path[:1]]))
    assert context.params
    assert not any(tmp_path.iterdir())


def test_the_page_goes_from_drawing_to_scanning():
    verbs = [" ".join(words[1:3]) for words in LINES]
    for verb in ("simulate dataset", "train all", "train bundle", "models regrid", "evaluate paper", "explain figures"):
        assert verb in verbs
    (scan,) = (words for words in LINES if words[1] == "run")
    request = run_request("tile-list.txt", None, bundle="paper", rank="grid", threshold=0.5)
    assert shlex.join(scan) == "scanner run tile-list.txt --bundle paper --rank grid --threshold 0.5"
    assert (request.config.catalogue.rank, request.config.scoring.threshold) == ("grid", 0.5)


def test_those_that_cost_seconds_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # In the order of the page, with next to no objects, and the bundle that ships with scanner.
    arcs = ["simulate", "dataset", "--preset", "compound-arc", "--generator", "lenstronomy", "--parameters", "paper"]
    assert run(*arcs, "--n", 1, "--workers", 1, "--out", "sets/compound-arc") == 0
    draw_dataset(DatasetRequest(preset="eval", n_objects=8, seed=2), tmp_path / "sets" / "eval")
    capsys.readouterr()
    assert run("evaluate", "--data", "sets/eval", "--data", "sets/compound-arc", "--paper", "--no-cache") == 0
    printed = capsys.readouterr().out
    assert "Table 5: metrics when the threshold is set to 0.5" in printed
    (theirs,) = (line.split() for line in printed.splitlines() if "0.9727" in line)
    assert theirs == ["paper", "0.9727", "0.9758", "0.2180", "0.6170", "0.3308"]
    assert "compound-arc, 1" in printed  # all systems count
    assert run("explain", "figures", "--out", "figures", "--paper", "--figure", "7", "--figure", "8") == 0
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["fig-7.png", "fig-8.png"]
