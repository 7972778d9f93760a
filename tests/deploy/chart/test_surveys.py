"""A survey's values and what becomes of them: the scan's schedule, its pod, its settings, its rights."""

import pytest
from manifests.pods import at, of_kind, pods
from manifests.rendering import NAMESPACE
from manifests.surveys import LIST, LOCAL, OUT, survey

from scanner import __version__, config, errors
from scanner.sky import tile_list

SCAN, WORKER = "euclid-scanner-q1-scan", "euclid-scanner-q1-worker"
JOB = ("spec", "jobTemplate", "spec")


@pytest.fixture
def render(helm):
    return lambda settings, **how: helm.template(settings=settings, **how)


def told(container):
    """A container's flags and what they say; "" has what is no flag, without the verb."""
    words = [word.partition("=") for word in container["args"][1:]]
    flags = {name: value for name, _, value in words if name.startswith("--")}
    return flags | {"": [name for name, _, _ in words if not name.startswith("--")]}


def container_of(manifests, component):
    """The only container of the only pod of a component."""
    (pod,) = (pod for pod in pods(manifests) if pod.component == component)
    (container,) = pod.containers
    return container


def test_a_survey_has_the_defaults_where_it_says_nothing(render):
    settings = survey(schedule="30 1 * * 6", workers={"replicas": 7})
    settings["surveys"]["deep"] = {"tileList": {"url": LIST}, "out": "s3://runs/deep", "suspend": True}
    settings["surveyDefaults"] = {"timeZone": "Europe/Paris", "workers": {"memoryGb": 2.5}}
    manifests = render(settings)
    jobs = of_kind(manifests, "CronJob")
    assert {name: job["spec"]["schedule"] for name, job in jobs.items()} == {
        SCAN: "30 1 * * 6",
        "euclid-scanner-deep-scan": "0 2 * * *",
    }
    assert {job["spec"]["timeZone"] for job in jobs.values()} == {"Europe/Paris"}
    assert [jobs[name]["spec"]["suspend"] for name in sorted(jobs)] == [True, False]
    drivers = {
        pod.labels["scanner.lensing/survey"]: told(pod.containers[0]) for pod in pods(manifests) if pod.component == "scan"
    }
    assert [drivers[name]["--workers"] for name in ("deep", "q1")] == ["2", "7"]
    workers = [told(pod.containers[0]) for pod in pods(manifests) if pod.component == "worker"]
    assert [worker["--memory-gb"] for worker in workers] == ["2.5", "2.5"]


LISTENS = {"--listen": "tcp://0.0.0.0:8786", "--insecure": ""}
SCALING = {
    "driver": LISTENS | {"--scale-deployment": f"{NAMESPACE}/{WORKER}"},
    "keda": LISTENS,
    "fixed": LISTENS,
    "local": {"--memory-gb": "3"},
}


@pytest.mark.parametrize("scaling", SCALING)
def test_where_the_workers_of_a_scan_come_from(render, scaling):
    workers = {"scaling": scaling, "replicas": 5, "keda": {"serverAddress": "http://prometheus:9090"}}
    manifests = render(survey(workers=workers, resources={"requests": {"memory": "17Gi"}, "limits": {"memory": "17Gi"}}))
    common = {"--workers": "5", "--scratch": "/scratch", "--metrics-port": "9464", "--log-format": "json"}
    where = {"": [LIST], "--out": OUT, "--config": "/etc/scanner/survey/scanner.toml"}
    assert told(container_of(manifests, "scan")) == where | common | SCALING[scaling]

    # The right to scale, and a token to use it with, is nowhere but where the driver scales.
    mounted = {pod.component for pod in pods(manifests) if pod.spec["automountServiceAccountToken"]}
    rules = [rule for role in of_kind(manifests, "Role").values() for rule in role["rules"]]
    if scaling == "driver":
        assert mounted == {"scan"}
        assert rules == [
            {"apiGroups": ["apps"], "resources": ["deployments/scale"], "resourceNames": [WORKER], "verbs": ["patch"]}
        ]
    else:
        assert (mounted, rules) == (set(), [])

    deployments, scalers = of_kind(manifests, "Deployment"), of_kind(manifests, "ScaledObject")
    if scaling == "local":
        assert (deployments, of_kind(manifests, "Service")) == ({}, {})
        return
    assert deployments[WORKER]["spec"]["replicas"] == (5 if scaling == "fixed" else 0)
    worker = told(container_of(manifests, "worker"))
    assert worker[""] == [f"tcp://{SCAN}:8786"]
    assert (worker["--death-timeout"], worker["--grace"], worker["--worker-port"]) == ("never", "110s", "9000")
    assert list(scalers) == ([WORKER] if scaling == "keda" else [])
    for scaler in scalers.values():
        (trigger,) = scaler["spec"]["triggers"]
        assert (scaler["spec"]["minReplicaCount"], scaler["spec"]["maxReplicaCount"]) == (0, 5)
        assert trigger["metadata"]["query"] == f'max(scanner_run_workers_wanted{{job="{NAMESPACE}/q1"}})'


