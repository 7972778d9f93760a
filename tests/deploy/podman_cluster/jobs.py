"""A Job's controller: tries its pod until it succeeds, or until its failure policy or ``backoffLimit`` says that it will not.

Comes in: spec of a Job as rendered. Goes out: whether it is complete, why not, and the pods it had with their exit codes.
The pauses between two tries (10 s and more) are left out.
"""

import threading
from dataclasses import dataclass, field

from podman_cluster.cluster import Pod


@dataclass
class Try:
    """One pod of a Job; ``exit_code`` is None while it runs."""

    pod: Pod
    exit_code: int | None = None


@dataclass
class Job:
    """A Job that was begun; ``condition`` is Complete or Failed at its end."""

    name: str
    tries: list[Try] = field(default_factory=list)
    condition: str = ""
    reason: str = ""
    _thread: threading.Thread | None = None

    def wait(self, seconds):
        """Until it has ended."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"{self.name}: not within {seconds} s; its pod says {self.tries[-1].pod.logs()[-3000:]}")
        return self


def begin(cluster, name, spec):
    """Begin a Job; it goes on by itself."""
    job = Job(name)
    job._thread = threading.Thread(target=_work, args=(cluster, job, spec), daemon=True)
    job._thread.start()
    return job


def _work(cluster, job, spec):
    failures = 0
    while True:
        attempt = Try(cluster.start(f"{job.name}-{len(job.tries)}", spec["template"], owner=job.name))
        job.tries.append(attempt)
        attempt.exit_code = int(cluster.podman.call("wait", attempt.pod.containers[-1], timeout=spec["activeDeadlineSeconds"]))
        if attempt.exit_code == 0:
            job.condition = "Complete"
            return
        action = policy_action(spec.get("podFailurePolicy", {"rules": []}), attempt)
        if action == "FailJob":
            job.condition, job.reason = "Failed", "PodFailurePolicy"
            return
        failures += action == "Count"
        if failures > spec["backoffLimit"]:
            job.condition, job.reason = "Failed", "BackoffLimitExceeded"
            return


def policy_action(policy, attempt):
    """What the first rule that fits says; ``Count`` where none does. No pod of podman's is ever disrupted by Kubernetes."""
    for rule in policy["rules"]:
        codes = rule.get("onExitCodes")
        if codes is None:
            continue
        container = codes.get("containerName", attempt.pod.template["spec"]["containers"][0]["name"])
        is_meant = attempt.pod.containers[-1] == f"{attempt.pod.name}-{container}"
        if is_meant and (attempt.exit_code in codes["values"]) == (codes["operator"] == "In"):
            return rule["action"]
    return "Count"
