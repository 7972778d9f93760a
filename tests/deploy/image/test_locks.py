"""The locks of the images: complete, hashed, and of the versions that the tests run with."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scanner.survey.folder.fingerprint import SHARED_LIBRARIES

ROOT = Path(__file__).parents[3]
LOCKS = ROOT / "deploy" / "image" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The extras that an image has, as deploy/image/README.md says.
EXTRAS = {
    "scan-cpu": ("cpu",),
    "scan-gpu": ("gpu",),
    "train-cpu": ("cpu", "train"),
    "train-gpu": ("gpu", "train"),
    "api": ("service",),
}
#: What the markers of a requirement are asked about.
IMAGE = {"python_version": "3.13", "python_full_version": "3.13.5", "sys_platform": "linux", "platform_machine": "x86_64"}


def pins(path):
    """Package → version of a file of ``NAME==VERSION`` lines."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(number) for name, number in found}


def locked(name):
    return pins(LOCKS / f"{name}.txt")


def wanted(extras):
    """What pyproject.toml asks for, with its extras."""
    project = PROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def applies(requirement, extras):
    return requirement.marker is None or any(requirement.marker.evaluate(IMAGE | {"extra": extra}) for extra in extras or {""})


def missing(requirements, lock):
    """What of some requirements, and of all that these require in turn, a lock does not have in the right version.

    What a package requires is what it says in this environment; one that is not installed here, or in another version, is not
    asked (CUDA's libraries, torch).
    """
    found, seen = [], set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in lock or not requirement.specifier.contains(lock[name], prereleases=True):
            found.append(f"{requirement}: {lock.get(name)}")
            continue
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        try:
            if Version(version(name)) != lock[name]:
                continue
        except PackageNotFoundError:
            continue
        nested = map(Requirement, requires(name) or ())
        todo.extend(one for one in nested if applies(one, requirement.extras))
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_all_that_its_image_needs(name):
    assert missing(wanted(EXTRAS[name]), locked(name)) == []


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_the_versions_that_the_tests_run_with(name):
    # ONNX Runtime apart: the next test says what its version has to be.
    tested = pins(ROOT / "constraints.txt")
    assert {
        package: (str(found), str(tested[package]))
        for package, found in locked(name).items()
        if package in tested and tested[package] != found and package != "onnxruntime"
    } == {}


def test_drivers_and_workers_have_the_same_versions_whatever_they_compute_on():
    # What scanner.survey.folder.fingerprint compares; ONNX Runtime has a name of its own for each kind of processor.
    def compared(lock):
        runtime = lock.get("onnxruntime", lock.get("onnxruntime-gpu"))
        return {"onnxruntime": runtime} | {name: lock[name] for name in SHARED_LIBRARIES if name != "onnxruntime"}

    assert compared(locked("scan-cpu")) == compared(locked("scan-gpu"))


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_every_package_of_a_lock_has_a_checksum(name):
    text = (LOCKS / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    bare = [entry.split()[0] for entry in entries if not re.match(r"\S+==\S+ \\\n\s+--hash=sha256:[0-9a-f]{64}\b", entry)]
    assert (len(entries), bare) == (len(locked(name)), [])


def test_the_build_lock_has_what_builds_the_project():
    assert missing(map(Requirement, PROJECT["build-system"]["requires"]), locked("build")) == []


@pytest.mark.parametrize("name", ["scan-cpu", "scan-gpu", "api"])
def test_only_the_training_image_has_torch(name):
    assert {"torch", "onnx", "triton"} & set(locked(name)) == set()


def test_each_image_has_its_own_onnx_runtime_and_only_that():
    runtimes = {name: {package for package in locked(name) if package.startswith("onnxruntime")} for name in EXTRAS}
    cpu, gpu = {"onnxruntime"}, {"onnxruntime-gpu"}
    assert runtimes == {"scan-cpu": cpu, "scan-gpu": gpu, "train-cpu": cpu, "train-gpu": gpu, "api": set()}


def test_locking_again_changes_nothing(tmp_path):
    if "SCANNER_IMAGE_STORE" not in os.environ or find_spec("uv") is None:
        pytest.skip("asks the package index for every version: 'make verify-image', not 'make test'")
    # Beside the locks of before, from which it takes what constraints.txt does not name.
    again = shutil.copytree(LOCKS, tmp_path / "locks")
    subprocess.run([sys.executable, ROOT / "deploy" / "image" / "lock.py", "--out", again], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in again.iterdir()} == {
        path.name: path.read_text() for path in LOCKS.iterdir()
    }
