"""What is rendered, against the schemas of the oldest and the newest Kubernetes that is supported and of custom resources."""

from copy import deepcopy

import pytest
from manifests.cases import CASES
from manifests.enumerations import wrong_words
from manifests.pods import at
from manifests.rendering import NEWEST_KUBERNETES, OLDEST_KUBERNETES
from manifests.schemas import problems


@pytest.mark.parametrize("kubernetes", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_every_manifest_is_what_its_schema_says(manifests, kubernetes):
    wrong = {
        f"{manifest['kind']} {manifest['metadata']['name']}": found
        for manifest in manifests
        if (found := problems(manifest, kubernetes))
    }
    assert wrong == {}


def test_words_that_are_chosen_from_a_list_are_on_it(manifests):
    assert [word for manifest in manifests for word in wrong_words(manifest)] == []


def _cron_job():
    container = {"name": "scan", "image": "scanner"}
    job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    spec = {"schedule": "0 3 * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "scan"}, "spec": spec}


@pytest.mark.parametrize("kubernetes", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_a_field_that_there_is_not_is_found(kubernetes):
    manifest = _cron_job()
    assert problems(manifest, kubernetes) == []
    at(manifest, ("spec", "jobTemplate", "spec"))["backOffLimit"] = 3
    assert len(problems(manifest, kubernetes)) == 1


def test_a_word_that_there_is_not_is_found():
    manifest = _cron_job()
    assert wrong_words(manifest) == []
    manifest["spec"]["concurrencyPolicy"] = "Fobid"
    assert wrong_words(manifest) == ["CronJob.spec.concurrencyPolicy: 'Fobid'"]


CUSTOM = {
    "DaskCluster": (
        "kubernetes.dask.org/v1",
        {"scheduler": {"spec": {}, "service": {}}, "worker": {"replicas": 1, "spec": {}}},
    ),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {"scaleTargetRef": {"name": "worker"}, "triggers": [{"type": "prometheus", "metadata": {"query": "up"}}]},
    ),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector": {}, "podMetricsEndpoints": [{"port": "metrics"}]}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups": [{"name": "scanner", "rules": [{"alert": "A", "expr": "up"}]}]}),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", {"parentRefs": [{"name": "public"}], "rules": [{}]}),
    "Certificate": ("cert-manager.io/v1", {"secretName": "tls", "issuerRef": {"name": "authority"}}),
}


@pytest.mark.parametrize("kind", CUSTOM)
def test_the_schemas_of_custom_resources_are_closed_too(kind):
    api_version, spec = CUSTOM[kind]
    manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "it"}, "spec": deepcopy(spec)}
    before = problems(manifest, NEWEST_KUBERNETES)
    manifest["spec"]["sceduler"] = {}
    assert len(problems(manifest, NEWEST_KUBERNETES)) == len(before) + 1


#: Names that YAML takes for something else unless they stand in quotes.
ODD_NAMES = {
    "image": {"pullSecrets": ["123"]},
    "objectStorage": {"existingSecret": "123", "region": "7", "certificateAuthority": {"existingConfigMap": "1e5"}},
    "surveys": {
        "true": {"tileList": {"url": "s3://lists/a.txt"}, "out": "s3://surveys/a"},
        "123": {"tileList": {"url": "s3://lists/b.txt"}, "out": "s3://surveys/b", "priorityClassName": "7"},
    },
    "persistence": {"data": {"existingClaim": "7"}},
    "service": {"listen": "::", "tokens": {"existingSecret": "7"}, "ingress": {"className": "7", "tls": {"secretName": "123"}}},
    "kueue": {"queue": "7", "priorityClass": "123"},
}


def test_names_that_look_like_numbers_stay_names(helm):
    manifests = helm.template(*CASES["every-feature"], settings=ODD_NAMES, release="true")
    wrong = [found for manifest in manifests if (found := problems(manifest, NEWEST_KUBERNETES))]
    assert wrong == []
    assert {manifest["metadata"]["labels"]["app.kubernetes.io/instance"] for manifest in manifests} == {"true"}