def test_scans_share_a_standing_scheduler(render):
    manifests = render(survey() | {"scheduler": {"standing": {"enabled": True}}})
    address = "tcp://euclid-scanner-scheduler:8786"
    driver = told(container_of(manifests, "scan"))
    assert (driver["--scheduler"], driver.get("--listen")) == (address, None)
    assert driver["--scale-deployment"] == f"{NAMESPACE}/{WORKER}"
    assert told(container_of(manifests, "worker"))[""] == [address]
    assert told(container_of(manifests, "scheduler"))["--port"] == "8786"
    assert list(of_kind(manifests, "Service")) == ["euclid-scanner-scheduler"]
    assert of_kind(manifests, "Deployment")["euclid-scanner-scheduler"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("given", "flag"),
    [({}, "cuda"), ({"scoring": {"provider": "auto"}}, "cuda"), ({"scoring": {"provider": "tensorrt"}}, None)],
)
def test_a_survey_with_gpus_has_one_in_each_worker_and_none_in_the_driver(render, given, flag):
    manifests = render(survey(config=given, workers={"gpu": True, "gpuResource": "amd.com/gpu"}))
    driver, worker = container_of(manifests, "scan"), container_of(manifests, "worker")
    assert told(driver).get("--provider") == flag
    assert "--gpu" in told(worker)
    assert [container["image"].rpartition(":")[2] for container in (driver, worker)] == [
        f"{__version__}-scan-cpu",
        f"{__version__}-scan-gpu",
    ]
    assert [worker["resources"][kind]["amd.com/gpu"] for kind in ("requests", "limits")] == ["1", "1"]
    assert "amd.com/gpu" not in driver["resources"]["limits"]


