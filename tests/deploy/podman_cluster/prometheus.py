"""Prometheus as its operator would set it up: targets from PodMonitors, rules from PrometheusRules.

Comes in: the cluster and its objects; Debian's prometheus. Goes out: answers to queries over the time since it was started.

Its minute lasts two seconds: all durations of rules and scrapes are divided by ``HASTE``, so that what takes an hour to be
noticed is noticed in two minutes. Expressions, labels and thresholds stay as they are.
"""

import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

HASTE = 30
PORT = 9090
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = re.compile(r"(?<![\w.])(\d+)(ms|s|m|h|d|w)(?!\w)")
NAMESPACE = "monitoring"


def hasten(text):
    """A text with all its durations divided by ``HASTE``."""
    return DURATION.sub(lambda found: f"{round(1000 * int(found[1]) * SECONDS[found[2]] / HASTE)}ms", text)


def hastened_rules(groups):
    """Groups of rules in which all is as it was, but sooner."""
    timed = ("expr", "for", "keep_firing_for")
    return [
        {
            "name": group["name"],
            "interval": "1s",
            "rules": [rule | {key: hasten(rule[key]) for key in timed if key in rule} for rule in group["rules"]],
        }
        for group in groups
    ]


def scrape_configs(monitors, targets):
    """What to scrape, found in the file ``targets``."""
    configs = []
    for name, monitor in monitors.items():
        for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
            keep = [
                {"source_labels": [_label(key)], "regex": re.escape(value), "action": "keep"}
                for key, value in monitor["spec"]["selector"]["matchLabels"].items()
            ]
            keep.append(
                {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"}
            )
            named = [
                {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}
                for source, target in (("namespace", "namespace"), ("pod_name", "pod"), ("pod_container_name", "container"))
            ]
            configs.append(
                {
                    "job_name": f"podMonitor/{name}/{number}",
                    "scrape_interval": "1s",
                    "scrape_timeout": "1s",
                    "metrics_path": endpoint.get("path", "/metrics"),
                    "file_sd_configs": [{"files": [targets], "refresh_interval": "1s"}],
                    "relabel_configs": keep + named + [_relabelling(rule) for rule in endpoint.get("relabelings", [])],
                }
            )
    return configs


def _relabelling(rule):
    """A rule of the operator's in Prometheus' own spelling."""
    return {re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), key): value for key, value in rule.items()}


def _label(key):
    """What Kubernetes' discovery calls a pod's label."""
    return "__meta_kubernetes_pod_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)


def target(pod, container, port):
    """One port of a pod as Kubernetes' discovery would tell it."""
    labels = {_label(key): value for key, value in pod.labels.items()}
    labels |= {
        "__meta_kubernetes_namespace": pod.namespace,
        "__meta_kubernetes_pod_name": pod.name,
        "__meta_kubernetes_pod_container_name": container,
        "__meta_kubernetes_pod_container_port_name": port["name"],
    }
    return {"targets": [f"{pod.address}:{port['containerPort']}"], "labels": labels}


class Prometheus:
    """Prometheus in a pod of another namespace, so that NetworkPolicies hold for it too."""

    def __init__(self, cluster, program, image, folder):
        self.cluster, self.folder, self.pod = cluster, folder, None
        self.begun = time.time()
        folder.chmod(0o755)
        self.look()
        self.pod = cluster.start("prometheus-0", template(program, image, folder), namespace=NAMESPACE)
        cluster.watchers.append(self.look)

    def look(self):
        """Tell Prometheus which pods there are, and its settings where these have changed."""
        pods = [pod for pod in list(self.cluster.pods.values()) if pod.alive()]
        containers = [(pod, container) for pod in pods for container in pod.template["spec"]["containers"]]
        found = [target(pod, container["name"], port) for pod, container in containers for port in container.get("ports", [])]
        groups = [group for rule in self.cluster.of_kind("PrometheusRule").values() for group in rule["spec"]["groups"]]
        settings = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": ["/etc/prometheus/rules.yaml"],
            "scrape_configs": scrape_configs(self.cluster.of_kind("PodMonitor"), "/etc/prometheus/targets.json"),
        }
        self._write("targets.json", found)
        changed = [self._write("rules.yaml", {"groups": hastened_rules(groups)}), self._write("prometheus.yml", settings)]
        if self.pod is not None and any(changed):
            urllib.request.urlopen(urllib.request.Request(f"{self._url}/-/reload", method="POST"), timeout=60).close()

    def _write(self, name, content):
        """Write a file that Prometheus reads, in one step; whether it is another than before."""
        path, new, text = self.folder / name, self.folder / f"{name}.new", json.dumps(content)
        if path.exists() and path.read_text() == text:
            return False
        new.write_text(text)
        new.replace(path)
        return True

    @property
    def _url(self):
        return f"http://{self.pod.address}:{PORT}"

    def ask(self, path, **query):
        """Data of an answer of its API."""
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            content = json.loads(answer.read())
        if content["status"] != "success":
            raise RuntimeError(content)
        return content["data"]

    def now(self, expression):
        """Series of an expression as (labels, value)."""
        return [(series["metric"], float(series["value"][1])) for series in self.ask("query", query=expression)["result"]]

    def values(self, expression):
        """Every finite value that an expression has had since the beginning."""
        found = self.ask("query_range", query=expression, start=self.begun, end=time.time(), step=1)["result"]
        numbers = [float(value) for series in found for _, value in series["values"]]
        return [number for number in numbers if abs(number) < float("inf")]

    def firing(self, **labels):
        """Names of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing" and labels.items() <= alert["labels"].items()
        }


def template(program, image, folder):
    """A pod that runs the node's own ``prometheus``."""
    return {
        "metadata": {"labels": {"app.kubernetes.io/name": "prometheus"}},
        "spec": {
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [
                {
                    "name": "prometheus",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": [
                        "/opt/prometheus",
                        "--config.file=/etc/prometheus/prometheus.yml",
                        "--storage.tsdb.path=/prometheus",
                        f"--web.listen-address=0.0.0.0:{PORT}",
                        "--web.enable-lifecycle",
                        "--log.level=warn",
                    ],
                    "ports": [{"name": "web", "containerPort": PORT}],
                    "startupProbe": {"httpGet": {"path": "/-/ready", "port": "web"}},
                    "volumeMounts": [
                        {"name": "settings", "mountPath": "/etc/prometheus", "readOnly": True},
                        {"name": "program", "mountPath": "/opt/prometheus", "readOnly": True},
                        {"name": "series", "mountPath": "/prometheus"},
                    ],
                }
            ],
            "volumes": [
                {"name": "settings", "hostPath": {"path": str(folder), "type": "Directory"}},
                {"name": "program", "hostPath": {"path": str(Path(program).resolve()), "type": "File"}},
                {"name": "series", "emptyDir": {}},
            ],
        },
    }
