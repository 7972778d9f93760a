"""The one request to the Kubernetes API that the chart's pods make: to set the number of a Deployment's pods.

Comes in: PATCH of ``deployments/scale`` with a token. Goes out: the Scale, and more or fewer pods; 401 and 403 as the rendered
ServiceAccounts, Roles and RoleBindings say, 404 and 405 for what is not there.
"""

import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

#: As most clusters have it behind the Service's 443.
PORT = 6443
SCALE = re.compile(r"/apis/apps/v1/namespaces/(?P<namespace>[^/]+)/deployments/(?P<name>[^/]+)/scale")
MERGE_PATCH = "application/merge-patch+json"


class ApiServer:
    """Listens on the node's address in the pods' network."""

    port = PORT

    def __init__(self, cluster):
        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        #: What was asked and how it was answered, as (account, path, replicas, status).
        self.asked = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self):
                length = int(self.headers.get("Content-Length", 0))
                status, answer = server.answer(cluster, self.headers, self.path, self.rfile.read(length))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer((cluster.podman.gateway, PORT), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The name by which pods know it is the Service's address.
        authority.issue_cert(cluster.addresses["kubernetes"], "kubernetes.default.svc").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, cluster, headers, path, body):
        """Status and content."""
        accounts = {f"Bearer {token}": account for account, token in cluster.tokens.items()}
        account = accounts.get(headers.get("Authorization"))
        found = SCALE.fullmatch(path)
        if account is None:
            status = 401
        elif found is None:
            status = 404
        elif not permitted(cluster, account, found["namespace"], found["name"]):
            status = 403
        elif ("Deployment", found["name"]) not in cluster.objects:
            status = 404
        elif headers.get("Content-Type") != MERGE_PATCH:
            status = 415
        else:
            replicas = json.loads(body)["spec"]["replicas"]
            cluster.scale(found["name"], replicas)
            self.asked.append((account, path, replicas, 200))
            metadata = {"name": found["name"], "namespace": found["namespace"]}
            return 200, {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {"replicas": replicas}}
        self.asked.append((account, path, None, status))
        return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def permitted(cluster, account, namespace, deployment):
    """Whether a Role that is bound to the account lets it patch the scale of the Deployment."""
    roles = cluster.of_kind("Role")
    for binding in cluster.of_kind("RoleBinding").values():
        subject = {"kind": "ServiceAccount", "name": account, "namespace": cluster.namespace}
        if namespace != cluster.namespace or subject not in binding["subjects"]:
            continue
        for rule in roles[binding["roleRef"]["name"]]["rules"]:
            if (
                "apps" in rule["apiGroups"]
                and "deployments/scale" in rule["resources"]
                and "patch" in rule["verbs"]
                and deployment in rule.get("resourceNames", [deployment])
            ):
                return True
    return False
