"""The example of the page about labels, run as it stands: a table and mosaics become a set to evaluate on and to train on."""

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner
from scans import plain_bundle

from scanner.cli.main import scanner
from scanner.errors import OutputError
from scanner.training.checkpoint import read_member

PAGE = Path(__file__).parents[2] / "docs" / "labels.md"


def test_the_example_runs_as_it_stands(sky, tmp_path, monkeypatch):
    section = PAGE.read_text().partition("## A complete example")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands = [shlex.split(line.removeprefix("$ scanner ")) for line in block.splitlines()]
    assert [words[0] for words in commands] == ["labels", "evaluate", "simulate", "train"]
    assert commands[0][2] == "grades.csv"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The bundle that ships without test-time augmentation, which takes eight times as long.
    commands[1].insert(1, plain_bundle())
    Path("sky").symlink_to(sky)
    truth = pq.read_table(sky / "truth.parquet").to_pandas()
    truth = truth[truth.magnitude_vis < 22.5]
    grades = ["A" if visible else "X" for visible in truth.visible]
    Table({"RA": truth.ra, "Dec": truth.dec, "Grade": grades}).write("grades.csv", format="ascii.csv")
    said = [CliRunner().invoke(scanner, words, standalone_mode=False, catch_exceptions=False).output for words in commands]
    n, n_lenses = re.match(r"graded: (\d+) objects, (\d+) of them lenses, for training", said[0]).groups()
    assert f"graded: {n} objects, {n_lenses} lenses ({n_lenses} visible)" in said[1]
    # The sky is simulated, with lenses whose arcs are seen: the bundle ranks nearly all of them above the others.
    assert float(re.search(r"too few: \d+ non-lenses +([\d.]+) \[", said[1])[1]) > 0.8
    assert read_member(Path("runs") / "OU-66")[1].plan.member == "OU-66"
    with pytest.raises(OutputError, match="is there already"):
        CliRunner().invoke(scanner, commands[0], standalone_mode=False, catch_exceptions=False)
