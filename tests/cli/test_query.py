import io
import shutil
import sys

import numpy as np
import pytest
from astropy.table import Table
from damage import resealed
from mocpy import MOC

from scanner.cli.main import main
from scanner.storage import open_store
from scanner.survey.published import open_published


@pytest.fixture(name="ask")
def ask_fixture(capfd):
    """Give a command; its exit code, what it printed, and what it said beside that."""

    def _ask(*words):
        with pytest.raises(SystemExit) as ending:
            main(["query", *map(str, words)])
        printed, said = capfd.readouterr()
        return ending.value.code, printed, said

    return _ask


def table(printed):
    return [line.split() for line in printed.splitlines()]


def test_the_best_are_shown_and_how_many_there_are(ask, local_run):
    code, printed, said = ask(local_run, "--top", 3)
    assert (code, table(printed)[0][:3]) == (0, ["rank", "p_calibrated", "is_candidate"])
    assert [line[0] for line in table(printed)[1:]] == ["1", "2", "3"]
    assert said.startswith("3 of ")
    assert "objects: --top shows more" in said


def test_positions_names_ids_and_scores(ask, local_run, tmp_path):
    everything = tmp_path / "all.ecsv"
    assert ask(local_run, "-o", everything)[0] == 0
    rows = Table.read(everything)
    row = rows[2]
    cone = f"{row['ra']} {row['dec']} 0.01arcsec"
    lon, lat = row["ra"] * rows["ra"].unit, row["dec"] * rows["ra"].unit
    MOC.from_lonlat([lon.value] * lon.unit, [lat.value] * lat.unit, max_norder=20).save(tmp_path / "place.fits", format="fits")
    box = ", ".join(
        f"{row['ra'] + dx} {row['dec'] + dy}" for dx, dy in ((-1e-5, -1e-5), (1e-5, -1e-5), (1e-5, 1e-5), (-1e-5, 1e-5))
    )
    identity = f"{row['run']}/{row['tile_id']}/{row['target_id']}"
    for question in (
        ["--cone", cone],
        ["--polygon", box],
        ["--moc", tmp_path / "place.fits"],
        ["--name", row["name"]],
        ["--id", identity],
    ):
        code, printed, _ = ask(local_run, *question, "--format", "csv", "--columns", "rank, name")
        assert (code, printed.splitlines()[1:]) == (0, [f'{row["rank"]},"{row["name"]}"'])
    score = float(np.nanmedian(rows["p_calibrated"]))
    printed = ask(local_run, "--min-score", score, "--format", "csv", "--columns", "rank", "--order", "-rank")[1]
    found = [int(word) for word in printed.splitlines()[1:]]
    assert sorted(found) == sorted(rows["rank"][rows["p_calibrated"] >= np.float32(score)])
    assert found == sorted(found, reverse=True)


def test_sql_and_every_format(ask, local_run, tmp_path):
    code, printed, _ = ask(local_run, "--sql", "SELECT tile_id, count(*) AS n FROM objects GROUP BY tile_id ORDER BY tile_id")
    assert (code, printed.splitlines()[0].split()) == (0, ["tile_id", "n"])
    for suffix in ("fits", "vot", "ecsv", "csv", "parquet", "reg"):
        out = tmp_path / f"answer.{suffix}"
        code, _, said = ask(local_run, "--sql", "SELECT * FROM objects ORDER BY rank LIMIT 4", "-o", out)
        assert (code, said) == (0, f"{out}: 4 rows.\n")
    for suffix, form in (("fits", "fits"), ("vot", "votable"), ("ecsv", "ascii.ecsv")):
        assert list(Table.read(tmp_path / f"answer.{suffix}", format=form)["rank"]) == [1, 2, 3, 4]
    assert b"--sql 'SELECT *" in (tmp_path / "answer.ecsv").read_bytes()
    assert ask(local_run, "--format", "votable", "--top", 2)[1].count("<TR>") == 2


def test_a_table_in_a_file_is_complete(ask, local_run, tmp_path):
    rows = ask(local_run, "--format", "csv", "--columns", "rank")[1].splitlines()[1:]
    out = tmp_path / "all.txt"
    code, _, said = ask(local_run, "--format", "table", "-o", out)
    assert (code, said) == (0, f"{out}: {len(rows)} rows.\n")
    header, *lines = out.read_text().splitlines()
    assert len(lines) == len(rows) > 20
    assert "p_ou_200" in header.split()


def test_no_row_is_less_than_the_most_rows(ask, local_run):
    code, printed, _ = ask(local_run, "--top", 0, "--max-rows", 1, "--format", "csv", "--columns", "rank")
    assert (code, printed) == (0, '"rank"\n')


