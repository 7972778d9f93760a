"""What the documentation shows of Python is run: the notebook, the examples of the docstrings, the lines of the README."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

import scanner

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "first-scan.ipynb"
MODULES = [
    "scanner",
    *(f"scanner.interface.{name}" for name in ("bundle", "model", "objects", "opened", "scan", "simulate", "train")),
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, and the folder that it ran in, which holds ``sky`` and ``scan`` then."""
    folder = tmp_path_factory.mktemp("first-scan")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MPLCONFIGDIR", "IPYTHONDIR"):
            patch.setenv(variable, str(folder / "settings"))
        # A second worker takes longer to start than its tile to scan.
        patch.setenv("SCANNER_ENGINE__WORKERS", "1")
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=500, kernel_name="python3", resources=resources).execute()
    return notebook, folder


def outputs(notebook, start):
    """What the cell shows that begins so."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(start)]
    return [output for output in cell.outputs if output.output_type in ("display_data", "execute_result")]


def test_the_notebook_is_committed_without_outputs():
    code = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "strip the outputs before you commit it"


def test_the_notebook_shows_what_it_says(executed):
    notebook, folder = executed
    bar, run = outputs(notebook, "run = scanner.scan")
    assert re.search(r"scanned <progress value=\"2\" max=\"2\"></progress> 2/2 tiles", bar.data["text/html"])
    assert run.data["text/plain"].startswith("<Run scan: done, 2 of 2 tiles, ")
    (candidates,) = outputs(notebook, "run.candidates")
    assert candidates.data["text/html"].count("data:image/webp;base64,") == 10
    assert f"10 of {len(scanner.open(folder / 'scan').candidates)} rows" in candidates.data["text/html"]
    for start in ("run.show", "cutout = ", "axes = "):
        assert "image/png" in outputs(notebook, start)[-1].data
    assert outputs(notebook, "run.replay")[-1].data["text/plain"] == "'equal'"
    assert "7 networks say lens" in outputs(notebook, "run.explain")[-1].data["text/html"]
    streams = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    assert len(streams) == 1
    assert re.fullmatch(r"\d+ visible lenses; \d+ scored; \d+ among the first 20 objects\n", streams[0])


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_are_true(executed, name, monkeypatch):
    monkeypatch.chdir(executed[1])
    tests = [test for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)) if test.examples]
    assert tests
    for test in tests:
        report = []
        assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)


def test_the_lines_of_the_readme_run(executed, monkeypatch):
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(executed[1])
    found = {}
    exec(compile(lines, "README.md", "exec"), found)
    assert isinstance(found["run"], scanner.Run)


def test_the_stub_names_what_the_package_offers():
    stub = ast.parse((ROOT / "scanner" / "__init__.pyi").read_text())
    imported = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == scanner._HOMES
    (names,) = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert sorted(names) == dir(scanner) == sorted(scanner.__all__)
    for name in names:
        assert getattr(scanner, name).__doc__ or name == "__version__"


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, scanner\nassert dir(scanner)\n"
        "heavy = {'numpy', 'astropy', 'dask', 'pydantic', 'pyarrow', 'torch', 'zarr', 'click'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scanner' has no attribute 'scann'"):
        _ = scanner.scann
