"""Who holds a folder of an object store, when holders are killed, fall silent, or come back."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time

import pytest
from waiting import LIMIT_S

from scanner.errors import OutputError
from scanner.storage import lease, open_store

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def location(s3):
    return s3.fresh()


@pytest.fixture
def hasty(monkeypatch):
    """Holders that give signs of life every tenth of a second."""
    monkeypatch.setattr(lease, "RENEW_S", 0.1)


def hold(location, config, held, leave):
    with open_store(location, config).held():
        held.set()
        leave.wait()


@pytest.fixture
def holder(s3, location):
    held, leave = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(location, s3.config, held, leave))
    process.start()
    assert held.wait(LIMIT_S)
    yield process, leave
    if process.is_alive():
        # One that was killed in its wait would be waited for.
        leave.set()
    process.join()


def on_another_machine(store):
    """Make the lease that is there look like that of a process elsewhere."""
    record = json.loads(store.read(".lock"))
    store.write(".lock", json.dumps(record | {"host": "elsewhere"}).encode())


def test_a_living_holder_is_named_and_one_that_left_is_followed(s3, location, holder):
    process, leave = holder
    store = open_store(location, s3.config)
    words = rf"{re.escape(location)}: another scanner run \(process {process.pid} on .*\) is writing"
    with pytest.raises(OutputError, match=words), store.held():
        pass
    leave.set()
    process.join()
    assert process.exitcode == 0
    with store.held():
        assert json.loads(store.read(".lock"))["pid"] == os.getpid()
    assert store.holder() == ""


def test_a_holder_of_this_machine_that_was_killed_is_followed_at_once(s3, location, holder, monkeypatch):
    process, _ = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    monkeypatch.setattr(lease.Lease, "_falls_silent", None)
    with open_store(location, s3.config).held():
        pass


def test_a_process_that_has_a_dead_holder_s_number_is_not_taken_for_it(s3, location):
    store = open_store(location, s3.config)
    with store.held():
        record = json.loads(store.read(".lock"))
    store.write(".lock", json.dumps(record | {"process": "1"}).encode())
    with store.held():
        pass


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_silent_holder_of_another_machine_is_followed_after_a_while(s3, location, monkeypatch, content):
    monkeypatch.setattr(lease, "SILENT_S", 1.0)
    store = open_store(location, s3.config)
    with store.held():
        record = json.loads(store.read(".lock")) | {"host": "elsewhere"}
    store.write(".lock", content or json.dumps(record).encode())
    with store.held():
        assert json.loads(store.read(".lock"))["token"] != record["token"]


def test_a_holder_of_another_machine_that_gives_a_sign_is_not(s3, location):
    store, other = open_store(location, s3.config), open_store(location, s3.config)
    elsewhere = lease.Lease(other.bucket, other.path(".lock"), other.root)
    elsewhere._put("create")
    on_another_machine(store)
    signs = threading.Event()

    def sign():
        while not signs.wait(0.2):
            on_another_machine_again(store)

    thread = threading.Thread(target=sign)
    thread.start()
    try:
        with pytest.raises(OutputError, match=r"another scanner run \(process \d+ on elsewhere\)"), store.held():
            pass
    finally:
        signs.set()
        thread.join()


def test_a_holder_of_another_machine_that_leaves_is_followed_at_once(s3, location):
    store = open_store(location, s3.config)
    elsewhere = lease.Lease(store.bucket, store.path(".lock"), store.root)
    elsewhere._put("create")
    on_another_machine(store)
    leaving = threading.Timer(0.5, elsewhere.release)
    leaving.start()
    with store.held() as hold:
        assert store.holder() == hold
    leaving.join()


def on_another_machine_again(store):
    record = json.loads(store.read(".lock"))
    store.write(".lock", json.dumps(record | {"renewed": "2026-01-01T00:00:00Z", "token": record["token"] + "x"}).encode())


def test_the_lease_is_renewed_while_it_is_held(s3, location, hasty):
    store = open_store(location, s3.config)
    with store.held():
        first = store.read(".lock")
        while store.read(".lock") == first:
            pass
        assert json.loads(store.read(".lock"))["token"] == json.loads(first)["token"]


def test_a_lease_that_was_taken_over_is_noticed_by_the_next_write_and_at_the_end(s3, location, hasty):
    store = open_store(location, s3.config)
    taken_over = "took this folder over"
    held = store.held()
    held.__enter__()
    on_another_machine(store)
    record = json.loads(store.read(".lock"))
    other = open_store(location, s3.config)
    other.write(".lock", json.dumps(record | {"token": "of another"}).encode())
    while not store._lease._lost:
        pass
    for call in (lambda: store.write("a", b""), lambda: store.create("a", b""), lambda: store.delete("a")):
        with pytest.raises(OutputError, match=taken_over):
            call()
    with pytest.raises(OutputError, match=taken_over):
        held.__exit__(None, None, None)
    # What the other holds is left alone.
    assert json.loads(store.read(".lock"))["token"] == "of another"
    assert store.entries() == ()


def test_a_holder_that_slept_asks_before_it_writes(s3, location, monkeypatch):
    store = open_store(location, s3.config)
    held = store.held()
    held.__enter__()
    open_store(location, s3.config).write(".lock", b"of another")
    store.write("a", b"soon after the last sign of life")
    monkeypatch.setattr(lease, "SILENT_S", 0.0)
    with pytest.raises(OutputError, match="took this folder over"):
        store.write("a", b"late")
    assert store.read("a") == b"soon after the last sign of life"
    with pytest.raises(OutputError, match="took this folder over"):
        held.__exit__(None, None, None)


@pytest.mark.parametrize("hours", [3, -3])
def test_a_holder_whose_machine_slept_or_whose_clock_jumped_asks_before_it_writes(s3, location, monkeypatch, hours):
    """The monotonic clock stands still while a machine sleeps; another may have taken the folder over meanwhile."""
    store = open_store(location, s3.config)
    held = store.held()
    held.__enter__()
    open_store(location, s3.config).write(".lock", b"of another")
    monkeypatch.setattr(lease.time, "time", lambda now=time.time: now() + hours * 3600)
    with pytest.raises(OutputError, match="took this folder over"):
        store.write("a", b"late")
    with pytest.raises(OutputError, match="took this folder over"):
        held.__exit__(None, None, None)
    assert not store.exists("a")


def test_a_clock_that_jumps_costs_no_lease(s3, location, hasty, monkeypatch):
    store = open_store(location, s3.config)
    with store.held() as hold:
        for hours in (3, -3, 0):
            monkeypatch.setattr(lease.time, "time", lambda now=time.time, hours=hours: now() + hours * 3600)
            store.write("a", b"%d" % hours)
            assert store.holder() == hold


def test_a_server_that_is_away_for_a_while_costs_no_lease(s3, faulty_s3, hasty, location):
    store = open_store(location, faulty_s3.config(retries=0))
    with store.held():
        seen = threading.Event()

        def away(number, method, path):
            if method == "PUT":
                seen.set()
            return "busy"

        faulty_s3.fault = away
        assert seen.wait(LIMIT_S)
        faulty_s3.fault = lambda *_: None
        store.write("a", b"x")
    assert open_store(location, s3.config).read("a") == b"x"


@pytest.mark.parametrize("ignored", ["if-none-match", "if-match"])
def test_a_server_that_ignores_conditions_is_refused(faulty_s3, location, ignored):
    writes = iter(range(100))
    first = 0 if ignored == "if-none-match" else 2
    faulty_s3.fault = lambda number, method, path: "unconditional" if method == "PUT" and next(writes) >= first else None
    store = open_store(location, faulty_s3.config())
    with pytest.raises(OutputError, match="ignores the conditions of writes"), store.held():
        pass
    assert store.holder() == ""


def test_answers_that_are_lost_cost_no_lease(s3, faulty_s3, location, hasty):
    store = open_store(location, faulty_s3.config(retries=3))
    lost = iter(range(100))
    faulty_s3.fault = lambda number, method, path: "lose" if method == "PUT" and next(lost) % 2 == 0 else None
    with store.held():
        before = store.read(".lock")
        while store.read(".lock") == before:
            pass
    assert store.holder() == ""


def contend(location, config, begin, number, results):
    store = open_store(location, config)
    begin.wait()
    made = store.create("one", b"%d" % number)
    try:
        with store.held():
            results.put((number, made, True))
            begin.wait()
    except OutputError:
        results.put((number, made, False))
        begin.wait()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_processes_that_race_one_makes_the_file_and_one_holds_the_store(s3, tmp_path, kind):
    location = s3.fresh() if kind == "s3" else str(tmp_path / "store")
    begin, results = SPAWN.Barrier(3), SPAWN.Queue()
    processes = [SPAWN.Process(target=contend, args=(location, s3.config, begin, number, results)) for number in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=LIMIT_S) for _ in processes]
    for process in processes:
        process.join()
    makers = [number for number, made, _ in found if made]
    assert len(makers) == 1
    assert open_store(location, s3.config).read("one") == b"%d" % makers[0]
    assert [holds for _, _, holds in found].count(True) == 1
