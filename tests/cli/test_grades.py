import json

import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.errors import InputMissingError, UsageError
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore


@pytest.fixture
def file(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    for grader, grades in {"Ann": "AABX", "Bob": "ABBX"}.items():
        for number, grade in enumerate(grades):
            store.give(
                Place(f"run-1/10/{number}", f"EUCL J{number}", 10.0 + number, -5.0), grader, grade, "schön!" * (number == 0)
            )
    return store.path


def run(*words):
    result = CliRunner().invoke(scanner, ["grades", *map(str, words)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "parquet"])
def test_export(file, tmp_path, ending):
    out = tmp_path / f"labels.{ending}"
    assert run("export", "--grades", file, out) == f"{out}: 4 graded objects: 3 lens, 1 other, 0 unclear\n"
    table = pq.read_table(out).to_pydict() if ending == "parquet" else Table.read(out)
    assert list(table["candidate_id"]) == [f"run-1/10/{number}" for number in range(4)]
    assert list(table["label"]) == ["lens", "lens", "lens", "other"]
    assert list(table["votes_a"]) == [2, 1, 0, 0]
    word = "sch?n!" if ending == "fits" else "schön!"
    assert str(table["comments"][0]) == f"Ann: {word}; Bob: {word}"
    if ending not in ("csv", "parquet"):
        assert str(table["ra"].unit) == "deg"
    first = out.read_bytes()
    run("export", "--grades", file, out)
    assert out.read_bytes() == first


def test_without_options_it_is_the_file_of_grades_in_this_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert run("export", "labels.csv").startswith("labels.csv: 4 graded objects")
    assert (file.parent / "labels.csv").read_text().splitlines()[0].startswith('"candidate_id","name","ra","dec","label"')


def test_fewer_graders_than_asked_for(file, tmp_path):
    assert "0 lens, 0 other, 4 unclear" in run("export", "--grades", file, tmp_path / "labels.ecsv", "--least-graders", 3)


def test_agreement(file):
    lines = run("agreement", "--grades", file).splitlines()
    assert lines[:3] == ["Graded objects: 4; by two or more: 4", "  Ann: 4", "  Bob: 4"]
    assert lines[3].startswith("All graders agree on 75% of the shared ones; Fleiss' kappa 0.62 [")
    assert lines[5] == "Ann and Bob: 4 objects, 75% alike"
    assert lines[6].startswith("  Cohen's kappa 0.64 [")
    assert lines[7:] == [
        "  rows Ann, columns Bob:",
        "     A  B  C  X",
        "  A  1  1  0  0",
        "  B  0  1  0  0",
        "  C  0  0  0  0",
        "  X  0  0  0  1",
    ]
    found = json.loads(run("agreement", "--grades", file, "--json"))
    assert found["pairs"][0]["table"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_nobody_to_compare_with(tmp_path):
    store = GradeStore(tmp_path / "grades.sqlite")
    store.give(Place("run-1/10/1", "", 1.0, 0.0), "Ann", "A")
    assert run("agreement", "--grades", store.path) == "Graded objects: 1; by two or more: 0\n  Ann: 1\n"


def test_what_is_refused(file, tmp_path):
    with pytest.raises(UsageError, match="no known kind of table"):
        run("export", "--grades", file, tmp_path / "labels.xlsx")
    with pytest.raises(InputMissingError, match="no such file of grades"):
        run("agreement", "--grades", tmp_path / "none.sqlite")
    with pytest.raises(InputMissingError):
        run("dataset", "--grades", file, tmp_path / "no-run", "--out", tmp_path / "set")
