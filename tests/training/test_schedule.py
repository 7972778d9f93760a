import pytest

from scanner.errors import UsageError
from scanner.training.presets import seconds


@pytest.mark.parametrize(("text", "expected"), [("90s", 90.0), ("20m", 1200.0), (" 1.5 h", 5400.0)])
def test_times_are_read_with_their_unit(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "20", "-1s", "0m", "1.5", "1d", "m", "1e3s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="is no time to take"):
        seconds(text)
