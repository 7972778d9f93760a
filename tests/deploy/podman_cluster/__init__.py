"""A cluster of one node, made of podman: manifests in, running pods out.

What podman itself cannot do is done here, each thing in one module, as Kubernetes' own parts do it:

- ``podman``: the program, with a storage, a network and control groups of its own;
- ``kubelet``: a pod's manifest as podman can play it, owners of volumes, probes;
- ``traffic``: Services and NetworkPolicies, as rules of nftables in each pod's network;
- ``controllers``: replicas of a Deployment, tries of a Job;
- ``api_server``: the one request that a driver makes, judged by the rendered Roles;
- ``prometheus``: Prometheus as its operator would set it up from PodMonitor and PrometheusRule.
"""
