"""KEDA: as many pods of a Deployment as a ScaledObject's question to Prometheus says.

Comes in: ScaledObjects as rendered, a running Prometheus. Goes out: the wanted replicas of the Deployments they name, while
``keeping`` lasts. Its interval is a second, and it does not wait before it scales down.
"""

import math
import threading
from contextlib import contextmanager


def wanted(scaled, prometheus):
    """Replicas that one ScaledObject asks for."""
    spec = scaled["spec"]
    [trigger] = spec["triggers"]
    series = prometheus.now(trigger["metadata"]["query"])
    value = sum(number for _, number in series)
    replicas = math.ceil(value / float(trigger["metadata"]["threshold"]))
    return max(spec["minReplicaCount"], min(spec["maxReplicaCount"], replicas))


@contextmanager
def keeping(cluster, prometheus):
    """Let every ScaledObject have its way."""
    over = threading.Event()

    def keep():
        while not over.wait(1):
            for scaled in cluster.of_kind("ScaledObject").values():
                cluster.scale(scaled["spec"]["scaleTargetRef"]["name"], wanted(scaled, prometheus))

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
