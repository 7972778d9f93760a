"""Upgrades: what an API server would not let change does not change, or belongs to an object of another name."""

import shutil

import pytest
from manifests.cases import CASES
from manifests.pods import at, of_kind
from manifests.rendering import CHART, ROOT

#: Kind → fields of its spec that no update may touch.
IMMUTABLE = {
    "Deployment": ["selector"],
    "StatefulSet": ["selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"],
    "Job": ["selector", "template", "completions", "completionMode", "podFailurePolicy"],
    "PersistentVolumeClaim": ["accessModes", "storageClassName", "volumeMode", "volumeName", "selector"],
    "Service": ["clusterIP", "ipFamilies"],
    # The operator makes schedulers and workers from it once, and takes no notice of what changes afterwards.
    "DaskCluster": ["scheduler", "worker"],
}
EVERYTHING = CASES["every-feature"]
#: As much of `every-feature` as may change while a release lives.
CHANGED = {
    "image": {"repository": "registry.example/scanner", "tag": "2.0.0", "pullPolicy": "Always", "pullSecrets": ["another"]},
    "podSecurity": {"runAsUser": 20001, "runAsGroup": 20001, "fsGroup": 20001},
    "podLabels": {"team": "lenses"},
    "serviceAccount": {"name": "another-account"},
    "objectStorage": {"endpoint": "", "existingSecret": "other-keys", "certificateAuthority": {"existingConfigMap": ""}},
    "dask": {"tls": {"enabled": False}},
    "surveyDefaults": {"config": {"scoring": {"beta": 1.0}}, "backoffLimit": 5, "timeZone": "Etc/UTC"},
    "surveys": {
        "by-driver": {"schedule": "@weekly", "workers": {"gpu": False, "replicas": 3, "scaling": "fixed"}},
        "by-keda": {"workers": {"scaling": "driver"}},
        "fixed": {"workers": {"scaling": "keda", "keda": {"serverAddress": "http://prometheus:9090"}, "memoryGb": 2}},
        "operated": {"workers": {"replicas": 9, "memoryGb": 2}},
    },
    "persistence": {"data": {"size": "2Ti"}, "scratch": {"kind": "emptyDir"}, "tmp": {"sizeLimit": "2Gi"}},
    "service": {"port": 8080, "resources": {"limits": {"cpu": "4"}}, "grades": {"size": "5Gi"}, "podAnnotations": {"a": "b"}},
    "training": {"seed": 2, "deadlineSeconds": 1000, "backoffLimit": 1},
    "export": {"version": "2"},
    "promote": {"threads": 8},
    "kueue": {"queue": "lenses"},
}


def broken(before, after):
    """Fields that an update would have to change and may not: kind, name, field."""
    found = [
        (kind, name, f"spec.{field}")
        for kind, fields in IMMUTABLE.items()
        for name in of_kind(before, kind).keys() & of_kind(after, kind).keys()
        for field in fields
        if at(of_kind(before, kind)[name], ("spec", field)) != at(of_kind(after, kind)[name], ("spec", field))
    ]
    bindings = [of_kind(manifests, "RoleBinding") for manifests in (before, after)]
    return found + [
        ("RoleBinding", name, "roleRef")
        for name in bindings[0].keys() & bindings[1].keys()
        if bindings[0][name]["roleRef"] != bindings[1][name]["roleRef"]
    ]


@pytest.fixture(scope="session")
def next_chart(tmp_path_factory):
    """The chart as its next version would be."""
    folder = tmp_path_factory.mktemp("next") / "scanner"
    shutil.copytree(CHART, folder)
    chart = folder / "Chart.yaml"
    text = chart.read_text()
    lines = ["version: 9.9.9" if line.startswith("version:") else line for line in text.splitlines()]
    chart.write_text("\n".join(lines))
    return folder


def test_other_values_change_nothing_that_may_not_change(helm, rendered):
    after = helm.template(*EVERYTHING, settings=CHANGED)
    assert broken(rendered("every-feature"), after) == []
    # They did change what may.
    assert rendered("every-feature") != after


def test_claims_that_are_kept_keep_their_names(helm, rendered):
    after = helm.template(*EVERYTHING, settings=CHANGED)
    assert of_kind(rendered("every-feature"), "PersistentVolumeClaim").keys() == of_kind(after, "PersistentVolumeClaim").keys()
    assert len(of_kind(after, "PersistentVolumeClaim")) == 2


