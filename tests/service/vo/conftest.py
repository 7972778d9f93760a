"""What the tests of the Virtual Observatory's protocols need: the validators of STILTS, VOTables read back."""

import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from astropy.io.votable import parse
from waiting import LIMIT_S

JAVA_FOLDERS = "/usr/lib/jvm/*/bin"


def _environment():
    """An environment in which STILTS runs: its Java may not be the first one of the machine. None where there is none."""
    if shutil.which("stilts") is None:
        return None
    for folder in ("", *sorted(str(path) for path in Path("/").glob(JAVA_FOLDERS.strip("/")))):
        environment = os.environ | {"PATH": f"{folder}{os.pathsep if folder else ''}{os.environ['PATH']}"}
        if subprocess.run(["stilts", "-version"], env=environment, capture_output=True, check=False).returncode == 0:
            return environment
    return None


@pytest.fixture(scope="session")
def stilts():
    """Run a task of STILTS; gives the lines that it prints. Tests are skipped where it cannot be run."""
    environment = _environment()
    if environment is None:
        pytest.skip("STILTS is not here, or no Java that runs it: 'make verify-vo' installs it")

    def run(*words, content=None):
        done = subprocess.run(
            ["stilts", *words], input=content, capture_output=True, env=environment, check=False, timeout=LIMIT_S
        )
        return [line for line in (done.stdout + done.stderr).decode().splitlines() if line.strip()]

    return run


@pytest.fixture(scope="session")
def votlint(stilts):
    """Assert that STILTS finds nothing wrong with a VOTable: neither errors nor warnings."""

    def check(content):
        said = stilts("votlint", "ucd=true", "unit=true", "votable=-", content=content)
        assert [line for line in said if re.search(r"ERROR|WARNING", line)] == []

    return check


@pytest.fixture(scope="session")
def read():
    """A VOTable's document and its table, as astropy reads them."""

    def _read(content):
        document = parse(io.BytesIO(content), verify="exception")
        return document, document.get_first_table().to_table(use_names_over_ids=True)

    return _read
