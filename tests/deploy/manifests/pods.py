"""The pods that manifests ask for, wherever they stand in them."""

from dataclasses import dataclass

#: Kind → where its pods' templates are.
TEMPLATES = {
    "Pod": [()],
    "Job": [("spec", "template")],
    "CronJob": [("spec", "jobTemplate", "spec", "template")],
    "Deployment": [("spec", "template")],
    "StatefulSet": [("spec", "template")],
    "DaemonSet": [("spec", "template")],
    # Its pods' labels and service accounts are the operator's, their specs are ours.
    "DaskCluster": [("spec", "scheduler"), ("spec", "worker")],
}


@dataclass(frozen=True)
class Pod:
    """One template of a pod; ``name`` says where it stands."""

    kind: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict

    @property
    def containers(self):
        """All that run, those that run first too."""
        return self.spec.get("initContainers", []) + self.spec["containers"]

    @property
    def component(self):
        """What it does: scan, worker, scheduler, service, train, export…"""
        return self.labels.get("app.kubernetes.io/component")


def at(manifest, path, default=None):
    """What stands in a manifest at a path of keys and numbers."""
    for key in path:
        try:
            manifest = manifest[key]
        except (KeyError, IndexError, TypeError):
            return default
    return manifest


def pods(manifests):
    """All pods of all manifests."""
    found = []
    for manifest in manifests:
        for path in TEMPLATES.get(manifest["kind"], []):
            template = at(manifest, path)
            metadata = template.get("metadata", {})
            part = path[1:] if manifest["kind"] == "DaskCluster" else ()
            name = "/".join([manifest["kind"], manifest["metadata"]["name"], *part])
            labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
            found.append(Pod(manifest["kind"], name, labels, annotations, template["spec"]))
    return found


def of_kind(manifests, kind):
    """Those of one kind, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}
