"""Bundles where all machines find them: a store with a folder a bundle, and pointers to the one in use and to the newest.

In: the location of the store, a folder or ``s3://…``; verified bundles. Out: ``STORE/FINGERPRINT/…``, there whole as soon as
its ``bundle.json`` is, never altered; ``current.json`` and ``latest.json``, moved as a whole by one process at a time.
Refused: fingerprints that no bundle, or several, begin with (:class:`~scanner.errors.InputMissingError`,
:class:`~scanner.errors.UsageError`), and what :mod:`scanner.storage.contract` lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from scanner.config import StorageConfig
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.bundle_pointer import POINTERS, Pointer, PublishedBundle, read_pointer
from scanner.ensemble.manifest import MANIFEST_FILE, BundleManifest, parse
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.storage.holding import held
from scanner.storage.location import join
from scanner.storage.open import open_store

#: The shortest beginning of a fingerprint that is looked up.
SHORTEST = 7


class PublishedBundles:
    """A store of bundles; ``location``: where."""

    def __init__(self, location: str, storage: StorageConfig) -> None:
        self.location = location
        self._store = open_store(location, storage)

    def publish(self, bundle: Bundle) -> str:
        """Put a bundle into the store, its manifest last, and let ``latest.json`` name it.

        Returns
        -------
        str
            Its location there.

        Raises
        ------
        ScannerError
            The store cannot be written: what was published before is as it was.
        """
        # Files that are there already are written again: the same bytes, or better ones than those of a damaged copy.
        for name in (*bundle.manifest.sha256, MANIFEST_FILE):
            self._store.write(f"{bundle.fingerprint}/{name}", (bundle.path / name).read_bytes())
        self.move("latest", bundle.fingerprint)
        return self.where(bundle.fingerprint)

    def where(self, fingerprint: str) -> str:
        """Location of a bundle."""
        return join(self.location, fingerprint)

    def pointer(self, pointer: Pointer) -> PublishedBundle | None:
        """What a pointer says; None where it was never set."""
        return read_pointer(self._store, pointer)

    def move(self, pointer: Pointer, fingerprint: str, *, only_from: PublishedBundle | None = None) -> PublishedBundle:
        """Let a pointer name a bundle that is in the store.

        Parameters
        ----------
        pointer, fingerprint
            Which, and to what.
        only_from
            What it said when it was decided to move it; None: whatever it says.

        Raises
        ------
        UsageError
            It was moved by somebody else meanwhile.
        HeldError
            Somebody else is moving a pointer of this store.
        """
        manifest = self.manifest(fingerprint)
        with held(self._store):
            # A pointer that cannot be read is what a move mends, but what it said before is lost.
            try:
                before = read_pointer(self._store, pointer)
            except ContentError:
                before = None
            if only_from is not None and before != only_from:
                raise UsageError(
                    f"{self._store.where(f'{pointer}.json')}: was moved by somebody else meanwhile; look, then decide again."
                )
            if before is not None and before.bundle == fingerprint:
                return before
            after = PublishedBundle(
                bundle=fingerprint,
                name=manifest.name,
                version=manifest.version,
                before=None if before is None else before.bundle,
                since=datetime.now(UTC),
            )
            self._store.write(f"{pointer}.json", (after.model_dump_json(indent=2) + "\n").encode())
        return after

    def manifest(self, fingerprint: str) -> BundleManifest:
        """What a bundle of the store says of itself.

        Raises
        ------
        InputMissingError
            It is not there.
        """
        key = f"{fingerprint}/{MANIFEST_FILE}"
        try:
            return parse(self._store.read(key), self._store.where(key))
        except FileNotFoundError:
            raise InputMissingError(
                f"{self._store.where(fingerprint)}: no such bundle; 'scanner models list --published {self.location}' shows "
                "what is there."
            ) from None

    def find(self, name: str) -> str:
        """Fingerprint of a bundle by the name of a pointer or by a beginning of the fingerprint.

        Raises
        ------
        InputMissingError
            There is no such bundle, or nothing was published yet.
        UsageError
            The beginning is too short, or that of several bundles.
        """
        for pointer in POINTERS:
            if name == pointer:
                found = self.pointer(pointer)
                if found is None:
                    raise InputMissingError(f"{self._store.where(f'{pointer}.json')}: no such file; publish a bundle first.")
                return found.bundle
        if len(name) < SHORTEST:
            raise UsageError(f"{name!r} names no published bundle; give {SHORTEST} characters of its fingerprint, or more.")
        able = [fingerprint for fingerprint in self.fingerprints() if fingerprint.startswith(name)]
        if len(able) > 1:
            raise UsageError(f"{name!r} begins several fingerprints of {self.location}; give more of it.")
        if not able:
            raise InputMissingError(
                f"{self.where(name)}: no such bundle; 'scanner models list --published {self.location}' shows what is there."
            )
        return able[0]

    def fingerprints(self) -> Iterator[str]:
        """All bundles that are there whole."""
        for entry in self._store.entries():
            if re.fullmatch("[0-9a-f]{64}", entry.name) and self._store.exists(f"{entry.name}/{MANIFEST_FILE}"):
                yield entry.name
