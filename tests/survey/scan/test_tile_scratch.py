import os
import shutil
import subprocess
import sys
import threading

import pytest

from scanner.config import EngineConfig
from scanner.errors import OutputError
from scanner.survey.scan import scratch as scratch_folders
from scanner.survey.scan.scratch import TileScratch, sweep, worker_scratch


@pytest.fixture
def scratch(tmp_path):
    made = TileScratch(tmp_path)
    yield made
    made.close()


def folders(scratch):
    return {entry.name for entry in scratch.path.iterdir() if entry.is_dir()}


def test_a_tile_takes_its_folder_with_it(scratch):
    with scratch.scanning("7") as folder:
        (folder / "VIS.fits").touch()
        assert folders(scratch) == {"7"}
    assert folders(scratch) == set()
    with pytest.raises(KeyError), scratch.scanning("8"):
        raise KeyError
    assert folders(scratch) == set()


def test_what_is_fetched_waits_for_its_scan(scratch):
    with scratch.fetching("7") as folder:
        (folder / "VIS.fits").touch()
    with scratch.scanning("7") as folder:
        assert (folder / "VIS.fits").exists()
        with scratch.fetching("8"):
            pass
        assert folders(scratch) == {"7", "8"}
    assert folders(scratch) == {"8"}


def test_no_more_than_the_tiles_in_hand_and_the_last_one_fetched(scratch):
    """Tiles that were fetched here but are scanned elsewhere make room, one that is being scanned does not."""
    with scratch.scanning("0"):
        for number in range(1, 6):
            with scratch.fetching(str(number)):
                pass
            assert folders(scratch) == {"0", str(number)}
    assert folders(scratch) == {"5"}
    scratch.forget("5")
    assert folders(scratch) == set()


def test_a_tile_in_use_is_not_forgotten(scratch):
    with scratch.scanning("7"):
        scratch.forget("7")
        scratch.forget_all()
        assert folders(scratch) == {"7"}


def test_a_stopwatch_lasts_from_the_fetch_to_the_end_of_the_scan(scratch):
    with scratch.fetching("7"):
        watch = scratch.watch("7")
    with scratch.scanning("7"):
        assert scratch.watch("7") is watch
    assert scratch.watch("7") is not watch


def test_threads_of_one_process(scratch):
    """One scans and one fetches, as on a worker, many times over."""
    failures = []

    def fetch():
        for number in range(100):
            with scratch.fetching(str(number)) as folder:
                (folder / "file").touch()

    def scan():
        try:
            for number in range(100):
                with scratch.scanning(f"scan-{number}") as folder:
                    (folder / "file").touch()
                    assert len(folders(scratch)) <= 3
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (fetch, scan)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


HOLDING = (
    "import sys\nfrom pathlib import Path\nfrom scanner.survey.scan.scratch import TileScratch\n"
    "with TileScratch(Path(sys.argv[1])).scanning('7') as folder:\n"
    "    (folder / 'VIS.fits').touch()\n    print(folder.parent, flush=True)\n    sys.stdin.readline()\n"
)


def test_processes_side_by_side_and_what_a_killed_one_leaves(tmp_path):
    """Several hold folders in one scratch folder; one is killed; the next one to come removes that one's alone."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    held = [process.stdout.readline().strip() for process in processes]
    sweep(tmp_path)
    assert {str(path) for path in tmp_path.iterdir()} == set(held)
    processes[0].kill()
    processes[0].wait()
    assert {str(path) for path in tmp_path.iterdir()} == set(held)
    newcomer = TileScratch(tmp_path)
    with newcomer.scanning("8"):
        assert {str(path) for path in tmp_path.iterdir()} == {*held[1:], str(newcomer.path)}
    newcomer.close()
    for process in processes[1:]:
        process.communicate("\n")
        assert process.returncode == 0
    processes[0].communicate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tries", [1, scratch_folders.CLOSING_TRIES])
def test_a_worker_that_leaves_in_the_middle_of_a_fetch_leaves_nothing_for_ever(tmp_path, monkeypatch, tries):
    """Its fetch wrote on while its folder was removed: what was left had no lock, and no sweep ever took it."""
    scratch, removed = TileScratch(tmp_path), []

    def remove_while_another_thread_writes(folder, ignore_errors):
        remove(folder, ignore_errors=ignore_errors)
        removed.append(folder)
        if len(removed) <= tries:
            (scratch.path / "7").mkdir(parents=True)

    remove = shutil.rmtree
    with scratch.fetching("7"):
        monkeypatch.setattr(scratch_folders.shutil, "rmtree", remove_while_another_thread_writes)
        scratch.close()
    assert scratch.path.exists() == (tries > 1)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_of_a_killed_driver_is_swept_too(tmp_path):
    script = "import sys; from scanner.sky.local_files import temporary_folder\n"
    script += "with temporary_folder(sys.argv[1]) as folder: print(folder, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        folder = process.stdout.readline().strip()
        sweep(tmp_path)
        assert [str(path) for path in tmp_path.iterdir()] == [folder]
        process.kill()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_are_left_alone(tmp_path, scratch):
    (tmp_path / "scanner-data").mkdir()
    (tmp_path / "mosaics").mkdir()
    with scratch.scanning("7"):
        pass
    sweep(tmp_path)
    assert (tmp_path / "scanner-data").exists()
    assert (tmp_path / "mosaics").exists()


def test_one_for_each_scratch_folder_and_none_made_before_it_is_needed(tmp_path):
    config = EngineConfig(scratch=str(tmp_path / "scratch"))
    assert worker_scratch(config) is worker_scratch(config)
    assert worker_scratch(config) is not worker_scratch(EngineConfig())
    assert not (tmp_path / "scratch").exists()
    assert worker_scratch(config).path.name.endswith(f"-{os.getpid()}")


def test_a_scratch_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: cannot write scratch files there .*--scratch"):
        TileScratch(tmp_path / "file").scanning("7").__enter__()
