"""Helm's own judgement of the chart."""

import pytest
from manifests.cases import CASES
from manifests.rendering import CHART, RefusedError


def test_every_case_passes_the_strict_lint(helm, case):
    words = [word for file in CASES[case] for word in ("--values", file)]
    assert "0 chart(s) failed" in helm.call("lint", CHART, "--strict", *words)


def test_an_old_kubernetes_is_refused(helm):
    helm.template(kubernetes="1.29")
    with pytest.raises(RefusedError, match=r"incompatible with Kubernetes v1\.28"):
        helm.template(kubernetes="1.28")
