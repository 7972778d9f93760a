"""The part of Google Cloud Storage's XML interface that stores use, in memory: conditions go by generations, as there."""

import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

TOKEN = "a-token"
PAGE = 1000


@dataclass
class Blob:
    content: bytes
    generation: int
    metadata: dict[str, str]
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def e_tag(self) -> str:
        return f'"{self.generation:x}"'


class GcsServer(ThreadingHTTPServer):
    """One bucket, ``scanner-tests``; writing needs :data:`TOKEN`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.bucket = "scanner-tests"
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.blobs: dict[str, Blob] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        self.generations = 0

    def put(self, key: str, content: bytes, metadata: dict[str, str]) -> Blob:
        self.generations += 1
        self.blobs[key] = Blob(content, self.generations, metadata)
        return self.blobs[key]


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GcsServer

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.server.lock:
            if bucket != self.server.bucket:
                self._refuse(404, "NoSuchBucket")
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._refuse(401, "AuthenticationRequired")
            elif not key:
                self._list(query)
            else:
                getattr(self, f"_{self.command.lower()}")(key, query, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def _get(self, key: str, query: dict[str, str], body: bytes) -> None:
        blob = self.server.blobs.get(key)
        if blob is None:
            self._refuse(404, "NoSuchKey")
        elif self.headers.get("If-Match", blob.e_tag) != blob.e_tag:
            self._refuse(412, "PreconditionFailed")
        else:
            part, status = blob.content, 200
            headers = self._of(blob)
            if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                first, last = int(asked[1]), int(asked[2])
                part, status = blob.content[first : last + 1], 206
                headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(blob.content)}"
            self._answer(status, headers, part)

    _head = _get

    def _put(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, {"ETag": f'"part-{query["partNumber"]}"'})
            return
        there = self.server.blobs.get(key)
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != (0 if there is None else there.generation):
            self._refuse(412, "PreconditionFailed")
            return
        metadata = {name.lower(): value for name, value in self.headers.items() if name.lower().startswith("x-goog-meta-")}
        self._answer(200, self._of(self.server.put(key, body, metadata)))

    def _post(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            number = str(len(self.server.uploads))
            self.server.uploads[number] = {}
            upload = f"<Bucket>{self.server.bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
            self._xml(f"<InitiateMultipartUploadResult>{upload}</InitiateMultipartUploadResult>")
        else:
            parts = self.server.uploads.pop(query["uploadId"])
            blob = self.server.put(key, b"".join(parts[number] for number in sorted(parts)), {})
            tag = f"<ETag>{escape(blob.e_tag)}</ETag>"
            self._xml(f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>", self._of(blob))

    def _delete(self, key: str, query: dict[str, str], body: bytes) -> None:
        if self.server.blobs.pop(key, None) is None:
            self._refuse(404, "NoSuchKey")
        else:
            self._answer(204, {})

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter, after = query.get("prefix", ""), query.get("delimiter", ""), query.get("continuation-token", "")
        found: dict[str, str] = {}
        for key in sorted(self.server.blobs):
            if not key.startswith(prefix):
                continue
            folder, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if cut:
                name = f"{prefix}{folder}{cut}"
                found[name] = f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            else:
                blob = self.server.blobs[key]
                found[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(blob.content)}</Size><ETag>{escape(blob.e_tag)}</ETag>"
                    f"<LastModified>{blob.changed:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified></Contents>"
                )
        names = [name for name in found if name > after]
        listed = "".join(found[name] for name in names[:PAGE])
        more = f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>" if len(names) > PAGE else ""
        self._xml(f"<ListBucketResult>{listed}{more}</ListBucketResult>")

    def _of(self, blob: Blob) -> dict[str, str]:
        changed = format_datetime(blob.changed, usegmt=True)
        return {"ETag": blob.e_tag, "x-goog-generation": str(blob.generation), "Last-Modified": changed, **blob.metadata}

    def _xml(self, text: str, headers: dict[str, str] | None = None) -> None:
        self._answer(200, {"Content-Type": "application/xml", **(headers or {})}, text.encode())

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format, *args) -> None:  # noqa: A002
        pass
