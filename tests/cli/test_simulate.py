import pytest

from scanner.cli.main import main


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", *(str(argument) for argument in arguments)])
    captured = capfd.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_tiles_say_what_they_drew(capfd, tmp_path):
    small = ("--n", 1, "--size", 400, "--lenses-per-tile", 1, "--density", 0.2, "--no-companions")
    code, out, _ = run(capfd, "tiles", *small, "--out", tmp_path / "t")
    assert code == 0
    assert "1 tile," in out
    assert (tmp_path / "t" / "tile-list.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("tiles", "--n", 0), "--n"),
        (("tiles", "--size", -2000), "--size"),
        (("tiles", "--overlap", 0.9), "--overlap"),
        (("tiles", "--density", -1), "--density"),
        (("tiles", "--lenses-per-tile", -1), "--lenses-per-tile"),
    ],
)
def test_senseless_requests_get_one_line_and_exit_64(capfd, tmp_path, arguments, word):
    code, _, err = run(capfd, *arguments, "--out", tmp_path / "x")
    assert code == 64
    assert word in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_an_output_that_cannot_be_made_gets_exit_73(capfd, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, err = run(capfd, "tiles", "--size", 400, "--out", tmp_path / "file" / "x")
    assert code == 73
    assert err.count("\n") == 1
