"""A cluster of one node, made of podman: manifests in, running pods out.

What podman itself cannot do is done here, each thing in one module, as Kubernetes' own parts do it:

- ``podman``: the program, with a storage, a network and control groups of its own;
- ``kubelet``: a pod's manifest as podman can play it, owners of volumes, probes;
- ``traffic``: Services and NetworkPolicies, as rules of nftables in each pod's network;
- ``cluster``: pods, and as many of them as a Deployment wants; ``jobs``: tries of a Job;
- ``api_server``: the one request that a driver makes, judged by the rendered Roles;
- ``keda``: autoscaling by what Prometheus knows;
- ``object_store``: what s3:// leads to;
- ``prometheus``: Prometheus as its operator would set it up from PodMonitor and PrometheusRule.
"""
