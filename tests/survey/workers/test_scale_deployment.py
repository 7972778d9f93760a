"""A Deployment is scaled through a strict stand-in of the Kubernetes API; nothing that befalls it stops a run."""

import http.client
import json
import logging
import ssl
import time

import pytest
from kubernetes_api import ACCOUNT, NAME, NAMESPACE, KubernetesApi
from ports import free_ports
from waiting import wait_for

from scanner.errors import UsageError
from scanner.survey.workers import cluster
from scanner.survey.workers.cluster import scaled_deployment


@pytest.fixture
def api(tmp_path, monkeypatch):
    """An API server, and this process in a pod of its cluster that may scale one Deployment; pauses are short."""
    made = KubernetesApi(tmp_path / "serviceaccount")
    monkeypatch.setattr(cluster, "SERVICE_ACCOUNT", made.account)
    monkeypatch.setattr(cluster, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "LONGEST_PAUSE_SECONDS", 0.05)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    # That leads out of the cluster.
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_ports(1)[0]}")
    yield made
    made.end()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("name", [NAME, f"{NAMESPACE}/{NAME}"])
def test_up_while_it_lasts_and_to_none_at_the_end(api, name):
    with scaled_deployment(name, 7):
        wait_for("its pods", lambda: api.replicas)
        assert api.replicas == [7]
    assert api.replicas == [7, 0]
    assert api.refused == []


def test_to_none_whatever_ends_it(api):
    def interrupted():
        with scaled_deployment(NAME, 2):
            wait_for("its pods", lambda: api.replicas)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert api.replicas == [2, 0]


def test_an_api_server_that_is_busy_is_asked_again_and_told_of_once(api, caplog):
    api.faults = [(429, 1), (429, 1), (503, None), (500, None)]
    with scaled_deployment(NAME, 3):
        wait_for("its pods", lambda: api.replicas)
    assert api.replicas == [3, 0]
    assert api.refused == [429, 429, 503, 500]
    said = f"Deployment {NAMESPACE}/{NAME} cannot be scaled to 3 (%d: asked to answer %d); it is tried again"
    assert warnings(caplog) == [said % (status, status) for status in (429, 503, 500)]


def test_a_busy_api_server_says_how_long(api, monkeypatch):
    monkeypatch.setattr(cluster, "LONGEST_PAUSE_SECONDS", 60.0)
    api.faults = [(429, 1)]
    began = time.monotonic()
    with scaled_deployment(NAME, 3):
        wait_for("its pods", lambda: api.replicas)
    assert time.monotonic() - began > 1.0


def test_busy_at_the_end_too(api, caplog):
    with scaled_deployment(NAME, 3):
        wait_for("its pods", lambda: api.replicas)
        api.faults = [(429, 0), (503, None)]
    assert api.replicas == [3, 0]
    assert warnings(caplog) == []


def test_a_number_that_another_has_changed_is_set_again_and_told_once(api, monkeypatch, caplog):
    """As by a GitOps tool, in whose manifest the number is 0."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(cluster, "REPEAT_SECONDS", 0.01)
    with scaled_deployment(NAME, 3):
        wait_for("its pods, thrice", lambda: len(api.replicas) > 2)
    assert api.replicas[-1] == 0
    assert set(api.replicas[:-1]) == {3}
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"Deployment {NAMESPACE}/{NAME} is scaled to {n}" for n in (3, 0)]


def test_without_the_right_the_run_goes_on_and_says_what_is_to_be_done_by_hand(api, caplog):
    """The right may still be given: it is asked again."""
    with scaled_deployment("other", 3):
        wait_for("two refusals", lambda: len(api.refused) >= 2)
    assert api.replicas == []
    first, last = warnings(caplog)
    forbidden = f'403: deployments.apps "other" is forbidden: User "{ACCOUNT}" cannot patch resource "deployments/scale"'
    assert first.startswith(f"Deployment {NAMESPACE}/other cannot be scaled to 3 ({forbidden}")
    assert f"kubectl --namespace {NAMESPACE} scale deployment other --replicas 0" in last
    assert "\n" not in first + last


def test_a_token_that_is_renewed_is_read_again(api):
    with scaled_deployment(NAME, 3):
        wait_for("its pods", lambda: api.replicas)
        api.renew_token("second")
    assert api.replicas == [3, 0]
    assert api.refused == []


def test_another_authority_is_not_talked_to(api, tmp_path, monkeypatch, caplog):
    other = KubernetesApi(tmp_path / "other")
    monkeypatch.setattr(cluster, "PARTING_SECONDS", 0.1)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(other.server_port))
    try:
        with scaled_deployment(NAME, 3):
            wait_for("a word", lambda: warnings(caplog))
    finally:
        other.end()
    assert other.replicas == api.replicas == []
    assert "certificate verify failed" in warnings(caplog)[0]
    assert "by hand" in warnings(caplog)[-1]


def test_nobody_listens(api, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "PARTING_SECONDS", 0.1)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(free_ports(1)[0]))
    with scaled_deployment(NAME, 3):
        wait_for("a word", lambda: warnings(caplog))
    assert "Connection refused" in warnings(caplog)[0]
    assert "by hand" in warnings(caplog)[-1]


def test_a_run_that_is_over_does_not_wait_for_a_pause(api, monkeypatch):
    """The number of a run that has ended is never set after the 0 of its end."""
    monkeypatch.setattr(cluster, "LONGEST_PAUSE_SECONDS", 3600.0)
    api.faults = [(429, 3600)]
    with scaled_deployment(NAME, 3):
        wait_for("a refusal", lambda: api.refused)
    assert api.replicas == [0]


@pytest.mark.parametrize("name", ["", "surveys/", "/workers", "a/b/c", "Workers", "workers?dryRun=All", "../secrets/x", "-w"])
def test_what_is_no_name(api, name):
    with pytest.raises(UsageError, match="not a Deployment's name"), scaled_deployment(name, 1):
        pass
    assert api.replicas == api.refused == []


def test_outside_of_a_pod(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match="not in a Kubernetes pod with a mounted service account"), scaled_deployment(NAME, 1):
        pass


def test_a_pod_without_a_token(api, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "SERVICE_ACCOUNT", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="automountServiceAccountToken"), scaled_deployment(NAME, 1):
        pass


def test_six_is_written_in_brackets(monkeypatch, api):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert cluster.find_deployment(NAME).server == f"[fd00::1]:{api.server_port}"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"method": "PUT"}, 403),
        ({"token": "stolen"}, 401),
        ({"content_type": "application/json-patch+json"}, 415),
        ({"body": {"replicas": 3}}, 400),
        ({"body": {"spec": {"replicas": "3"}}}, 422),
        ({"path": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"}, 404),
        ({}, 200),
    ],
)
def test_the_stand_in_refuses_what_the_api_server_refuses(api, change, status):
    request = {
        "method": "PATCH",
        "path": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}/scale",
        "token": api.token,
        "content_type": "application/merge-patch+json",
        "body": {"spec": {"replicas": 3}},
    } | change
    context = ssl.create_default_context(cafile=str(api.account / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", api.server_port, context=context)
    headers = {"Authorization": f"Bearer {request['token']}", "Content-Type": request["content_type"]}
    connection.request(request["method"], request["path"], json.dumps(request["body"]), headers)
    answer = connection.getresponse()
    kind = json.loads(answer.read())["kind"]
    connection.close()
    assert (answer.status, kind) == (status, "Scale" if status == 200 else "Status")
