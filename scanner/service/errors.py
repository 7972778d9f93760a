"""What the service refuses, and the form in which it says so: JSON for programs, a page for people, VOTable for the VO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Literal, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from scanner.errors import ScannerError, UnavailableError, UsageError
from scanner.records import Record

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Audience = Literal["open", "vo", "program", "page"]
#: Roots of the Virtual Observatory's protocols: their clients know HTTP Basic authentication, and POST what they read.
VO_ROOTS = ("/tap", "/scs", "/datalink", "/soda", "/cutout", "/moc", "/explanation", "/lens-model")
#: Answered without a token: they give nothing of the catalogue away, and the page that asks for a token needs its style.
OPEN_ROOTS = ("/healthz", "/readyz", "/login", "/logout", "/static", "/favicon.ico")
PROGRAM_ROOTS = ("/api", "/metrics", "/openapi.json")


def route_path(scope: Scope) -> str:
    """The path below the service's own root, whether or not a reverse proxy has removed that."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def is_below(path: str, root: str) -> bool:
    """Whether a path is a root or lies below it."""
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def audience_of(path: str) -> Audience:
    """Whom a path is for."""
    roots: tuple[tuple[Audience, tuple[str, ...]], ...] = (("open", OPEN_ROOTS), ("vo", VO_ROOTS), ("program", PROGRAM_ROOTS))
    return next((name for name, below in roots if any(is_below(path, root) for root in below)), "page")


class ServiceError(Exception):
    """A request that cannot be answered as it stands; the message is for the client: it names no files of the server."""

    status: int = 500

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class BadRequestError(ServiceError):
    """A parameter makes no sense."""

    status = 400


class UnknownViewerError(ServiceError):
    """A token is needed, or the one given is not known."""

    status = 401


class NotAllowedError(ServiceError):
    """The client has no right to this."""

    status = 403


class NotFoundError(ServiceError):
    """There is no such thing."""

    status = 404


class NotAcceptableError(ServiceError):
    """There is no answer in any format that the client takes."""

    status = 406


class TimeLimitError(ServiceError):
    """The answer would take longer than an answer may."""

    status = 408


class TooLargeError(ServiceError):
    """The request's body is larger than any that makes sense."""

    status = 413


class WrongHostError(ServiceError):
    """The request was meant for another server."""

    status = 421


class TooManyRequestsError(ServiceError):
    """One client asks more than its share."""

    status = 429


class BusyError(ServiceError):
    """Too many requests wait already."""

    status = 503


def of_grades(function: Callable[..., Result], *args: object) -> Result:
    """Call a function; what the file of grades refuses becomes an answer that does not name it."""
    try:
        return function(*args)
    except UsageError as error:
        raise BadRequestError(str(error)) from None
    except UnavailableError as error:
        logger.warning("%s", error)
        raise BusyError("Others are writing grades; try again in a moment.", {"Retry-After": "2"}) from None
    except ScannerError as error:
        logger.error("%s", error)
        raise ServiceError(
            "The file of grades cannot be used; the operator of the service finds the reason in its log."
        ) from None


class ErrorDetail(Record):
    """What went wrong: HTTP ``status``, its name as ``code``, one sentence, and the id that the server's log knows it by."""

    status: int
    code: str
    message: str
    request_id: str


class ErrorAnswer(Record):
    """Body of every answer of the JSON API that is not the thing that was asked for."""

    error: ErrorDetail


#: Makes an answer from the request, the status, the sentence and the request's id.
Form = Callable[[Request, int, str, str], Response]


def as_json(request: Request, status: int, message: str, request_id: str) -> Response:
    """The form for programs."""
    detail = ErrorDetail(status=status, code=HTTPStatus(status).name.lower(), message=message, request_id=request_id)
    return JSONResponse(ErrorAnswer(error=detail).model_dump(), status)


class Forms:
    """Which form belongs to which path: the longest prefix counts."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = sorted(forms.items(), key=lambda one: -len(one[0]))

    def answer(self, request: Request, error: ServiceError, request_id: str) -> Response:
        """The answer to a request that is refused."""
        path = route_path(request.scope)
        form = next((form for prefix, form in self._forms if is_below(path, prefix)), as_json)
        answer = form(request, error.status, error.message, request_id)
        answer.headers.update(error.headers)
        return answer
