"""The Dockerfile as it stands: what it copies, what a linter says of it."""

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import programs

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_linter_finds_nothing_but_what_is_explained():
    command = [
        programs.needed("hadolint", target="install"),
        "--no-color",
        "--failure-threshold",
        "style",
        "--config",
        ".hadolint.yaml",
        "Dockerfile",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def copied():
    """What the Dockerfile copies from the project's folder, every variant of it."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    words = [word for line in lines for word in line.split()]
    return sorted({word.replace("${VARIANT}", variant).rstrip("/") for word in words for variant in ("cpu", "gpu")})


def test_what_is_copied_is_there_and_sent_to_the_builder():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    assert [path for path in copied() if not (ROOT / path).exists()] == []
    assert [path for path in copied() if not any(fnmatch(path, part) or path.startswith(f"{part}/") for part in let_in)] == []
    assert {"scanner", "models", "deploy/image/locks/scan-cpu.txt", "deploy/image/locks/scan-gpu.txt"} <= set(copied())


def test_the_base_is_one_image_for_ever():
    assert re.search(r"^ARG BASE=debian:trixie-slim@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_a_plain_build_makes_the_scan_image_for_the_cpu():
    assert re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "scan"
    assert re.search(r"^ARG VARIANT=cpu$", DOCKERFILE, re.MULTILINE)
