"""An upgrade in the middle of a scan: how many workers there are is the driver's business, or KEDA's, not helm's."""

import pytest
from manifests.api_server import api_server
from manifests.pods import of_kind
from manifests.rendering import NAMESPACE

WORKER = "euclid-scanner-q1-worker"


@pytest.mark.parametrize(("scaling", "after"), [("driver", 5), ("keda", 5), ("fixed", 2)])
def test_an_upgrade_leaves_the_number_of_workers_to_whoever_sets_it(helm, scaling, after):
    workers = {"scaling": scaling, "replicas": 2, "keda": {"serverAddress": "http://prometheus:9090"}}
    settings = {"surveys": {"q1": {"tileList": {"url": "s3://sky/tiles.txt"}, "out": "s3://runs/q1", "workers": workers}}}
    offline = helm.template(settings=settings)
    live = of_kind(offline, "Deployment")[WORKER]
    live["metadata"]["namespace"] = NAMESPACE
    live["spec"]["replicas"] = 5

    kinds = {(manifest["apiVersion"], manifest["kind"]) for manifest in offline}
    with api_server([live], kinds) as address:
        words = ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", address]
        upgraded = helm.template(settings=settings, words=["--is-upgrade", *words])
        elsewhere = helm.template(settings=settings, release="other", words=words)
    assert of_kind(upgraded, "Deployment")[WORKER]["spec"]["replicas"] == after
    begun = of_kind(elsewhere, "Deployment")["other-scanner-q1-worker"]["spec"]["replicas"]
    assert begun == (2 if scaling == "fixed" else 0)
