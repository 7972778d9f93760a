"""Jobs: of the running server by pyvo and by hand, and their book with real work."""

import asyncio
import functools
import gc
import io
import threading
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
import pyvo
from astropy.io.votable import parse
from prometheus_client import CollectorRegistry
from waiting import LIMIT_S, wait_for

from scanner.query import database
from scanner.service.context import WorkThreads
from scanner.service.errors import BadRequestError, BusyError, NotFoundError
from scanner.service.security import ServiceInstruments, new_token
from scanner.service.settings import LimitsConfig, load
from scanner.service.vo.tap import FINAL, JobBook

UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
QUERY = "SELECT candidate_id, ra, p_calibrated FROM objects ORDER BY rank"


#: pyvo reads answers as far as it needs them, and leaves their connections to the garbage collector.
left_open = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(name="tap")
def tap_fixture(server):
    yield pyvo.dal.TAPService(f"{server.url}/tap")
    gc.collect()


@pytest.fixture(name="post")
def post_fixture(server):
    """Post a form to a path below /tap/async; gives the path it leads to, without that."""

    def post(path="", **form):
        answer = server.client.post(f"/tap/async{path}", data=form)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith(f"{server.url}/tap/async")
        return answer.headers["location"].removeprefix(f"{server.url}/tap/async")

    return post


@pytest.fixture(name="told")
def told_fixture(server):
    """What the document of a job says, by the names of its elements."""

    def told(job, **parameters):
        document = ET.fromstring(server.get(f"/tap/async{job}", params=parameters).content)
        return {element.tag.removeprefix(UWS): element for element in document}

    return told


def phase(told, job, **parameters):
    return told(job, **parameters)["phase"].text


@left_open
def test_pyvo_async(tap, rows):
    found = tap.run_async(QUERY)
    assert found["ra"].tolist() == rows["ra"].to_pylist()
    job = tap.submit_job(QUERY, maxrec=3)
    assert job.phase == "PENDING"
    job.run().wait(phases=["COMPLETED", "ERROR"], timeout=LIMIT_S)
    assert job.phase == "COMPLETED"
    found = job.fetch_result()
    assert found.status == ("OVERFLOW", "there are more than 3 rows")
    assert found["ra"].tolist() == rows["ra"].to_pylist()[:3]
    assert job.url in {f"{tap.baseurl}/async/{known.jobid}" for known in tap.get_job_list()}
    job.delete()
    assert job.url not in {f"{tap.baseurl}/async/{known.jobid}" for known in tap.get_job_list()}


@left_open
def test_pyvo_async_error(tap):
    job = tap.submit_job("SELECT nonsense FROM objects")
    job.run().wait(phases=["ERROR"], timeout=LIMIT_S)
    with pytest.raises(pyvo.dal.DALQueryError, match="line 1, column 8: objects has no column nonsense"):
        job.raise_if_error()
    job.delete()


def test_a_jobs_life(server, post, told, rows):
    job = post(LANG="ADQL", QUERY="SELECT ra FROM nothing", RUNID="mine", MAXREC="2")
    about = told(job)
    assert (about["phase"].text, about["runId"].text, about["jobId"].text) == ("PENDING", "mine", job.strip("/"))
    assert {one.get("id"): one.text for one in about["parameters"]} == {
        "LANG": "ADQL",
        "QUERY": "SELECT ra FROM nothing",
        "MAXREC": "2",
    }
    assert server.get(f"/tap/async{job}/results/result").status_code == 404
    # Until it is started, a job can be changed.
    assert post(f"{job}/parameters", QUERY=QUERY) == job
    assert post(f"{job}/executionduration", EXECUTIONDURATION="77") == job
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert post(f"{job}/destruction", DESTRUCTION=soon.isoformat()) == job
    about = told(job)
    assert about["executionDuration"].text == server.get(f"/tap/async{job}/executionduration").text == "77"
    assert about["destruction"].text[:19] == soon.isoformat()[:19]
    assert post(f"{job}/destruction", DESTRUCTION=soon.astimezone(timezone(timedelta(hours=5))).isoformat()) == job
    assert told(job)["destruction"].text[:19] == soon.isoformat()[:19]
    assert post(f"{job}/phase", PHASE="RUN") == job
    while phase(told, job) not in FINAL:
        told(job, WAIT="5")
    about = told(job)
    assert about["phase"].text == server.get(f"/tap/async{job}/phase").text == "COMPLETED"
    (result,) = about["results"]
    assert result.get("{http://www.w3.org/1999/xlink}href") == f"{server.url}/tap/async{job}/results/result"
    answer = server.get(f"/tap/async{job}/results/result")
    assert answer.headers["content-type"] == result.get("mime-type") == "application/x-votable+xml"
    document = parse(io.BytesIO(answer.content), verify="exception")
    assert document.get_first_table().array["ra"].tolist() == rows["ra"].to_pylist()[:2]
    assert document.resources[0].infos[-1].value == "OVERFLOW"
    for late in ({"QUERY": "SELECT 1 FROM objects"}, {"EXECUTIONDURATION": "9"}):
        assert server.client.post(f"/tap/async{job}", data=late).status_code == 400
    assert server.client.post(f"/tap/async{job}", data={"PHASE": "RUN"}).status_code == 303
    assert phase(told, job) == "COMPLETED"
    assert post(job, ACTION="DELETE") == ""
    assert server.get(f"/tap/async{job}").status_code == 404
    assert server.get(f"/tap/async{job}/results/result").status_code == 404


