import pytest

from scanner.cli.main import main
from scanner.ensemble import bundles


def _run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(["explain", "bundle", *words])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


def test_draws_the_atlas_of_the_bundle_that_ships(capsys, tmp_path):
    steps = ("--class-steps", "2", "--kernel-steps", "1", "--kernels", "1", "--threads", "1")
    code, out, err = _run(capsys, "--out", str(tmp_path / "atlas"), "--member", "OU-J", *steps)
    assert code == 0, err
    assert "OU-J: logits of the class images: non-lens " in out
    assert out.splitlines()[-1] == f"{tmp_path / 'atlas' / 'index.html'}: the atlas of {bundles.load(None).manifest.name}"
    assert (tmp_path / "atlas" / "OU-J-classes.png").is_file()
    assert "no labelled set was given" in (tmp_path / "atlas" / "index.html").read_text()

    code, _, err = _run(capsys, "--out", str(tmp_path / "atlas"), "--member", "OU-J", *steps, "--seed", "1")
    assert code == 64
    assert "OU-J-non-lens.pt: an image that is being made with other settings" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--device", "cuda:99"], 64, "--device cuda:99 cannot be used"),
        (["--data", "nowhere"], 66, "nowhere: not a dataset"),
        (["no-such-bundle"], 66, "no-such-bundle: no such bundle folder"),
        (["--kernels", "0"], 64, "0 is not in the range"),
    ],
)
def test_refuses_in_one_sentence(capsys, tmp_path, words, code, message):
    found, _, err = _run(capsys, "--out", str(tmp_path / "atlas"), *words)
    assert (found, message in err, err.count("\n")) == (code, True, 1)
    assert not (tmp_path / "atlas").exists()


def test_any_other_first_word_is_a_run_folder(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["explain", "no-such-run", "#1", "--method", "votes"])
    assert caught.value.code == 66
    assert "no-such-run" in capsys.readouterr().err


def test_help_shows_both_ways(capsys):
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    out = capsys.readouterr().out
    assert "OUT CANDIDATE_ID [OPTIONS]" in out
    assert "bundle [BUNDLE] --out DIR" in out
    assert out.index("candidate  ") < out.index("bundle  ")