def test_the_job_ends_where_another_try_would_not_help(render):
    job = at(of_kind(render(survey()), "CronJob")[SCAN], JOB)
    disruption, failure = job["podFailurePolicy"]["rules"]
    assert (disruption["action"], disruption["onPodConditions"]) == (
        "Ignore",
        [{"type": "DisruptionTarget", "status": "True"}],
    )
    told_by = {kind.exit_code for kind in errors.ScannerError.__subclasses__()}
    hopeless = set(failure["onExitCodes"]["values"])
    assert (failure["action"], failure["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert told_by - hopeless == {errors.UnavailableError.exit_code}
    assert not hopeless & {errors.ScannerError.exit_code, 130, 137, 143}
    assert (job["backoffLimit"], job["podReplacementPolicy"]) == (3, "Failed")


def test_settings_and_tiles_reach_the_scan_as_they_were_given(render, tmp_path):
    given = {
        "targets": {"magnitude_limit": 22.5, "min_area_pixels": 60},
        "cutouts": {"keep": "sample:0.1", "batch_size": 128},
        "catalogue": {"max_candidates": 1000000, "known_lenses": "lenscat"},
        "storage": {"anonymous": True},
    }
    lines = "# two tiles\nid=1 VIS=s3://sky/1/v.fits Y=s3://sky/1/y.fits J=s3://sky/1/j.fits H=s3://sky/1/h.fits\ns3://sky/2/\n"
    manifests = render(survey(config=given, tileList={"url": "", "inline": lines}))
    (data,) = (manifest["data"] for manifest in of_kind(manifests, "ConfigMap").values())
    file = tmp_path / "scanner.toml"
    file.write_text(data["scanner.toml"])
    assert config.load(file, environment={}) == config.RunConfig.model_validate(given)
    assert data["tiles.txt"].strip() == lines.strip()
    container = container_of(manifests, "scan")
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "survey")
    assert told(container)[""] == [f"{mount['mountPath']}/tiles.txt"]


def test_a_list_in_the_values_is_read_as_a_file_is(render, tmp_path):
    tile = tmp_path / "102018665"
    tile.mkdir()
    manifests = render(survey(tileList={"url": "", "inline": f"{tile}  # not there yet\n"}))
    (data,) = (manifest["data"] for manifest in of_kind(manifests, "ConfigMap").values())
    (tmp_path / "tiles.txt").write_text(data["tiles.txt"])
    listed = tile_list.read(str(tmp_path / "tiles.txt"))
    assert [failed.tile_id for failed in listed.failed] == ["102018665"]


def test_a_run_folder_may_be_named_after_the_version(render):
    manifests = render(survey(out="s3://runs/q1-{{ .Chart.AppVersion }}"))
    assert told(container_of(manifests, "scan"))["--out"] == f"s3://runs/q1-{__version__}"


def test_certificates_are_everywhere_or_nowhere(render):
    settings = survey() | {"dask": {"tls": {"enabled": True, "existingSecret": "dask"}}}
    manifests = render(settings | {"scheduler": {"standing": {"enabled": True}}})
    assert told(container_of(manifests, "scan"))["--scheduler"].startswith("tls://")
    listening = render(settings)
    assert told(container_of(listening, "scan"))["--listen"] == "tls://0.0.0.0:8786"
    processes = [pod for pod in [*pods(manifests), *pods(listening)] if pod.component in ("scan", "worker", "scheduler")]
    assert len(processes) == 5
    for pod in processes:
        words = told(pod.containers[0])
        files = [words[flag] for flag in ("--tls-ca", "--tls-cert", "--tls-key")]
        assert "--insecure" not in words
        assert files == [f"/etc/scanner/tls/{name}" for name in ("ca.crt", "tls.crt", "tls.key")]
        assert {"name": "dask-tls", "secret": {"secretName": "dask", "defaultMode": 0o440}} in pod.spec["volumes"]
    assert of_kind(manifests, "Certificate") == {}


def test_long_names_are_cut_and_stay_apart(render):
    one, other = "a" * 30 + "-1", "a" * 30 + "-2"
    scans = {name: {"tileList": {"url": LIST}, "out": f"s3://runs/{name}"} for name in (one, other)}
    manifests = render({"surveys": scans}, release="r" * 53)
    for kind in ("CronJob", "ConfigMap", "Service", "Deployment"):
        names = list(of_kind(manifests, kind))
        assert len(names) == 2
        assert max(map(len, names)) <= 52


@pytest.mark.parametrize(
    ("release", "override", "begins"),
    [
        ("euclid", "", "euclid-scanner-"),
        ("night-scanner", "", "night-scanner-"),
        ("q1.2026", "", "q1-2026-scanner-"),
        ("2026", "lenses", "lenses-"),
    ],
)
def test_names_of_releases_become_names_of_services(render, release, override, begins):
    manifests = render(survey() | {"fullnameOverride": override}, release=release)
    assert list(of_kind(manifests, "Service")) == [f"{begins}q1-scan"]


def test_users_may_have_large_numbers(render):
    """As OpenShift gives each namespace its own."""
    user = 1_000_660_000
    manifests = render(survey() | {"podSecurity": {"runAsUser": user, "runAsGroup": user, "fsGroup": user}})
    for pod in pods(manifests):
        assert [pod.spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [user] * 3


@pytest.mark.parametrize("limit", ["2Gi", "2G", "2000M", "0.002T", 2_000_000_000, "2000000000"])
def test_memory_may_be_written_in_any_unit(render, limit):
    resources = {"requests": {"memory": limit}, "limits": {"memory": limit}}
    manifests = render(survey(workers={"memoryGb": 1.9, "resources": resources}))
    assert told(container_of(manifests, "worker"))["--memory-gb"] == "1.9"


@pytest.mark.parametrize("schedule", ["@daily", "*/15 0-6,22 1 JAN-JUN ?", "0  2  *  *  7"])
def test_schedules_are_those_of_cron(render, schedule):
    (job,) = of_kind(render(survey(schedule=schedule)), "CronJob").values()
    assert job["spec"]["schedule"] == schedule


def test_a_run_folder_on_a_volume_of_the_survey_is_taken(render):
    volume = {"name": "runs", "nfs": {"server": "nfs.example.org", "path": "/runs"}}
    manifests = render(survey(out="/runs/q1", volumes=[volume], volumeMounts=[{"name": "runs", "mountPath": "/runs"}]) | LOCAL)
    for component in ("scan", "worker"):
        assert {"name": "runs", "mountPath": "/runs"} in container_of(manifests, component)["volumeMounts"]
