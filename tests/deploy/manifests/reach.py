"""Who may speak to whom: a pod that NetworkPolicies of a direction select may do what one of them allows, and nothing else."""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from manifests.rendering import NAMESPACE
from podman_cluster.traffic import NAMESPACE_LABEL, selects


@dataclass(frozen=True)
class Pod:
    """A pod in the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE


@dataclass(frozen=True)
class Host:
    """An address that is no pod's."""

    address: str


def may_reach(policies, source, target, port, protocol="TCP"):
    """Whether a connection gets through: out of the one and into the other."""
    return _lets(policies, "Egress", source, target, port, protocol) and _lets(
        policies, "Ingress", target, source, port, protocol
    )


def _lets(policies, direction, me, other, port, protocol):
    if not isinstance(me, Pod) or me.namespace != NAMESPACE:
        return True
    judged = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], me.labels)
    ]
    rules = [rule for spec in judged for rule in spec.get(direction.lower(), [])]
    return not judged or any(_allows(rule, direction, other, port, protocol) for rule in rules)


def _allows(rule, direction, other, port, protocol):
    peers = rule.get("from" if direction == "Ingress" else "to")
    ports = rule.get("ports")
    return (not peers or any(_is(peer, other) for peer in peers)) and (
        not ports or any((one["port"], one["protocol"]) == (port, protocol) for one in ports)
    )


def _is(peer, other):
    if "ipBlock" in peer:
        return isinstance(other, Host) and ip_address(other.address) in ip_network(peer["ipBlock"]["cidr"])
    if not isinstance(other, Pod):
        return False
    namespace = peer.get("namespaceSelector")
    here = other.namespace == NAMESPACE if namespace is None else selects(namespace, {NAMESPACE_LABEL: other.namespace})
    return here and selects(peer.get("podSelector", {}), other.labels)
