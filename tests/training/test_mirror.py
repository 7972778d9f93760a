import os
import random
import signal
import time
from itertools import pairwise

import pytest
from programs import start_scanner
from waiting import wait_for

from scanner.config import StorageConfig
from scanner.errors import ContentError, ScannerError, UsageError
from scanner.storage import open_store
from scanner.training import checkpoint
from scanner.training.checkpoint import FILES, Mirror, Standing

STEPS = [
    Standing(stage=0, step=7),
    Standing(stage=0, step=11),
    Standing(stage=1, step=0),
    Standing(stage=1, step=3),
    Standing(stage=0, step=0, finished=True),
]


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "mirror"), StorageConfig()
    s3 = request.getfixturevalue("s3")
    return s3.fresh(), s3.config


def write_run(folder, text, plan="plan"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES[:-1]:
        (folder / name).write_text(f"{name} {text}")
    (folder / "plan.json").write_text(plan)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def test_its_names_are_those_of_a_run():
    names = {checkpoint.PLAN, checkpoint.CHECKPOINT, checkpoint.MEMBER, checkpoint.FIT}
    assert names <= set(FILES)
    assert (FILES[0], FILES[-1]) == (checkpoint.PLAN, checkpoint.FIT)


def test_further_is_what_is_finished_then_the_stage_then_the_step():
    for before, after in pairwise(STEPS):
        assert after.beyond(before)
        assert not before.beyond(after)
        assert not after.beyond(after)


def test_a_run_comes_back_as_it_was_pushed_last(place, tmp_path):
    mirror = Mirror(place[0], "OU-J", place[1])
    assert not mirror.pull(tmp_path / "nothing", Standing())
    for standing in STEPS[:3]:
        write_run(tmp_path / "here", str(standing))
        mirror.push(tmp_path / "here", standing)
    assert Mirror(place[0], "OU-J", place[1]).pull(tmp_path / "there", Standing())
    assert content(tmp_path / "there") == content(tmp_path / "here")
    assert not Mirror(place[0], "OU-H", place[1]).pull(tmp_path / "another", Standing())


def test_a_folder_that_is_further_than_the_mirror_is_left_alone(place, tmp_path):
    mirror = Mirror(place[0], "OU-J", place[1])
    write_run(tmp_path / "here", "old")
    mirror.push(tmp_path / "here", STEPS[1])
    write_run(tmp_path / "here", "new")
    assert not mirror.pull(tmp_path / "here", STEPS[2])
    assert not mirror.pull(tmp_path / "here", STEPS[1])
    assert content(tmp_path / "here")["checkpoint.pt"] == "checkpoint.pt new"
    assert mirror.pull(tmp_path / "here", STEPS[0])
    assert content(tmp_path / "here")["checkpoint.pt"] == "checkpoint.pt old"


def test_another_run_is_not_mixed_with_it(place, tmp_path):
    mirror = Mirror(place[0], "OU-J", place[1])
    write_run(tmp_path / "here", "one")
    mirror.push(tmp_path / "here", STEPS[1])
    write_run(tmp_path / "there", "other", plan="another plan")
    with pytest.raises(UsageError, match=r"holds another training run than its mirror .*OU-J"):
        mirror.pull(tmp_path / "there", STEPS[3])


@pytest.mark.parametrize("damage", ["altered", "missing", "record", "member"])
def test_damage_is_named(place, tmp_path, damage):
    location, storage = place
    mirror, store = Mirror(location, "OU-J", storage), open_store(f"{location}/OU-J/run", storage)
    write_run(tmp_path / "here", "text")
    mirror.push(tmp_path / "here", STEPS[1])
    files = store.entries()
    attempts = [entry.name for entry in files if entry.is_folder]
    key = "/".join([*attempts, "checkpoint.pt"])
    match damage:
        case "altered":
            store.write(key, b"checkpoint.pt tex!")
        case "missing":
            store.delete(key)
        case "record":
            store.write("state.json", b'{"member": "OU-J"}')
        case "member":
            store.write("state.json", store.read("state.json").replace(b"OU-J", b"OU-H"))
    with pytest.raises(ContentError, match=r"(checkpoint\.pt|state\.json): .*; remove .*OU-J.run to train anew"):
        mirror.pull(tmp_path / "there", Standing())
    assert not (tmp_path / "there" / "checkpoint.pt").exists()


def test_whatever_request_fails_the_mirror_holds_one_state_whole(s3, faulty_s3, tmp_path):
    """The connection is cut at each request in turn, and for good: what a process that dies there leaves."""
    broken = StorageConfig(endpoint=faulty_s3.endpoint, retries=0)
    seen = []
    for last in range(40):
        location, here, there = s3.fresh(), tmp_path / f"{last}", tmp_path / f"{last}-back"
        sound = Mirror(location, "OU-J", s3.config)
        write_run(here, "old")
        sound.push(here, STEPS[1])
        write_run(here, "new")
        begun = len(faulty_s3.requests)
        faulty_s3.fault = lambda number, method, path, end=begun + last: "drop" if number >= end else None
        try:
            Mirror(location, "OU-J", broken).push(here, STEPS[2])
            finished = True
        except ScannerError:
            finished = False
        assert sound.pull(there, Standing())
        seen.append(content(there)["checkpoint.pt"].split()[1])
        assert {text.split()[1] for name, text in content(there).items() if name != "plan.json"} == {seen[-1]}
        if finished and seen[-1] == "new" and len(faulty_s3.requests) < begun + last:
            break
    assert (seen[0], seen[-1]) == ("old", "new")
    assert seen == sorted(seen, reverse=True)
    with sound.held():
        sound.push(here, STEPS[3])
    attempts = {meta["path"].rpartition("/")[0] for meta in open_store(f"{location}/OU-J/run", s3.config).below("")}
    assert len(attempts) == 2, "the record's folder, and one with its files"


PUSHER = """
import sys
from pathlib import Path
from scanner.config import StorageConfig
from scanner.training.checkpoint import FILES, Mirror, Standing

location, folder, endpoint, begin = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
mirror = Mirror(location, "OU-J", StorageConfig(endpoint=endpoint))
with mirror.held():
    (folder / "holds").touch()
    for step in range(begin, begin + 1000):
        for name in FILES[1:-1]:
            (folder / name).write_text(f"{step} " * 10_000)
        mirror.push(folder, Standing(step=step))
        (folder / "pushed").touch()
"""


def test_a_process_that_is_killed_while_it_pushes_leaves_a_state_and_lets_go(s3, tmp_path):
    location, folder = s3.fresh(), tmp_path / "run"
    write_run(folder, "")
    step, chance = 0, random.Random(1)
    for attempt in range(3):
        words = ["-c", PUSHER, location, str(folder), s3.endpoint, str(step + 1)]
        child = start_scanner(words, log=tmp_path / "log", environment=os.environ, folder=tmp_path)
        # On this machine the next holder sees that the one before is dead, and need not wait for its silence.
        done = folder / ("pushed" if attempt else "holds")
        wait_for(done.name, lambda done=done, child=child: done.exists() or child.poll() is not None)
        time.sleep(chance.uniform(0.1, 0.6))
        child.kill()
        assert child.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
        for name in ("holds", "pushed"):
            (folder / name).unlink(missing_ok=True)
        there = tmp_path / f"back-{attempt}"
        mirror = Mirror(location, "OU-J", s3.config)
        if mirror.pull(there, Standing(step=step)):
            texts = {text for name, text in content(there).items() if name != "plan.json"}
            assert len(texts) == 1
            assert int(texts.pop().split()[0]) > step
            step = mirror._record().standing.step
    assert step > 0
