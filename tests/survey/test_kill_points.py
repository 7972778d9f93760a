"""Whoever dies at any step of a write leaves the old or the new, or nothing, and the next run goes on to the same bytes."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from disturbed.kill_points import write_results, write_tile
from disturbed.results import leftovers, promised
from made_records import commit_record, run_record

from scanner import __version__
from scanner.config import StorageConfig
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.folder.resume import open_run

TILE = "7"
RECORD = run_record(scanner_version=__version__, tile_list="tiles.txt", tile_ids=(TILE,))


class Mortal:
    """A process whose children write as told and die where told."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "disturbed.kill_points"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )

    def __call__(self, **order):
        order["environment"] = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def end(self):
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def mortal():
    process = Mortal()
    yield process
    process.end()


def tile_content(folder, word):
    """The files of a tile, as a worker writes them."""
    files = {"scores.parquet": word * 1000, "cutouts.zarr/zarr.json": word, "cutouts.zarr/vis/c/0": word * 3}
    for name, content in files.items():
        path = folder / TILE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    commit = commit_record(tile_id=TILE, sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    (folder / TILE / "commit.json").write_bytes(commit.to_bytes())
    return folder / TILE


def results_content(folder, word):
    names = ("candidates.ecsv", "candidates.html", "catalogue/hats.properties", "catalogue/dataset/Norder=0/Npix=4.parquet")
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(word + name.encode())
    return folder


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """How to name a fresh run folder, and how its store is reached."""
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        yield server.fresh, server.config
        return
    # In memory where that can be: a thousand flushes of a disk take half a minute.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield lambda: tempfile.mkdtemp(dir=folder), StorageConfig()


def assert_whole_or_absent(location, storage, contents):
    """A tile that has a record has all the files that the record tells of."""
    folder = RunFolder(open_store(location, storage))
    commit = folder.commit_of(TILE)
    if commit is None:
        return
    assert commit.sha256 in [json.loads((content / "commit.json").read_text())["sha256"] for content in contents]
    for name, expected in commit.sha256.items():
        key = "/".join(part for part in (folder.tile(TILE), commit.place, name) if part)
        assert hashlib.sha256(folder.store.read(key)).hexdigest() == expected


def test_a_worker_that_dies_at_any_step_of_a_commit(place, mortal, tmp_path):
    fresh, storage = place
    content = tile_content(tmp_path / "made", b"made")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def prepared():
        location = fresh()
        with open_run(location, storage, RECORD):
            return location

    order = {"what": "tile", "endpoint": storage.endpoint, "content": str(content), "scratch": str(scratch)}
    undisturbed = prepared()
    steps = mortal(**order, location=undisturbed, at=None)["steps"]
    expected = promised(undisturbed, storage)
    assert len(expected) == 3
    assert len(steps) >= 5
    for at in range(len(steps)):
        location = prepared()
        assert mortal(**order, location=location, at=at)["died"], steps[at]
        assert_whole_or_absent(location, storage, [content])
        with open_run(location, storage, RECORD) as folder:
            assert_whole_or_absent(location, storage, [content])
            if folder.commit_of(TILE) is None:
                write_tile(folder, TILE, content, scratch)
        assert promised(location, storage) == expected, steps[at]
        assert leftovers(location, storage) == [], steps[at]


@pytest.mark.parametrize("again", [False, True], ids=["first", "replaced"])
def test_a_driver_that_dies_at_any_step_of_opening_and_publishing(place, mortal, tmp_path, again):
    fresh, storage = place
    tile = tile_content(tmp_path / "tile", b"tile")
    old, new = results_content(tmp_path / "old", b"old"), results_content(tmp_path / "new", b"new")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def prepared():
        location = fresh()
        if again:
            write_results(location, storage, RECORD, old, scratch)
            with open_run(location, storage, RECORD) as folder:
                write_tile(folder, TILE, tile, scratch)
        return location

    order = {"what": "results", "endpoint": storage.endpoint, "content": str(new), "scratch": str(scratch)}
    order["record"] = RECORD.model_dump_json()
    location = prepared()
    steps = mortal(**order, location=location, at=None)["steps"]
    expected = promised(location, storage)
    assert len(expected) == 4 + 3 * again
    assert len(steps) >= 5
    for at in range(len(steps)):
        location = prepared()
        assert mortal(**order, location=location, at=at)["died"], steps[at]
        assert_whole_or_absent(location, storage, [tile])
        write_results(location, storage, RECORD, new, scratch)
        assert promised(location, storage) == expected, steps[at]
        assert leftovers(location, storage) == [], steps[at]
