"""Limits hold in processes: what neither DuckDB nor Python can be asked to stop is killed, and others go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting import LIMIT_S, wait_for

from scanner.errors import UnavailableError
from scanner.query.adql.grammar import AdqlError, QueryPlace
from scanner.query.adql.translate import translate
from scanner.query.database import BATCH_BYTES, DatabaseFiles, DatabaseLimits, OutOfMemoryError, OutOfTimeError, time_limit
from scanner.query.processes import ProcessDatabase, QueryProcesses, _data_bytes, rows_of


def planned_for_ever(levels):
    """SQL that DuckDB's planner doubles twice at each level: it takes memory without end, and hears no interruption."""
    value = "range"
    for _ in range(levels):
        value = f"nullif(nullif(sqrt({value}), 'NaN'), '-inf')"
    return f"SELECT {value} AS x FROM range(3)"


@pytest.fixture(name="processes", scope="module")
def processes_fixture():
    processes = QueryProcesses(256)
    yield processes
    processes.close()


@pytest.fixture(name="database", scope="module")
def database_fixture(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(pa.table({"n": np.arange(1000), "name": [f"é{n}" for n in range(1000)]}), folder / "rows.parquet")
    return ProcessDatabase(DatabaseFiles((folder,)), processes)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_rows_come_as_they_are(database):
    file = database.files.paths[0] / "rows.parquet"
    rows = database.query("SELECT * FROM read_parquet(?) WHERE n >= ? ORDER BY n", [str(file), 10])
    assert rows.equals(pq.read_table(file).slice(10))
    none = database.query("SELECT n, name FROM read_parquet(?) WHERE n < 0", [str(file)])
    assert (none.num_rows, none.schema) == (0, rows.schema)
    # Rows of any length come in parts.
    parts = list(database.processes.stream(rows_of, database.files, "SELECT repeat('x', 1000000) AS x FROM range(40)", []))
    assert [part.num_rows for part in parts] == [14, 14, 12]
    assert max(part.nbytes for part in parts) <= BATCH_BYTES


def test_errors_come_as_they_are(database):
    with pytest.raises(AdqlError) as refused:
        database.processes.call(translate, "SELECT x FROM y", {})
    assert refused.value.place == QueryPlace(1, 15)
    assert str(refused.value).startswith("line 1, column 15: there is no table y")
    with pytest.raises(duckdb.PermissionException):
        database.query("SELECT * FROM read_csv('/etc/passwd')")
    # The same process goes on.
    assert database.processes.call(os.getpid) == database.processes.call(os.getpid)


def test_what_cannot_be_interrupted_is_killed(database):
    # The limit of memory does not come first.
    database = ProcessDatabase(database.files, QueryProcesses(30_000))
    pid = database.processes.call(os.getpid)
    with pytest.raises(OutOfTimeError, match=r"longer than 0\.5 s"), time_limit(0.5):
        database.query(planned_for_ever(14))
    wait_for("the end of the process", lambda: not is_there(pid))
    assert database.query("SELECT 7 AS n")["n"].to_pylist() == [7]
    database.processes.close()


def test_memory_that_duckdb_does_not_count_is_limited(database):
    pid = database.processes.call(os.getpid)
    with pytest.raises((OutOfMemoryError, duckdb.Error)), time_limit(LIMIT_S):
        database.query(planned_for_ever(14))
    assert database.query("SELECT 7 AS n")["n"].to_pylist() == [7]
    assert database.processes.call(os.getpid) == pid or not is_there(pid)


def test_memory_that_duckdb_counts_is_limited(database):
    few = ProcessDatabase(DatabaseFiles(database.files.paths, limits=DatabaseLimits(32, 1)), database.processes)
    with pytest.raises(OutOfMemoryError, match="more memory than it may use"):
        few.query("SELECT list(a.range) AS x FROM range(100000000) AS a")
    assert few.query("SELECT 7 AS n")["n"].to_pylist() == [7]


def test_arrow_leaves_the_memory_to_the_query():
    # In a process that is no test's: as the service and the command begin it.
    program = (
        "from scanner.query.processes import QueryProcesses; import json, test_processes; processes = QueryProcesses(2048);"
        "print(json.dumps(processes.call(test_processes.memory_of_a_query))); processes.close()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ARROW_DEFAULT_MEMORY_POOL", None)
    command, here = [sys.executable, "-c", program], Path(__file__).parent
    before, after = json.loads(subprocess.check_output(command, env=environment, cwd=here))
    assert after - before < 300e6


def memory_of_a_query():
    """Bytes of its own that a process has before and after it has sorted a million numbers and sent them through Arrow."""
    before = _data_bytes()
    with duckdb.connect(config={"threads": 2}) as connection:
        for batch in connection.sql("SELECT range AS n FROM range(1000000) ORDER BY n DESC").to_arrow_reader(65_536):
            batch.serialize()
        return before, _data_bytes()


def test_an_answer_that_nobody_wants_to_its_end(database):
    processes = QueryProcesses(128)
    pid = processes.call(os.getpid)
    few = processes.stream(iter, range(3))
    assert next(few) == 0
    few.close()
    # What is left of it is little: the process goes on.
    assert processes.call(os.getpid) == pid
    many = processes.stream(iter, range(10_000_000))
    assert next(many) == 0
    many.close()
    assert processes.call(os.getpid) != pid
    wait_for("the end of the process", lambda: not is_there(pid))
    processes.close()


def test_closing_ends_what_runs():
    processes = QueryProcesses(128)
    pid = processes.call(os.getpid)
    failed = []

    def wait():
        try:
            processes.call(time.sleep, LIMIT_S)
        except UnavailableError as error:
            failed.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for("the work", lambda: processes._busy)
    processes.close()
    thread.join(LIMIT_S)
    assert failed == ["The service is being stopped."]
    wait_for("the end of the process", lambda: not is_there(pid))
    with pytest.raises(UnavailableError):
        processes.call(os.getpid)


PARENT = """
import json, os, threading, time
from scanner.query.processes import QueryProcesses
processes = QueryProcesses(128)
pid = processes.call(os.getpid)
threading.Thread(target=processes.call, args=(time.sleep, 1000), daemon=True).start()
time.sleep(0.1)
print(json.dumps([pid, processes.call(os.getpid)]), flush=True)
time.sleep(1000)
"""


def test_nothing_outlives_a_killed_service():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        pids = json.loads(parent.stdout.readline())
        assert all(map(is_there, pids))
        assert len(set(pids)) == 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for pid in pids:
        wait_for(f"the end of {pid}", lambda pid=pid: not is_there(pid))
