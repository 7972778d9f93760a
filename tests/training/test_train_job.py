"""Training as a cluster runs it: told to stop, killed, begun again on a machine with an empty disk."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import LIMIT_S

from scanner.cli.main import main
from scanner.config import StorageConfig
from scanner.errors import HeldError, UnavailableError, UsageError
from scanner.storage import open_store
from scanner.training.checkpoint import read_member
from scanner.training.jobs import MemberFinished, MemberMirrored, MemberSaved, TrainingJob, pull_members, run_job
from scanner.training.presets import BEST
from scanner.training.trainer import usable_device

MEMBER = "OU-66"


def command(verb, data, out, mirror, *more):
    words = [sys.executable, "-m", "scanner", "train", *verb, "--data", str(data), "--out", str(out), "--mirror", mirror, *more]
    # A group of its own: a killed machine takes all processes along.
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    return write_dataset(tmp_path_factory.mktemp("job") / "train", 80, 0)


def test_a_job_that_is_stopped_and_killed_goes_on_elsewhere_with_the_same_weights(data, s3, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    mirror = s3.fresh()

    # Told to stop by the cluster: saved, mirrored, exit 130.
    stopped = command(
        ("all", "--member", MEMBER, "--jobs", "1"),
        data,
        tmp_path / "one",
        mirror,
        "--metrics-port",
        "0",
        "--log-format",
        "json",
    )
    port = next(line["metrics_port"] for line in map(json.loads, stopped.stderr) if "metrics_port" in line)
    assert page(port)["scanner_training_state", "preparing"] == 1
    assert page(port)["scanner_training_checkpoint_timestamp_seconds", MEMBER] == 0
    assert stopped.stdout.readline().startswith(f"{MEMBER}   crop   3.82 passes")
    seen = page(port)
    assert seen["scanner_training_members", "running"] == 1
    assert seen["scanner_training_validations_total", MEMBER] >= 1
    assert 0.3 < seen["scanner_training_validation_auroc", MEMBER] <= 1
    started = seen["scanner_training_start_timestamp_seconds",]
    assert seen["scanner_training_checkpoint_timestamp_seconds", MEMBER] > started
    assert seen["scanner_training_mirror_timestamp_seconds", MEMBER] > started
    assert seen["scanner_disk_free_bytes", "run_folder"] > 0
    os.kill(stopped.pid, signal.SIGTERM)
    _, err = stopped.communicate()
    assert stopped.returncode == 130, err
    assert err.splitlines()[-1] == "scanner: interrupted; give the same command again and it goes on where it was."

    # The machine is gone, with its disk; the next one dies without a word.
    killed = command(("member", MEMBER), data, tmp_path / "two", mirror)
    assert "goes on from the mirror" in killed.stderr.readline()
    assert "3.82" not in killed.stdout.readline()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    job = TrainingJob(data=(data,), out=tmp_path / "three", member=MEMBER, preset=BEST, seed=1, storage=s3.config)
    record = run_job(job.model_copy(update={"mirror": mirror}))
    assert [row.step for row in record.history if row.stage == "crop"] == [4, 8, 11, 15, 19, 22, 26, 29]
    whole = run_job(job.model_copy(update={"out": tmp_path / "whole"}))
    assert whole.passes == record.passes
    # What the mirror holds at the end is the finished run.
    pull_members(mirror, tmp_path / "bundling", s3.config)
    assert read_member(tmp_path / "bundling" / MEMBER)[1] == record
    with np.load(tmp_path / "whole" / MEMBER / "member.npz") as one:
        for name in ("three", "bundling"):
            with np.load(tmp_path / name / MEMBER / "member.npz") as other:
                assert one.files == other.files
                for key in one.files:
                    np.testing.assert_array_equal(one[key], other[key], err_msg=name)
    # One run, one record, one attempt's files; the holder has let go.
    left = {meta["path"].split("/")[-1] for meta in open_store(mirror, s3.config).below("")}
    files = {"plan.json", "checkpoint.pt", "history.parquet", "accuracy.png", "loss.png", "member.npz", "fit.json"}
    assert left == files | {"state.json", ".lock"}


BRIEF = BEST.model_copy(
    update={
        "copies": {},
        "stages_66": tuple(stage.model_copy(update={"passes": 1, "batch": 16, "validations": 2}) for stage in BEST.stages_66),
    }
)


def brief_job(data, out, **settings):
    return TrainingJob(data=(data,), out=out, member="OU-J", preset=BRIEF, seed=1, **settings)


def test_a_mirror_that_does_not_answer_stops_a_job_at_its_end_only(data, faulty_s3, s3, tmp_path):
    storage, events = StorageConfig(endpoint=faulty_s3.endpoint, retries=0), []
    job = brief_job(data, tmp_path, mirror=s3.fresh(), storage=storage)
    faulty_s3.fault = lambda number, method, path: "drop" if method == "PUT" and "/run/" in path else None
    with pytest.raises(UnavailableError):
        run_job(job, events.append)
    # Trained alone, or beside others with a share of their time: what is finished is taken up.
    finished = read_member(job.folder)[1]
    shared = job.model_copy(update={"time_budget": 60.0, "mirror": None})
    assert run_job(shared) == finished
    with pytest.raises(UsageError, match="holds a training run with another seed"):
        run_job(shared.model_copy(update={"seed": 2}))
    saved = [event for event in events if isinstance(event, MemberSaved)]
    told = [event for event in events if isinstance(event, MemberMirrored)]
    # Two validations and the end of each of three stages.
    assert [event.succeeded for event in told] == [False] * 9
    assert len(saved) == 9
    assert read_member(job.folder)[1].plan.member == "OU-J"
    faulty_s3.fault = lambda number, method, path: None
    assert run_job(job, events.append) == read_member(job.folder)[1]
    assert events[-2:] == [MemberMirrored(member="OU-J", succeeded=True), MemberFinished(member="OU-J")]
    assert len([event for event in events if isinstance(event, MemberSaved)]) == 9


def test_two_jobs_do_not_train_into_one_folder(data, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.storage.contract.WAIT_SECONDS", 0.0)
    job = brief_job(data, tmp_path)
    training, leave = threading.Event(), threading.Event()

    def hold(event):
        if isinstance(event, MemberSaved):
            training.set()
            leave.wait(LIMIT_S)

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(run_job, job, hold)
        training.wait(LIMIT_S)
        with pytest.raises(HeldError, match=r"OU-J: another scanner run .* is writing to this folder"):
            run_job(job)
        monkeypatch.setattr("scanner.storage.contract.WAIT_SECONDS", LIMIT_S)
        monkeypatch.setattr("scanner.storage.contract.POLL_SECONDS", 0.05)
        threading.Timer(0.2, leave.set).start()
        # One that may take the place of the other waits for it.
        assert run_job(job) == first.result()


def test_a_gpu_that_is_not_there_is_refused(capsys, data, tmp_path):
    with pytest.raises(UsageError, match="--device quantum: torch cannot compute there"):
        usable_device("quantum")
    with pytest.raises(SystemExit) as stopped:
        main(["train", "all", "--data", str(data), "--out", str(tmp_path), "--device", "cuda:99"])
    assert stopped.value.code == 64
    assert "--device cuda:99: torch cannot compute there" in capsys.readouterr().err
    assert not (tmp_path / "scaled-asinh_mad").exists()


def test_a_mirror_is_another_place(capsys, data, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "member", MEMBER, "--data", str(data), "--out", str(tmp_path), "--mirror", f"{tmp_path}/"])
    assert stopped.value.code == 64
    assert (
        capsys.readouterr().err
        == f"scanner: --mirror {tmp_path}/: is the folder of the runs itself; name another disk, or s3://…\n"
    )
