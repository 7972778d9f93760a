"""The catalogue service as values ask for it: what is refused, and what follows from grades, replicas and addresses."""

import functools
import http.server
import subprocess
import sys
import threading
import tomllib

import pytest
from manifests.pods import of_kind, pods
from manifests.rendering import RefusedError

from scanner.service import settings

GRADED = {"enabled": True, "folders": ["s3://surveys/q1"], "tokens": {"existingSecret": "readers"}, "grades": {"enabled": True}}
PUBLIC = {"enabled": True, "folders": ["s3://surveys/q1"], "public": True}


def merged(values, more):
    return {key: merged(values.get(key, {}), value) if isinstance(value, dict) else value for key, value in more.items()} | {
        key: value for key, value in values.items() if key not in more
    }


def service(helm, values, **others):
    """The manifests, and the one pod that serves."""
    manifests = helm.template(settings={"service": values, **others})
    (pod,) = (pod for pod in pods(manifests) if pod.component == "service")
    return manifests, pod


def toml_of(manifests):
    (text,) = (
        made["data"]["service.toml"] for made in of_kind(manifests, "ConfigMap").values() if "service.toml" in made["data"]
    )
    return text


@pytest.mark.parametrize(
    ("values", "more", "sentence"),
    [
        (PUBLIC, {"folders": []}, "service.folders: is empty; name the run or survey folders to serve"),
        (PUBLIC, {"folders": ["/data/q1"]}, "service.folders: /data/q1 lies on the data volume; set persistence.data.enabled."),
        (PUBLIC, {"public": False}, "service: everybody who reaches it could read; name service.tokens.existingSecret"),
        (PUBLIC, {"grades": {"enabled": True}}, "service.grades: nobody could grade"),
        (GRADED, {"replicas": 2}, "service.grades: grades are kept in one SQLite file, which one replica writes"),
        (GRADED, {"autoscaling": {"enabled": True}}, "service.grades: grades are kept in one SQLite file"),
        (
            PUBLIC, {"config": {"limits": {"workers": 8}}},
            "service.resources.limits.memory: 2Gi is less than the 2.9 GB that the service may take",
        ),
        (PUBLIC, {"config": {"limits": {"memory_mb": 4000}}}, "is less than the 5.1 GB that the service may take"),
        (PUBLIC, {"ingress": {"enabled": True}}, "service.ingress.host: is empty"),
        (PUBLIC, {"httpRoute": {"enabled": True}}, "service.httpRoute.parentRefs: is empty"),
        (PUBLIC, {"config": {"limits": {"row": 5}}}, "additional properties 'row' not allowed"),
        (PUBLIC, {"config": {"http": {"port": 80}}}, "additional properties 'port' not allowed"),
        (PUBLIC, {"config": {"limits": {"workers": 0}}}, "/service/config/limits/workers"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_sentence(helm, values, more, sentence):
    with pytest.raises(RefusedError) as refused:
        service(helm, merged(values, more))
    assert sentence in str(refused.value)


def test_settings_arrive_as_they_were_given(helm, tmp_path):
    given = {"limits": {"rows": 12_000_000, "seconds": 12.5}, "http": {"proxies": ["10.0.0.0/8", "fd00::/8"]}}
    manifests, _ = service(helm, merged(GRADED, {"config": given | {"grading": {"blind": True}}}))
    file = tmp_path / "service.toml"
    file.write_text(toml_of(manifests))
    loaded = settings.load(file, {}, {})
    assert (loaded.limits.rows, loaded.limits.seconds, loaded.limits.workers) == (12_000_000, 12.5, 4)
    assert loaded.http.proxies == ("10.0.0.0/8", "fd00::/8")
    assert (loaded.grading.blind, loaded.grading.enabled) == (True, True)
    assert tomllib.loads(file.read_text()).keys() == {"limits", "http", "grading"}


def test_changed_settings_begin_new_pods(helm):
    sums = {
        rows: service(helm, merged(PUBLIC, {"config": {"limits": {"rows": rows}}}))[1].annotations["checksum/config"]
        for rows in (1000, 2000)
    }
    assert len(set(sums.values())) == 2


def test_grades_have_one_writer_and_outlive_the_release(helm):
    manifests, pod = service(helm, GRADED)
    (deployment,) = of_kind(manifests, "Deployment").values()
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert "--grades=/grades/grades.sqlite" in pod.spec["containers"][0]["args"]
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in claims_of(pod)}
    claim = of_kind(manifests, "PersistentVolumeClaim")[claims["grades"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    # A budget of one replica would only keep its node from being drained.
    assert of_kind(manifests, "PodDisruptionBudget") == {}


def claims_of(pod):
    return [volume for volume in pod.spec["volumes"] if "persistentVolumeClaim" in volume]


def test_several_replicas_share_nothing_and_keep_their_clients(helm):
    manifests, pod = service(helm, merged(PUBLIC, {"replicas": 3}))
    (deployment,), (front,) = of_kind(manifests, "Deployment").values(), of_kind(manifests, "Service").values()
    (budget,) = of_kind(manifests, "PodDisruptionBudget").values()
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert front["spec"]["sessionAffinity"] == "ClientIP"
    assert budget["spec"]["maxUnavailable"] == 1
    assert claims_of(pod) == []
    assert tomllib.loads(toml_of(manifests)) == {"grading": {"enabled": False}}


def test_the_autoscaler_alone_sets_the_number(helm):
    manifests, _ = service(helm, merged(PUBLIC, {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 9}}))
    (deployment,), (scaler,) = of_kind(manifests, "Deployment").values(), of_kind(manifests, "HorizontalPodAutoscaler").values()
    assert "replicas" not in deployment["spec"], "an upgrade would set it back"
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 9)
    assert len(of_kind(manifests, "PodDisruptionBudget")) == 1


def test_runs_are_only_read_and_tokens_follow_their_secret(helm):
    folders = ["/data/q1", "s3://surveys/q1-{{ .Chart.Version }}"]
    memory = {"limits": {"memory": "3Gi"}, "requests": {"memory": "3Gi"}}
    _, pod = service(helm, merged(GRADED, {"folders": folders, "resources": memory}), persistence={"data": {"enabled": True}})
    (container,) = pod.spec["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/data"]["readOnly"]
    # A single file of a Secret would never change.
    assert mounts["/etc/scanner/tokens"] == {"name": "tokens", "mountPath": "/etc/scanner/tokens", "readOnly": True}
    assert "--tokens=/etc/scanner/tokens/tokens.txt" in container["args"]
    assert container["args"][1:3] == ["/data/q1", "s3://surveys/q1-0.1.0"]


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, None),
        ({"ingress": {"enabled": True, "host": "a.example", "path": "/lenses"}}, "https://a.example/lenses"),
        ({"ingress": {"enabled": True, "host": "a.example", "tls": {"enabled": False}}}, "http://a.example/"),
        ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["b.example"]}}, "https://b.example/"),
        ({"baseUrl": "https://c.example/x", "ingress": {"enabled": True, "host": "a.example"}}, "https://c.example/x"),
    ],
)  # fmt: skip
def test_links_begin_with_what_clients_know(helm, more, url):
    _, pod = service(helm, merged(PUBLIC, more))
    told = [word for word in pod.spec["containers"][0]["args"] if word.startswith("--base-url")]
    assert told == ([] if url is None else [f"--base-url={url}"])
    if url is not None:
        assert settings.load(None, {"http.base_url": url}, {}).http.base_url == url


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers /readyz as it was made to, and nothing else."""

    def __init__(self, status, *args):
        self.status = status
        super().__init__(*args)

    def do_GET(self):
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_helm_test_finds_out_whether_the_service_is_ready(helm, status, code):
    """The pod's own script, against a server at the address that it was given."""
    manifests, _ = service(helm, merged(PUBLIC, {"port": 8080}))
    (front,) = of_kind(manifests, "Service")
    (container,) = next(pod for name, pod in of_kind(manifests, "Pod").items() if name.endswith("test-service"))["spec"][
        "containers"
    ]
    assert container["command"] == ["tini", "--", "python", "-c"]
    (script,) = container["args"]
    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Answers, status)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = f"http://{front}:8080/"
        assert asked in script
        here = script.replace(asked, f"http://127.0.0.1:{server.server_port}/")
        done = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, check=False)
        server.shutdown()
    assert (done.returncode, "HTTPError" in done.stderr) == (code, code == 1)


def test_there_are_as_many_replicas_as_values_say(helm):
    manifests = helm.template(settings={"service": PUBLIC | {"replicas": 3}})
    assert of_kind(manifests, "Deployment")["euclid-scanner-service"]["spec"]["replicas"] == 3
