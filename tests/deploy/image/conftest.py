"""The built images, run as a cluster runs them: read-only, as another user, without rights."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from podman_cluster.podman import Podman

ROOT = Path(__file__).parents[3]
NEEDED = ("buildah", "podman", "crun")
#: What the chart's security context says, in podman's words. Python's locks need /dev/shm, which a cluster leaves writable.
RESTRICTED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp", "--tmpfs=/dev/shm:size=64m"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001", "--network=none"),
)


class Image:
    """An image in a store."""

    def __init__(self, podman, reference):
        self._podman = podman
        self.reference = reference

    def inspect(self):
        return json.loads(self._podman.call("image", "inspect", self.reference))[0]

    def beside(self, suffix):
        """What its build wrote beside it: the packed image, the bill of materials."""
        path = ROOT / "dist" / "images" / f"{self.reference.rpartition(':')[2]}.{suffix}"
        if not path.exists():
            pytest.skip(f"{path} is not there: 'make verify-image' writes it")
        return path

    def run(self, *words, options=()):
        """The finished process of a container that the words are given to."""
        command = self._podman.command("run", "--rm", *RESTRICTED, *options, self.reference, *words)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    def python(self, script):
        """What a script prints, as JSON; it must succeed."""
        done = self.run("-c", script, options=['--entrypoint=["python"]'])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    store = os.environ.get("SCANNER_IMAGE_STORE")
    if store is None:
        pytest.skip("SCANNER_IMAGE_STORE names no store of images ('make verify-image' builds one)")
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"running an image needs root and {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}")
    podman = Podman(tmp_path_factory.mktemp("podman"), store)
    yield podman
    podman.close()


@pytest.fixture(scope="session")
def release():
    return re.search(r'__version__ = "(.+)"', (ROOT / "scanner" / "__init__.py").read_text())[1]


@pytest.fixture(scope="session")
def image(podman, release):
    """Image of a name; a test of one that was not built is skipped."""

    def find(name):
        reference = f"ghcr.io/scanner-lenses/scanner:{release}-{name}"
        if subprocess.run(podman.command("image", "exists", reference), check=False).returncode:
            pytest.skip(f"{reference} is not in the store: make verify-image IMAGES='{name} …'")
        return Image(podman, reference)

    return find
