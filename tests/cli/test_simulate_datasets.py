import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from programs import start_scanner
from waiting import wait_for

from scanner.cli.main import main
from scanner.simulation.datasets.presets import EVALUATION_SETS, PRESETS


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", *(str(argument) for argument in arguments)])
    captured = capfd.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def quick(folder, n=12, seed=3):
    return ("dataset", "--preset", "quick", "--n", n, "--seed", seed, "--workers", 1, "--out", folder)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "d"
    with pytest.raises(SystemExit):
        main(["simulate", *(str(argument) for argument in quick(folder))])
    return folder


def test_dataset_says_what_it_drew(capfd, drawn):
    code, out, _ = run(capfd, *quick(drawn))
    assert code == 0
    lenses = sum(pq.read_table(drawn / "truth.parquet")["is_lens"].to_pylist())
    assert f"12 objects, {lenses} lenses" in out


def test_the_preset_says_how_many_there_are(capfd, tmp_path, monkeypatch):
    small = PRESETS["quick"].model_copy(update={"n_objects": 3})
    monkeypatch.setitem(PRESETS, "quick", small)
    code, out, _ = run(capfd, "dataset", "--preset", "quick", "--out", tmp_path / "d")
    assert code == 0
    assert ": 3 objects" in out


def test_sets_draws_those_that_are_named(capfd, tmp_path):
    code, out, _ = run(capfd, "sets", "quasars", "double-ring", "--scale", 0.001, "--workers", 1, "--out", tmp_path)
    assert code == 0
    assert out.count("2 objects") == 2
    for name in ("quasars", "double-ring"):
        record = json.loads((tmp_path / name / "dataset.json").read_text())
        assert record["request"]["preset"] == name
        assert record["request"]["seed"] == next(item.seed for item in EVALUATION_SETS if item.name == name)
        assert record["preset"]["purpose"] == "evaluation"
        assert record["complete"]


def test_presets_are_listed_with_purpose_size_and_mix(capfd):
    code, out, _ = run(capfd, "presets")
    assert code == 0
    lines = out.splitlines()
    for name, preset in PRESETS.items():
        [line] = [line for line in lines if line.startswith(f"{name} ")]
        assert preset.purpose in line
        assert f"{preset.n_objects:,}" in line
        mix = lines[lines.index(line) + 1]
        assert all(f"{kind} {share:.1%}" in mix for kind, share in preset.mix.items())


def test_red_fraction_and_paper_parameters_reach_the_record(capfd, tmp_path):
    base = ("dataset", "--preset", "compound-arc", "--n", 2, "--workers", 1)
    code, _, _ = run(capfd, *base, "--red-fraction", 1, "--parameters", "paper", "--out", tmp_path / "d")
    assert code == 0
    record = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert record["preset"]["options"]["red_source_fraction"] == 1.0
    assert record["preset"]["parameters"] == "paper"
    code, _, err = run(capfd, *base, "--red-fraction", 1, "--out", tmp_path / "d")
    assert code == 73
    assert "parameters paper" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dataset", "--preset", "planets"), ["planets", *PRESETS]),
        (("dataset", "--n", 0), ["--n", "at least 1"]),
        (("dataset", "--n", -5), ["--n", "-5"]),
        (("dataset", "--n", 10**9), ["n_objects", "100000000"]),
        (("dataset", "--n", 5, "--seed", -1), ["--seed"]),
        (("dataset", "--n", 5, "--seed", 2**63), ["seed"]),
        (("dataset", "--n", 5, "--workers", 0), ["--workers"]),
        (("dataset", "--n", 5, "--red-fraction", 1.5), ["--red-fraction", "between 0 and 1"]),
        (("dataset", "--n", 5, "--red-fraction", "nan"), ["--red-fraction"]),
        (("dataset", "--n", 5, "--preset", "red-sources", "--red-fraction", 0.5), ["red-sources", "--red-fraction"]),
        (("dataset", "--n", 5, "--preset", "train", "--parameters", "paper"), ["compound-arc", "double-ring"]),
        (("dataset", "--n", 5, "--preset", "challenge", "--generator", "lenstronomy"), ["challenge", "quasars"]),
        (("dataset", "--n", 5, "--device", "abacus"), ["abacus", "cuda"]),
        (("sets", "eval", "planets"), ["planets", *(item.name for item in EVALUATION_SETS)]),
        (("sets", "--scale", 0), ["--scale"]),
        (("sets", "--scale", "nan"), ["--scale"]),
    ],
)
def test_senseless_requests_get_one_line_and_exit_64(capfd, tmp_path, arguments, words):
    code, out, err = run(capfd, *arguments, "--out", tmp_path / "x")
    assert code == 64
    assert all(word in err for word in words)
    assert err.count("\n") == 1
    assert not out
    assert not (tmp_path / "x").exists()