def test_errors_of_jobs(server, post, told):
    job = post(QUERY="SELECT 9223372036854775807 + rank FROM objects", LANG="ADQL", PHASE="RUN")
    while phase(told, job, WAIT="5") not in FINAL:
        pass
    summary = told(job)["errorSummary"]
    assert "larger than a column can hold" in summary.findtext(f"{UWS}message")
    document = parse(io.BytesIO(server.get(f"/tap/async{job}/error").content), verify="exception")
    assert document.resources[0].infos[0].value == "ERROR"
    assert document.resources[0].infos[0].content == summary.findtext(f"{UWS}message")
    assert server.get(f"/tap/async{job}/results/result").status_code == 404
    assert server.client.delete(f"/tap/async{job}").status_code == 303


def test_aborted_before_it_began(server, post, told):
    job = post(QUERY=QUERY, LANG="ADQL")
    post(f"{job}/phase", PHASE="ABORT")
    assert phase(told, job) == "ABORTED"
    post(f"{job}/phase", PHASE="RUN")
    assert phase(told, job) == "ABORTED"
    listed = ET.fromstring(server.get("/tap/async", params={"PHASE": "ABORTED", "LAST": "1"}).content)
    assert [one.get("id") for one in listed] == [job.strip("/")]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("", {"QUERY": QUERY, "UPLOAD": "t,http://localhost/t.vot"}),
        ("{job}/destruction", {"DESTRUCTION": "tomorrow"}),
        ("{job}/executionduration", {"EXECUTIONDURATION": "-3"}),
        ("{job}/phase", {"PHASE": "SLEEP"}),
    ],
)
def test_what_jobs_refuse(server, post, path, form):
    answer = server.client.post(f"/tap/async{path.format(job=post(QUERY=QUERY))}", data=form)
    assert answer.status_code == 400
    assert b"QUERY_STATUS" in answer.content


def test_a_time_that_has_come(server, post):
    job = post(QUERY=QUERY)
    post(f"{job}/destruction", DESTRUCTION="2020-01-01T00:00:00Z")
    for path in (job, f"{job}/phase", f"{job}/results"):
        assert server.get(f"/tap/async{path}").status_code == 404