def test_several_folders_need_sql_and_names_of_their_own(ask, local_run, tmp_path):
    shutil.copytree(local_run, tmp_path / "copy")
    code, _, said = ask(local_run, tmp_path / "copy", "--sql", "SELECT 1")
    assert (code, f'another folder is named "{open_published(str(local_run)).slug}" too' in said) == (64, True)
    resealed(tmp_path / "copy" / "run.json", tile_list="again.txt")
    other = open_published(str(tmp_path / "copy")).slug
    joined = f'SELECT count(*) AS n FROM objects JOIN "{other}".objects USING (tile_id, target_id)'
    code, printed, _ = ask(local_run, tmp_path / "copy", "--sql", joined)
    total = ask(local_run, "--sql", "SELECT count(*) AS n FROM objects")[1]
    assert (code, printed) == (0, total)
    code, _, said = ask(local_run, tmp_path / "copy")
    assert (code, "only --sql can ask several" in said) == (64, True)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--cone", "10 0"], 64, "is no cone; write RA, DEC and RADIUS"),
        (["--cone", "10 95 1"], 64, "A declination of 95 degrees does not exist"),
        (["--polygon", "0 0, 1 1, 1 0, 0 1"], 64, "cross or touch each other"),
        (["--cone", "1 2 3", "--polygon", "0 0 1 0 1 1"], 64, "one of --cone, --polygon and --moc"),
        (["--moc", "nowhere.fits"], 66, "nowhere.fits: there is no such file"),
        (["--columns", "rank,p_calib"], 64, 'no column "p_calib"; did you mean p_calibrated?'),
        (["--order", "colour"], 64, 'no column "colour"'),
        (["--id", "1"], 64, "is no id of an object; write run/tile_id/target_id"),
        (["--sql", "DROP VIEW objects"], 64, "Give one SELECT"),
        (["--sql", "SELECT 1", "--top", "3", "--candidates"], 64, "leave out --candidates, --top"),
        (["--sql", "SELECT colour FROM objects"], 64, 'column "colour" not found'),
        (
            ["--sql", "SELECT sum(a.range + b.range) FROM range(9000000) a, range(9000000) b", "--seconds", "0.2"],
            75,
            "longer than 0.2 s",
        ),
        (["--out", "answer.txt"], 64, "its name tells no format"),
        (["--out", "/dev/null/answer.csv"], 73, "/dev/null/answer.csv"),
        (["--format", "csv", "--max-rows", "2"], 64, "give --top, or raise --max-rows"),
        (["--version", "2"], 66, "is a single run, which has no versions"),
        (["--min-score", "2"], 64, "min-score"),
    ],
)
def test_one_sentence_says_what_is_wrong(ask, local_run, words, code, sentence):
    found, printed, said = ask(local_run, *words)
    assert (found, printed) == (code, "")
    assert sentence in said
    assert said.startswith("scanner: ")
    assert said.count("\n") == 1


def test_nothing_is_an_answer(ask, local_run, tmp_path):
    code, printed, said = ask(local_run, "--cone", "200 80 1arcsec")
    assert (code, printed, said) == (0, "", "Nothing was found: the catalogue has no objects in this part of the sky.\n")
    assert ask(local_run, "--name", "J235959") == (0, "", "Nothing was found.\n")
    code, _, said = ask(local_run, "--cone", "200 80 1arcsec", "--out", tmp_path / "none.fits")
    assert (code, len(Table.read(tmp_path / "none.fits"))) == (0, 0)
    assert "none.fits: 0 rows" in said


def test_no_folder(ask, tmp_path):
    code, _, said = ask(tmp_path / "nowhere")
    assert code == 66
    assert "neither a run folder" in said


def test_a_terminal_is_not_given_bytes(ask, local_run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    code, _, said = ask(local_run, "--format", "fits")
    assert code == 64
    assert "A terminal cannot show fits; give --out FILE" in said


def test_from_an_object_store(ask, local_run, s3, tmp_path):
    folder = s3.fresh()
    store = open_store(folder, s3.config)
    for path in (*local_run.glob("*"), *(local_run / "catalogue").rglob("*")):
        if path.is_file():
            store.write(path.relative_to(local_run).as_posix(), path.read_bytes())
    here = ask(local_run, "--top", 5)
    there = ask(folder, "--top", 5, "--endpoint", s3.endpoint, "--cache", tmp_path / "cache")
    assert there == here
    assert list((tmp_path / "cache").rglob("*.parquet"))
