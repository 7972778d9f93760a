"""What ``scanner run --listen`` refuses, each in one sentence, before it scans; what a plan leaves alone."""

import socket

import pytest
from ports import free_ports

from scanner.cli.main import main


@pytest.fixture
def refusal(sky, tmp_path, capsys):
    """Exit code and last line of a run that is not begun."""

    def _refusal(*words):
        with pytest.raises(SystemExit) as caught:
            main(["run", str(sky / "tile-list.txt"), "--out", str(tmp_path / "out"), *words])
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("scanner: ")
        return caught.value.code, line

    return _refusal


LISTEN = ("--listen", "tcp://127.0.0.1:8786")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*LISTEN, "--scheduler", "tcp://head:8786"), "--scheduler, --listen) exclude each other"),
        (("--scale-deployment", "workers", "--workers", "2"), "needs listen or scheduler"),
        ((*LISTEN, "--scale-deployment", "workers"), "and workers (--workers), the most that there may be"),
        (
            (*LISTEN, "--scale-deployment", "workers", "--workers", "2"),
            "not in a Kubernetes pod with a mounted service account",
        ),
        (("--listen", "0.0.0.0:8786"), "not a scheduler's address; it looks like tcp://host:8786"),
        (("--listen", "tls://0.0.0.0:8786"), "needs --tls-ca, --tls-cert and --tls-key"),
        (("--listen", "tcp://192.0.2.1:8786", "--insecure"), "tcp://192.0.2.1:8786: cannot listen there"),
        (("--listen", "tcp://0.0.0.0:8786"), "0.0.0.0: without TLS, whoever reaches this port runs code as you"),
        (("--listen", "tcp://head.example:8786"), "head.example: without TLS, whoever reaches this port runs code as you"),
    ],
)
def test_refused(refusal, monkeypatch, words, said):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    code, line = refusal(*words)
    assert code == 64
    assert said in line


def test_a_port_that_is_taken(refusal):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        code, line = refusal("--listen", address)
    assert code == 64
    assert f"{address}: cannot listen there (Address already in use" in line


def test_certificates_for_what_is_not_encrypted(refusal, tmp_path):
    words = [word for part in ("ca", "cert", "key") for word in (f"--tls-{part}", str(tmp_path / f"{part}.pem"))]
    code, line = refusal(*LISTEN, *words)
    assert code == 64
    assert "listen at tls://127.0.0.1:8786" in line


def test_the_settings_in_the_environment_exclude_each_other_too(refusal, monkeypatch):
    monkeypatch.setenv("SCANNER_ENGINE__SCHEDULER", "tcp://head:8786")
    code, line = refusal(*LISTEN)
    assert code == 64
    assert "scheduler and listen" in line


def test_a_plan_needs_no_workers(sky, monkeypatch, capsys):
    """It neither listens nor scales, and says the same as without."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    rates = {"objects_per_second": 100.0, "scoring_seconds": 0.01}
    monkeypatch.setattr("scanner.survey.run._scoring_rates", lambda scorer: rates)
    monkeypatch.setattr("scanner.survey.run._cutting_seconds", lambda images, targets: 0.001)

    def planned(*words):
        with pytest.raises(SystemExit) as caught:
            main(["run", str(sky / "tile-list.txt"), "--dry-run", "--workers", "2", *words])
        assert caught.value.code == 0
        return capsys.readouterr().out

    elsewhere = ("--listen", f"tcp://127.0.0.1:{free_ports(1)[0]}", "--scale-deployment", "workers")
    assert planned(*elsewhere) == planned()
