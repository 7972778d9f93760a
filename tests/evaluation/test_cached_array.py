import numpy as np
import pytest

from scanner.evaluation import scores

VALUES = np.arange(14, dtype=np.float32).reshape(2, 7)


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "new" / "part.npy"
    assert scores.read_array(path, (2, 7)) is None
    scores.write_array(path, VALUES)
    np.testing.assert_array_equal(scores.read_array(path, (2, 7)), VALUES)
    assert [entry.name for entry in path.parent.iterdir()] == ["part.npy"]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"text" + content])
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    path = tmp_path / "part.npy"
    scores.write_array(path, VALUES)
    path.write_bytes(damage(path.read_bytes()))
    assert scores.read_array(path, (2, 7)) is None


def test_another_shape_or_type_counts_as_missing(tmp_path):
    scores.write_array(tmp_path / "part.npy", VALUES)
    assert scores.read_array(tmp_path / "part.npy", (7, 2)) is None
    np.save(tmp_path / "double.npy", VALUES.astype(np.float64))
    assert scores.read_array(tmp_path / "double.npy", (2, 7)) is None
