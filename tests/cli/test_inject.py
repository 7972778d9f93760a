import pyarrow.parquet as pq
import pytest

from scanner.cli.main import main


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", "inject", *(str(argument) for argument in arguments)])
    captured = capfd.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_it_says_what_it_painted(capfd, sky, tmp_path):
    code, out, _ = run(
        capfd, sky / "tile-list.txt", "--preset", "quick", "--n", 6, "--ground", "sky", "--workers", 1, "--out", tmp_path / "d"
    )
    assert code == 0
    lenses = sum(pq.read_table(tmp_path / "d" / "truth.parquet")["is_lens"].to_pylist())
    assert f"6 objects painted, {lenses} lenses" in out


def test_mosaics(capfd, sky, tmp_path):
    code, out, _ = run(capfd, sky / "tile-list.txt", "--n", 2, "--mosaics", "--workers", 1, "--out", tmp_path / "m")
    assert code == 0
    assert str(tmp_path / "m" / "tile-list.txt") in out
    assert (tmp_path / "m" / "tile-list.txt").read_text().count("id=") == 3


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--n", 0), 64, "--n must be at least 1"),
        (("--n", 5, "--seed", -1), 64, "--seed"),
        (("--n", 5, "--ground", "sea"), 64, "sea"),
        (("--n", 5, "--preset", "nothing"), 64, "nothing"),
        ((), 64, "--n"),
    ],
)
def test_bad_options(capfd, sky, tmp_path, arguments, code, word):
    found, _, err = run(capfd, sky / "tile-list.txt", *arguments, "--out", tmp_path / "out")
    assert found == code
    assert word in err
    assert err.count("\n") == 1


def test_bad_lists(capfd, tmp_path):
    code, _, err = run(capfd, tmp_path / "none.txt", "--n", 3, "--out", tmp_path / "out")
    assert code == 66
    assert "none.txt" in err
    (tmp_path / "list.txt").write_text("nowhere\n")
    code, _, err = run(capfd, tmp_path / "list.txt", "--n", 3, "--out", tmp_path / "out")
    assert code == 66
    assert "nowhere" in err
    assert err.count("\n") == 1
