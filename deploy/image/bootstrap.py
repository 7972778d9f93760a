"""Build the images where there is neither Docker nor a registry to get Debian's image from.

In: names of images, a folder for the store. Out: the images of ``build.py`` in that store, for ``podman --root STORE``. In the
place of Debian's own image stands one that mmdebstrap makes of the same release, without documentation and translations as
theirs is. Refused: a user other than root, missing programs. Containers use the network, the certificates and pip's settings
of this machine.

Usage: ``python deploy/image/bootstrap.py --store FOLDER [NAME…]`` (``make verify-image``)
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "localhost/debian:trixie-slim"
NEEDED = ("buildah", "podman", "mmdebstrap")
#: What debian:trixie-slim leaves out, in dpkg's words.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
)
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{store}"
runroot = "{store}-run"
"""
#: This machine's, where they are: a company's own certificate authority, a mirror of the package index.
SETTINGS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


def use(store: Path) -> None:
    """Let buildah and podman, and what is started from here, keep images in a folder."""
    store.mkdir(parents=True, exist_ok=True)
    settings = Path(f"{store}.conf")
    settings.write_text(STORAGE.format(store=store), encoding="utf-8")
    os.environ["CONTAINERS_STORAGE_CONF"] = str(settings)


def make_base() -> None:
    """Import a bootstrapped Debian into the store, if it is not there yet."""
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        packed = f"{folder}/debian.tar"
        # The package cannot be installed later, when this machine's certificates are mounted in the place of its own.
        options = ["--variant=minbase", "--include=ca-certificates", *(f"--dpkgopt={line}" for line in SLIM)]
        subprocess.run(["mmdebstrap", "--quiet", *options, "trixie", packed], check=True)
        subprocess.run(["podman", "import", "--quiet", packed, BASE], check=True)


def builder_options() -> Iterator[str]:
    """Options of ``buildah build`` for a container in a container: no namespaces of its own, no registry."""
    yield from ("--build-arg", f"BASE={BASE}", "--isolation", "chroot", "--network", "host")
    # The limits that it would set otherwise are higher than what an outer container allows.
    yield from ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000")
    for path in filter(os.path.exists, SETTINGS):
        yield from ("--volume", f"{path}:{path}:ro")


def main() -> None:
    """Make the base, then the images."""
    about, _, usage = (__doc__ or "").partition("Usage:")
    parser = argparse.ArgumentParser(description=about, epilog=f"Usage: {usage}", formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--store", type=Path, required=True, help="folder of the images; needs 5 GB an image, 20 GB one with CUDA"
    )
    parser.add_argument("names", nargs="*", help="as build.py takes them")
    asked = parser.parse_args()
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}.")
    use(asked.store.resolve())
    make_base()
    command = [sys.executable, str(Path(__file__).with_name("build.py")), "--builder", "buildah", *asked.names]
    subprocess.run([*command, "--", *builder_options()], cwd=ROOT, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # What failed has said why.
        sys.exit(error.returncode)
