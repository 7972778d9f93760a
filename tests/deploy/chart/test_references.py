"""What manifests say of one another: every selector finds its pods, every name is that of an object or comes from values."""

import pytest
from manifests.pods import at, of_kind, pods
from manifests.rendering import NAMESPACE

#: What values may name that others make: Secrets always, the rest where the value is called existing….
EXISTING = "existing"


def matches(selector, labels):
    """Whether a label selector takes labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    verdicts = {
        "In": lambda expression: labels.get(expression["key"]) in expression["values"],
        "NotIn": lambda expression: labels.get(expression["key"]) not in expression["values"],
        "Exists": lambda expression: expression["key"] in labels,
        "DoesNotExist": lambda expression: expression["key"] not in labels,
    }
    return all(verdicts[expression["operator"]](expression) for expression in selector.get("matchExpressions") or [])


def chosen(manifests, selector):
    return [pod for pod in pods(manifests) if matches(selector, pod.labels)]


def port_names(pod):
    return {port["name"]: port["containerPort"] for container in pod.containers for port in container.get("ports", [])}


def test_deployments_select_their_own_pods_and_no_others(manifests):
    for kind in ("Deployment", "StatefulSet"):
        for name, manifest in of_kind(manifests, kind).items():
            selected = chosen(manifests, manifest["spec"]["selector"])
            assert [pod.name for pod in selected] == [f"{kind}/{name}"]


def test_services_lead_to_a_port_of_pods_of_one_kind(manifests):
    for name, manifest in of_kind(manifests, "Service").items():
        selected = chosen(manifests, {"matchLabels": manifest["spec"]["selector"]})
        operated = [key for key in manifest["spec"]["selector"] if key.startswith("dask.org/")]
        if operated:
            continue
        assert len(selected) == 1, (name, [pod.name for pod in selected])
        ports = port_names(selected[0])
        for port in manifest["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert target in ports or target in ports.values(), (name, target, ports)


def test_budgets_and_monitors_find_pods(manifests):
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for name, manifest in of_kind(manifests, kind).items():
            selected = chosen(manifests, manifest["spec"]["selector"])
            assert selected, (kind, name)
            for endpoint in manifest["spec"].get("podMetricsEndpoints", []):
                assert any(endpoint["port"] in port_names(pod) for pod in selected), (name, endpoint["port"])


def test_scalers_scale_what_there_is(manifests):
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for name, manifest in of_kind(manifests, kind).items():
            target = manifest["spec"]["scaleTargetRef"]
            assert target.get("apiVersion", "apps/v1") == "apps/v1", name
            scaled = of_kind(manifests, target.get("kind", "Deployment"))[target["name"]]
            # What sets replicas must be the only one to do so, or every upgrade scales back.
            assert "replicas" not in scaled["spec"] or kind == "ScaledObject", (name, target["name"])


def test_autoscalers_of_dask_scale_their_cluster(manifests):
    clusters = of_kind(manifests, "DaskCluster")
    for manifest in of_kind(manifests, "DaskAutoscaler").values():
        assert manifest["spec"]["cluster"] in clusters
        assert 0 <= manifest["spec"]["minimum"] <= manifest["spec"]["maximum"]


def test_routes_lead_to_a_port_of_a_service(manifests):
    services = of_kind(manifests, "Service")
    backends = [
        (path["backend"]["service"]["name"], path["backend"]["service"]["port"])
        for ingress in of_kind(manifests, "Ingress").values()
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    backends += [
        (reference["name"], {"number": reference["port"]})
        for route in of_kind(manifests, "HTTPRoute").values()
        for rule in route["spec"]["rules"]
        for reference in rule["backendRefs"]
    ]
    for name, port in backends:
        ports = services[name]["spec"]["ports"]
        assert port.get("name") in {each.get("name") for each in ports} or port.get("number") in {
            each["port"] for each in ports
        }


def test_roles_are_bound_to_accounts_that_are_there(manifests):
    roles, accounts = of_kind(manifests, "Role"), of_kind(manifests, "ServiceAccount")
    bound = set()
    for name, binding in of_kind(manifests, "RoleBinding").items():
        assert binding["roleRef"]["name"] in roles, name
        bound.add(binding["roleRef"]["name"])
        for subject in binding["subjects"]:
            assert subject["name"] in accounts, name
            assert subject["namespace"] == NAMESPACE, name
    assert bound == set(roles), "a Role that nobody has"


def test_a_role_names_what_it_allows(manifests):
    deployments = of_kind(manifests, "Deployment")
    for name, role in of_kind(manifests, "Role").items():
        for rule in role["rules"]:
            assert rule["apiGroups"] == ["apps"], name
            assert rule["resources"] == ["deployments/scale"], name
            assert set(rule["verbs"]) <= {"get", "patch"}, name
            assert set(rule["resourceNames"]) <= set(deployments), name


def sources(volume):
    """What a volume takes from which object: kind, name and the keys that are asked for."""
    for source in [volume, *at(volume, ("projected", "sources"), [])]:
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if field in source:
                name = source[field].get("name") or source[field].get("secretName")
                yield kind, name, {item["key"] for item in source[field].get("items", [])}
        if "persistentVolumeClaim" in source:
            yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"], set()


def asked_of_others(manifests):
    """Every object that a pod needs: pod, kind, name, keys."""
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            for kind, name, keys in sources(volume):
                yield pod, kind, name, keys
        for container in pod.containers:
            for variable in container.get("env", []):
                for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                    reference = at(variable, ("valueFrom", field))
                    if reference is not None:
                        yield pod, kind, reference["name"], {reference["key"]}
            for source in container.get("envFrom", []):
                for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                    if field in source:
                        yield pod, kind, source[field]["name"], set()
        account = pod.spec.get("serviceAccountName")
        if account not in (None, "default"):
            yield pod, "ServiceAccount", account, set()


def test_what_pods_need_is_there_or_was_named_in_values(manifests, named_in_values):
    certificates = {manifest["spec"]["secretName"] for manifest in of_kind(manifests, "Certificate").values()}
    for pod, kind, name, keys in asked_of_others(manifests):
        made = of_kind(manifests, kind)
        if kind == "Secret" and name in certificates:
            assert keys <= {"ca.crt", "tls.crt", "tls.key"}
        elif name in made:
            assert keys <= made[name].get("data", {}).keys(), (pod.name, name)
        else:
            assert name in named_in_values, f"{pod.name} needs {kind} {name}, which nobody makes"


def test_mounts_are_of_volumes_and_all_volumes_are_mounted(manifests):
    for pod in pods(manifests):
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        assert mounted == volumes, pod.name


def test_everything_that_is_made_is_used(manifests, case):
    """A ConfigMap, claim or account that no pod needs is a leftover, except what others find by its label."""
    needed = {(kind, name) for _, kind, name, _ in asked_of_others(manifests)}
    for kind in ("ConfigMap", "PersistentVolumeClaim", "ServiceAccount"):
        for name, manifest in of_kind(manifests, kind).items():
            found_by_label = "grafana_dashboard" in (manifest["metadata"].get("labels") or {})
            if kind == "ServiceAccount" and case == "default":
                continue
            assert (kind, name) in needed or found_by_label, (kind, name)


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
    ],
)
def test_selectors(selector, taken):
    assert matches(selector, {"a": "1"}) is taken
