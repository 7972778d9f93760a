import json
import shutil
from pathlib import Path

import pytest
from damage import resealed
from scans import plain_bundle

from scanner.cli.main import main
from scanner.ensemble import bundles
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset


def _run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A drawn set of 24 objects."""
    folder = tmp_path_factory.mktemp("sets") / "drawn"
    draw_dataset(DatasetRequest(preset="quick", n_objects=24, seed=9), folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_evaluate_says_what_matters_first(capsys, data, cache, tmp_path):
    words = ["evaluate", "--data", data, "--cache", cache, "--rotations", 2, "--out", tmp_path / "out"]
    code, out, _ = _run(capsys, *words)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("drawn: 24 objects, ")
    titles = [line for line in lines if line.startswith(("Lenses found", "Inspecting", "Decisions", "Recall of every"))]
    assert titles[0] == "Lenses found where few non-lenses pass"
    assert titles[-1] == "Recall of every network (Table 6 of the paper)"
    assert "too few: " in out
    assert lines[-1].startswith(f"{tmp_path / 'out'}: evaluation.json, ")
    assert (tmp_path / "out" / "evaluation.html").is_file()


def test_a_bundle_is_written_anew_with_these_figures(capsys, data, cache, tmp_path):
    before = bundles.load()
    written = tmp_path / "measured"
    words = ["evaluate", "--data", data, "--cache", cache, "--rotations", 2, "--card", written, "9.1"]
    code, out, _ = _run(capsys, *words)
    assert code == 0
    name = before.manifest.name
    assert out.splitlines()[-1] == f"{written}: {name} 9.1, with these figures in its MODEL_CARD.md"
    after = bundles.load(written)
    changed = {"version", "metrics", "sha256"}
    assert after.manifest.model_dump(exclude=changed) == before.manifest.model_dump(exclude=changed)
    files = {file: sha256 for file, sha256 in before.manifest.sha256.items() if file != "MODEL_CARD.md"}
    assert files.items() <= after.manifest.sha256.items()
    assert {metric.set for metric in after.manifest.metrics} == {"drawn: visible lenses, all non-lenses"}
    old, new = ((bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8") for bundle in (before, after))
    assert new.startswith(f"# {name} 9.1\n")
    assert "`drawn` (preset quick, " in new
    assert "`challenge`" not in new
    heading, training = "## How well it finds lenses\n", "\n## Training\n"
    assert new.partition(heading)[0].splitlines()[1:] == old.partition(heading)[0].splitlines()[1:]
    assert new.partition(training)[2] == old.partition(training)[2]

    code, _, err = _run(capsys, "evaluate", written, "--data", data, "--card", written, "9.1")
    assert code == 64
    assert f"is {name} 9.1 already" in err
    code, out, _ = _run(capsys, "evaluate", written, *words[1:-2], written, "9.2")
    assert code == 0
    assert bundles.load(written).manifest.version == "9.2"


def test_figures_need_a_card_to_go_into(capsys, data, tmp_path):
    bare = shutil.copytree(bundles.find(None), tmp_path / "bare")
    manifest = json.loads((bare / "bundle.json").read_text())
    del manifest["sha256"]["MODEL_CARD.md"]
    (bare / "MODEL_CARD.md").unlink()
    resealed(bare / "bundle.json", **manifest)
    code, _, err = _run(capsys, "evaluate", bare, "--data", data, "--card", bare, "2")
    assert code != 0
    assert "no MODEL_CARD.md with a section 'How well it finds lenses'" in err
    assert err.count("\n") == 1


def test_a_bundle_is_not_promoted_from_elsewhere(capsys, data, cache, tmp_path):
    copy = shutil.copytree(bundles.find(None), tmp_path / "copy")
    code, _, err = _run(capsys, "models", "promote", copy, "--data", data, "--models", tmp_path / "nowhere")
    assert code == 64
    assert "copy it there: " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--data", "nowhere"], 66, "not a dataset"),
        (["--data", "nowhere", "--beta", "0"], 64, "--beta"),
        (["--data", "nowhere", "--prevalence", "1"], 64, "--prevalence"),
        ([], 64, "--data"),
        (["no-such-bundle", "--data", "DATA"], 66, "no such bundle folder"),
        (["--data", "DATA", "--data", "DATA"], 64, "is the same set as"),
        (["--data", "DATA", "--known", "nowhere.txt"], 66, "cannot be read"),
        (["--data", "DATA", "--images", "nowhere.txt"], 66, "nowhere.txt"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, data, words, code, message):
    given = [str(data) if word == "DATA" else word for word in words]
    found, out, err = _run(capsys, "evaluate", *given)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_told(capsys, data, tmp_path):
    place = tmp_path / "file"
    Path(place).write_text("")
    code, _, err = _run(capsys, "evaluate", plain_bundle(), "--data", data, "--cache", place, "--rotations", 0)
    assert code == 73
    assert str(place) in err


def test_only_a_bundle_that_is_no_worse_becomes_the_default(capsys, data, cache, tmp_path):
    """The default bundle without test-time augmentation, and a copy without grid whose calibration stands on its head."""
    models = tmp_path / "models"
    good, bad = (shutil.copytree(plain_bundle(), models / name) for name in ("good", "bad"))
    manifest = json.loads((bad / "bundle.json").read_text())
    manifest["name"] = "bad"
    manifest["calibration"]["coefficients"] = [-value for value in manifest["calibration"]["coefficients"]]
    del manifest["sha256"]["grid.npz"]
    (bad / "grid.npz").unlink()
    resealed(bad / "bundle.json", **manifest)
    words = ["--data", data, "--cache", cache, "--models", models]

    code, out, _ = _run(capsys, "models", "promote", bad, "--over", good, *words)
    assert code == 1
    assert "WORSE  drawn, visible lenses" in out
    assert "not promoted" in out.splitlines()[-1]
    assert not (models / "default.json").exists()

    code, out, _ = _run(capsys, "models", "promote", good, "--over", bad, *words)
    assert code == 0
    assert out.splitlines()[-1] == f"{models / 'default.json'}: good is the default bundle now."
    assert json.loads((models / "default.json").read_text()) == {"bundle": "good"}
