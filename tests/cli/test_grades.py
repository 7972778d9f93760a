import json

import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.errors import InputMissingError, UsageError
from scanner.grading.crowd import Crowd
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore
from scanner.query.catalogue import CandidateId, Search, search
from scanner.survey.published import open_published


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


def test_votes_are_weighed_by_known_answers(finished_run, tmp_path):
    rows = open_published(str(finished_run)).open_catalogue()
    objects = search(
        rows, Search(top=4, order="rank", columns=("run", "tile_id", "target_id", "name", "ra", "dec", "p_calibrated"))
    )
    store = GradeStore(tmp_path / "grades.sqlite")
    given = objects.to_pylist()
    for row, (ann, bob) in zip(given, ("AX", "XA", "AX", "XA"), strict=True):
        place = Place(str(CandidateId.of(row)), row["name"], row["ra"], row["dec"])
        store.give(place, "Ann", ann)
        store.give(place, "Bob", bob)
    known = tmp_path / "known.csv"
    known.write_text(
        "ra,dec,label\n"
        + "".join(f"{row['ra']},{row['dec']},{say}\n" for row, say in zip(given[:2], ("lens", "other"), strict=True))
    )
    out = tmp_path / "posterior.csv"
    said = run("posterior", "--grades", store.path, out, finished_run, "--known", known)
    assert said.splitlines()[0].startswith("Ann: 4 votes of 0.")
    assert "  known lenses: 1, A or B given to 1.00 [0.21, 1.00]" in said
    assert said.endswith(f"{out}: 4 graded objects, 4 of them with a probability of the networks\n")
    table = {row["candidate_id"]: row for row in Table.read(out)}
    for row in given:
        assert table[str(CandidateId.of(row))]["p_finder"] == pytest.approx(row["p_calibrated"], rel=1e-6)
    third, fourth = (table[str(CandidateId.of(row))] for row in given[2:])
    assert third["p_posterior"] / third["p_finder"] > 1 > fourth["p_posterior"] / fourth["p_finder"]
    record = Crowd.model_validate_json(run("posterior", "--grades", store.path, out, finished_run, "--known", known, "--json"))
    assert [(skill.grader, skill.of_lenses) for skill in record.skills] == [("Ann", (1, 0, 0, 0)), ("Bob", (0, 0, 0, 1))]
    for words, sentence in (
        (("out.reg",), "is no table of grades"),
        (("out.csv", "--settled-above", "0.1", "--settled-below", "0.2"), "must be less than"),
    ):
        with pytest.raises(UsageError, match=sentence):
            run("posterior", "--grades", store.path, tmp_path / words[0], *words[1:])
    known.write_text("ra,dec,label\n1,1,lens\n2,2,other\n")
    with pytest.raises(UsageError, match=r"known\.csv: none of its objects has been graded"):
        run("posterior", "--grades", store.path, out, "--known", known)
