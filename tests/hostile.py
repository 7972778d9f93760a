"""Hostile requests, the same for the same seed, and what an answer to them may never be."""

import json
import random
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

#: Each is tried as it stands and percent-encoded, in every place where a client can write something.
TEXTS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    "NaN",
    "inf",
    "null",
    "true",
    "9" * 40,
    "x" * 5000,
    "%",
    "%00",
    "\x00",
    "\x7f",
    "\u202e",
    "é" * 50,
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..\\..\\etc\\passwd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%c0%ae%c0%ae/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "s3://bucket/key",
    "\\\\host\\share",
    "~root/.ssh/id_rsa",
    "' OR '1'='1",
    '"; DROP TABLE served.listed; --',
    "1; COPY (SELECT 1) TO 'stolen.csv'",
    "1 UNION SELECT * FROM read_csv('/etc/passwd')",
    "x') UNION ALL SELECT content FROM read_text('/etc/passwd') --",
    "(SELECT getenv('HOME'))",
    "1); ATTACH 'stolen.db'; --",
    "sleep(10)",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT TOP 1 * FROM objects; COPY objects TO 'stolen.csv'",
    "/*",
    "--",
    "$$",
    "?",
    "$1",
    "{{7919*104729*611953}}",
    "${7919*104729*611953}",
    "{% include '/etc/passwd' %}",
    "<%= 7919*104729*611953 %>",
    "#{7919*104729*611953}",
    "{0.__class__.__mro__}",
    "%s%s%n",
    "%(x)s",
    "<script>alert(191)</script>",
    '"><img src=x onerror=alert(191)>',
    "javascript:alert(191)",
    "'onmouseover='alert(191)",
    "a\r\nX-Injected: yes",
    "a\nSet-Cookie: stolen=1",
    "[]",
    "{}",
    "[[[[[[",
    '{"a": ' * 50,
    "!!python/object/apply:os.system ['id']",
    "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "0 0 361",
    "150.1 2.2 1e9deg",
    "CIRCLE 1 2",
    "POLYGON 1 2 3",
)
METHODS = ("GET",) * 12 + (
    "HEAD",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "G\x01T",
)
PATHS = (
    "/",
    "//",
    "/.",
    "/..",
    "/*",
    "/login",
    "/logout",
    "/static/",
    "/static/a/",
    "/c/",
    "/api",
    "/api/v1",
    "/api/v2/",
    "/tap",
    "/tap/sync",
    "/tap/async",
    "/tap/tables",
    "/scs",
    "/datalink",
    "/cutout",
    "/soda",
    "/moc",
    "/explanation",
    "/lens-model",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/.git/config",
    "/.env",
    "/server-status",
    "/aladin",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/static/%2e%2e%2f%2e%2e%2fsettings.py",
)
HEADERS = (
    "Host",
    "Origin",
    "Referer",
    "Cookie",
    "Authorization",
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Range",
    "If-None-Match",
    "If-Modified-Since",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Original-URL",
    "X-Request-ID",
    "Forwarded",
    "Transfer-Encoding",
    "Expect",
    "Upgrade",
    "Connection",
    "X-HTTP-Method-Override",
    "Sec-Fetch-Site",
    "Content-Encoding",
)
BODIES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/xml",
    "",
    "text/plain",
)
#: Longest wait for an answer in seconds; and where the server may wait for more of the request than there is.
PATIENCE_S, SHORT_PATIENCE_S = 60, 0.3


@dataclass(frozen=True)
class Hostile:
    """A request as it goes over the wire, what was written into it, and whether that is all that it says it has."""

    sent: bytes
    text: str
    is_whole: bool


