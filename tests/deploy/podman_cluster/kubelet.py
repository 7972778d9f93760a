"""What a node's kubelet does for a pod, where podman does not: ``playable`` says what is changed in a manifest, and why.

Comes in: template of a pod as rendered. Goes out: manifest that ``podman kube play`` takes.
"""

import copy
import os
import socket
import time
from pathlib import Path

from podman_cluster.traffic import number

#: Where Kubernetes puts the token of a pod's account.
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def playable(name, template, *, api_address, token_secret=None):
    """The pod ``name`` as podman can play it.

    - Volumes of the pod's own get the pod's name: podman knows one volume ``tmp`` for all pods.
    - Probes are taken out and asked from outside (``probe``): podman would ask with a ``curl`` within the container.
    - Claims that live and die with their pod are a folder of the node.
    - Containers that run first are kept when they have ended, with what they said.
    - The API's address and the token of the pod's account are put in, as the kubelet does.

    All else is as rendered. Podman takes no notice of limits (it has no control groups to set here), nor of nodes, priorities
    and what is done before a pod is stopped.
    """
    spec = copy.deepcopy(template["spec"])
    renamed = {}
    for volume in spec.get("volumes", []):
        if "ephemeral" in volume:
            del volume["ephemeral"]
            volume["emptyDir"] = {}
        if "emptyDir" in volume:
            renamed[volume["name"]] = volume["name"] = f"{name}-{volume['name']}"
    for container in spec.get("initContainers", []) + spec["containers"]:
        for probe in PROBES:
            container.pop(probe, None)
        for mount in container.get("volumeMounts", []):
            mount["name"] = renamed.get(mount["name"], mount["name"])
        container["env"] = [
            *container.get("env", []),
            {"name": "KUBERNETES_SERVICE_HOST", "value": api_address},
            {"name": "KUBERNETES_SERVICE_PORT", "value": "443"},
        ]
        if token_secret is not None:
            mount = {"name": token_secret, "mountPath": TOKEN_FOLDER, "readOnly": True}
            container["volumeMounts"] = [*container.get("volumeMounts", []), mount]
    if token_secret is not None:
        spec["volumes"] = [*spec.get("volumes", []), {"name": token_secret, "secret": {"secretName": token_secret}}]
    annotations = {"io.podman.annotations.init.container.type": "always"}
    metadata = {"name": name, "labels": template["metadata"]["labels"], "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def own_volumes(pod):
    """Give a pod's volumes to its ``fsGroup``, which may then do with them what their owner may.

    What is kept in claims and folders is touched once (``fsGroupChangePolicy: OnRootMismatch``), settings and secrets each
    time, as podman writes these anew.
    """
    group = pod.template["spec"]["securityContext"]["fsGroup"]
    written = {
        volume["configMap"]["name"] if "configMap" in volume else volume["secret"]["secretName"]
        for volume in pod.manifest["spec"].get("volumes", [])
        if "configMap" in volume or "secret" in volume
    }
    mounts = [mount for name in pod.containers for mount in pod.podman.inspect(name)["Mounts"] if mount["Type"] == "volume"]
    for name, folder in {(mount["Name"], Path(mount["Source"])) for mount in mounts}:
        if name in written or folder.stat().st_gid != group:
            for path in [folder, *folder.rglob("*")]:
                mode = path.stat().st_mode & 0o7777
                os.chown(path, -1, group)
                # What is made in a folder later belongs to the group too.
                path.chmod(mode | (mode & 0o700) >> 3 | (0o2000 if path.is_dir() else 0))


def probe(pod, container, kind):
    """Whether a container answers its probe, as rendered; one that has none is well."""
    asked = container.get(kind)
    if asked is None:
        return True
    if "exec" in asked:
        return pod.run(*asked["exec"]["command"])[0] == 0
    if "tcpSocket" in asked:
        try:
            socket.create_connection((pod.address, number(asked["tcpSocket"]["port"], pod)), timeout=1).close()
        except OSError:
            return False
        return True
    try:
        pod.get(asked["httpGet"]["path"], asked["httpGet"]["port"])
    except OSError:
        return False
    return True


def await_ready(pod, seconds=120):
    """Until a pod has started and is ready."""
    end = time.monotonic() + seconds
    for kind in ("startupProbe", "readinessProbe"):
        for container in pod.template["spec"]["containers"]:
            while not probe(pod, container, kind):
                if time.monotonic() > end:
                    raise TimeoutError(f"{pod.name}: {kind} of {container['name']} fails: {pod.logs()}")
                time.sleep(0.2)
