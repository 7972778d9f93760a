"""What every store promises; locations as text (local paths, URLs of object stores); waiting for a store in a few threads."""

from __future__ import annotations

import logging
import posixpath
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from scanner.errors import HeldError, UnavailableError


class Scheme(NamedTuple):
    """A kind of object store.

    ``credentials``: environment variables that hold them, for messages. ``environment``: how the variables begin that its
    client reads. ``endpoint``: its client's setting for the address of a server.
    """

    credentials: str
    environment: str
    endpoint: str


#: By the URL's scheme: Amazon S3 and servers that speak as it does, Google Cloud Storage, Azure Blob Storage. What follows is
#: the bucket (of Azure, the container) and a key. A new one is one that :func:`obstore.store.from_url` knows.
SCHEMES = {
    "s3": Scheme("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", "AWS_", "endpoint"),
    "gs": Scheme("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_", "base_url"),
    "az": Scheme("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_", "endpoint"),
}


def scheme_of(location: str) -> str:
    """Scheme of an object store's URL, as in :data:`SCHEMES`; "" of everything else."""
    scheme, separator, _ = location.partition("://")
    return scheme.lower() if separator and scheme.lower() in SCHEMES else ""


def is_remote(location: str) -> bool:
    """Whether a location lies on an object store."""
    return bool(scheme_of(location))


def absolute(location: str) -> str:
    """A location as any process of a run's machines can use it, whatever folder it works in."""
    return location if is_remote(location) else str(Path(location).resolve())


def bucket_and_key(location: str) -> tuple[str, str]:
    """``s3://bucket`` and ``key`` of the URL ``s3://bucket/key``, without slashes at the end."""
    scheme, _, rest = location.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme.lower()}://{bucket}", key.strip("/")


def join(location: str, key: str) -> str:
    """Location of a relative key; a URL stands for itself, and an absolute path beside a local location."""
    if is_remote(key) or not is_remote(location):
        return key if is_remote(key) else str(Path(location) / key)
    return f"{location.rstrip('/')}/{posixpath.normpath(key)}"


def split(location: str) -> tuple[str, str]:
    """Folder and last name of a location."""
    if is_remote(location):
        bucket, key = bucket_and_key(location)
        folder, _, name = key.rpartition("/")
        return f"{bucket}/{folder}".rstrip("/"), name
    path = Path(location)
    return str(path.parent), path.name


