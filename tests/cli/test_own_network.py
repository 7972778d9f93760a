"""The worked example of ``docs/own-network.md``, line by line, and what the command says."""

import re
import shlex
from pathlib import Path

import pytest
from tiny_network import light_bundle, write_network, write_rings

import scanner
from scanner.cli.main import main
from scanner.training import jobs, residual
from scanner.training.presets import BEST, RESIDUAL

PAGE = (Path(__file__).parents[2] / "docs" / "own-network.md").read_text()
#: The commands of the worked example, and those of the network that scanner trains: the words of each after ``scanner``.
EXAMPLE, RESIDUAL_MEMBER = (
    [shlex.split(line)[2:] for line in block.strip().splitlines()]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
)


def _run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what the page speaks of; the bundle's seven networks are replaced by quick ones."""
    folder = tmp_path_factory.mktemp("own-network")
    light_bundle(folder / "ou-euclid-sixth")
    write_rings(folder / "training-set", 96, seed=6)
    write_rings(folder / "held-out-set", 48, seed=7)
    write_network(folder / "net.onnx", ("VIS", "H"), 100)
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def test_the_page_adds_the_residual_network_as_it_is():
    """Its own tests train and add one; here, that the page says what it sees, and where its run leaves it."""
    train, add = RESIDUAL_MEMBER
    assert train[:3] == ["train", "member", RESIDUAL]
    assert f"{train[train.index('--out') + 1]}/{RESIDUAL}/{jobs.ONNX}" in add
    said = {word: add[add.index(word) + 1] for word in ("--bands", "--pixels", "--scaling")}
    bands, pixels = ",".join(residual.BANDS), str(residual.PIXELS)
    assert said == {"--bands": bands, "--pixels": pixels, "--scaling": BEST.preprocessing}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_is_right(here, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "own-network.md", "exec"), {"__name__": "example"})
    add, show, scan = EXAMPLE
    code, out, err = _run(capsys, *add, "--provider", "cpu")
    assert (code, err) == (0, "")
    assert "recall at FPR 0.1" not in out
    assert re.search(r"AUROC +0\.\d{3} +[01]\.\d{3} +[+-]\d\.\d{3} \[", out)
    assert "ring alone: AUROC" in out
    assert "with-ring: bundle light 1+ring. Use it with --bundle with-ring" in out
    code, out, _ = _run(capsys, *show)
    assert code == 0
    assert re.search(r"ring +VIS\+H +100 +20,001 +added from ring.onnx", out)
    assert scan[:1] == ["run"]
    assert scanner.load_bundle("with-ring").manifest.member_names[-1] == "ring"
    code, out, _ = _run(capsys, "models", "verify", "with-ring")
    assert code == 0


def test_from_python_it_is_the_same(here):
    added = scanner.add_member("ou-euclid-sixth", "net.onnx", "net", ("VIS", "H"), 100, "held-out-set", provider="cpu")
    assert added.bundle.path.resolve() == here / "light-net"
    assert scanner.load_bundle("light-net").manifest.further[0].bands == ("VIS", "H")
    assert [gain.figure for gain in added.gains] == ["AUROC"]


@pytest.mark.parametrize(
    ("changed", "code", "sentence"),
    [
        ({"--bands": "VIS,K"}, 64, "--bands must be some of VIS,Y,J,H (given: VIS,K)."),
        ({"--bands": "VIS,H,VIS"}, 64, "sees a band twice"),
        ({"--name": "ou_66"}, 64, "is taken"),
        ({"--pixels": "64"}, 78, "its input must be float32 (N, 2, 64, 64)"),
        ({"--output": "softmax"}, 78, "gives 1 number an object, which is no softmax"),
        ({"--data": "nowhere"}, 66, "nowhere"),
    ],
)
def test_what_is_wrong_is_one_sentence(here, capsys, changed, code, sentence):
    words = {"--name": "net", "--bands": "VIS,H", "--pixels": "100", "--data": "held-out-set", "--out": "refused"} | changed
    options = [word for pair in words.items() for word in pair]
    found, _, err = _run(capsys, "models", "add-member", "ou-euclid-sixth", "net.onnx", *options)
    assert (found, err.count("\n")) == (code, 1)
    assert sentence in err
    assert not (here / "refused").exists()
