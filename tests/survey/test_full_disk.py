"""A disk that is full, and a folder that may not be written to any more, in the middle of a run: told, and gone on with."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from disturbed.results import files_below, leftovers, n_committed, promised
from waiting import wait_for

from scanner.config import StorageConfig

OUTPUT, DONE, INCOMPLETE = 73, 0, 3
LOCAL = StorageConfig()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, and how to give it another size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        return subprocess.run(["mount", *options, "tmpfs", str(place)], capture_output=True, check=False).returncode == 0

    if not mount(["-t", "tmpfs", "-o", "size=3m"]):
        pytest.skip("this machine does not let the tests mount a file system")
    yield place, lambda size: mount(["-o", f"remount,size={size}"])
    subprocess.run(["umount", place], check=True)


@contextmanager
def unwritable(folder):
    """Let nobody write into a folder, root neither."""
    if os.getuid():
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        yield
        folder.chmod(mode)
        return
    if subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the tests make a folder immutable")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


def test_a_full_disk_in_the_middle_of_a_run(few_tiles, small_disk, refusal, tmp_path):
    disk, resize = small_disk
    out = disk / "out"
    run = (tmp_path / "run", str(few_tiles.listed), str(out))
    processes, driver = few_tiles.run(*run)
    assert driver.wait() == OUTPUT, processes.log("driver")
    line = refusal(processes)
    assert str(disk) in line
    assert "disk is full; make space and give the same command again" in line
    n_before = n_committed(str(out), LOCAL)
    assert 0 < n_before < few_tiles.n_good
    assert not list(out.rglob(".partial-*"))
    assert files_below(processes.temporary) == []
    assert resize("100m")
    processes, driver = few_tiles.run(*run, name="again")
    assert driver.wait() == INCOMPLETE, processes.log("again")
    assert f"{n_before} of {few_tiles.n_tiles} tiles were done before" in processes.log("again")
    assert promised(str(out), LOCAL) == few_tiles.expected
    assert leftovers(str(out), LOCAL) == []


def test_an_output_that_becomes_unwritable_in_the_middle_of_a_run(few_tiles, refusal, tmp_path):
    out = tmp_path / "out"
    run = (tmp_path / "run", str(few_tiles.listed), str(out))
    processes, driver = few_tiles.run(*run)
    wait_for("two tiles", lambda: n_committed(str(out), LOCAL) >= 2)
    with unwritable(out / "tiles"):
        assert driver.wait() == OUTPUT, processes.log("driver")
    line = refusal(processes)
    assert str(out) in line
    assert "cannot be written" in line
    assert files_below(processes.temporary) == []
    processes, driver = few_tiles.run(*run, name="again")
    assert driver.wait() == INCOMPLETE, processes.log("again")
    assert promised(str(out), LOCAL) == few_tiles.expected
    assert leftovers(str(out), LOCAL) == []


def test_a_full_scratch_folder(few_tiles, small_disk, tmp_path):
    """A tile whose mosaics have to be decompressed and warped has no place for them: it is tried again, and then fails."""
    disk, resize = small_disk
    (disk / "others").write_bytes(bytes(2_800_000))
    (line,) = [line for line in few_tiles.listed.read_text().splitlines() if line.startswith("id=packed")]
    listed = few_tiles.listed.with_name("packed.txt")
    listed.write_text(line)
    run = (tmp_path / "run", str(listed), str(tmp_path / "out"), "--scratch", str(disk))
    pauses = {"SCANNER_ENGINE__ATTEMPTS": "2", "SCANNER_ENGINE__BACKOFF_S": "0.1"}
    processes, driver = few_tiles.run(*run, **pauses)
    assert driver.wait() == INCOMPLETE, processes.log("driver")
    failed = (tmp_path / "out" / "failed-tiles.ecsv").read_text()
    assert str(disk) in failed
    assert "given up after 2 attempts" in failed
    assert resize("100m")
    processes, driver = few_tiles.run(*run, name="again")
    assert driver.wait() == DONE, processes.log("again")
    tile = {name: content for name, content in few_tiles.expected.items() if name.startswith("tiles/packed/")}
    assert tile.items() <= promised(str(tmp_path / "out"), LOCAL).items()
    assert files_below(disk) == ["others"]
