import hashlib

import pytest

from scanner.atomic_file import file_sha256


@pytest.mark.parametrize("content", [b"", b"lens", b"arc" * 1_000_000])
def test_it_is_that_of_the_content(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