def requests(seed: int, openapi: dict, there: dict[str, str]):
    """Hostile requests without end.

    ``openapi``: the service's own description: its paths and parameters. ``there``: parameters of paths by their names, with
    values that lead to something.
    """
    chance = random.Random(seed)
    operations = [
        (
            method.upper(),
            path,
            [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"],
        )
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    names = sorted(
        {name for _, _, parameters in operations for name in parameters}
        | {"QUERY", "LANG", "REQUEST", "UPLOAD", "next", "token"}
    )
    while True:
        text = chance.choice(TEXTS)
        method, path, parameters = _place(chance, operations, text, there)
        if chance.random() < 0.2:
            method = chance.choice(METHODS)
        chosen = chance.sample(parameters, chance.randint(0, len(parameters))) + chance.sample(names, chance.randint(0, 2))
        values = [_written(text, chance) if chance.random() < 0.5 else quote(chance.choice(TEXTS)) for _ in chosen]
        query = "&".join(f"{name}={value}" for name, value in zip(chosen, values, strict=True))
        yield _wire(method, path + (f"?{query}" if query else ""), chance, text)


def answer(address: tuple[str, int], request: Hostile) -> bytes:
    """What the server answers; empty where it hangs up without a word."""
    received = b""
    with socket.create_connection(address, PATIENCE_S if request.is_whole else SHORT_PATIENCE_S) as connection:
        # It may have answered, and hung up, before it has all; or wait for what never comes.
        with suppress(ConnectionError):
            connection.sendall(request.sent)
        with suppress(ConnectionError, TimeoutError if not request.is_whole else ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return received


def faults(request: Hostile, answered: bytes, secrets: tuple[str, ...]):
    """What is wrong with an answer.

    ``secrets``: texts that no answer may hold: paths of the server, contents of its files.
    """
    head, _, body = answered.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    if answered and status is None:
        yield "no HTTP"
    if status is not None and status[1].startswith(b"5"):
        yield f"status {status[1].decode()}"
    if re.search(rb"^(x-injected|set-cookie: stolen)", head, re.MULTILINE | re.IGNORECASE):
        yield "a header of the client's"
    shown = answered.decode("utf-8", "replace")
    # What the client has sent itself is no secret to it.
    yield from (f"tells {secret!r}" for secret in secrets if secret in shown and secret not in request.text)
    if b"text/html" in head and request.text.startswith(("<script>", '"><img')) and request.text.encode() in body:
        yield "a script of the client's"
    if b"507522578611303" in body and "7919*104729*611953" in request.text:
        yield "a template of the client's"


def _place(
    chance: random.Random, operations: list[tuple[str, str, list[str]]], text: str, there: dict[str, str]
) -> tuple[str, str, list[str]]:
    """Method, path and parameters: mostly an operation that there is, with names in its path that there are or are not."""

    def filled(part: re.Match) -> str:
        return _written(text, chance) if chance.random() < 0.3 else quote(there.get(part[1], "x"))

    if chance.random() < 0.8:
        method, path, parameters = chance.choice(operations)
        return method, re.sub(r"\{(\w+)[^}]*\}", filled, path), parameters
    return "GET", chance.choice(PATHS) + (_written(text, chance) if chance.random() < 0.5 else ""), []


def _written(text: str, chance: random.Random) -> str:
    """A text as it is put into an address: encoded, twice encoded, or raw as far as a line can hold it."""
    how = chance.random()
    if how < 0.7:
        return quote(text, safe="")
    if how < 0.8:
        return quote(quote(text, safe=""), safe="")
    return re.sub(r"[\r\n ]", "+", text)


def _wire(method: str, target: str, chance: random.Random, text: str) -> Hostile:
    lines = [f"{method} {target} HTTP/1.1"]
    headers = {"Host": "127.0.0.1", "Connection": "close"}
    for name in chance.sample(HEADERS, chance.choice((0, 0, 0, 1, 3))):
        headers[name] = re.sub(r"[\r\n]", " ", text) if chance.random() < 0.8 else text
    body = b""
    if method not in ("GET", "HEAD") or chance.random() < 0.05:
        kind = chance.choice(BODIES)
        body = _body(kind, text, chance)
        headers["Content-Type"] = kind
        headers["Content-Length"] = str(len(body)) if chance.random() < 0.95 else text
    lines += [f"{name}: {value}" for name, value in headers.items()]
    is_whole = headers.get("Content-Length", "0") == str(len(body)) and not {"Transfer-Encoding", "Expect"} & headers.keys()
    sent = "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body
    return Hostile(
        sent, text, is_whole and headers["Connection"] == "close" and "\n" not in method + target + "".join(headers.values())
    )


def _body(kind: str, text: str, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.randbytes(chance.choice((1, 100, 300_000)))
    if kind == "application/json":
        keys = chance.sample(("grade", "comment", "name", "x", "__proto__"), 2)
        return json.dumps({keys[0]: text, keys[1]: chance.choice((1, None, [], {"a": text}))}).encode()
    if kind.startswith("multipart"):
        return f'--x\r\nContent-Disposition: form-data; name="UPLOAD"; filename="{text}"\r\n\r\n{text}\r\n--x--\r\n'.encode()
    names = chance.sample(("token", "next", "QUERY", "LANG", "REQUEST", "MAXREC", "ID", "PHASE", "UPLOAD"), 3)
    return "&".join(f"{name}={quote(text, safe='')}" for name in names).encode()
