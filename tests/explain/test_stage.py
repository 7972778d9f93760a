"""The stage that explains a run's candidates, on a real cluster whose worker is killed."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from PIL import Image
from scans import first_worker_killed

from scanner.atomic_file import PARTIAL_PREFIX
from scanner.config import load
from scanner.explain.candidate import PANELS
from scanner.explain.stage import explain_run
from scanner.report import explanations
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.run import RunRequest, run_survey

N = 2
SETTINGS = {"catalogue.sheet_candidates": N, "engine.workers": 1, "engine.backoff_s": 0.0, "explain.which": "candidates"}


@pytest.fixture(scope="module")
def run(sky, finished_run, finished_run_settings, tmp_path_factory):
    """A run that is through but for its explanations: folder, settings, report."""
    out = shutil.copytree(finished_run, tmp_path_factory.mktemp("run") / "out")
    config = load(None, finished_run_settings | SETTINGS, {})
    return out, config, run_survey(RunRequest(f"{sky}/tile-list.txt", str(out), config))


@pytest.fixture(scope="module")
def explained(run):
    """The run, explained on a cluster whose one worker is killed after its first candidate.

    What came of it, what was told, the contact sheets before and after, the workers that were killed.
    """
    out, config, report = run
    before, told = (out / "candidates.html").read_bytes(), []
    with first_worker_killed(out, "explanation.json") as killed:
        found = explain_run(str(out), config, report, lambda *numbers: told.append(numbers))
    return found, told, before, (out / "candidates.html").read_bytes(), killed


def test_a_killed_worker_is_followed_by_another(run, explained):
    found, *_, killed = explained
    assert len(killed) == 1
    assert not any(path.name.startswith(PARTIAL_PREFIX) for path in (run[0] / "explanations").rglob("*"))
    assert (found.n_before, found.n_done, found.failed) == (0, N, ())


def test_every_candidate_of_the_sheet_is_explained(run, explained):
    out, _, report = run
    found, told, *_ = explained
    shown = report.listed.slice(0, N)
    assert (found.n_candidates, found.n_before, found.n_done, found.failed) == (N, 0, N, ())
    assert told[0] == (0, N)
    assert told[-1] == (N, N)
    folder = RunFolder(open_store(str(out), load(None, {}, {}).storage))
    for row in shown.to_pylist():
        record = explanations.read(folder.store, row["tile_id"], row["target_id"])
        members = [row[name] for name in ("p_ou_j", "p_ou_y", "p_ou_h", "p_ou_jyh", "p_ou_vis", "p_ou_66", "p_ou_200")]
        assert record.probabilities == pytest.approx(members, abs=2e-4)
        assert record.votes == sum(value >= 0.5 for value in record.probabilities)
        with Image.open(io.BytesIO(explanations.strip(folder.store, record))) as strip:
            assert strip.size == (len(PANELS) * 200 + (len(PANELS) - 1) * 4, 200)
            assert np.asarray(strip).std() > 10
        maps = zarr.open_group(folder.store.local(explanations.file_key(record, explanations.MAPS)), mode="r")
        assert {name: array.shape for name, array in maps.arrays()} == {
            "occlusion_ou_200": (50, 50),
            "occlusion_ou_66": (66, 66),
            "guided_grad_cam_ou_200": (200, 200),
            "guided_grad_cam_ou_66": (66, 66),
        }


def test_the_sheet_shows_the_strips(explained):
    _, _, before, after, _ = explained
    assert before.count(b'class="explanation"') == 0
    assert after.count(b'class="explanation"') == N


def test_a_driver_and_a_worker_without_torch_can_begin():
    # Then a worker says in a sentence what it lacks.
    program = "import sys, scanner.explain.stage; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.usefixtures("without_workers")
def test_what_is_lost_is_made_again_to_the_byte_wherever_it_is_explained(run, explained):
    """In this process the bytes of the cluster whose worker was killed; a tile that cannot be read is reported."""
    out, config, report = run
    again = explain_run(str(out), config, report, lambda done, total: None)
    assert (again.n_before, again.n_done) == (N, 0)
    first = report.listed.slice(0, 1).to_pylist()[0]
    lost = out / "explanations" / first["tile_id"] / str(first["target_id"])
    kept = {path: path.read_bytes() for path in lost.rglob("*") if path.is_file()}
    shutil.rmtree(lost)
    commits = list((out / "tiles").rglob("commit.json"))
    commit = next(path for path in commits if path.parent.name == first["tile_id"])
    hidden = commit.rename(commit.with_name(".commit"))
    found = explain_run(str(out), config, report, lambda done, total: None)
    hidden.rename(commit)
    assert [failure.tile_id for failure in found.failed] == [first["tile_id"]]
    assert "its commit record has gone; run again" in found.failed[0].reason
    elsewhere = sum(tile != first["tile_id"] for tile in report.listed["tile_id"].slice(0, N).to_pylist())
    assert (found.n_before, found.n_done) == (elsewhere, 0)
    assert (out / "candidates.html").read_bytes().count(b'class="explanation"') == N - 1
    told = []
    again = explain_run(str(out), config, report, lambda *numbers: told.append(numbers))
    assert (again.n_before, again.n_done, again.failed, told) == (N - 1, 1, (), [(N - 1, N), (N, N)])
    assert {path: path.read_bytes() for path in kept} == kept
    assert (out / "candidates.html").read_bytes() == explained[3]
