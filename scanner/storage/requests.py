"""Requests to an object store: big files in pieces, and what the store's refusals mean."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from obstore.exceptions import BaseError, InvalidPathError, PreconditionError

from scanner.atomic_file import writing_to
from scanner.errors import ForbiddenError, InputMissingError, OutputError, UnavailableError, UsageError
from scanner.storage.contract import SCHEMES, in_order, scheme_of

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ObjectStore as Bucket


# What the library raises; a plain ValueError where a key cannot be one of an object.
Failure = (BaseError, FileNotFoundError, ValueError)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
# Where machines of a cloud ask for their credentials: the library's last resort.
_CREDENTIAL_SERVICES = (
    "/latest/api/token", "/latest/meta-data/", "//169.254.170.2/", "AssumeRoleWithWebIdentity",
    "/computeMetadata/", "/metadata/identity/",
)  # fmt: skip
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidSecurity",
    "AuthenticationFailed", "AuthenticationRequired", "InvalidAuthenticationInfo",
}  # fmt: skip
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_BUSY = {
    "SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError", "Throttling", "TooManyRequests", "ServerBusy",
    "OperationTimedOut",
}  # fmt: skip
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"}
_LOST = {"ConnectionRefused": "connection refused", "dns error": "unknown host", "TimedOut": "time-out", "Timeout": "time-out"}


@contextmanager
def asking(where: str, to: Literal["read", "write"]) -> Iterator[None]:
    """Turn a failed request into one sentence.

    Raises
    ------
    FileNotFoundError
        There is no such object, where one was to be read.
    ScannerError
        Anything else, of the class that the contract of stores names.
    """
    try:
        yield
    except Failure as error:
        raise meaning(where, to, error) from None


def lacks_bucket(error: FileNotFoundError) -> bool:
    """Whether it is the bucket that is not there, not an object of it."""
    return _found(_CODE, str(error)) in _NO_BUCKET


def meaning(where: str, to: Literal["read", "write"], error: Exception) -> Exception:
    """The contract's error for one of the library's."""
    text, _, details = str(error).partition("Debug source")
    code = _found(_CODE, text)
    status = int(_found(_STATUS, text) or 0)
    reason = f"{status} {code}".strip()
    refused = InputMissingError if to == "read" else OutputError
    credentials = SCHEMES[scheme_of(where)].credentials
    if any(service in text for service in _CREDENTIAL_SERVICES):
        return refused(
            f"{where}: no credentials for the object store were found; set {credentials}, or storage.anonymous for a public "
            "bucket."
        )
    if "InvalidCertificate" in details:
        return refused(f"{where}: the object store's certificate is not trusted; name its authority's file by SSL_CERT_FILE.")
    if code in _NO_BUCKET or (isinstance(error, FileNotFoundError) and to == "write"):
        return refused(f"{where}: there is no such bucket; check its name and storage.endpoint.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "There is no such object", where)
    if isinstance(error, ValueError | InvalidPathError):
        return UsageError(f"{where}: an object store cannot hold this name; rename the file.")
    if code == "RequestTimeTooSkewed":
        return UnavailableError(
            f"{where}: the object store refuses the clock of {socket.gethostname()}, which says {datetime.now(UTC):%F %T} UTC "
            f"({reason}); set it right and give the same command again."
        )
    if code in _BAD_CREDENTIALS or (status == 401 and not code):
        return refused(
            f"{where}: the object store does not accept the credentials ({reason}); check {credentials}, or set "
            "storage.anonymous for a public bucket."
        )
    if status in (401, 403):
        forbidden = ForbiddenError if to == "read" else OutputError
        action = "reading" if to == "read" else "writing"
        return forbidden(f"{where}: {action} is not allowed ({reason}); ask for the right, or use other credentials.")
    if code in _OTHER_REGION or "redirect" in text:
        return refused(f"{where}: the bucket lies in another region ({reason}); set storage.region.")
    if code in _FULL or status == 507:
        return OutputError(f"{where}: the object store is full ({reason}); make space and give the same command again.")
    if code in _BUSY or status == 0 or status == 429 or (status >= 500 and status != 501):
        lost = next((told for sign, told in _LOST.items() if sign in details), "connection lost")
        return UnavailableError(
            f"{where}: the object store does not answer or is too busy ({reason if status else lost}), however often it was "
            "asked; give the same command again later, or check storage.endpoint."
        )
    return refused(f"{where}: the object store refused the request ({reason}); check storage.endpoint and storage.region.")


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


# One connection carries a part of what a machine can take; eight pieces bound the memory to 64 MB.
PIECE_BYTES = 8 << 20
PARALLEL = 8
PARALLEL_FILES = 4

Item = TypeVar("Item")


@dataclass(frozen=True)
class Download:
    """One object and the file that it becomes; ``where`` names it in messages."""

    path: str
    where: str
    size: int
    e_tag: str | None
    target: Path


@dataclass(frozen=True)
class Upload:
    """One file and the object that it becomes; ``where`` names it in messages."""

    source: Path
    path: str
    where: str


def version_of(meta: ObjectMeta | PutResult) -> UpdateVersion:
    """What conditional writes go by: the ETag, on Google Cloud Storage the generation."""
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version


def in_parallel(work: Callable[[Item], object], items: Iterable[Item], parallel: int = PARALLEL) -> None:
    """Do the same to many; the first failure ends it, once what had begun is through."""
    for _ in in_order(work, items, parallel):
        pass


def download(bucket: Bucket, downloads: Sequence[Download]) -> None:
    """Fetch objects into files."""
    for one in downloads:
        with writing_to(one.target):
            one.target.parent.mkdir(parents=True, exist_ok=True)
            with one.target.open("wb") as file:
                file.truncate(one.size)
    pieces = [(one, start) for one in downloads for start in range(0, one.size, PIECE_BYTES)]
    in_parallel(partial(_download_piece, bucket), pieces)


def _download_piece(bucket: Bucket, piece: tuple[Download, int]) -> None:
    one, start = piece
    end = min(start + PIECE_BYTES, one.size)
    options: GetOptions = {"range": (start, end)}
    if one.e_tag is not None:
        options["if_match"] = one.e_tag
    with asking(one.where, "read"):
        try:
            content = bucket.get(one.path, options=options).bytes()
        except PreconditionError:
            raise UnavailableError(f"{one.where}: was replaced while it was read; give the same command again.") from None
    if len(content) != end - start:
        raise UnavailableError(f"{one.where}: the object store sent {len(content)} of {end - start} bytes; try again.")
    with writing_to(one.target), one.target.open("r+b", buffering=0) as file:
        view = memoryview(content)
        while view:
            written = os.pwrite(file.fileno(), view, start)
            view, start = view[written:], start + written


def uploads_of(source: Path, path: str, where: str) -> list[Upload]:
    """A file, or all files of a folder, and what they become."""
    if source.is_file():
        return [Upload(source, path, where)]
    names = {file: file.relative_to(source).as_posix() for file in sorted(source.rglob("*")) if file.is_file()}
    return [Upload(file, f"{path}/{name}".lstrip("/"), f"{where}/{name}") for file, name in names.items()]


def upload(bucket: Bucket, uploads: Sequence[Upload]) -> None:
    """Put files into objects, in place of older ones."""
    in_parallel(partial(_upload_file, bucket), uploads, PARALLEL_FILES)


def _upload_file(bucket: Bucket, one: Upload) -> None:
    in_pieces = one.source.stat().st_size > PIECE_BYTES
    with asking(one.where, "write"):
        bucket.put(one.path, one.source, use_multipart=in_pieces, chunk_size=PIECE_BYTES, max_concurrency=PARALLEL_FILES)
