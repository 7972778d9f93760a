"""The scale subresource of one Deployment, as strict as Kubernetes' own API server, with faults that a test asks for.

It refuses a token that is not the account's (401), another verb or Deployment than the Role's (403), another kind of patch
(415), a body that is not a Scale's (400, 422).
"""

import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

SCALE = re.compile(r"/apis/apps/v1/namespaces/([a-z0-9-]+)/deployments/([a-z0-9.-]+)/scale")
NAMESPACE, NAME = "surveys", "euclid-worker"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:euclid-scan"
#: What a Scale has; the API server drops other fields without a word, and a number is then never set.
FIELDS = {"apiVersion", "kind", "metadata", "spec", "status"}


class KubernetesApi(ThreadingHTTPServer):
    """``replicas``: every number that was set. ``faults``: answers to give before any other, ``(status, Retry-After)``.

    ``on_scale``: called with each number, in the order in which they were set.
    """

    daemon_threads = True

    def __init__(self, folder, on_scale=lambda replicas: None):
        super().__init__(("127.0.0.1", 0), _Scaling)
        self.replicas, self.refused, self.faults = [], [], []
        self.on_scale = on_scale
        self.token = "first"
        self.scaling = threading.Lock()
        self.account = folder
        authority = trustme.CA()
        folder.mkdir()
        authority.cert_pem.write_to_path(folder / "ca.crt")
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "token").write_text(self.token + "\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def environment(self):
        """Variables that Kubernetes gives to every pod."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.server_port)}

    def renew_token(self, token):
        """Give the account another token, in its file too, as the kubelet does every hour."""
        self.token = token
        (self.account / "token").write_text(token)

    def end(self):
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request, client_address):
        """Clients that do not trust our authority go away in the middle of the handshake."""

    def answer(self, method, path, headers, body):
        """Status, reason and message, or a Scale."""
        if self.faults:
            status, _ = self.faults[0]
            return status, "fault", f"asked to answer {status}"
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, "Unauthorized", "Unauthorized"
        found = SCALE.fullmatch(path)
        if found is None:
            return 404, "NotFound", "the server could not find the requested resource"
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())
        if (verb, *found.groups()) != ("patch", NAMESPACE, NAME):
            resource = f'resource "deployments/scale" in API group "apps" in the namespace "{found[1]}"'
            message = f'deployments.apps "{found[2]}" is forbidden: User "{ACCOUNT}" cannot {verb} {resource}'
            return 403, "Forbidden", message
        if headers.get("Content-Type") != "application/merge-patch+json":
            return 415, "UnsupportedMediaType", "the body of the request was in an unknown format"
        return self._patched(body)

    def _patched(self, body):
        try:
            patch = json.loads(body)
        except ValueError as error:
            return 400, "BadRequest", f"error decoding patch: {error}"
        if not isinstance(patch, dict) or not patch.keys() <= FIELDS or patch.get("spec", {}).keys() != {"replicas"}:
            return 400, "BadRequest", f"not a patch of a Scale: {patch!r}"
        replicas = patch["spec"]["replicas"]
        if type(replicas) is not int or replicas < 0:
            return 422, "Invalid", f"spec.replicas: Invalid value: {replicas!r}"
        with self.scaling:
            self.replicas.append(replicas)
            self.on_scale(replicas)
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "resourceVersion": str(len(self.replicas))},
            "spec": {"replicas": replicas},
            "status": {"replicas": self.replicas[-2] if len(self.replicas) > 1 else 0, "selector": "app=worker"},
        }


class _Scaling(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KubernetesApi

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.answer(self.command, self.path, self.headers, body)
        status, after = 200, None
        if isinstance(answer, tuple):
            status, reason, message = answer
            self.server.refused.append(status)
            if self.server.faults:
                _, after = self.server.faults.pop(0)
            answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
            answer |= {"message": message, "reason": reason, "code": status}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if after is not None:
            self.send_header("Retry-After", str(after))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format, *args):  # noqa: A002
        pass
