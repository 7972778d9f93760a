import os
import re
import subprocess
import sys

import pytest

from scanner import __version__
from scanner.cli.main import VERBS, main

#: Modules of verbs whose help needs no more than settings and records.
AT_ONCE = (
    "catalogue", "cluster", "grades", "model", "prepare", "query", "recovery", "replay", "run", "serve", "status",
)  # fmt: skip


def outcome(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_help_lists_every_verb_and_imports_nothing_heavy():
    program = (
        "import sys\nfrom scanner.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'numpy', 'astropy', 'dask', 'pydantic', 'rich', 'torch', 'zarr'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_verbs_explain_themselves_without_the_libraries_of_tables_and_images():
    program = (
        "import importlib, sys\n"
        f"for verb in {AT_ONCE!r}:\n"
        "    importlib.import_module(f'scanner.cli.{verb}')\n"
        "    heavy = {'astropy', 'dask', 'duckdb', 'matplotlib', 'pyarrow', 'scipy', 'torch', 'zarr'} & set(sys.modules)\n"
        "    assert not heavy, (verb, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    code, out, _ = outcome(capsys, verb, "--help")
    assert code == 0
    assert f"scanner {verb}" in out
    for line in out.partition("\nCommands:\n")[2].splitlines():
        assert not line.endswith(("...", "et al.")), "a sentence of the list is cut off"


def test_every_command_has_a_manual_page_with_all_of_its_options(capsys, tmp_path):
    code, out, _ = outcome(capsys, "man", "--out", str(tmp_path))
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert (code, out) == (0, f"{tmp_path}: {len(written)} pages; begin with: man scanner\n")
    assert {f"scanner-{verb}.1" for verb in VERBS} < set(written)
    assert ".SH NAME\nscanner\\-models\\-list \\- List " in written["scanner-models-list.1"]
    assert ".SH THE ANSWER\n.TP\n.B \\-\\-top INTEGER RANGE\n" in written["scanner-query.1"]
    assert ".SH SEE ALSO\n.BR scanner (1),\n.BR scanner\\-catalogue\\-list (1),\n" in written["scanner-catalogue.1"]
    macros = {line.split()[0] for text in written.values() for line in text.splitlines() if line.startswith((".", "'"))}
    assert macros == {".TH", ".SH", ".PP", ".TP", ".B", ".BR"}
    _, out, _ = outcome(capsys, "run", "--help")
    page = written["scanner-run.1"].replace("\\", "")
    flags = set(re.findall(r"(?<=^  )--?[a-z-]+|(?<=, )--[a-z-]+", out, re.MULTILINE))
    assert len(flags) > 30
    assert all(flag in page for flag in flags)


def test_without_a_word_it_says_what_there_is(capsys):
    assert outcome(capsys) == outcome(capsys, "--help")


@pytest.mark.parametrize("words", [("models",), ("grades", "campaign")])
def test_a_group_without_a_word_says_what_there_is(capsys, words):
    assert outcome(capsys, *words) == outcome(capsys, *words, "--help")


def test_version(capsys):
    assert outcome(capsys, "--version")[1] == f"scanner, version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("fly",), "There is no command fly; 'scanner --help' lists them."),
        (("rnu", "x.txt"), "There is no command rnu; did you mean run?"),
        (("run",), "TILES"),
        (("models", "verfy"), "Did you mean 'verify'? Try 'scanner models --help'."),
        (("models", "promote", "mine"), "Missing option '--data'. Try 'scanner models promote --help'."),
        (("run", "x.txt", "--workers", "many"), "many"),
        (("run", "x.txt", "--speed", "9"), "--speed"),
        (("run", "x.txt", "--keep", "most"), "cutouts.keep"),
        (("run", "x.txt", "--workers", "0"), "engine.workers"),
        (("run", "x.txt", "--max-bad-fraction", "2"), "cutouts.max_bad_fraction"),
    ],
)
def test_misuse_is_one_line_and_exit_64(capsys, words, named):
    code, _, err = outcome(capsys, *words)
    assert code == 64
    assert named in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_schemas_that_cannot_be_written_are_exit_73(capsys):
    code, _, err = outcome(capsys, "schemas", "--out", "/dev/null/schemas")
    assert code == 73
    assert err.startswith("scanner: /dev/null/schemas")


def test_a_reader_that_has_gone_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "scanner", "models", "list"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_debug_shows_where(capsys):
    code, _, err = outcome(capsys, "run", "x.txt", "--keep", "most", "--debug")
    assert code == 64
    assert "Traceback" in err


def test_the_scan_path_imports_no_training_library_and_a_run_starts_without_what_few_tiles_need():
    program = (
        "import sys\nimport scanner.survey.run, scanner.survey.workers.worker\n"
        "slow = {'matplotlib', 'pandas', 'scipy.fft', 'scipy.ndimage', 'scipy.spatial'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "import scanner.cli.run, scanner.cli.simulate\n"
        "heavy = {'torch', 'onnx', 'openTSNE', 'skimage'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_training_side_is_told(tmp_path):
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError('no torch', name='torch')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from scanner.cli.main import main\n"
        f"main(['train', 'all', '--data', {str(tmp_path)!r}, '--out', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "[train]'" in done.stderr
    assert done.stderr.count("\n") == 1
