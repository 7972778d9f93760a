"""Services and NetworkPolicies, as rules of nftables in each pod's own network: what kube-proxy and a network plugin do.

Comes in: Services and NetworkPolicies as rendered, and the pods that run. Goes out: one text of rules for each pod.
A connection to a Service goes to one of the pods behind it before the policies are asked, so these see pods and their ports.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Labels of namespaces, as every cluster gives them.
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """Whoever has an address: a pod, or what stands for one."""

    address: str
    namespace: str
    labels: dict[str, str]
    ports: dict[str, int]


def selects(selector, labels):
    """Whether a selector (``matchLabels``, ``matchExpressions``) takes these labels; an empty one takes all."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions", []):
        value = labels.get(term["key"])
        holds = {
            "In": value in term.get("values", []),
            "NotIn": value not in term.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[term["operator"]]
        if not holds:
            return False
    return True


def rules(me, peers, services, policies, *, node):
    """Rules of nftables for the pod ``me`` among ``peers``.

    ``services`` maps the address of each Service to (its ports, the peers behind it); ``policies`` are those of the pod's
    namespace. The ``node`` itself always gets through to its pods: its kubelet asks the probes.
    """
    sent, refused = [], []
    for address, (ports, behind) in services.items():
        for port in ports:
            there = f"ip daddr {address} tcp dport {port['port']}"
            ends = [f"{peer.address} . {number(port.get('targetPort', port['port']), peer)}" for peer in behind]
            if ends:
                choice = ", ".join(f"{place} : {end}" for place, end in enumerate(ends))
                sent.append(f"{there} dnat to numgen random mod {len(ends)} map {{ {choice} }}")
            else:
                refused.append(f"{there} reject with tcp reset")
    lines = ["flush ruleset", "table ip services {"]
    lines += ["chain sent {", "type nat hook output priority dstnat", *sent, "}"]
    lines += ["chain refused {", "type filter hook output priority dstnat", *refused, "}", "}", "table ip policies {"]
    mine = [policy for policy in policies if selects(policy["spec"]["podSelector"], me.labels)]
    for direction, hook in (("Ingress", "input"), ("Egress", "output")):
        judged = [policy for policy in mine if direction in policy["spec"]["policyTypes"]]
        lines += [
            f"chain {direction.lower()} {{",
            f"type filter hook {hook} priority filter; policy {'drop' if judged else 'accept'};",
        ]
        lines += ["ct state established,related accept", f'{hook[0]}ifname "lo" accept']
        if direction == "Ingress":
            lines.append(f"ip saddr {node} accept")
        for policy in judged:
            for rule in policy["spec"].get(direction.lower(), []):
                lines += allowed(rule, direction, me, peers)
        lines.append("}")
    return "\n".join([*lines, "}", ""])


def allowed(rule, direction, me, peers):
    """Lines that let one rule's traffic through."""
    field, key = ("saddr", "from") if direction == "Ingress" else ("daddr", "to")
    for ends, match in _ends(rule.get(key), field, me, peers):
        for port in rule.get("ports", [{}]):
            wanted = port.get("port")
            protocol = port.get("protocol", "TCP").lower()
            if wanted is None:
                yield f"{match} accept"
                continue
            # A name of a port is the receiver's.
            numbers = {number(wanted, peer) for peer in ([me] if direction == "Ingress" or not ends else ends)}
            yield f"{match} {protocol} dport {{ {', '.join(map(str, sorted(numbers)))} }} accept"


def _ends(terms, field, me, peers):
    """Each term of ``from`` or ``to`` as (the peers that it means, how nftables sees them)."""
    if not terms:
        yield peers, ""
        return
    for term in terms:
        if "ipBlock" in term:
            # The cluster has addresses of the fourth version only.
            if ":" not in term["ipBlock"]["cidr"]:
                outside = "".join(f"ip {field} != {block} " for block in term["ipBlock"].get("except", []))
                yield [], f"{outside}ip {field} {term['ipBlock']['cidr']}"
            continue
        meant = [
            peer
            for peer in peers
            if (
                selects(term["namespaceSelector"], {NAMESPACE_LABEL: peer.namespace})
                if "namespaceSelector" in term
                else peer.namespace == me.namespace
            )
            and selects(term.get("podSelector", {}), peer.labels)
        ]
        if meant:
            yield meant, f"ip {field} {{ {', '.join(sorted({peer.address for peer in meant}))} }}"


def number(port, peer):
    """Number of a port that may be named."""
    return peer.ports[port] if isinstance(port, str) else port


def direct(process, text):
    """Put rules into force in the network of a process, unless that has just ended."""
    command = ["nsenter", f"--net=/proc/{process}/ns/net", "nft", "--file", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode and Path(f"/proc/{process}").exists():
        raise RuntimeError(f"{done.stderr}{text}")
