import threading
import time

import pytest

from scanner.survey.scan.pipeline import Stopwatch


def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_has_the_processor_time_of_its_own_thread_alone():
    watch, began = Stopwatch(), threading.Event()

    def elsewhere():
        began.wait()
        spin(0.05)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with watch.stage("score"):
        began.set()
        thread.join()
    assert watch.seconds["score"] >= 0.05
    assert watch.core_seconds["score"] < 0.05
    assert watch.core_seconds["other"] >= 0.045


def test_what_other_threads_did_for_a_stage_can_be_added():
    watch = Stopwatch()
    thread = threading.Thread(target=spin, args=(0.03,))
    thread.start()
    thread.join()
    before = watch.core_seconds["other"]
    watch.add_core_seconds("score", 0.03)
    assert watch.core_seconds["score"] == 0.03
    assert watch.core_seconds["other"] <= before - 0.025
    assert watch.seconds.keys() == {"score", "tile"}


def test_stages_of_other_tiles_are_not_this_ones():
    watch, other = Stopwatch(), Stopwatch()
    with other.stage("fetch"):
        spin(0.05)
    assert watch.core_seconds["other"] < 0.05


def test_items_come_through_and_are_timed():
    watch = Stopwatch()

    def slow():
        for item in range(3):
            spin(0.01)
            yield item

    assert list(watch.each("cut", slow())) == [0, 1, 2]
    assert watch.core_seconds["cut"] >= 0.03


def test_a_stage_that_fails_counts_too():
    watch = Stopwatch()

    def fail():
        with watch.stage("cut"):
            spin(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watch.core_seconds["cut"] >= 0.01


def test_another_process_is_added_up():
    watch = Stopwatch()
    watch.add({"cut": 3.0, "tile": 5.0}, {"cut": 2.0, "other": 1.0})
    assert watch.seconds["cut"] == 3.0
    assert watch.seconds["tile"] >= 5.0
    assert watch.core_seconds["cut"] == 2.0
    assert watch.core_seconds["other"] >= 1.0
    watch.begin()
    assert watch.seconds["tile"] >= 5.0
