"""The cluster: objects of a release, pods that run, and what keeps the two in step.

Comes in: manifests as helm renders them. Goes out: ``Pod`` objects, which tests ask, kill and read the logs of.
"""

import json
import os
import secrets
import signal
import subprocess
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from podman_cluster import kubelet, traffic
from podman_cluster.api_server import ApiServer
from podman_cluster.podman import Podman
from podman_cluster.traffic import Peer, selects

#: Kinds that become volumes of podman's.
STORED = ("ConfigMap", "Secret")
#: Service of the API, which every cluster has.
KUBERNETES = "kubernetes"


@dataclass(eq=False)
class Pod:
    """A pod that was started; ``template`` is as rendered, ``manifest`` as played."""

    podman: Podman
    name: str
    namespace: str
    template: dict
    manifest: dict
    owner: str
    address: str = ""
    #: A process that lives as long as the pod, in its network.
    process: int = 0
    ending: bool = False
    kept_log: str | None = field(default=None, repr=False)

    @property
    def labels(self):
        return self.template["metadata"]["labels"]

    @property
    def component(self):
        return self.labels.get("app.kubernetes.io/component")

    @property
    def containers(self):
        """Podman's names of its containers, those that run first too."""
        spec = self.manifest["spec"]
        return [f"{self.name}-{container['name']}" for container in spec.get("initContainers", []) + spec["containers"]]

    @property
    def ports(self):
        """Numbers of its named ports."""
        spec = self.manifest["spec"]
        return {port["name"]: port["containerPort"] for container in spec["containers"] for port in container.get("ports", [])}

    def alive(self):
        """Whether anything of it is left; what runs first counts."""
        return Path(f"/proc/{self.process}").exists()

    def state(self):
        return self.podman.inspect(self.containers[-1])["State"]

    def running(self):
        return self.state()["Running"]

    def logs(self):
        """All that it has said; kept when the pod goes."""
        if self.kept_log is not None:
            return self.kept_log
        return "".join(self._output("logs", container)[1] for container in self.containers)

    def kill(self):
        """End its process at once and without a word to it, as the kernel does where memory is short."""
        os.kill(self.state()["Pid"], signal.SIGKILL)

    def stop(self, grace=None):
        """Tell it to end, and kill it after its grace; with a grace of 0, as if its node were gone."""
        grace = self.template["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        # Not the pod: its network would be taken away first, from processes that have still something to say.
        self.podman.call("stop", "--ignore", f"--time={grace}", *self.containers, timeout=grace + 60)

    def run(self, *words):
        """Exit code and output of a command in it."""
        return self._output("exec", self.containers[-1], *words)

    def get(self, path, port):
        """Answer of its server to a GET from the node."""
        with urllib.request.urlopen(f"http://{self.address}:{traffic.number(port, self)}{path}", timeout=60) as answer:
            return answer.read().decode()

    def _output(self, *words):
        command = self.podman.command(*words)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
        return done.returncode, done.stdout


class Cluster:
    """One node. ``start`` and ``delete`` are for pods; everything else follows from the objects that were applied."""

    def __init__(self, podman, namespace):
        self.podman, self.namespace = podman, namespace
        self.objects, self.pods, self.wanted, self.tokens = {}, {}, {}, {}
        #: Service → the address that its name leads to.
        self.addresses = {}
        #: Called whenever objects or pods have come or gone.
        self.watchers = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._name_service(KUBERNETES)
        self.api = ApiServer(self)
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def apply(self, manifests):
        """Take objects; Services get their addresses, claims their volumes, and in a moment Deployments their pods."""
        with self._lock:
            for manifest in manifests:
                kind, name = manifest["kind"], manifest["metadata"]["name"]
                self.objects[kind, name] = manifest
                if kind == "Service" and name not in self.addresses:
                    self._name_service(name)
                elif kind == "PersistentVolumeClaim":
                    self.podman.call("volume", "create", "--ignore", name)
                elif kind == "Deployment":
                    self.wanted.setdefault(name, manifest["spec"].get("replicas", 1))
            self._direct()

    def of_kind(self, kind):
        """Objects of one kind by name."""
        return {name: manifest for (which, name), manifest in self.objects.items() if which == kind}

    def volume(self, claim):
        """Folder of a claim, as the node sees it."""
        return Path(json.loads(self.podman.call("volume", "inspect", claim))[0]["Mountpoint"])

    def running(self, component, **labels):
        """Pods of one component that run and have not been told to end."""
        with self._lock:
            pods = [pod for pod in self.pods.values() if pod.component == component and labels.items() <= pod.labels.items()]
            return [pod for pod in pods if not pod.ending and pod.running()]

    def scale(self, deployment, replicas):
        """Want this many pods of a Deployment."""
        with self._lock:
            self.wanted[deployment] = replicas

    def start(self, name, template, owner="", namespace=None):
        """Start one pod; containers that run first have ended well when this returns."""
        with self._lock:
            account = template["spec"].get("serviceAccountName")
            token_secret = self._token_secret(account) if template["spec"].get("automountServiceAccountToken") else None
            manifest = kubelet.playable(name, template, api_address=self.addresses[KUBERNETES], token_secret=token_secret)
            pod = Pod(self.podman, name, namespace or self.namespace, template, manifest, owner)
            stored = [manifest for kind in STORED for manifest in self.of_kind(kind).values()]
            self.podman.play(manifest, *stored)
            kubelet.own_volumes(pod)
            pod.address, pod.process = self.podman.start_network(name)
            self.pods[name] = pod
            self._direct()
        self.podman.call("pod", "start", name, timeout=900)
        return pod

    def delete(self, pod, grace=None):
        """End a pod as ``Pod.stop`` does, and take it away."""
        pod.ending = True
        pod.stop(grace)
        with self._lock:
            pod.kept_log = pod.logs()
            self.podman.call("pod", "rm", "--force", "--time=0", pod.name)
            del self.pods[pod.name]
            self._direct()

    def close(self):
        """No successors any more, and no API; podman ends what runs."""
        self._closing.set()
        self._keeper.join()
        self.api.close()

    def _name_service(self, name):
        """A name and an address that stay while the pods behind them change."""
        names = [name, *(f"{name}.{self.namespace}{rest}" for rest in ("", ".svc", ".svc.cluster.local"))]
        self.podman.call("pod", "create", f"--name=service-{name}", f"--network={self.podman.with_aliases(names)}")
        self.addresses[name], _ = self.podman.start_network(f"service-{name}")

    def _token_secret(self, account):
        """Name of the Secret with an account's token."""
        name = f"{account}-token"
        token = self.tokens.setdefault(account, secrets.token_hex())
        content = {"token": token, "namespace": self.namespace, "ca.crt": self.api.authority}
        self.objects["Secret", name] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
        return name

    def _direct(self):
        """Objects or pods have come or gone: give every pod its rules of traffic anew, and tell whoever watches."""
        node = self.podman.gateway
        pods = {pod: Peer(pod.address, pod.namespace, pod.labels, pod.ports) for pod in self.pods.values() if pod.alive()}
        # The name server and the API are the node's.
        dns, api = Peer(node, "kube-system", {"k8s-app": "kube-dns"}, {}), Peer(node, "default", {}, {"https": self.api.port})
        services = {self.addresses[KUBERNETES]: ([{"port": 443, "targetPort": "https"}], [api])}
        for name, manifest in self.of_kind("Service").items():
            selector = {"matchLabels": manifest["spec"]["selector"]}
            behind = [peer for peer in pods.values() if peer.namespace == self.namespace and selects(selector, peer.labels)]
            services[self.addresses[name]] = (manifest["spec"]["ports"], behind)
        for pod, peer in pods.items():
            policies = self.of_kind("NetworkPolicy").values() if pod.namespace == self.namespace else ()
            traffic.direct(pod.process, traffic.rules(peer, [*pods.values(), dns], services, policies, node=node))
        for tell in self.watchers:
            tell()

    def _keep(self):
        """Deployments have as many pods as are wanted; one that has ended, or is of an older template, gets a successor."""
        while not self._closing.wait(0.5):
            with self._lock:
                for name, wanted in self.wanted.items():
                    self._keep_deployment(name, wanted)

    def _keep_deployment(self, name, wanted):
        template = self.objects["Deployment", name]["spec"]["template"]
        pods = [pod for pod in self.pods.values() if pod.owner == name and not pod.ending]
        kept = [pod for pod in pods if pod.alive() and pod.template == template][:wanted]
        for pod in pods:
            if pod not in kept:
                pod.ending = True
                threading.Thread(target=self.delete, args=[pod]).start()
        for _ in range(wanted - len(kept)):
            self.start(f"{name}-{secrets.token_hex(3)}", template, owner=name)
