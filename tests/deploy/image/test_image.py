"""What the built images are, and that they do what they are for (`make verify-image`: to build them takes minutes)."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from packaging.utils import canonicalize_name

from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles

ROOT = Path(__file__).parents[3]
NAMES = ("scan-cpu", "scan-gpu", "train-cpu", "train-gpu", "api")
TRAINING = {"torch", "onnx", "captum", "openTSNE", "sklearn"}
SERVICE = {"fastapi", "starlette", "uvicorn", "multipart", "python_multipart"}
#: What an image is for needs none of these; scanner's own modules that import them are for another image.
ABSENT = {"scan-cpu": TRAINING | SERVICE, "train-cpu": SERVICE, "api": TRAINING | {"onnxruntime"}}
#: Bytes of an image without CUDA: as a node pulls it, as a node keeps it.
MOST_PACKED, MOST_UNPACKED = 300_000_000, 800_000_000


@pytest.fixture(params=NAMES)
def each(request, image):
    return image(request.param)


def test_it_runs_as_nobody_in_particular_without_rights_on_a_read_only_root(each):
    script = """
import json, os, pathlib
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
def writable(folder):
    try:
        (pathlib.Path(folder) / "written").touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "capabilities": [status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "writable": [folder for folder in ("/", "/opt/scanner", "/data", "/etc", "/tmp", "/var/tmp") if writable(folder)],
    "home": str(pathlib.Path.home()),
}))
"""
    assert each.python(script) == {
        "user": [10001, 10001, [10001]],
        "capabilities": ["0" * 16] * 5,
        "writable": ["/tmp"],
        "home": "/tmp",
    }


def test_its_only_command_is_scanner_below_an_init(each):
    settings = each.inspect()["Config"]
    assert (settings["Entrypoint"], settings["Cmd"], settings["User"], settings["WorkingDir"]) == (
        ["tini", "--", "scanner"],
        ["--help"],
        "10001:10001",
        "/data",
    )
    done = each.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert each.run().stdout.startswith("Usage: scanner [OPTIONS] COMMAND")


def test_its_labels_say_what_it_was_made_from(each, release):
    labels = each.inspect()["Labels"]
    found = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    command = ["git", "log", "-1", "--format=%ct", found["revision"].removesuffix("-dirty")]
    committed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert datetime.fromisoformat(found["created"]).timestamp() == int(committed)
    assert (found["version"], found["licenses"], found["title"]) == (release, "BSD-3-Clause", "scanner")


def test_nothing_that_installs_is_in_it(each):
    found = each.python(
        "import importlib.util, json, shutil;"
        "print(json.dumps([importlib.util.find_spec('pip') is None, [shutil.which(name) for name in ('pip', 'gcc', 'uv')]]))"
    )
    assert found == [True, [None, None, None]]


@pytest.mark.parametrize("name", ABSENT)
def test_every_module_that_it_is_for_can_be_imported(image, name):
    script = """
import importlib, json, pkgutil, scanner
missing = []
for module in pkgutil.walk_packages(scanner.__path__, "scanner.", onerror=lambda name: None):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing.append(error.name.partition(".")[0])
print(json.dumps(sorted(set(missing))))
"""
    assert set(image(name).python(script)) <= ABSENT[name]


def test_the_scan_image_has_no_torch(image):
    script = """
import importlib.metadata, json
print(json.dumps(sorted(one.metadata["Name"].lower() for one in importlib.metadata.distributions())))
"""
    for name in ("scan-cpu", "api"):
        installed = image(name).python(script)
        assert [one for one in installed if one.startswith(("torch", "nvidia", "triton", "onnx-", "cuda"))] == []


@pytest.mark.parametrize("name", ["scan-cpu", "api"])
def test_an_image_without_cuda_is_small(image, name):
    assert image(name).inspect()["Size"] < MOST_UNPACKED
    assert image(name).beside("tar").stat().st_size < MOST_PACKED


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_of_materials_lists_the_lock(image, release, name):
    bill = json.loads(image(name).beside("spdx.json").read_text())
    python = {
        canonicalize_name(package["name"]): package["versionInfo"]
        for package in bill["packages"]
        if any(one["referenceLocator"].startswith("pkg:pypi/") for one in package.get("externalRefs", ()))
    }
    lock = dict(
        line.split()[0].split("==")
        for line in (ROOT / "deploy" / "image" / "locks" / f"{name}.txt").read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    )
    assert {package: python.get(canonicalize_name(package)) for package in lock} == lock
    assert python["scanner"] == release
    assert {"tini", "python3.13", "ca-certificates"} <= {package["name"] for package in bill["packages"]}


#: A tile's line of work; folders are as the containers see them.
SCAN = ("run", "tile-list.txt", "--workers", "1", "--out")


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """Folder of a small tile and its list, as a volume is: whoever has it mounted may write to it."""
    folder = tmp_path_factory.mktemp("data")
    draw_tiles(TilesRequest(n_tiles=1, size=640, seed=7, overlap=0.3, lenses_per_tile=6, density=0.5), folder, 1)
    folder.chmod(0o777)
    return folder


def scanned(folder):
    """What a scan found, without what it says of the run itself."""
    return pq.read_table(folder / "catalogue" / "dataset").drop_columns(["run"])


def test_the_scan_image_finds_what_this_environment_finds(image, tile):
    found = image("scan-cpu").run(*SCAN, "theirs", options=[f"--volume={tile}:/data"])
    assert (found.returncode, "1 of 1 tile done" in found.stdout) == (0, True), found.stderr
    subprocess.run([sys.executable, "-m", "scanner", *SCAN, "ours"], cwd=tile, check=True, capture_output=True)
    theirs, ours = scanned(tile / "theirs"), scanned(tile / "ours")
    assert np.isfinite(ours["p_calibrated"]).sum() > 5
    assert theirs.column_names == ours.column_names
    for column in ours.column_names:
        # To the bit, with what was not measured (NaN) the same too.
        np.testing.assert_array_equal(theirs[column], ours[column], err_msg=column)


def test_without_a_gpu_the_gpu_image_refuses_to_score(image, tile):
    done = image("scan-gpu").run(*SCAN, "never", "--provider", "cuda", options=[f"--volume={tile}:/data"])
    assert done.returncode == 64
    assert "provider 'cuda' is installed but does not start on this machine" in done.stderr.splitlines()[-1]
    # All that is missing is what the node brings: the driver.
    assert "libcuda.so.1: cannot open shared object file" in done.stderr
