"""What an object store's refusals mean, as one sentence each.

In: an error of ``obstore`` and what was asked of which object. Out: the contract's error. Refused: nothing; the rest is
told with the server's own code.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from obstore.exceptions import BaseError, InvalidPathError

from scanner.errors import ForbiddenError, InputMissingError, OutputError, UnavailableError, UsageError

# What the library raises; a plain ValueError where a key cannot be one of an object.
Failure = (BaseError, FileNotFoundError, ValueError)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
# Where machines of a cloud ask for their credentials: the library's last resort.
_CREDENTIAL_SERVICES = ("/latest/api/token", "/latest/meta-data/", "//169.254.170.2/", "AssumeRoleWithWebIdentity")
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidSecurity",
    "RequestTimeTooSkewed",
}  # fmt: skip
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_BUSY = {"SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError", "Throttling", "TooManyRequests"}
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


def meaning(where: str, to: Literal["read", "write"], error: Exception) -> Exception:
    """The contract's error for one of the library's."""
    text, _, details = str(error).partition("Debug source")
    code = _found(_CODE, text)
    status = int(_found(_STATUS, text) or 0)
    reason = f"{status} {code}".strip()
    refused = InputMissingError if to == "read" else OutputError
    if any(service in text for service in _CREDENTIAL_SERVICES):
        return refused(
            f"{where}: no credentials for the object store were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or storage.anonymous for a public bucket."
        )
    if "InvalidCertificate" in details:
        return refused(f"{where}: the object store's certificate is not trusted; name its authority's file by SSL_CERT_FILE.")
    if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and to == "write"):
        return refused(f"{where}: there is no such bucket; check its name and storage.endpoint.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "There is no such object", where)
    if isinstance(error, ValueError | InvalidPathError):
        return UsageError(f"{where}: an object store cannot hold this name; rename the file.")
    if code in _BAD_CREDENTIALS or (status == 401 and not code):
        return refused(
            f"{where}: the object store does not accept the credentials ({reason}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or set storage.anonymous for a public bucket."
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
