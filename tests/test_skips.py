"""Skips: in continuous integration they are failures, unless they are for want of what nobody can install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import skips

HOOK = """
import pytest
import skips

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return skips.judged((yield))
"""
MODULE = """
import pytest

def test_of_rights():
    pytest.skip("this machine does not let the tests mount a file system")

def test_of_a_program():
    pytest.skip("helm is not there")

@pytest.mark.skipif(True, reason="openssl is not there")
def test_of_another_program():
    pass

@pytest.mark.xfail(reason="a known defect")
def test_of_a_defect():
    assert False
"""


def test_what_may_not_be_skipped_fails_in_ci(tmp_path):
    (tmp_path / "conftest.py").write_text(HOOK)
    (tmp_path / "test_made.py").write_text(MODULE)
    environment = {"PYTHONPATH": str(Path(skips.__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": "true"}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert "1 failed, 1 skipped, 1 xfailed, 1 error" in done.stdout


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        ("Skipped: /x/../shared/real/euclid-group is not there", False),
        ("the published weights are not in /x/shared/published-weights", False),
        ("SCANNER_IMAGE_STORE names no store of images ('make verify-image' builds one)", False),
        ("helm is not there: 'make helm' fetches it", True),
        ("could not import 'torch': No module named 'torch'", True),
        ("", True),
    ],
)
def test_reasons(monkeypatch, reason, failure):
    monkeypatch.setenv("CI", "true")
    assert skips.is_failure(reason) is failure
    monkeypatch.delenv("CI")
    assert not skips.is_failure(reason)