def test_a_dataset_of_another_seed_is_left_alone(capfd, drawn):
    before = hashes(drawn)
    code, _, err = run(capfd, *quick(drawn, seed=4))
    assert code == 73
    assert "seed 3" in err
    assert "seed 4" in err
    assert "choose another --out" in err
    assert err.count("\n") == 1
    assert hashes(drawn) == before


@pytest.mark.parametrize("content", [b"", b'{"format_version": 1, "scanner_ver', b"\xff\xfe\x00", b"[]"])
def test_a_damaged_record_gets_exit_78(capfd, tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    code, _, err = run(capfd, *quick(tmp_path))
    assert code == 78
    assert "dataset.json: damaged" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["file/x", "/proc/x"])
def test_a_folder_that_cannot_be_made_gets_exit_73(capfd, tmp_path, place):
    (tmp_path / "file").write_text("x")
    code, _, err = run(capfd, *quick(tmp_path / place))
    assert code == 73
    assert "cannot be written" in err
    assert err.count("\n") == 1


def test_files_that_cannot_grow_get_exit_73_and_the_same_command_goes_on(capfd, tmp_path, drawn):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        code, _, err = run(capfd, *quick(tmp_path / "d"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 73
    assert "File too large" in err
    assert err.count("\n") == 1
    code, _, _ = run(capfd, *quick(tmp_path / "d"))
    assert code == 0
    assert hashes(tmp_path / "d") == hashes(drawn)


def test_a_full_disk_gets_exit_73_and_one_line(tmp_path):
    """Met by one of two processes; with one worker files that cannot grow are met likewise."""
    small = f"mount -t tmpfs -o size=2m scanner-test {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", small], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the tests mount a file system")
    draw = f"{sys.executable} -m scanner simulate dataset --preset quick --n 270"
    script = f"{small} && {draw} --workers 2 --out {tmp_path}/d"
    found = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 73
    # On a slow machine lines of progress come before it.
    *progress, line = found.stderr.splitlines()
    assert "the disk is full; make space and give the same command again" in line
    assert all(re.fullmatch(r"\d+ of \d+ objects", told) for told in progress)


def test_after_ctrl_c_the_same_command_goes_on_whatever_the_workers(tmp_path):
    # Two parts, of 256 objects and of the others.
    words = ("simulate", "dataset", "--preset", "quick", "--n", "320", "--seed", "5")

    def start(out, workers):
        command = [*words, "--workers", workers, "--out", str(tmp_path / out)]
        return start_scanner(command, log=tmp_path / f"{out}.log", environment=os.environ, folder=tmp_path)

    whole = start("whole", "2")
    process = start("broken", "1")
    first = tmp_path / "broken" / "parts" / "000000.parquet"
    wait_for("the first part", lambda: first.exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    err = (tmp_path / "broken.log").read_text()
    assert "interrupted; give the same command again" in err
    assert "Traceback" not in err
    written = first.stat().st_mtime_ns
    assert not Path(tmp_path / "broken" / "truth.parquet").exists()
    process = start("broken", "1")

    def has_ended():
        with suppress(FileNotFoundError):
            assert first.stat().st_mtime_ns == written
        return process.poll() is not None

    wait_for("the rest", has_ended)
    assert process.wait() == whole.wait() == 0
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")
