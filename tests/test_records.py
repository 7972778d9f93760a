from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import records
from scanner.errors import ContentError
from scanner.records import Float32, Int64


@dataclass(frozen=True)
class Pair:
    left: Float32
    right: Int64


PAIR = Pair(np.arange(5, dtype=np.float32), np.array([[1, 2], [3, 4]]))


def test_arrays_survive_their_file(tmp_path):
    path = tmp_path / "pair.npz"
    records.save_arrays(path, PAIR)
    again = Pair(**records.load_arrays(path, Pair, "a pair"))
    for name, values in vars(PAIR).items():
        np.testing.assert_array_equal(getattr(again, name), values)
        assert getattr(again, name).dtype == values.dtype


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "pair.npz"
    np.savez(path, left=np.array([object()], dtype=object), right=np.zeros(1))
    with pytest.raises(ContentError, match=r"pair\.npz: not a pair \(array 'left' holds object, not float32"):
        records.load_arrays(path, Pair, "a pair")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ContentError, match=r"pair\.npz: not a pair"):
        records.load_arrays(tmp_path / "pair.npz", Pair, "a pair")


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_read_right_or_refused(tmp_path, data):
    path = tmp_path / "pair.npz"
    records.save_arrays(path, PAIR)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    found = None
    with suppress(ContentError):
        found = records.load_arrays(path, Pair, "a pair")
    if found is not None:
        # The checksums of the archive guard the numbers: what can be read at all is what was written.
        np.testing.assert_array_equal(found["left"], PAIR.left)
        np.testing.assert_array_equal(found["right"], PAIR.right)
