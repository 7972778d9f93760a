"""What is built to be installed: a source archive, a wheel made of it, and the program that comes out of the wheel."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import scanner
from scanner.errors import pip_install

ROOT = Path(__file__).parents[1]
#: All that a build needs of the repository.
SOURCES = ("scanner", "models", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def python(*words, **options):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel that was built of what it holds."""
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        place = folder / "checkout" / name
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    build = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    python("-c", build, "build_sdist", folder, cwd=folder / "checkout")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    python("-c", build, "build_wheel", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    return archive, wheel


def test_the_distribution_has_a_name_of_its_own_and_brings_all_it_needs(built):
    archive, wheel = built
    assert archive.name == f"lens_scanner-{scanner.__version__}.tar.gz"
    assert wheel.name.startswith(f"lens_scanner-{scanner.__version__}-")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        described = email.message_from_bytes(content.read(metadata))
    modules = {f"scanner/{path.relative_to(ROOT / 'scanner')}" for path in (ROOT / "scanner").rglob("*.py")}
    assert modules <= names
    templates = {f"scanner/{path.relative_to(ROOT / 'scanner')}" for path in (ROOT / "scanner").rglob("*.jinja")}
    assert templates | {"scanner/py.typed", "scanner/__init__.pyi", "scanner/models/default.json"} <= names
    bundles = [path for path in (ROOT / "models").rglob("*") if path.is_file() and len(path.relative_to(ROOT).parts) == 3]
    assert {f"scanner/{path.relative_to(ROOT)}" for path in bundles} <= names
    assert {entry.partition(",")[0] for entry in described.get_all("Project-URL")} >= {"Homepage", "Documentation", "Changelog"}
    links = re.findall(r"\]\(([^)]+)\)", described.get_payload())
    assert len(links) >= 20
    assert all(link.startswith(("https://", "#")) for link in links)


def test_the_program_runs_from_the_wheel(built, tmp_path):
    _, wheel = built
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    assert scanner.__version__ in python("-m", "scanner", "--version", cwd=tmp_path, env=environment)
    program = "import scanner; print(scanner.__file__); print(scanner.load_bundle().manifest.name)"
    place, bundle = python("-c", program, cwd=tmp_path, env=environment).split()
    assert Path(place).is_relative_to(tmp_path)
    assert bundle == "ou-euclid-sixth"


@pytest.mark.parametrize(("origin", "named"), [
    (None, "pip install 'lens-scanner[train]'"),
    ('{"dir_info": {"editable": true}, "url": "file:///home/me/my%20scanner"}', "pip install '/home/me/my scanner[train]'"),
    ('{"url": "https://example.org/lens_scanner.whl"}', "pip install 'lens-scanner[train]'"),
])  # fmt: skip
def test_advice_names_the_distribution_that_is_installed(monkeypatch, origin, named):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"scanner": ["lens-scanner"]})
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    assert pip_install("train") == named
