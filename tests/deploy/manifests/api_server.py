"""An API server as far as `helm --dry-run=server` asks one: which kinds there are, and single objects, read only.

It answers as the real one does: a kind is found by group, version and plural name, an object by its namespace too; what is not
there is a 404 with a Status. In: the manifests that are live. Out: its address. Whatever would change something is refused.
"""

import json
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def api_server(live, kinds):
    """Serve live objects on the loopback.

    Parameters
    ----------
    live
        Manifests with their namespaces.
    kinds
        Pairs of ``apiVersion`` and ``kind`` that the cluster knows.
    """
    documents = {"/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}} | _discovery(kinds) | _objects(live)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = documents.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            content = json.dumps(missing if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            """Requests are no news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _discovery(kinds):
    resources = defaultdict(list)
    for api_version, kind in sorted(kinds):
        entry = {"name": _plural(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
        resources[api_version].append(entry)
    versions = [version for version in resources if "/" in version]
    groups = [
        {"name": version.partition("/")[0], "versions": [named], "preferredVersion": named}
        for version in versions
        for named in [{"groupVersion": version, "version": version.partition("/")[2]}]
    ]
    lists = {
        _root(version): {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": entries}
        for version, entries in resources.items()
    }
    return lists | {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }


def _objects(live):
    return {
        f"{_root(it['apiVersion'])}/namespaces/{it['metadata']['namespace']}/{_plural(it['kind'])}/{it['metadata']['name']}": it
        for it in live
    }


def _root(api_version):
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _plural(kind):
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")