@pytest.mark.parametrize("case", ["every-feature", "standing-scheduler", "many-replicas"])
def test_a_new_version_of_the_chart_alone_changes_nothing_that_may_not_change(helm, rendered, next_chart, case):
    before, after = rendered(case), helm.template(*CASES[case], chart=next_chart)
    assert broken(before, after) == []
    names = [{(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests} for manifests in (before, after)]
    assert names[0] == names[1]
    assert {manifest["metadata"]["labels"]["helm.sh/chart"] for manifest in after} == {"scanner-9.9.9"}


@pytest.mark.parametrize(
    ("kind", "component", "settings"),
    [
        ("Job", "train", {"training": {"seed": 2}}),
        ("Job", "train", {"image": {"tag": "2.0.0"}}),
        ("Job", "export", {"export": {"version": "2"}}),
        ("Job", "promote", {"promote": {"bundle": "0123abc"}}),
        ("DaskCluster", "scheduler", {"surveys": {"operated": {"workers": {"memoryGb": 2}}}}),
    ],
)
def test_what_cannot_be_changed_is_made_anew_under_another_name(helm, rendered, kind, component, settings):
    before, after = of_kind(rendered("every-feature"), kind), of_kind(helm.template(*EVERYTHING, settings=settings), kind)
    mine = [
        {name for name, manifest in side.items() if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == component}
        for side in (before, after)
    ]
    assert len(mine[0]) == len(mine[1]) == 1
    assert mine[0].isdisjoint(mine[1])


def test_values_that_are_not_of_a_job_leave_it_alone(helm, rendered):
    settings = {"surveys": {"by-driver": {"schedule": "@weekly"}}, "service": {"port": 8080}}
    after = of_kind(helm.template(*EVERYTHING, settings=settings), "Job")
    assert after == of_kind(rendered("every-feature"), "Job")


def changed_pods(before, after, kind):
    """Names of those whose pods' template differs."""
    return {
        name
        for name in of_kind(before, kind).keys() & of_kind(after, kind).keys()
        if at(of_kind(before, kind)[name], ("spec", "template")) != at(of_kind(after, kind)[name], ("spec", "template"))
    }


def test_pods_of_the_service_are_renewed_when_its_settings_change(helm, rendered):
    after = helm.template(*EVERYTHING, settings={"service": {"config": {"limits": {"rows": 777}}}})
    assert changed_pods(rendered("every-feature"), after, "Deployment") == {"euclid-scanner-service"}


def test_the_next_scan_has_the_settings_of_its_survey_and_no_other_scan_changes(helm, rendered):
    path = ("spec", "jobTemplate", "spec", "template", "metadata", "annotations", "checksum/config")
    before = of_kind(rendered("every-feature"), "CronJob")
    settings = {"surveys": {"by-keda": {"config": {"scoring": {"beta": 1.5}}}}}
    after = of_kind(helm.template(*EVERYTHING, settings=settings), "CronJob")
    different = {name for name in before if at(before[name], path) != at(after[name], path)}
    assert different == {"euclid-scanner-by-keda-scan"}
    assert None not in {at(manifest, path) for manifest in before.values()}


def test_workers_are_not_sent_away_by_a_change_of_the_next_scans_settings(helm, rendered):
    """They are told by the driver what to do: a new schedule or list, in the middle of a scan, is nothing to them."""
    settings = {"surveys": {"fixed": {"schedule": "@weekly", "tileList": {"url": "s3://lists/wider.txt"}}}}
    after = helm.template(*EVERYTHING, settings=settings)
    assert changed_pods(rendered("every-feature"), after, "Deployment") == set()


def test_an_update_that_would_fail_is_found(rendered):
    before = rendered("every-feature")
    after = [dict(manifest) for manifest in before]
    job = next(manifest for manifest in after if manifest["kind"] == "Job")
    job["spec"] = {**job["spec"], "template": {}}
    assert broken(before, after) == [("Job", job["metadata"]["name"], "spec.template")]


def test_rules_and_dashboards_are_those_of_the_repository(helm, tmp_path):
    """They are links, which helm follows when it packs the chart."""
    helm.call("package", CHART, "--destination", tmp_path)
    (packed,) = tmp_path.glob("scanner-*.tgz")
    shutil.unpack_archive(packed, tmp_path)
    files = {file.name: file.read_bytes() for file in (tmp_path / "scanner" / "files").iterdir()}
    deployed = [ROOT / "deploy" / "prometheus" / "rules.yaml", *(ROOT / "deploy" / "grafana").glob("*.json")]
    assert files == {file.name: file.read_bytes() for file in deployed}
    assert helm.text(*EVERYTHING, chart=packed) == helm.text(*EVERYTHING)
