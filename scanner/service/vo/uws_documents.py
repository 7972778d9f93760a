"""Jobs as XML.

In: jobs, the URL of their list. Out: documents of UWS 1.1. Refused: nothing.

Source: UWS 1.1, appendix B (the schema).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from scanner.service.vo.markup import element, text
from scanner.service.vo.uws import Job

_OPENING = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="1.1"'
)
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
RESULT = "result"


def job_document(job: Job, list_url: str) -> bytes:
    """``/async/{id}``."""
    own = f"{list_url}/{job.identifier}"
    parts = [
        element("uws:jobId", {}, job.identifier),
        element("uws:runId", {}, text(job.run_id)) if job.run_id else "",
        element("uws:ownerId", {}, text(job.owner)) if job.owner else '<uws:ownerId xsi:nil="true"/>',
        element("uws:phase", {}, job.phase),
        '<uws:quote xsi:nil="true"/>',
        element("uws:creationTime", {}, moment(job.created)),
        _time("startTime", job.started),
        _time("endTime", job.ended),
        element("uws:executionDuration", {}, str(job.duration_s)),
        element("uws:destruction", {}, moment(job.destruction)),
        _parameters(job),
        _results(job, own),
        _error(job),
    ]
    return f"{_DECLARATION}<uws:job {_OPENING}>\n{_lines(parts)}</uws:job>\n".encode()


def list_document(jobs: Iterable[Job], list_url: str) -> bytes:
    """``/async``."""
    parts = [
        f'<uws:jobref id="{job.identifier}" xlink:href="{text(list_url)}/{job.identifier}">'
        f"<uws:phase>{job.phase}</uws:phase>"
        + (element("uws:runId", {}, text(job.run_id)) if job.run_id else "")
        + f"<uws:creationTime>{moment(job.created)}</uws:creationTime></uws:jobref>"
        for job in jobs
    ]
    return f"{_DECLARATION}<uws:jobs {_OPENING}>\n{_lines(parts)}</uws:jobs>\n".encode()


def parameters_document(job: Job) -> bytes:
    """``/async/{id}/parameters``."""
    return (_DECLARATION + _parameters(job, _OPENING.removesuffix(' version="1.1"')) + "\n").encode()


def results_document(job: Job, list_url: str) -> bytes:
    """``/async/{id}/results``."""
    return (
        _DECLARATION + _results(job, f"{list_url}/{job.identifier}", _OPENING.removesuffix(' version="1.1"')) + "\n"
    ).encode()


def moment(when: datetime) -> str:
    """A time as UWS writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def _time(name: str, when: datetime | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>' if when is None else element(f"uws:{name}", {}, moment(when))


def _parameters(job: Job, attributes: str = "") -> str:
    parts = [element("uws:parameter", {"id": name}, text(value)) for name, value in job.parameters.items()]
    return f"<uws:parameters {attributes}>\n{_lines(parts)}</uws:parameters>"


def _results(job: Job, own: str, attributes: str = "") -> str:
    parts = []
    if job.phase == "COMPLETED":
        reference = {"id": RESULT, "xlink:type": "simple", "xlink:href": f"{own}/results/{RESULT}", "mime-type": job.media_type}
        parts.append(element("uws:result", reference))
    return f"<uws:results {attributes}>\n{_lines(parts)}</uws:results>"


def _error(job: Job) -> str:
    if job.phase != "ERROR":
        return ""
    return f'<uws:errorSummary type="fatal" hasDetail="true"><uws:message>{text(job.error)}</uws:message></uws:errorSummary>'


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts if part)
