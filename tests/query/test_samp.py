"""Tables handed to a program of this machine, over a real hub."""

import io

import pytest
from astropy.table import Table
from samp_hub import running
from waiting import LIMIT_S

import scanner
from scanner.cli.main import main
from scanner.errors import UnavailableError


@pytest.fixture(name="program")
def program_fixture(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path}/lock")
    with running(tmp_path) as (_, program):
        yield program


def asked(capfd, *words):
    with pytest.raises(SystemExit) as ending:
        main(["query", *map(str, words)])
    return ending.value.code, capfd.readouterr().err


def test_an_answer_is_loaded_by_topcat(finished_run, program, tmp_path, capfd):
    for format_, message in (("vot", "table.load.votable"), ("fits", "table.load.fits")):
        best = tmp_path / f"best.{format_}"
        code, said = asked(capfd, finished_run, "--top", 3, "--out", best, "--send-to", "TOPCAT")
        assert (code, said) == (0, f"{best}: 3 rows.\nSent to topcat.\n")
        assert program.loaded(LIMIT_S) == (message, "best", best.read_bytes())
    assert scanner.open(finished_run).query(top=2).send(name="two") == ("topcat",)
    message, name, content = program.loaded(LIMIT_S)
    rows = Table.read(io.BytesIO(content), format="votable")
    assert (message, name, rows["rank"].tolist(), str(rows["ra"].unit)) == ("table.load.votable", "two", [1, 2], "deg")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--out", "best.csv", "--send-to", "all"), 64, "best.csv: SAMP hands over VOTable and FITS tables, not csv"),
        (("--out", "best.vot", "--send-to", "ds9"), 75, "ds9: no program of this name can load tables; only topcat can."),
        (("--send-to", "topcat"), 64, "--send-to has a program read a file that stays; give --out FILE.vot"),
    ],
)
def test_one_sentence_says_what_is_wrong(finished_run, program, tmp_path, monkeypatch, capfd, words, code, sentence):
    monkeypatch.chdir(tmp_path)
    ended, said = asked(capfd, finished_run, "--top", 1, *words)
    assert ended == code
    assert sentence in said
    assert program.heard.empty()


def test_without_a_hub(finished_run, tmp_path, monkeypatch):
    rows = scanner.open(finished_run).query(top=1)
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path}/none")
    with pytest.raises(UnavailableError, match="No SAMP hub runs on this machine; start TOPCAT"):
        rows.send()
    (tmp_path / "lock").write_text("samp.secret=a\nsamp.hub.xmlrpc.url=http://127.0.0.1:9/\n")
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:file://{tmp_path}/lock")
    with pytest.raises(UnavailableError, match="No SAMP hub runs on this machine"):
        rows.send()
