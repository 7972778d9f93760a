import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from scanner.config import load
from scanner.errors import ContentError, OutputError
from scanner.records import CommitRecord
from scanner.survey.fingerprint import Fingerprints
from scanner.survey.ledger import RunRecord, open_run, staged_tile, write_atomically, writing_to

PRINTS = Fingerprints(inputs="i", config="c", bundle="b")


def record(**changes):
    flags = {key.replace("__", "."): changes.pop(key) for key in list(changes) if "__" in key}
    values = {
        "scanner_version": "0.1.0",
        "tile_list": "tiles.txt",
        "tile_ids": ("1",),
        "bundle_name": "ou",
        "bundle_version": "1",
        "bundle_fingerprint": "b",
        "provider": "cpu",
        "config_fingerprint": "c",
        "config": load(None, flags, {}),
    }
    return RunRecord(**(values | changes))


def commit(**changes):
    values = {
        "tile_id": "1",
        "input_fingerprint": "i",
        "config_fingerprint": "c",
        "bundle_fingerprint": "b",
        "target_source": "catalogue",
        "n_seen": 9,
        "n_outside": 2,
        "n_rejected": 4,
        "notes": (),
        "n_targets": 3,
        "n_scored": 2,
        "n_flagged": 1,
        "n_decided": 1,
        "sky_area_deg2": 0.1,
        "sha256": {},
        "seconds": {},
    }
    return CommitRecord(**(values | changes))


def commit_tile(folder, tile_id="1", **changes):
    with staged_tile(folder, tile_id) as staging:
        (staging / "scores.parquet").write_bytes(b"rows")
        (staging / "commit.json").write_text(commit(tile_id=tile_id, **changes).model_dump_json())


def test_a_tile_is_there_only_when_it_is_whole(tmp_path):
    with open_run(tmp_path / "out", record()) as folder:
        assert folder.done("1", PRINTS) is None
        with pytest.raises(ValidationError):
            commit_tile(folder, n_scored="many")
        assert list(folder.tiles.iterdir()) == []
        commit_tile(folder)
        assert folder.done("1", PRINTS) == commit()
    with open_run(tmp_path / "out", record()) as folder:
        assert folder.done("1", PRINTS) == commit()


def test_a_killed_writer_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom scanner.survey.ledger import RunRecord, open_run, staged_tile\n"
        "record = RunRecord.model_validate_json(sys.argv[2])\n"
        "with open_run(Path(sys.argv[1]), record) as folder, staged_tile(folder, '1') as staging:\n"
        "    (staging / 'scores.parquet').write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(out), record().model_dump_json()], check=False)
    assert done.returncode == 9
    assert len(list((out / "tiles").iterdir())) == 1
    with open_run(out, record()) as folder:
        assert list(folder.tiles.iterdir()) == []
        assert folder.done("1", PRINTS) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scanner_version": "0.2.0"}, "scanner 0.1.0 → 0.2.0"),
        ({"bundle_fingerprint": "x", "bundle_version": "2"}, "bundle ou 1 → ou 2"),
        ({"provider": "cuda"}, "provider cpu → cuda"),
        ({"config_fingerprint": "x", "targets__magnitude_limit": 21.0}, r"targets\.magnitude_limit 23\.0 → 21\.0"),
    ],
)
def test_another_run_is_refused_and_told_why(tmp_path, changes, told):
    with open_run(tmp_path, record()):
        pass
    with pytest.raises(ContentError, match=told) as caught, open_run(tmp_path, record(**changes)):
        pass
    assert "--restart" in str(caught.value)
    with open_run(tmp_path, record(**changes), restart=True) as folder:
        assert folder.record() == record(**changes)


def test_changed_inputs_are_refused(tmp_path):
    with open_run(tmp_path, record()) as folder:
        commit_tile(folder)
        with pytest.raises(ContentError, match="have changed since"):
            folder.done("1", PRINTS.model_copy(update={"inputs": "other"}))


def test_two_runs_in_one_folder(tmp_path):
    with open_run(tmp_path, record()), pytest.raises(OutputError, match="another scanner run"), open_run(tmp_path, record()):
        pass


def test_restart_forgets_the_tiles_but_touches_nothing_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    out = tmp_path / "out"
    with open_run(out, record()) as folder:
        commit_tile(folder)
    (out / "link").symlink_to(outside)
    with open_run(out, record(), restart=True) as folder:
        assert folder.done("1", PRINTS) is None
    assert (outside / "keep").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OutputError, match="not a run's"), open_run(tmp_path, record(), restart=True):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is a file"), open_run(tmp_path / "out", record()):
        pass


def test_a_damaged_record_is_told(tmp_path):
    with open_run(tmp_path, record()) as folder:
        commit_tile(folder)
        (folder.tile("1") / "commit.json").write_text("{")
        with pytest.raises(ContentError, match=r"commit\.json: damaged"):
            folder.done("1", PRINTS)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ContentError, match=r"run\.json: damaged"), open_run(tmp_path, record()):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_sentence():
    with pytest.raises(OutputError, match="the disk is full"), writing_to(Path("out")), Path("/dev/full").open("wb") as file:
        file.write(b"x" * 100_000)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_an_unwritable_folder_is_one_sentence(number):
    with pytest.raises(OutputError, match="cannot be written"), writing_to(Path("out")):
        raise OSError(number, os.strerror(number))


def test_atomic_writes_replace_whole_files(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
    assert stat.S_ISREG(path.stat().st_mode)
