import pickle

import pytest

from scanner import errors

KINDS = errors.ScannerError.__subclasses__()


def test_every_kind_has_its_own_code():
    assert {kind.__name__: kind.exit_code for kind in KINDS} == {
        "UsageError": 64,
        "TileListError": 65,
        "InputMissingError": 66,
        "OutputError": 73,
        "UnavailableError": 75,
        "ContentError": 78,
        "TileError": 3,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cross_processes(kind):
    there = pickle.loads(pickle.dumps(kind("a.fits: is not there.")))
    assert type(there) is kind
    assert str(there) == "a.fits: is not there."
    rebuilt = errors.error_with_code(kind.exit_code, "why")
    assert type(rebuilt) is kind
    assert str(rebuilt) == "why"
