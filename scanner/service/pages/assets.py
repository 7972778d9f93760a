"""Style sheets and scripts of the pages, served from memory under addresses that change with them.

In: the files of ``static/``. Out: their answers, and the addresses at which templates name them. Refused: names that are no
such file (404): nothing that a client sends is ever a path on the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath

from starlette.responses import Response

from scanner.service.errors import NotFoundError

MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: An address with the fingerprint of all files never changes its meaning.
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Assets:
    """The files by name, and a ``fingerprint`` of them all: modules import one another, so they change together."""

    files: dict[str, bytes]
    fingerprint: str

    @classmethod
    def load(cls) -> Assets:
        """Read the package's own files."""
        found = sorted(resources.files(__package__).joinpath("static").iterdir(), key=lambda file: file.name)
        files = {file.name: file.read_bytes() for file in found if PurePath(file.name).suffix in MEDIA_TYPES}
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return cls(files, digest.hexdigest()[:12])

    def address(self, root: str, name: str) -> str:
        """Where a file is served, below the service's root path.

        Raises
        ------
        KeyError
            There is no such file.
        """
        if name not in self.files:
            raise KeyError(name)
        return f"{root}/static/{self.fingerprint}/{name}"

    def answer(self, fingerprint: str, name: str) -> Response:
        """One file; it may be kept for ever only where the address is of this very state.

        Raises
        ------
        NotFoundError
            There is no such file.
        """
        if name not in self.files:
            raise NotFoundError("There is nothing at this address.")
        kept = FOREVER if fingerprint == self.fingerprint else "no-cache"
        return Response(
            self.files[name],
            media_type=MEDIA_TYPES[PurePath(name).suffix],
            headers={"Cache-Control": kept, "Vary": "Accept-Encoding"},
        )
