"""Files by key, on a disk or on an object store: what a run reads and writes, wherever it lies.

In: a location, a local path or ``s3://bucket/prefix``, and :class:`~scanner.config.StorageConfig`. Out: a :class:`Store`;
whoever holds one need not know which it is. Refused: see :mod:`scanner.storage.contract`.
"""

from scanner.storage.contract import Entry, Staging, Store
from scanner.storage.location import is_remote, join, split
from scanner.storage.open import fetch_file, open_store, read_file

__all__ = ["Entry", "Staging", "Store", "fetch_file", "is_remote", "join", "open_store", "read_file", "split"]
