"""A catalogue as a deposit: complete, checked, without names, and the same bytes again."""

import hashlib
import io
import json
import zipfile

import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from click.testing import CliRunner

from scanner.cli.main import scanner
from scanner.grading import deposit
from scanner.grading.deposit import FILES
from scanner.grading.grade import Place
from scanner.grading.store import GradeStore


def publish(run, out, *more):
    about = ["--title", 'Lenses: a "test"', "--creator", "Wilde, Joshua", "--creator", "Müller, Ä"]
    return CliRunner().invoke(scanner, ["catalogue", "publish", str(run), "--zenodo-layout", str(out), *about, *more])


def test_a_deposit_is_complete_and_can_be_checked(finished_run, tmp_path):
    rows = pq.read_table(finished_run / "catalogue" / "dataset", partitioning=None).sort_by("rank").to_pylist()
    store = GradeStore(tmp_path / "grades.sqlite")
    for row, grader in zip(rows, ("Ann", "Bob"), strict=False):
        place = Place(f"{row['run']}/{row['tile_id']}/{row['target_id']}", row["name"], row["ra"], row["dec"])
        store.give(place, grader, "A", "a private thought")
    out = tmp_path / "deposit"
    result = publish(finished_run, out, "--grades", str(store.path), "--cutouts", "3")
    assert result.exit_code == 0, result.output
    assert {*FILES, "README.md", "candidates.ecsv", "candidates.vot"} == {path.name for path in out.iterdir()}
    for line in (out / "SHA256SUMS").read_text().splitlines():
        sha256, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == sha256
    assert pq.read_table(out / "catalogue.parquet")["rank"].to_pylist() == [row["rank"] for row in rows]
    with zipfile.ZipFile(out / "cutouts.zip") as archive:
        assert len(archive.namelist()) == min(3, sum(row["is_candidate"] for row in rows))
        with fits.open(io.BytesIO(archive.read(archive.namelist()[0]))) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == ["VIS", "Y", "J", "H"]
            assert hdus[0].header["OBJECT"] in {row["name"] for row in rows[:3]}
    citation = yaml.safe_load((out / "CITATION.cff").read_text())
    assert citation["title"] == 'Lenses: a "test"'
    assert citation["authors"][1] == {"family-names": "Müller", "given-names": "Ä"}
    assert json.loads((out / "zenodo.json").read_text())["metadata"]["creators"][0] == {"name": "Wilde, Joshua"}
    everything = b"".join(path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".json", ".md"))
    for secret in (b"Ann", b"private thought", str(finished_run).encode()):
        assert secret not in everything
    assert b"grader-2" in (out / "votes.csv").read_bytes()
    again = tmp_path / "again"
    assert publish(finished_run, again, "--grades", str(store.path), "--cutouts", "3").exit_code == 0
    assert (again / "SHA256SUMS").read_bytes() == (out / "SHA256SUMS").read_bytes()
    assert "is there already" in str(publish(finished_run, out).exception)


def test_nothing_is_left_where_it_fails(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(deposit, "_describe", lambda *of: 1 / 0)
    assert isinstance(publish(finished_run, tmp_path / "out").exception, ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("creator", ["", " "])
def test_a_deposit_of_nobody_is_refused(finished_run, tmp_path, creator):
    command = ["catalogue", "publish", str(finished_run), "--zenodo-layout", str(tmp_path / "out"), "--title", "t"]
    result = CliRunner().invoke(scanner, [*command, "--creator", creator])
    assert "names of its creators" in str(result.exception)
    assert not (tmp_path / "out").exists()
