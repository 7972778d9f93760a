"""Deployments as processes of this machine: one each, restarted when it ends, stopped when its Deployment is deleted.

Each has a Pod whose condition Ready is what its readiness probe says. Ports of pods are this machine's.
"""

import copy
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

#: On one machine workers cannot all have the same ports, and there is no /scratch.
LEFT_OUT = re.compile(r"--(worker-port|metrics-port|scratch)=")
STARTED, GONE = "started", "gone"


class Node:
    """Works until it is closed; ``history``: (started or gone, Deployment) as it happened."""

    def __init__(self, objects, folder, prefix):
        self.history = []
        self._objects, self._folder, self._prefix = objects, folder, prefix
        self._processes = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def close(self):
        self._closing.set()
        self._thread.join()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(150)

    def _work(self):
        while not self._closing.is_set():
            deployments = {one["metadata"]["name"]: one for one in self._objects.of_kind("Deployment")}
            for name, deployment in deployments.items():
                if name not in self._processes or self._processes[name].poll() is not None:
                    self._start(name, deployment)
            for name in set(self._processes) - set(deployments):
                self._stop(name)
            for pod in self._objects.of_kind("Pod"):
                self._probe(pod)
            for service in self._objects.of_kind("Service"):
                # Its status is what the operator waits for.
                if "status" not in service:
                    where = service["metadata"]["namespace"], service["metadata"]["name"]
                    self._objects.patch("Service", *where, lambda held: held | {"status": {"loadBalancer": {}}})
            time.sleep(0.2)

    def _start(self, name, deployment):
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        environment = {one["name"]: one["value"] for one in container.get("env", [])}
        words = [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], word) for word in container["args"]]
        words = [word for word in words if not LEFT_OUT.match(word)]
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [*self._prefix, sys.executable, "-m", "scanner", *words]
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
        if (STARTED, name) not in self.history:
            self.history.append((STARTED, name))
            pod = {"metadata": {"name": name, "labels": template["metadata"]["labels"]}, "spec": template["spec"]}
            self._objects.create("Pod", deployment["metadata"]["namespace"], pod | {"status": status(ready=False)})

    def _stop(self, name):
        process = self._processes.pop(name)
        process.terminate()
        process.wait(150)
        self.history.append((GONE, name))
        (pod,) = (pod for pod in self._objects.of_kind("Pod") if pod["metadata"]["name"] == name)
        self._objects.delete("Pod", pod["metadata"]["namespace"], name)

    def _probe(self, pod):
        (container,) = pod["spec"]["containers"]
        probe = container.get("readinessProbe", {}).get("httpGet")
        if probe is None:
            return
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == probe["port"])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['path']}", timeout=5) as answer:
                ready = answer.status == 200
        except (urllib.error.URLError, TimeoutError):
            ready = False
        where = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._objects.patch("Pod", *where, lambda held: copy.deepcopy(held) | {"status": status(ready)})


def status(ready):
    """Of a pod whose process runs."""
    return {
        "phase": "Running",
        "conditions": [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")],
    }
