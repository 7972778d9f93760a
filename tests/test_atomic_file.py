import pytest

from scanner.atomic_file import replacement, write_atomically
from scanner.errors import OutputError


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")
    with replacement(path) as partial:
        partial.write_bytes(b"new")
        assert partial.parent == tmp_path
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("full"), KeyboardInterrupt(), ValueError()])
def test_what_fails_leaves_the_old_file_alone(tmp_path, failure):
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacement(path) as partial:
            partial.write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "c.json", b"{}")
    assert (tmp_path / "a" / "b" / "c.json").read_bytes() == b"{}"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_atomically(tmp_path / "file" / "c.json", b"{}")
