import pytest

from scanner.interface.progress import counted, duration


@pytest.mark.parametrize(("number", "text"), [(0, "0 tiles"), (1, "1 tile"), (2, "2 tiles"), (12_345, "12,345 tiles")])
def test_one_is_singular(number, text) -> None:
    assert counted(number, "tile") == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89.0, "89 s"), (120.0, "2 min"), (7200.0, "2.0 h")])
def test_durations(seconds, text) -> None:
    assert duration(seconds) == text
