import math
import shutil
from dataclasses import replace

import pytest

from scanner.cli.main import main
from scanner.ensemble.bundle import Metric, write_bundle
from scanner.ensemble.calibration import Calibration, OperatingCurve
from scanner.ensemble.preprocessing import SecondLook
from scanner.networks import build
from scanner.records import MEMBERS
from scanner.training.export import bundle_content


def _run(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(["models", *words])
    captured = capsys.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "small"
    metrics = [
        Metric(set="held out", member=member, metric=metric, value=0.5, low=0.25, high=0.75, n_pos=1200, n_neg=80)
        for member in ("OU-J", "calibrated")
        for metric in ("auroc", "recall_at_fpr_0.01")
    ]
    content = bundle_content(
        {name: build(name, seed=0) for name in MEMBERS},
        "asinh_mad",
        name="small",
        version="7",
        description="Untrained [/real].",
        sources=dict.fromkeys(MEMBERS, "random [numbers]"),
    )
    write_bundle(
        out,
        replace(
            content,
            calibration=Calibration(coefficients=(0.1,) * 7, intercept=0.0, training_prevalence=0.5, sky_prevalence=1e-3),
            second_look=SecondLook(log_odds_above=-math.log(999.0), share=0.05),
            curve=OperatingCurve.of([0.9, 0.7, 0.2, 0.1], [True, True, False, False]),
            metrics=metrics,
        ),
    )
    return out


def test_verify_says_that_a_bundle_is_sound(capsys, made):
    code, out, _ = _run(
        capsys,
        "verify",
        str(made),
    )
    assert code == 0
    assert out.startswith(f"{made}: small 7 is sound (3 files; runs on ")
    assert out.count("\n") == 1


def test_verify_refuses_a_tampered_bundle_in_one_line(capsys, made, tmp_path):
    copy = shutil.copytree(made, tmp_path / "copy")
    with (copy / "ensemble.onnx").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01\x02")
    code, out, err = _run(capsys, "verify", str(copy))
    assert (code, out) == (78, "")
    assert f"{copy / 'ensemble.onnx'}: altered" in err
    assert err.count("\n") == 1


def test_a_missing_bundle_is_exit_66(capsys, tmp_path):
    for verb in ("verify", "show"):
        code, _, err = _run(capsys, verb, str(tmp_path / "nowhere"))
        assert code == 66
        assert "no such bundle folder" in err


def test_show_tells_what_decides_and_how_well(capsys, made):
    code, out, _ = _run(capsys, "show", str(made))
    assert code == 0
    for text in (
        "small 7",
        "licence      not stated: ask who made it",
        "calibrated probability >= 0.7 (set by F-beta at β = 0.03)",
        "one lens in 1,000 objects",
        "from calibrated probability 0.001 (the best 5% of non-lenses)",
        "J+Y+H+VIS     200     331,632  random [numbers]",
        "held out (1,200 lenses, 80 others)",
        "0.500 [0.250, 0.750]",
    ):
        assert text in out


def test_list_marks_the_default(capsys):
    code, out, _ = _run(capsys, "list")
    assert code == 0
    assert "No bundles in" in out or "\n* " in out


def test_import_published_names_what_is_missing(capsys, tmp_path):
    code, _, err = _run(capsys, "import-published", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    assert code == 66
    assert "nowhere: no such folder" in err
    code, _, err = _run(capsys, "import-published", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 66
    assert err.count("\n") == 1
    code, _, err = _run(capsys, "import-published", str(tmp_path), "--threads", "0")
    assert code == 64
