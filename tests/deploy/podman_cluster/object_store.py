"""An object store of S3's kind in a pod: SeaweedFS, with one pair of keys.

Comes in: the cluster, the program ``weed``. Goes out: the pod, its endpoint, and the Secret that the chart wants its keys in.
"""

import json

from podman_cluster.kubelet import await_ready

KEYS = {"AWS_ACCESS_KEY_ID": "scanner", "AWS_SECRET_ACCESS_KEY": "scanner-secret"}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage-keys"}, "stringData": KEYS}
PORT = 8333
NAMESPACE = "storage"
OPTIONS = (
    "-dir=/storage -ip=127.0.0.1 -ip.bind=0.0.0.0 -webdav=false -admin.ui=false -s3.port.iceberg=0 -s3.port.lance=0 "
    f"-master.telemetry=false -s3.autoCreateBucket=false -s3.port={PORT} -s3.config=/etc/storage/identities.json"
)


def start(cluster, program, image, folder, buckets):
    """Start it with some buckets; its pod."""
    credentials = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    owner = {"name": "owner", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "identities.json").write_text(json.dumps({"identities": [owner]}))
    folder.chmod(0o755)
    pod = cluster.start("storage-0", template(program, image, folder, buckets), namespace=NAMESPACE)
    await_ready(pod)
    return pod


def endpoint(pod):
    """Its URL."""
    return f"http://{pod.address}:{PORT}"


def template(program, image, folder, buckets):
    """A pod that runs the node's own ``weed``."""
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "seaweedfs"}},
        "spec": {
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [
                {
                    "name": "storage",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["/opt/weed", "mini", *OPTIONS.split(), f"-bucket={','.join(buckets)}"],
                    "ports": [{"name": "s3", "containerPort": PORT}],
                    "startupProbe": {"httpGet": {"path": "/healthz", "port": "s3"}},
                    "volumeMounts": [
                        {"name": "settings", "mountPath": "/etc/storage", "readOnly": True},
                        {"name": "program", "mountPath": "/opt/weed", "readOnly": True},
                        {"name": "objects", "mountPath": "/storage"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "settings", "hostPath": {"path": str(folder), "type": "Directory"}},
                {"name": "program", "hostPath": {"path": str(program), "type": "File"}},
                {"name": "objects", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
