import pytest

from scanner.config import EngineConfig
from scanner.processes import cores
from scanner.survey.workers.cluster import workers_wanted

ELSEWHERE = {"listen": "tcp://0.0.0.0:8786"}


@pytest.mark.parametrize(
    ("settings", "n_jobs", "expected"),
    [
        (ELSEWHERE, 1000, 1000),
        (ELSEWHERE | {"workers": 20}, 1000, 20),
        (ELSEWHERE | {"workers": 20}, 3, 3),
        ({"scheduler": "tcp://head:8786"}, 7, 7),
        ({"workers": 2}, 1000, 2),
        ({}, 10_000, cores()),
        ({}, 1, 1),
    ],
)
def test_as_many_as_there_are_tiles_and_not_more_than_the_settings_allow(settings, n_jobs, expected):
    assert workers_wanted(EngineConfig(**settings), n_jobs) == expected
