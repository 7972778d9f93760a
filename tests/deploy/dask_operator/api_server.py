"""As much of the Kubernetes API as the Dask operator uses, over HTTP: discovery, lists, watches, objects and their patches."""

import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from dask_operator.objects import edited, merged

#: Group and version → plural → kind.
SERVED = {
    "v1": {"pods": "Pod", "services": "Service", "namespaces": "Namespace", "events": "Event"},
    "apps/v1": {"deployments": "Deployment"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    "kubernetes.dask.org/v1": {
        f"{kind.lower()}s": kind for kind in ("DaskCluster", "DaskWorkerGroup", "DaskAutoscaler", "DaskJob")
    },
}
OF_NO_NAMESPACE = ("Namespace", "CustomResourceDefinition")
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
PATCHES = {"application/merge-patch+json": merged, "application/json-patch+json": edited}


class ApiServer:
    """Listens on the loopback, at ``url``."""

    def __init__(self, objects):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": objects}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        words, query = self._asked()
        if (found := discovery(words)) is not None:
            return self._send(found)
        kind, namespace, name = resource(words)
        if name is not None:
            return self._answer(lambda: self.objects.get(kind, namespace, name))
        if query.get("watch") in ("true", "1"):
            return self._watch(kind, namespace, query)
        with self.objects.changed:
            items = self.objects.of_kind(kind, namespace, query.get("labelSelector"))
            version = self.objects.events[-1][0] if self.objects.events else 0
        if wanted := query.get("fieldSelector"):
            fields = dict(term.split("=", 1) for term in wanted.split(","))
            items = [
                item for item in items if fields.get("metadata.name", item["metadata"]["name"]) == item["metadata"]["name"]
            ]
        return self._send({"kind": f"{kind}List", "metadata": {"resourceVersion": str(version)}, "items": items})

    def do_POST(self):
        kind, namespace, _ = resource(self._asked()[0])
        content = self._content()
        if kind == "Event":
            return self._send(content, HTTPStatus.CREATED)
        return self._answer(lambda: self.objects.create(kind, namespace, content), HTTPStatus.CREATED)

    def do_PATCH(self):
        kind, namespace, name = resource(self._asked()[0])
        change = self._content()
        patched = PATCHES.get(self.headers["Content-Type"].partition(";")[0])
        if patched is None:
            return self._send({}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return self._answer(lambda: self.objects.patch(kind, namespace, name, lambda held: patched(held, change)))

    def do_DELETE(self):
        self._content()
        kind, namespace, name = resource(self._asked()[0])
        return self._answer(lambda: self.objects.delete(kind, namespace, name))

    def _watch(self, kind, namespace, query):
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        seen = int(query.get("resourceVersion") or 0)
        end = time.monotonic() + float(query.get("timeoutSeconds", 60))
        while time.monotonic() < end:
            with self.objects.changed:
                fresh = [event for event in self.objects.events if event[0] > seen]
                if not fresh:
                    self.objects.changed.wait(1.0)
            for version, of, happened, content in fresh:
                seen = version
                if of == kind and namespace in (None, content["metadata"].get("namespace")):
                    try:
                        self.wfile.write(json.dumps({"type": happened, "object": content}).encode() + b"\n")
                    except OSError:
                        return

    def _asked(self):
        url = urlsplit(self.path)
        return url.path.strip("/").split("/"), {name: values[-1] for name, values in parse_qs(url.query).items()}

    def _content(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return json.loads(text) if text else {}

    def _answer(self, act, status=HTTPStatus.OK):
        try:
            self._send(act(), status)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "NotFound")
        except ValueError:
            self._refuse(HTTPStatus.CONFLICT, "AlreadyExists")

    def _refuse(self, status, reason):
        self._send({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}, status)

    def _send(self, content, status=HTTPStatus.OK):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def discovery(words):
    """What is served, where a path asks for that; else None."""
    if words == ["version"]:
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if words == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if words == ["apis"]:
        versions = [{"groupVersion": served, "version": served.split("/")[1]} for served in SERVED if "/" in served]
        groups = [{"name": one["groupVersion"].split("/")[0], "versions": [one], "preferredVersion": one} for one in versions]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    served = "/".join(words[1:])
    if served not in SERVED:
        return None
    resources = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "verbs": VERBS, "namespaced": kind not in OF_NO_NAMESPACE}
        for plural, kind in SERVED[served].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": served, "resources": resources}


def resource(words):
    """Kind, namespace and name that a path names; the last two may be None. A subresource is a part of its object."""
    served = words[1] if words[0] == "api" else "/".join(words[1:3])
    rest = words[2:] if words[0] == "api" else words[3:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return SERVED[served][rest[0]], namespace, rest[1] if len(rest) > 1 else None
