"""What a cluster asks of every pod that it lets in: the restricted Pod Security Standard, and policies that know each port."""

from manifests.pods import of_kind, pods
from podman_cluster.traffic import selects

#: Kinds of volumes that the restricted standard allows.
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def test_volumes_are_of_kinds_that_the_restricted_standard_allows(manifests, named_in_values):
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            # Those that values bring are the business of whoever wrote them.
            if volume["name"] not in named_in_values:
                assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES, (pod.name, volume)


def declared(pod):
    return {port["name"]: port["containerPort"] for container in pod.containers for port in container.get("ports", [])}


def policies(manifests):
    return [manifest["spec"] for manifest in of_kind(manifests, "NetworkPolicy").values()]


def test_every_pod_is_denied_everything_first(manifests):
    denying = [
        policy for policy in policies(manifests)
        if set(policy["policyTypes"]) == {"Ingress", "Egress"} and not policy.keys() & {"ingress", "egress"}
    ]  # fmt: skip
    if policies(manifests):
        for pod in pods(manifests):
            assert any(selects(policy["podSelector"], pod.labels) for policy in denying), pod.name


def test_ports_that_policies_open_are_listened_at(manifests):
    """A number that no process listens at is a slip, or the remains of something."""
    for name, manifest in of_kind(manifests, "NetworkPolicy").items():
        chosen = [pod for pod in pods(manifests) if selects(manifest["spec"]["podSelector"], pod.labels)]
        open_ports = {port["port"] for rule in manifest["spec"].get("ingress", []) for port in rule["ports"]}
        listened = {port for pod in chosen for port in declared(pod).values()}
        assert open_ports <= listened, name


def test_every_port_is_opened_by_a_policy(manifests):
    """A port that nobody may reach serves nobody."""
    if not policies(manifests):
        return
    for pod in pods(manifests):
        opened = {
            port["port"]
            for policy in policies(manifests)
            if selects(policy["podSelector"], pod.labels)
            for rule in policy.get("ingress", [])
            for port in rule["ports"]
        }
        assert set(declared(pod).values()) <= opened, pod.name