#: Somewhat longer than the grace of a pod that is told to stop.
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What lies directly below a key.

    ``name``: the last part of its key; names that begin with "." are not listed. ``size``: in bytes, 0 for folders.
    ``version``: changes whenever the content does (ETag, or size and time of change).
    """

    name: str
    size: int
    version: str
    is_folder: bool


@dataclass(frozen=True)
class Staging:
    """A folder in the making. ``path``: the local folder to write into. ``place``: where its files will lie, below its key."""

    path: Path
    place: str


class Store(Protocol):
    """A tree of files.

    Keys are relative, with ``/`` between their parts (``tiles/7/commit.json``); the empty key is the store itself. A *folder*
    is a key that others lie below; it needs no making and is gone with its last file.

    What goes wrong, for all methods:

    - ``FileNotFoundError``: no file has this key (``read``, ``fetch``; never ``delete``).
    - :class:`~scanner.errors.InputMissingError`: reading is not allowed, or the bucket is not there.
    - :class:`~scanner.errors.OutputError`: writing is not allowed, the disk is full, the store is held by another process.
    - :class:`~scanner.errors.UnavailableError`: the store does not answer, or asks to slow down, for longer than it was
      retried.

    ``root``: the location it was opened with.
    """

    root: str

    def where(self, key: str) -> str:
        """Full path or URL of a key, for messages."""
        ...

    def read(self, key: str) -> bytes:
        """Content of a small file."""
        ...

    def write(self, key: str, content: bytes) -> None:
        """Make or replace a small file: whole or not at all, and safe from a power cut when this returns."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """As :meth:`write`, but False, and nothing is touched, where the file is there already: one of several writers wins."""
        ...

    def entries(self, key: str = "") -> tuple[Entry, ...]:
        """What lies directly below a key, by name; nothing where there is no such folder."""
        ...

    def names(self, key: str) -> set[str]:
        """Names of all files below a key, relative to it."""
        ...

    def entry(self, key: str) -> Entry | None:
        """The file or folder of a key, None where there is neither."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a file of this key, or a folder."""
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file of any size, or a folder with all below, to a local path: whole or not at all."""
        ...

    def local(self, key: str) -> Path | None:
        """Local path of a key, where the file can be read in place; None on object stores."""
        ...

    def publish(self, source: Path, key: str) -> None:
        """Put a local file, or a folder with all below, in the place of what is there; ``source`` may be gone afterwards.

        A file is replaced whole. A folder on an object store is not: a reader may see old files beside new ones for a moment.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a file, or a folder with all below; what is not there counts as removed."""
        ...

    def staged(
        self, key: str, record: str, scratch: Path | None = None, hold: str | None = None
    ) -> AbstractContextManager[Staging]:
        """Write a folder that is there whole or not at all: as soon as, and only if, its ``record`` can be read.

        The block writes its files, the one named ``record`` among them, into ``path``. When it ends without an error they are
        published, the record last; what was there under ``key`` when it began is replaced. When it fails, nothing is left.
        A local folder is renamed into place (``place`` is ""). On an object store the files lie under a name of this attempt,
        ``key/place/…``, and the record as ``key/record``, so two attempts at one folder never mix.

        Of two attempts that overlap, the first to be published stands, and the other, which may come from a worker that was
        given up long ago, fails and is removed.

        Parameters
        ----------
        key
            The folder.
        record
            Name of the file that makes it valid; it has to hold ``place``, by which :meth:`sweep` knows whose files count.
        scratch
            Where to write before the upload, so that a sweep after a killed process finds it; by default the system's folder
            for temporary files. A local store writes beside the place instead.
        hold
            For whom: the token of :meth:`held`. The folder is published only while that hold is the store's last, and only
            where there is none: a record that is there stands until :meth:`revoke`. None: the holder of the store, and what is
            there is replaced.

        Raises
        ------
        UnavailableError
            Another attempt was published, another process holds the store, or this attempt was swept since the block began:
            read the record that is there now, or try again.
        """
        ...

    def sweep(self, key: str, record: str) -> None:
        """End the attempts at the folders directly below a key, and remove their files; only the store's holder may ask for it.

        What a ``record`` names is left alone. An attempt that began before is never published afterwards, even by a process
        that was taken for dead.
        """
        ...

    def revoke(self, key: str, record: str) -> None:
        """Remove a staged folder, and end the attempts at it; only the store's holder may ask for it."""
        ...

    def held(self, name: str = ".lock") -> AbstractContextManager[str]:
        """Hold the store against other holders until the block ends or this process dies; gives the token of this hold.

        Who takes hold, then sweeps, and then reads the records knows all that the attempts of earlier holds will ever publish:
        an attempt that begins later, or is not done by then, finds another token (see :meth:`staged`).

        Raises
        ------
        HeldError
            Another process holds it; the message says which, where that is known.
        OutputError
            On an object store, when another process took it because this one could not be heard of for long: every later write
            by this store, and the end of the block.
        """
        ...

    def holder(self) -> str:
        """Token of the last hold; "" where that was given back, or there was none."""
        ...


def overtaken(where: str) -> UnavailableError:
    """Say that another attempt at a folder came first."""
    return UnavailableError(f"{where}: another worker wrote or removed this folder meanwhile; what it left there counts.")


def superseded(where: str) -> UnavailableError:
    """Say that the driver for which a folder was written is no more the one that counts."""
    return UnavailableError(
        f"{where}: not published, since the driver that asked for it has left or was followed by another one."
    )


def held_by_another(where: str, holder: str = "") -> HeldError:
    """Say that another process writes to a store."""
    who = f" ({holder})" if holder else ""
    return HeldError(f"{where}: another scanner run{who} is writing to this folder; wait for it or use another.")


@contextmanager
def held_in_turn(store: Store) -> Iterator[None]:
    """Hold a store until the block ends, waiting for another holder to leave.

    A job that takes the place of another begins while that one may be saving itself: it waits as long as that may take.

    Raises
    ------
    HeldError
        Another process still holds the store after :data:`WAIT_SECONDS`.
    """
    end = time.monotonic() + WAIT_SECONDS
    with ExitStack() as stack:
        logged = False
        while True:
            try:
                stack.enter_context(store.held())
                break
            except HeldError as error:
                if time.monotonic() > end:
                    raise
                if not logged:
                    _log.info("%s Waiting up to %.0f s.", error, WAIT_SECONDS)
                    logged = True
                time.sleep(POLL_SECONDS)
        yield


THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """Apply a function to items, at most ``2 * threads`` ahead; what it raises is raised at the item's turn.

    Parameters
    ----------
    work
        Called in other threads.
    items
        Taken in this thread, as places become free.
    threads
        Calls at a time.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Nobody waits for the rest: neither after an error nor when the reader has left.
            for future in waiting:
                future.cancel()
