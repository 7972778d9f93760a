import subprocess
import urllib.request

import programs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scanner.errors import UnavailableError, UsageError
from scanner.training.checkpoint import HistoryRow
from scanner.training.jobs import (
    MemberFinished,
    MemberMirrored,
    MemberProgress,
    MemberSaved,
    MemberStarted,
    MemberValidated,
)
from scanner.training.metrics import served_metrics

MEMBERS = ("OU-66", "OU-J")
FIGURES = [name for name, item in HistoryRow.model_fields.items() if item.annotation is float]
ROW = HistoryRow(stage="crop", step=3, **{name: 0.1 * number for number, name in enumerate(FIGURES, start=1)})


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


def figures(text):
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A page and what keeps it, as :func:`served_metrics` makes them; the page is read once more as it ends."""
    ports, last = [], {}

    def serve(registry, port, address, linger_s):
        from scanner.survey.metrics_page import served as serving

        class Page:
            def __enter__(self):
                self.page = serving(registry, 0)
                ports.append(self.page.__enter__())

            def __exit__(self, *error):
                last.update(figures(read(ports[-1])))
                return self.page.__exit__(*error)

        return Page()

    monkeypatch.setattr("scanner.training.metrics.served", serve)
    return served_metrics(9464, None, MEMBERS, tmp_path, 0.0), ports, last


def state_of(seen):
    return [name for name in ("preparing", "training", "done", "failed", "interrupted") if seen["scanner_training_state", name]]


def test_a_run_is_told_from_its_start_to_its_end(served):
    metrics, ports, last = served
    with metrics as tell:
        first = figures(read(ports[0]))
        assert state_of(first) == ["preparing"]
        assert first["scanner_training_members", "waiting"] == 2
        for member in MEMBERS:
            assert first["scanner_training_objects_total", member] == 0
            assert first["scanner_training_checkpoint_timestamp_seconds", member] == 0
            assert first["scanner_training_mirror_failures_total", member] == 0
            # Nobody has measured it yet, and 0 would be a figure.
            assert ("scanner_training_validation_auroc", member) not in first
        for event in (
            MemberStarted(member="OU-J"),
            MemberProgress(member="OU-J", share=0.25, passes=1.5, n_objects=640),
            MemberProgress(member="OU-J", share=0.5, passes=3.0, n_objects=64),
            MemberSaved(member="OU-J"),
            MemberMirrored(member="OU-J", succeeded=False),
            MemberValidated(member="OU-J", row=ROW),
        ):
            tell(event)
        seen = figures(read(ports[0]))
        assert state_of(seen) == ["training"]
        assert [seen["scanner_training_members", state] for state in ("waiting", "running", "done")] == [1, 1, 0]
        assert seen["scanner_training_progress_ratio", "OU-J"] == 0.5
        assert seen["scanner_training_passes", "OU-J"] == 3.0
        assert seen["scanner_training_objects_total", "OU-J"] == 704
        assert seen["scanner_training_loss", "OU-J"] == ROW.train_loss
        assert seen["scanner_training_validation_loss", "OU-J"] == ROW.validation_loss
        assert seen["scanner_training_validation_auroc", "OU-J"] == ROW.auroc
        assert seen["scanner_training_validation_auroc_visible", "OU-J"] == ROW.auroc_visible
        assert seen["scanner_training_validations_total", "OU-J"] == 1
        assert seen["scanner_training_mirror_failures_total", "OU-J"] == 1
        assert seen["scanner_training_mirror_timestamp_seconds", "OU-J"] == 0
        start = seen["scanner_training_start_timestamp_seconds",]
        assert seen["scanner_training_checkpoint_timestamp_seconds", "OU-J"] >= start > 1.7e9
        tell(MemberMirrored(member="OU-J", succeeded=True))
        tell(MemberFinished(member="OU-J"))
    assert state_of(last) == ["done"]
    assert last["scanner_training_members", "done"] == 1
    assert last["scanner_training_progress_ratio", "OU-J"] == 1
    assert last["scanner_training_mirror_timestamp_seconds", "OU-J"] >= start
    assert last["scanner_training_last_success_timestamp_seconds",] >= start


@pytest.mark.parametrize(("error", "state"), [(UnavailableError("away"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_how_a_run_ended_is_told(served, error, state):
    metrics, _, last = served
    with pytest.raises(type(error)), metrics:
        raise error
    assert state_of(last) == [state]
    assert last["scanner_training_last_success_timestamp_seconds",] == 0


def test_a_port_that_is_taken_is_refused(tmp_path):
    from scanner.survey import metrics as run_metrics

    with run_metrics.serve(0, "worker") as port, pytest.raises(UsageError, match=f"{port}: cannot serve metrics there"):
        served_metrics(port, "127.0.0.1", MEMBERS, tmp_path, 0.0).__enter__()


def test_prometheus_finds_nothing_to_object_to(served):
    promtool = programs.needed("promtool", target="prometheus")
    metrics, ports, _ = served
    with metrics as tell:
        tell(MemberValidated(member="OU-J", row=ROW))
        checked = subprocess.run([promtool, "check", "metrics"], input=read(ports[0]), capture_output=True, text=True)
    told = [line for line in checked.stderr.splitlines() if "scanner_training" in line]
    assert (checked.returncode, told) == (0, [])
