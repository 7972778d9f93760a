import threading

import pytest

from scanner.storage.contract import in_order


def test_results_come_in_the_order_of_the_items_whatever_the_threads_do():
    later = threading.Event()

    def work(number):
        if number == 0:
            later.wait()
        if number == 3:
            later.set()
        return number * number

    assert list(in_order(work, range(20), threads=4)) == [number * number for number in range(20)]


def test_items_are_taken_only_a_little_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), threads=2)
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()
    assert len(taken) <= 4


def test_an_error_comes_at_its_turn():
    def work(number):
        if number == 2:
            raise ValueError(number)
        return number

    results = in_order(work, range(10), threads=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)
