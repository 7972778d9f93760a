import numpy as np
import pytest

from scanner.evaluation import cached_array

VALUES = np.arange(14, dtype=np.float32).reshape(2, 7)


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "new" / "part.npy"
    assert cached_array.read(path, (2, 7)) is None
    cached_array.write(path, VALUES)
    np.testing.assert_array_equal(cached_array.read(path, (2, 7)), VALUES)
    assert [entry.name for entry in path.parent.iterdir()] == ["part.npy"]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"text" + content])
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    path = tmp_path / "part.npy"
    cached_array.write(path, VALUES)
    path.write_bytes(damage(path.read_bytes()))
    assert cached_array.read(path, (2, 7)) is None


def test_another_shape_or_type_counts_as_missing(tmp_path):
    cached_array.write(tmp_path / "part.npy", VALUES)
    assert cached_array.read(tmp_path / "part.npy", (7, 2)) is None
    np.save(tmp_path / "double.npy", VALUES.astype(np.float64))
    assert cached_array.read(tmp_path / "double.npy", (2, 7)) is None
