"""A run from and to an object store that fails while it goes on: throttled, away for a while, away for good."""

from disturbed.results import files_below, leftovers, n_committed, promised
from waiting import LIMIT_S, wait_for

from scanner.storage import open_store

UNAVAILABLE, INCOMPLETE = 75, 3


def settings(retries, attempts=9, backoff_s=0.5):
    return {
        "SCANNER_STORAGE__RETRIES": str(retries),
        # A server that is dead refuses connections at once; one that is slow is waited for.
        "SCANNER_STORAGE__TIMEOUT_S": str(LIMIT_S),
        "SCANNER_ENGINE__ATTEMPTS": str(attempts),
        "SCANNER_ENGINE__BACKOFF_S": str(backoff_s),
    }


def without_failures(files):
    """All but the lists of failures, which name the tiles' files and say what is wrong with them there."""
    named = ("failed-tiles.ecsv", "tiles.parquet", "candidates.html")
    return {name: content for name, content in files.items() if name not in named}


def uploaded(few_tiles, storage):
    """The tiles on a server, but for the one that cannot be opened: there it is missing."""
    location = storage.fresh()
    store = open_store(location, storage.config)
    for path in few_tiles.listed.parent.iterdir():
        if path.is_file():
            store.write(path.name, path.read_bytes())
    return f"{location}/tile-list.txt"


def test_a_throttled_server_costs_time_and_nothing_else(s3, faulty_s3, few_tiles, tmp_path):
    """One request of nine is refused as too many, as many lose their connection or their answer."""
    listed, out = uploaded(few_tiles, s3), s3.fresh()
    # Apart from one another: before each further time that a request is given again, the pause doubles.
    faults = {1: "busy", 5: "drop", 10: "busy", 14: "lose"}
    faulty_s3.fault = lambda number, method, path: faults.get(number % 18)
    endpoint = ("--endpoint", faulty_s3.endpoint)
    processes, driver = few_tiles.run(tmp_path, listed, out, *endpoint, **settings(retries=8))
    assert driver.wait() == INCOMPLETE, processes.log("driver")
    assert len(faulty_s3.requests) > 100
    assert without_failures(promised(out, s3.config)) == without_failures(few_tiles.expected)
    assert leftovers(out, s3.config) == []
    assert files_below(processes.temporary) == []


def test_a_server_that_dies_is_told_of_or_waited_for(mortal_s3, few_tiles, refusal, tmp_path):
    storage = mortal_s3.storage
    listed, out = uploaded(few_tiles, storage), storage.fresh()
    run = (tmp_path, listed, out, "--endpoint", storage.endpoint)

    # It does not come back: one sentence, and an exit code that says that the same command may work later.
    processes, driver = few_tiles.run(*run, name="first", **settings(retries=1, attempts=2))
    wait_for("a tile", lambda: n_committed(out, storage.config) >= 1)
    mortal_s3.kill()
    assert driver.wait() == UNAVAILABLE, processes.log("first")
    line = refusal(processes, "first")
    assert "s3://" in line
    assert "does not answer" in line
    assert files_below(processes.temporary) == []

    # It is away for a while: tiles are tried again, and the run ends as if nothing had been.
    mortal_s3.start()
    n_before = n_committed(out, storage.config)
    assert 1 <= n_before < few_tiles.n_good
    processes, driver = few_tiles.run(*run, name="second", **settings(retries=2))
    wait_for("another tile", lambda: n_committed(out, storage.config) > n_before)
    mortal_s3.kill()
    mortal_s3.start()
    assert driver.wait() == INCOMPLETE, processes.log("second")
    assert without_failures(promised(out, storage.config)) == without_failures(few_tiles.expected)
    assert leftovers(out, storage.config) == []
    assert files_below(processes.temporary) == []
