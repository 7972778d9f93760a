"""Lock what the images install: the exact version and the SHA-256 of every wheel, a file for each image.

It reads pyproject.toml, constraints.txt (the versions that the tests run with) and the earlier locks, which keep the versions
that constraints.txt does not name, and writes ``deploy/image/locks/*.txt`` for pip's ``--require-hashes``. A package without a
wheel for the images' Python and platform is refused.

Usage: ``python deploy/image/lock.py [--upgrade] [--out FOLDER]`` (``make locks``). ``--upgrade``: newest versions of what
constraints.txt does not name. Needs uv and a package index.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = Path(__file__).parent / "locks"
#: Of the images: Debian trixie's Python; the wheels' oldest C library.
PYTHON = "3.13"
PLATFORM = "x86_64-manylinux_2_28"
#: The extras of pyproject.toml that an image has; a service scores nothing.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "scan-cpu": ("cpu",),
    "scan-gpu": ("gpu",),
    "train-cpu": ("cpu", "train"),
    "train-gpu": ("gpu", "train"),
    "api": ("service",),
}
#: What the images have otherwise than constraints.txt says. torch: left to pip there, so that the tests run with a CPU build;
#: this is its version. ONNX Runtime: one version for CPU and GPU, since a driver refuses workers that have another.
APART = ("torch==2.13.0", "onnxruntime==1.31.1", "onnxruntime-gpu==1.31.1")
#: What builds scanner's own wheel: the requirements of pyproject.toml's [build-system].
BUILD = "build"


def constraints() -> str:
    """The lines of constraints.txt, with those of :data:`APART` in their place."""
    apart = {line.partition("==")[0] for line in APART}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join([*(line for line in lines if line.partition("==")[0] not in apart), *APART])


def lock(name: str, folder: Path, upgrade: bool) -> Path:
    """Write the lock of one image, or of :data:`BUILD`, into a folder; return its path."""
    path = folder / f"{name}.txt"
    if name == BUILD:
        asked = ["-"]
        text = "\n".join(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"])
    else:
        asked = ["pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS[name]), "--constraints", "-"]
        text = constraints()
    wheels = ["--generate-hashes", "--only-binary", ":all:", "--python-version", PYTHON, "--python-platform", PLATFORM]
    told = [
        "--quiet",
        "--custom-compile-command",
        "make locks",
        "--output-file",
        str(path),
        *(["--upgrade"] if upgrade else []),
    ]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", *asked, *wheels, *told]
    subprocess.run(command, cwd=ROOT, input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    """Lock every image."""
    about, _, usage = (__doc__ or "").partition("Usage:")
    parser = argparse.ArgumentParser(description=about, epilog=f"Usage: {usage}", formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="newest versions of what constraints.txt does not name")
    parser.add_argument("--out", type=Path, default=LOCKS, help="folder of the locks, and of those of before")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in (*EXTRAS, BUILD):
        print(lock(name, asked.out.resolve(), asked.upgrade))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # What failed has said why.
        sys.exit(error.returncode)
