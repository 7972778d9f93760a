"""From sets to the promoted bundle: what the three Jobs run, when they are tried again, when they are another Job."""

import shutil

import pytest
from manifests.pods import at, of_kind, pods
from manifests.rendering import CHART, RefusedError

from scanner import errors

SETS, RUNS, BUNDLES = "s3://lenses/sets/train-1", "s3://lenses/training/autumn", "s3://lenses/bundles"
ON_S3 = {
    "training": {"enabled": True, "data": [SETS], "mirror": RUNS},
    "export": {"enabled": True, "publish": BUNDLES},
    "promote": {"enabled": True, "published": BUNDLES, "data": [SETS]},
}
COMPONENTS = ("train", "export", "promote")
SECTION = {"train": "training", "export": "export", "promote": "promote"}
VOLUME = {"persistence": {"data": {"enabled": True}}}


def values(component=None, settings=(), **others):
    """All three switched on, one of them with other settings."""
    made = {name: dict(section) for name, section in ON_S3.items()} | others
    if component is not None:
        made[SECTION[component]] |= dict(settings)
    return made


def by_component(manifests):
    """The Jobs, by what they do."""
    return {job["metadata"]["labels"]["app.kubernetes.io/component"]: job for job in of_kind(manifests, "Job").values()}


def words_of(manifests):
    """The words of each Job's own container."""
    return {
        name: at(job, ("spec", "template", "spec", "containers", 0, "args")) for name, job in by_component(manifests).items()
    }


@pytest.fixture
def jobs(helm):
    return lambda settings, **how: by_component(helm.template(settings=settings, **how))


def test_nothing_is_made_unless_it_is_switched_on(helm):
    switched_off = {name: section | {"enabled": False} for name, section in ON_S3.items()}
    assert not of_kind(helm.template(settings=switched_off), "Job")


def test_without_a_volume_the_runs_lie_on_the_pod_and_on_their_mirror(helm):
    words = words_of(helm.template(settings=values()))
    assert {f"--data={SETS}", "--out=/scratch/runs", f"--mirror={RUNS}", "--device=cuda"} <= set(words["train"])
    assert {f"--data={SETS}", "--members=/scratch/runs", f"--mirror={RUNS}", f"--publish={BUNDLES}"} <= set(words["export"])
    assert words["promote"][:4] == ["models", "promote", "latest", f"--published={BUNDLES}"]


def test_with_a_volume_they_lie_there(helm):
    settings = values("train", {"mirror": ""}, **VOLUME)
    words = words_of(helm.template(settings=settings))
    assert "--out=/data/training/runs" in words["train"]
    assert {"--members=/data/training/runs", "--out=/data/training/trained"} <= set(words["export"])
    assert not [word for word in words["train"] + words["export"] if word.startswith("--mirror")]


def test_all_that_training_can_be_told(helm):
    told = {
        "data": [SETS, "s3://lenses/{{ .Release.Name }}/train-2"],
        "preset": "paper",
        "seed": 12_345_678,
        "timeBudget": "1.5h",
        "from": f"{BUNDLES}/current",
        "members": ["OU-66", "OU-J"],
        "jobs": 7,
        "gpu": False,
        "extraArgs": ["--threads=2"],
    }
    assert words_of(helm.template(settings=values("train", told)))["train"][2:] == [
        f"--data={SETS}",
        "--data=s3://lenses/euclid/train-2",
        "--out=/scratch/runs",
        f"--mirror={RUNS}",
        "--preset=paper",
        "--seed=12345678",
        "--time-budget=1.5h",
        f"--from={BUNDLES}/current",
        "--member=OU-66",
        "--member=OU-J",
        "--jobs=7",
        "--device=cpu",
        "--metrics-port=9464",
        "--log-format=json",
        "--threads=2",
    ]


@pytest.mark.parametrize(("component", "image"), [("train", "train"), ("export", "train"), ("promote", "scan")])
@pytest.mark.parametrize("gpu", [True, False])
def test_a_gpu_is_asked_for_and_used_or_neither(jobs, component, image, gpu):
    job = jobs(values(component, {"gpu": gpu, "gpuResource": "amd.com/gpu"}))[component]
    container = at(job, ("spec", "template", "spec", "containers", 0))
    assert container["image"].endswith(f"-{image}-{'gpu' if gpu else 'cpu'}")
    for kind in ("requests", "limits"):
        assert container["resources"][kind].get("amd.com/gpu") == ("1" if gpu else None)
    assert any(word in container["args"] for word in ("--device=cuda", "--provider=cuda")) == gpu


@pytest.fixture(scope="module")
def before(helm):
    """The Jobs of all three steps; only to be read."""
    return by_component(helm.template(settings=values()))


#: Another try would not mend these.
FINAL = {
    errors.UsageError.exit_code,
    errors.TileListError.exit_code,
    errors.InputMissingError.exit_code,
    errors.ContentError.exit_code,
}


def test_what_another_try_would_not_mend_is_not_tried_again(before):
    for component, job in before.items():
        ignored, final = at(job, ("spec", "podFailurePolicy", "rules"))
        assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert final["action"] == "FailJob"
        assert final["onExitCodes"]["containerName"] == component
        # A promotion's 1 is its answer: the bundle is worse.
        assert set(final["onExitCodes"]["values"]) == FINAL | ({1} if component == "promote" else set())
        assert errors.OutputError.exit_code not in final["onExitCodes"]["values"], "the Job before may still be saving"
        assert at(job, ("spec", "podReplacementPolicy")) == "Failed"
        assert at(job, ("spec", "template", "spec", "restartPolicy")) == "Never"


