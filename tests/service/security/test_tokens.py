import os
from pathlib import Path

import pytest

from scanner.errors import ContentError, InputMissingError
from scanner.service.security import VARIABLE, TokenBook, new_token, parse


def written(tmp_path, *lines):
    file = tmp_path / "tokens.txt"
    file.write_text("\n".join(map(str, lines)))
    return file


def test_a_token_is_known_by_its_hash_alone(tmp_path):
    token, line = new_token("Ada L", "grade")
    file = written(tmp_path, "# ours", "", f"{line}  # until June")
    assert token not in file.read_text()
    book = TokenBook(str(file), {})
    assert book.find(token) == line
    assert (line.name, line.role) == ("Ada L", "grade")
    assert book.find(token + "x") is None
    assert book.find(line.digest) is None
    assert book.find("") is None


def test_tokens_are_long_and_never_the_same():
    tokens = {new_token("a", "read")[0] for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


def test_tokens_come_from_the_environment_too(tmp_path):
    (one, first), (two, second) = new_token("one", "read"), new_token("two", "grade")
    book = TokenBook(str(written(tmp_path, first)), {VARIABLE: f"{second};"})
    assert (book.find(one), book.find(two)) == (first, second)
    assert not TokenBook(None, {})


@pytest.mark.parametrize(
    "line",
    ["ada", "ada admin sha256:" + "0" * 64, "ada read sha256:xyz", "ada read md5:" + "0" * 64, "<b> read sha256:" + "0" * 64],
)
def test_other_lines_are_refused_with_their_number(line):
    with pytest.raises(ContentError, match="somewhere: line 2 "):
        parse(f"# ours\n{line}", "somewhere")


def test_one_token_has_one_owner():
    _, line = new_token("ada", "read")
    with pytest.raises(ContentError, match="the same token"):
        parse(f"{line}\n{line}", "somewhere")


def test_files_without_tokens_are_refused(tmp_path):
    with pytest.raises(ContentError, match="no token in it"):
        TokenBook(str(written(tmp_path, "# none")), {})
    with pytest.raises(InputMissingError, match="nowhere"):
        TokenBook(str(tmp_path / "nowhere"), {})


def change(file, text):
    file.write_text(text)
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))


def test_a_token_that_is_removed_is_of_no_use_at_once(tmp_path):
    (one, first), (two, second) = new_token("one", "read"), new_token("two", "read")
    file = written(tmp_path, first, second)
    book = TokenBook(str(file), {})
    assert book.find(one) == first
    change(file, str(second))
    assert (book.find(one), book.find(two)) == (None, second)
    # Locked, not open.
    change(file, "")
    assert book.find(two) is None
    assert book


def test_a_file_that_could_not_be_read_is_read_when_it_can_be(tmp_path, monkeypatch):
    """Neither its time nor its size tells that somebody may read it now."""
    (one, first), (two, second) = new_token("one", "read"), new_token("two", "read")
    file = written(tmp_path, first, second)
    book = TokenBook(str(file), {})

    def refuse(self, encoding):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as unreadable:
        unreadable.setattr(Path, "read_text", refuse)
        change(file, str(second))
        assert book.find(one) == first
    status = file.stat()
    file.chmod(0o600 if status.st_mode & 0o777 != 0o600 else 0o640)
    assert (file.stat().st_mtime_ns, file.stat().st_size) == (status.st_mtime_ns, status.st_size)
    assert (book.find(one), book.find(two)) == (None, second)


def test_a_file_that_is_damaged_later_changes_nothing(tmp_path, caplog):
    token, line = new_token("one", "read")
    file = written(tmp_path, line)
    book = TokenBook(str(file), {})
    change(file, "nonsense")
    assert book.find(token) == line
    assert "line 1" in caplog.text