def test_many_ask_while_a_job_runs(make_server, served_run, tmp_path):
    """Twelve threads poll, start, wait for and fetch the same jobs; every answer is that of a job's life."""
    config = load(None, {"limits.requests_per_minute": 0, "grading.path": str(tmp_path / "grades.sqlite")}, {})
    seen, wrong = [], []

    def poll(server, jobs, number):
        for round_ in range(12):
            job = jobs[(number + round_) % len(jobs)]
            if number % 3 == 0:
                server.client.post(f"{job}/phase", data={"PHASE": "RUN"})
            answer = server.get(job, params={"WAIT": "1"} if number % 2 else {})
            found = ET.fromstring(answer.content)
            state, results = found.findtext(f"{UWS}phase"), list(found.find(f"{UWS}results"))
            seen.append(state)
            if (state == "COMPLETED") != bool(results):
                wrong.append(answer.text)
            if state == "COMPLETED" and server.get(f"{job}/results/result").status_code != 200:
                wrong.append(job)

    with make_server(config, served_run) as server:
        made = [server.client.post("/tap/async", data={"QUERY": QUERY, "LANG": "ADQL"}) for _ in range(4)]
        jobs = [answer.headers["location"].removeprefix(server.url) for answer in made]
        threads = [threading.Thread(target=poll, args=(server, jobs, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(seen) == 144
        assert set(seen) <= {"PENDING", "QUEUED", "EXECUTING", "COMPLETED"}
        for job in jobs:
            wait_for(job, lambda job=job: server.get(f"{job}/phase").text == "COMPLETED")


def book(**changes):
    arguments = {"at_a_time": 1, "duration_s": 60, "retention": timedelta(hours=1), "max_jobs": 3, "max_each": 3}
    return JobBook(**(arguments | changes))


def endless(connection):
    """A query of a real database that would take hours."""
    with database.interruptible(connection):
        connection.sql("SELECT sum(sin(a.range) * b.range) FROM range(10000000) AS a, range(1000000) AS b").fetchall()


@pytest.fixture(name="work")
def work_fixture():
    work = WorkThreads(LimitsConfig(workers=1, queue=8, seconds=LIMIT_S), ServiceInstruments(CollectorRegistry()))
    yield work
    work.close()


async def eventually(holds):
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_abort_interrupts_the_database(work):
    async def live():
        jobs = book()
        connection = duckdb.connect()
        job = jobs.create({}, None, "here")

        async def run(path, seconds):
            await work.run(endless, connection, seconds=seconds)
            return "text/plain"

        jobs.start(job, run)
        waiting = asyncio.create_task(jobs.wait(job, 30, "QUEUED"))
        await eventually(lambda: job.phase == "EXECUTING")
        await waiting
        await asyncio.sleep(0.2)
        jobs.abort(job)
        assert job.phase == "ABORTED"
        assert job.ended is not None
        # The only thread is free again, so the query has ended.
        assert await work.run(lambda: 7, seconds=LIMIT_S) == 7
        await eventually(job.task.done)
        assert job.phase == "ABORTED"
        jobs.close()

    asyncio.run(live())


def test_a_job_that_takes_too_long(work):
    async def live():
        jobs = book(duration_s=1)
        connection = duckdb.connect()
        job = jobs.create({}, None, "here")

        async def run(path, seconds):
            await work.run(endless, connection, seconds=seconds)
            return "text/plain"

        jobs.limit(job, 0)
        assert job.duration_s == 1
        jobs.start(job, run)
        await eventually(lambda: job.phase in FINAL)
        assert (job.phase, "longer than 1 s" in job.error) == ("ERROR", True)
        jobs.close()

    asyncio.run(live())


def test_one_at_a_time_and_no_more_than_there_is_room_for():
    async def live():
        jobs = book()
        running, most = [], []
        gate = asyncio.Event()

        async def run(path, seconds):
            running.append(path)
            most.append(len(running))
            await gate.wait()
            path.write_text(path.name)
            running.remove(path)
            return "text/plain"

        made = [jobs.create({}, "me", "me") for _ in range(3)]
        for job in made:
            jobs.start(job, run)
        await eventually(lambda: running)
        assert [job.phase for job in made] == ["EXECUTING", "QUEUED", "QUEUED"]
        with pytest.raises(BusyError):
            jobs.create({}, "me", "me")
        jobs.abort(made[1])
        gate.set()
        await eventually(lambda: all(job.phase in FINAL for job in made))
        assert [job.phase for job in made] == ["COMPLETED", "ABORTED", "COMPLETED"]
        assert max(most) == 1
        assert jobs.result(made[0]).read_text() == made[0].identifier
        # The oldest one that is over makes room.
        fourth = jobs.create({}, "you", "you")
        with pytest.raises(NotFoundError):
            jobs.get(made[0].identifier, "me")
        assert not jobs.result(made[0]).exists()
        assert [job.identifier for job in jobs.of("me")] == [made[2].identifier, made[1].identifier]
        assert [job.identifier for job in jobs.of("you")] == [fourth.identifier]
        assert list(jobs.of(None)) == []
        with pytest.raises(BadRequestError):
            jobs.limit(made[2], 3)
        # Then the next one that is over; and then one's own that nobody started, not the last one of others.
        kept = [jobs.create({}, "you", "you") for _ in range(3)]
        assert [job.identifier for job in jobs.of("you")] == [kept[2].identifier, kept[1].identifier]
        assert [job.identifier for job in jobs.of("me")] == [made[2].identifier]
        folder = jobs.result(fourth).parent
        jobs.close()
        assert not folder.exists()

    asyncio.run(live())


def test_nobodys_jobs_make_room_for_those_of_who_has_more():
    """101 jobs that one reader never started drove out all that others had finished."""

    async def live():
        jobs = book(max_jobs=6, max_each=4)

        async def run(path, seconds):
            path.write_text("rows")
            return "text/plain"

        others = [jobs.create({}, name, name) for name in ("ada", "ben")]
        for job in others:
            jobs.start(job, run)
        await eventually(lambda: all(job.phase == "COMPLETED" for job in others))
        many = [jobs.create({}, "eve", "eve") for _ in range(50)]
        for job in others:
            assert jobs.get(job.identifier, job.owner).phase == "COMPLETED"
            assert jobs.result(job).exists()
        assert [job.identifier for job in jobs.of("eve")] == [job.identifier for job in many[:-5:-1]]
        # Where there is no room for anybody, whoever has most gives up one.
        newcomers = [jobs.create({}, "cy", "cy") for _ in range(2)]
        assert [len(list(jobs.of(name))) for name in ("ada", "ben", "eve", "cy")] == [1, 1, 2, 2]
        assert jobs.get(newcomers[0].identifier, "cy") is newcomers[0]
        jobs.close()

    asyncio.run(live())


def test_who_started_many_jobs_waits_for_who_started_one():
    async def live():
        jobs, order, gate = book(max_jobs=10, max_each=5, at_a_time=2), [], asyncio.Event()

        async def run(name, path, seconds):
            order.append(name)
            await gate.wait()
            return "text/plain"

        for name in ("eve", "eve", "eve", "ada"):
            jobs.start(jobs.create({}, name, name), functools.partial(run, name))
        await eventually(lambda: len(order) == 2)
        gate.set()
        await eventually(lambda: len(order) == 4)
        assert order == ["eve", "eve", "ada", "eve"]
        gate.clear()
        for _ in range(5):
            jobs.start(jobs.create({}, "eve", "eve"), functools.partial(run, "eve"))
        with pytest.raises(BusyError):
            jobs.create({}, "eve", "eve")
        assert jobs.create({}, "ada", "ada").phase == "PENDING"
        jobs.close()

    asyncio.run(live())


def test_a_job_is_seen_by_its_owner_alone(make_server, served_run, tmp_path):
    """Its address was the only key: whoever saw it in a log could read, abort and remove the job."""
    tokens, lines = {}, []
    for name in ("ada", "eve"):
        tokens[name], line = new_token(name, "read")
        lines.append(f"{line}\n")
    (tmp_path / "tokens.txt").write_text("".join(lines))
    settings = {"access.tokens": str(tmp_path / "tokens.txt"), "grading.path": str(tmp_path / "grades.sqlite")}
    with make_server(load(None, settings, {}), served_run) as server:
        ada, eve = ({"Authorization": f"Bearer {tokens[name]}"} for name in ("ada", "eve"))
        form = {"QUERY": QUERY, "LANG": "ADQL", "PHASE": "RUN"}
        job = server.client.post("/tap/async", data=form, headers=ada).headers["location"]
        wait_for("the job", lambda: server.client.get(f"{job}/phase", headers=ada).text == "COMPLETED")
        for part in ("", "/phase", "/results/result", "/parameters", "/owner", "/error"):
            assert server.client.get(f"{job}{part}", headers=eve).status_code == 404
        for sent in ({"PHASE": "ABORT"}, {"ACTION": "DELETE"}):
            assert server.client.post(job, data=sent, headers=eve).status_code == 404
        assert server.client.delete(job, headers=eve).status_code == 404
        assert server.client.get(f"{job}/results/result", headers=ada).status_code == 200


def test_a_failure_is_told_without_what_it_was(caplog):
    async def live():
        jobs = book()
        job = jobs.create({}, None, "here")

        async def run(path, seconds):
            raise RuntimeError("/secret/path")

        jobs.start(job, run)
        await eventually(lambda: job.phase in FINAL)
        assert (job.phase, job.error) == ("ERROR", "The service failed; its log says why.")
        jobs.close()

    asyncio.run(live())
    assert "/secret/path" in caplog.text