CHANGES = [
    {"image": {"tag": "9.9"}},
    {"podLabels": {"team": "lenses"}},
    {"objectStorage": {"region": "eu-west-1"}},
    {"persistence": {"scratch": {"size": "99Gi"}}},
    {"kueue": {"queue": "lenses"}},
    VOLUME,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_other_pods_are_another_job(jobs, before, change):
    """A Job's template cannot be changed: an upgrade that tried would fail."""
    after = jobs(values() | change)
    for component in COMPONENTS:
        assert before[component]["metadata"]["name"] != after[component]["metadata"]["name"], component


def test_what_concerns_one_job_leaves_the_others_alone(jobs, before):
    after = jobs(values("export", {"version": "2"}))
    changed = {name for name in COMPONENTS if before[name]["metadata"]["name"] != after[name]["metadata"]["name"]}
    assert changed == {"export"}
    for name in ("train", "promote"):
        assert before[name] == after[name]


def test_a_new_chart_alone_trains_and_promotes_nothing_anew(jobs, before, tmp_path):
    newer = tmp_path / "scanner"
    shutil.copytree(CHART, newer)
    definition = (newer / "Chart.yaml").read_text()
    version = next(line for line in definition.splitlines() if line.startswith("version:"))
    (newer / "Chart.yaml").write_text(definition.replace(version, "version: 9.9.9"))
    after = jobs(values(), chart=newer)
    for component in COMPONENTS:
        assert after[component]["metadata"]["labels"]["helm.sh/chart"] == "scanner-9.9.9"
        assert (before[component]["metadata"]["name"], before[component]["spec"]) == (
            after[component]["metadata"]["name"],
            after[component]["spec"],
        )


def test_sets_are_drawn_before_the_work(jobs):
    words = ["dataset", "--preset=quick", "--n=100", "--out=/scratch/set"]
    job = jobs(values("train", {"draw": [words], "data": ["/scratch/set"]}))["train"]
    (drawing,) = at(job, ("spec", "template", "spec", "initContainers"))
    assert drawing["args"] == ["simulate", *words]
    (container,) = at(job, ("spec", "template", "spec", "containers"))
    assert "--data=/scratch/set" in container["args"]
    assert {"name": "scratch", "mountPath": "/scratch"} in drawing["volumeMounts"]
    assert "nvidia.com/gpu" not in drawing["resources"]["limits"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (values("train", {"data": []}), "training.data: missing"),
        (values("train", {"mirror": ""}), "training.mirror: checkpoints would go with the pod"),
        (values("train", {"out": "/data/runs"}), "training.out: /data/runs lies on the data volume, and there is none"),
        (values("export", {"publish": ""}), "export.publish: the bundle would go with the pod"),
        (values("promote", {"published": ""}), "promote.published: missing"),
        (values("promote", {"data": []}), "promote.data: missing"),
        (values("promote", {"bundle": "newest"}), "promote/bundle"),
        (values("train", {"members": ["OU-67"]}), "training/members"),
        (values("train", {"timeBudget": "soon"}), "training/timeBudget"),
        (values("train", {"extra": 1}), "extra"),
    ],
)
def test_refused(helm, settings, sentence):
    with pytest.raises(RefusedError, match=sentence):
        helm.template(settings=settings)


def test_kueue_decides_when_jobs_and_workers_begin(helm):
    survey = {"q1": {"tileList": {"url": "s3://sky/tiles.txt"}, "out": "s3://runs/q1"}}
    queued = {"kueue": {"queue": "lenses", "priorityClass": "survey"}, "surveys": survey}
    manifests = helm.template(settings=values(**queued))
    labels = {"kueue.x-k8s.io/queue-name": "lenses", "kueue.x-k8s.io/priority-class": "survey"}
    (scan,) = of_kind(manifests, "CronJob").values()
    (workers,) = of_kind(manifests, "Deployment").values()
    managed = [*of_kind(manifests, "Job").values(), workers, at(scan, ("spec", "jobTemplate"))]
    for manifest in managed:
        assert labels.items() <= manifest["metadata"]["labels"].items()
    assert len(managed) == 5
    # Whoever makes a scan's Job makes it suspended. Of a Job that helm upgrades, Kueue alone says when it runs.
    assert at(scan, ("spec", "jobTemplate", "spec", "suspend")) is True
    assert not [job for job in of_kind(manifests, "Job").values() if "suspend" in job["spec"]]


def test_names_of_digits_stay_names(jobs):
    settings = values(
        "promote", {"bundle": "1234567", "priorityClassName": "0"}, kueue={"queue": "123", "priorityClass": "1e3"}
    )
    job = jobs(settings)["promote"]
    pod = at(job, ("spec", "template", "spec"))
    assert (pod["containers"][0]["args"][2], pod["priorityClassName"]) == ("1234567", "0")
    labels = {"kueue.x-k8s.io/queue-name": "123", "kueue.x-k8s.io/priority-class": "1e3"}
    assert labels.items() <= job["metadata"]["labels"].items()


def test_without_kueue_nothing_waits_for_it(helm):
    survey = {"q1": {"tileList": {"url": "s3://sky/tiles.txt"}, "out": "s3://runs/q1"}}
    text = helm.text(settings=values(surveys=survey))
    assert "kueue" not in text
    assert "suspend: true" not in text


def test_pods_of_training_are_scraped_and_others_are_not(helm):
    ports = {
        pod.component: [port["name"] for port in pod.spec["containers"][0].get("ports", [])]
        for pod in pods(helm.template(settings=values()))
        if pod.component in COMPONENTS
    }
    assert ports == {"train": ["metrics"], "export": [], "promote": []}
