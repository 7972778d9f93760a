"""Checkov's judgement of all that the chart can make, every objection explained."""

import json
import re
import subprocess

import programs
import pytest
from manifests.cases import CASES

#: Check → the resources that it may object to, as a pattern, with why they stay as they are.
EXPLAINED = {
    # Helm puts everything into the release's namespace; manifests that name one could not be installed twice.
    "CKV_K8S_21": r".*",
    # An image that is named by digest, or by a version that is never made anew, need not be asked for again.
    "CKV_K8S_15": r".*",
    # Digests are a site's choice: where values name them, all images have one (test_pods.py).
    "CKV_K8S_43": r".*",
    # Keys of object stores are in the variables that S3 clients read; with a workload identity there are none.
    "CKV_K8S_35": r"(CronJob|Deployment|Job)\..*",
    # Workers and tests answer no requests: nobody waits for them to be ready.
    "CKV_K8S_9": r"(Deployment\..*-worker|Pod\..*-test-\w+)$",
    # A test has a deadline instead.
    "CKV_K8S_8": r"Pod\..*-test-\w+$",
    # A driver that scales its workers needs its token, and may do that alone (test_references.py).
    "CKV_K8S_38": r"CronJob\..*-by-driver-scan$",
}


@pytest.fixture(scope="session")
def objections(helm, tmp_path_factory):
    """What it says of every-feature: check, its words, resource."""
    checkov = programs.needed("checkov", target="checkov")
    folder = tmp_path_factory.mktemp("checkov")
    (folder / "manifests.yaml").write_text(helm.text(*CASES["every-feature"]))
    words = [
        "--directory",
        folder,
        "--framework",
        "kubernetes",
        "--skip-download",
        "--soft-fail",
        "--quiet",
        "--output",
        "json",
    ]
    done = subprocess.run([checkov, *map(str, words)], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["summary"]["parsing_errors"] == 0
    assert said["summary"]["passed"] > 1000
    return {(one["check_id"], one["check_name"], one["resource"]) for one in said["results"]["failed_checks"]}


def test_every_objection_is_explained(objections):
    unexplained = [objection for objection in objections if not re.match(EXPLAINED.get(objection[0], "$^"), objection[2])]
    assert unexplained == []


def test_no_explanation_outlives_its_objection(objections):
    assert {check for check, _, _ in objections} == set(EXPLAINED)
