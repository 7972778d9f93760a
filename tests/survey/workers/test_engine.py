import itertools
import logging
import mmap
import os
import signal
import time

import numpy as np
import pytest
from standing import Bodies, Standing, disturbed, jobs, named, run
from waiting import wait_for

from scanner.errors import UnavailableError
from scanner.survey.workers import cluster, engine
from scanner.survey.workers.engine import run_on_workers


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A scheduler with two workers, for tests that leave them as they were."""
    made = Standing(tmp_path_factory.mktemp("standing"))
    for name in ("w0", "w1"):
        made.worker(name)
    yield made
    made.end()


@pytest.fixture
def own_standing(tmp_path):
    """A scheduler without workers."""
    (tmp_path / "cluster").mkdir()
    made = Standing(tmp_path / "cluster")
    yield made
    made.end()


@pytest.fixture
def bodies(tmp_path):
    (tmp_path / "begun").mkdir()
    return Bodies(tmp_path / "begun")


def test_a_pause_before_the_next_attempt_holds_nobody_up(standing, bodies):
    def behave(tile_id, number, step):
        return "the store is busy" if tile_id == "flaky" and number < 2 else None

    given = jobs("flaky", *(f"t{n}" for n in range(8)), engine__scheduler=standing.address, engine__backoff_s=1.5)
    outcomes = run(given, bodies.work(behave))
    assert list(outcomes)[-1] == "flaky"
    assert all(outcome.commit for outcome in outcomes.values())
    assert len(bodies.begun("flaky")) == 3
    assert len(bodies.begun()) == 8 + 3


def test_after_the_last_attempt_a_tile_has_failed(standing, bodies):
    given = jobs("gone", "here", engine__scheduler=standing.address, engine__attempts=2)
    outcomes = run(given, bodies.work(lambda tile_id, number, step: "no answer" if tile_id == "gone" else None))
    assert outcomes["gone"].failed.reason == "no answer (given up after 2 attempts)"
    assert outcomes["here"].commit is not None
    assert len(bodies.begun("gone")) == 2


def test_what_a_function_raises_costs_its_tile_only(standing, bodies):
    def behave(tile_id, number, step):
        if tile_id == "odd":
            raise ValueError("of all things")

    outcomes = run(jobs("odd", "even", engine__scheduler=standing.address), bodies.work(behave))
    assert outcomes["odd"].failed.reason == "the worker could not run it: ValueError: of all things"
    assert outcomes["even"].commit is not None


def test_a_store_that_is_away_ends_the_run_and_not_the_list(standing, bodies):
    given = jobs(*(f"t{n:02d}" for n in range(40)), engine__scheduler=standing.address, engine__attempts=2)
    coming = run_on_workers(iter(given), 40, given[0].config, bodies.work(lambda *_: "s3://sky: no answer"))
    assert [next(coming).failed is not None for _ in range(4)] == [True] * 4
    with pytest.raises(UnavailableError, match="s3://sky: no answer") as ended:
        next(coming)
    assert ended.value.exit_code == 75
    assert len(bodies.begun("t39")) == 0


def test_jobs_are_taken_as_they_are_needed(standing, bodies):
    taken = []
    given = jobs(*(f"t{n:02d}" for n in range(30)), engine__scheduler=standing.address)

    def giving():
        for job in given:
            taken.append(job)
            yield job

    window = engine.JOBS_IN_FLIGHT * 2
    for n_done, _ in enumerate(run_on_workers(giving(), 30, given[0].config, bodies.work()), start=1):
        assert len(taken) <= n_done + window
    assert n_done == 30
    assert {worker for _, worker in bodies.begun()} == {"w0", "w1"}


def test_progress_comes_to_the_driver(standing, bodies):
    heard = []
    run(jobs("t0", "t1", engine__scheduler=standing.address), bodies.work(lambda tile_id, number, step: step()), heard.append)
    assert sorted(progress.tile_id for progress in heard) == ["t0", "t1"]


def test_both_halves_of_a_tile_apart(standing, bodies):
    def cut(job, on_progress):
        return f"cutouts of {job.tile.tile_id}"

    work = bodies.work()
    scan = work.whole

    def score(job, handed_over, on_progress):
        assert handed_over == f"cutouts of {job.tile.tile_id}"
        return scan(job, on_progress)

    fetched = bodies.folder / "fetched"
    object.__setattr__(work, "cut", cut)
    object.__setattr__(work, "score", score)
    object.__setattr__(work, "remote", lambda job: job.tile.tile_id == "t1")
    object.__setattr__(work, "fetch", lambda job: fetched.write_text(job.tile.tile_id))
    outcomes = run(jobs("t0", "t1", engine__scheduler=standing.address, engine__placement="split"), work)
    assert [outcome.failed for outcome in outcomes.values()] == [None, None]
    assert fetched.read_text() == "t1"


def test_a_second_run_on_one_scheduler_is_refused(standing, bodies, monkeypatch):
    monkeypatch.setattr(cluster, "TURN_SECONDS", 0.5)
    given = jobs("t0", "t1", engine__scheduler=standing.address)
    first = run_on_workers(iter(given), 2, given[0].config, bodies.work())
    next(first)
    with pytest.raises(UnavailableError, match="another run is using this scheduler"):
        run(jobs("t2", engine__scheduler=standing.address), bodies.work())
    assert named(next(first)) in ("t0", "t1")
    first.close()
    assert run(jobs("t2", engine__scheduler=standing.address), bodies.work())["t2"].commit is not None


def test_nobody_with_a_gpu_is_said_once_and_waited_for(standing, bodies, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(engine, "COUNT_SECONDS", 0.05)
    given = jobs("t0", provider="cuda", engine__scheduler=standing.address)
    waiting = run_on_workers(iter(given), 1, given[0].config, bodies.work(), on_gpu=True)
    seen = iter(waiting.__next__, None)

    def stop(record):
        if "offers a GPU" in record.getMessage():
            raise KeyboardInterrupt
        return True

    logger = logging.getLogger("scanner.survey.workers.engine")
    logger.addFilter(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(seen)
    finally:
        logger.removeFilter(stop)
    assert bodies.begun() == []


def test_a_tile_that_kills_its_worker_fails_alone(bodies):
    """On one local worker: what waits behind it is not condemned with it."""

    def behave(tile_id, number, step):
        if tile_id == "segfault":
            step()
            wait_for("the driver to hear", lambda: (heard / str(number)).exists())
            os.kill(os.getpid(), signal.SIGKILL)

    heard = bodies.folder / "heard"
    heard.mkdir()
    given = jobs("segfault", "b0", "b1", engine__workers=1, engine__attempts=2)
    count = itertools.count()
    outcomes = run(given, bodies.work(behave), lambda progress: (heard / str(next(count))).touch())
    reason = outcomes["segfault"].failed.reason
    assert "the worker process died while scanning it; give it more memory" in reason
    assert "after 2 attempts" in reason
    assert len(bodies.begun("segfault")) == 2
    assert outcomes["b0"].commit is not None
    assert outcomes["b1"].commit is not None


def test_memory_of_a_worker(bodies):
    """What a process allocates counts and ends it; pages of memory-mapped mosaics do not."""
    mapped_file = bodies.folder / "mosaic"
    with mapped_file.open("wb") as file:
        file.truncate(600_000_000)

    def behave(tile_id, number, step):
        if tile_id == "greedy":
            kept = np.ones(100_000_000)
            while kept.any():
                time.sleep(0.1)
        if tile_id == "mapped":
            with mapped_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                assert np.frombuffer(mapped, dtype=np.uint8)[::4096].sum() == 0
                time.sleep(1.0)

    given = jobs("mapped", "greedy", engine__workers=1, engine__attempts=1, engine__memory_limit_gb=0.5)
    outcomes = run(given, bodies.work(behave))
    assert outcomes["mapped"].commit is not None
    assert "give it more memory with --memory-gb" in outcomes["greedy"].failed.reason
    assert bodies.begun() == [("greedy", "0"), ("mapped", "0")]


def test_workers_that_come_late_and_die_and_a_scheduler_that_goes(own_standing, bodies):
    """A second worker joins a run and gets tiles, the first is killed and its tile done again; in the next run all is lost."""
    go = bodies.folder / "go"

    def behave(tile_id, number, step):
        while tile_id == "lost" or not go.exists():
            step()
            time.sleep(0.02)

    def come_and_die():
        wait_for("the first tile", lambda: bodies.begun() == [("a0", "w0")])
        own_standing.worker("w1")
        wait_for("a tile on the late worker", lambda: "w1" in {worker for _, worker in bodies.begun()})
        first.kill()
        go.touch()

    def go_away():
        wait_for("a tile", lambda: bodies.begun("lost"))
        own_standing.scheduler.kill()

    first = own_standing.worker("w0")
    own_standing.told("w0", "connected")
    given = jobs("a0", "a1", "a2", engine__scheduler=own_standing.address)
    outcomes = disturbed(given, bodies.work(behave), come_and_die)
    assert all(outcome.commit for outcome in outcomes.values())
    assert bodies.begun("a0") == [("a0", "w0"), ("a0", "w1")]
    with pytest.raises(UnavailableError, match="went away; committed tiles stay"):
        disturbed(jobs("lost", engine__scheduler=own_standing.address), bodies.work(behave), go_away)
