import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from scanner.config import StorageConfig, load
from scanner.errors import TileError
from scanner.processes import cores
from scanner.records import BANDS, BandFiles, ImageRef, Tile
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import machine_fingerprint

STORAGE = StorageConfig()


def tile_of(folder, extension=None, size=5_000_000):
    for band in BANDS:
        path = folder / f"{band}.fits"
        if not path.exists():
            path.write_bytes(os.urandom(size))
    return Tile(
        tile_id="7",
        bands={band: BandFiles(image=ImageRef(path=str(folder / f"{band}.fits"), extension=extension)) for band in BANDS},
    )


def test_the_same_bytes_elsewhere_have_the_same_print(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    tile = tile_of(here)
    there.mkdir()
    for band in BANDS:
        (there / f"{band}.fits").write_bytes((here / f"{band}.fits").read_bytes())
    assert fingerprint.of_tile(tile, STORAGE) == fingerprint.of_tile(tile_of(there), STORAGE)
    assert fingerprint.bytes_of_tile(tile) == 20_000_000


@pytest.mark.parametrize("place", [0, 100, 4_999_999])
def test_a_changed_header_or_end_changes_the_print(tmp_path, place):
    tile = tile_of(tmp_path)
    before = fingerprint.of_tile(tile, STORAGE)
    with (tmp_path / "H.fits").open("r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 1]))
    assert fingerprint.of_tile(tile, STORAGE) != before


def test_size_and_extension_count(tmp_path):
    tile = tile_of(tmp_path)
    before = fingerprint.of_tile(tile, STORAGE)
    assert fingerprint.of_tile(tile_of(tmp_path, extension="VIS_FLUX"), STORAGE) != before
    with (tmp_path / "Y.fits").open("ab") as file:
        file.write(b"\0")
    assert fingerprint.of_tile(tile, STORAGE) != before


def test_a_missing_file_is_named(tmp_path):
    tile = tile_of(tmp_path)
    (tmp_path / "J.fits").unlink()
    with pytest.raises(TileError, match=r"J\.fits"):
        fingerprint.of_tile(tile, STORAGE)
    assert fingerprint.bytes_of_tile(tile) == 15_000_000


def test_a_name_that_no_object_has_is_the_tiles_fault(s3):
    image = ImageRef(path=f"{s3.fresh()}/a/../vis.fits")
    tile = Tile(tile_id="7", bands=dict.fromkeys(BANDS, BandFiles(image=image)))
    with pytest.raises(TileError, match="cannot hold this name"):
        fingerprint.of_files(tile, s3.config)


def test_settings_that_change_no_result_do_not_count():
    base = fingerprint.of_config(load(None, {}, {}), "cpu")
    same = {
        "engine.workers": 7,
        "engine.listen": "tcp://0.0.0.0:8786",
        "engine.scale_deployment": "workers",
        "catalogue.sheet_candidates": 3,
        "scoring.bundle": "elsewhere",
        "scoring.beta": 1.0,
    }
    assert fingerprint.of_config(load(None, same, {}), "cpu") == base
    for flags in ({"targets.magnitude_limit": 22.0}, {"cutouts.keep": "all"}, {"scoring.threads": 2}):
        assert fingerprint.of_config(load(None, flags, {}), "cpu") != base
    assert fingerprint.of_config(load(None, {}, {}), "cuda") != base


CPU_INFO = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7B13
stepping\t: 0
flags\t\t: fpu avx2 fma avx
bogomips\t: 4890.8

processor\t: 1
model name\t: another
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A machine whose facts are known."""
    cpu, nvidia = tmp_path / "cpuinfo", tmp_path / "nvidia"
    cpu.write_text(CPU_INFO)
    card = nvidia / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n")
    (nvidia / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\nGCC version: 12\n")
    monkeypatch.setattr(fingerprint, "CPU_INFO", cpu)
    monkeypatch.setattr(fingerprint, "NVIDIA", nvidia)
    machine_fingerprint.cache_clear()
    yield tmp_path
    machine_fingerprint.cache_clear()


def test_processor_instructions_provider_and_libraries(made_up):
    parts = machine_fingerprint("cpu").split("; ")
    assert parts[:3] == [platform.machine(), "AMD EPYC 7B13 cpu family 25 model 1 stepping 0 avx fma avx2", "provider cpu"]
    assert f"numpy {importlib.metadata.version('numpy')}" in parts
    assert not any("H100" in part for part in parts)


def test_the_gpu_where_it_computes(made_up):
    parts = machine_fingerprint("cuda").split("; ")
    assert parts[2:4] == ["provider cuda", "NVIDIA H100 80GB HBM3 NVIDIA UNIX x86_64 Kernel Module  570.86.15"]


def test_what_cannot_be_found_out_is_left_out(made_up):
    (made_up / "cpuinfo").unlink()
    parts = machine_fingerprint("tensorrt").split("; ")
    assert parts[0] == platform.machine()
    assert "" not in parts


def test_this_machine_always_says_the_same():
    first = machine_fingerprint("cpu")
    machine_fingerprint.cache_clear()
    assert machine_fingerprint("cpu") == first


def test_cores_are_those_that_the_process_may_use():
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{one}}}); from scanner.processes import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
