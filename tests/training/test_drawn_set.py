"""Members trained on a set that is drawn on the spot, in miniature, where libraries of a scan are missing."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from waiting import wait_for

from scanner.cli.main import main
from scanner.errors import ContentError, UsageError
from scanner.training.assemble import read_ensemble
from scanner.training.checkpoint import read_member

#: Objects: so few that they are soon drawn; with the seed, so many that lenses with visible arcs are among the validation rows.
N = 48
# Of every process of the run, as Python imports it where it finds it.
BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("astropy", "zarr", "numcodecs", "sep", "lenstronomy", "openTSNE", "dask", "distributed"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
"""
JOB = """
import sys
from scanner.cli.main import main
from scanner.training import presets

if __name__ == "__main__":
    short = {
        name: tuple(one.model_copy(update={"passes": 0.2, "batch": 8, "validations": 1}) for one in getattr(presets.BEST, name))
        for name in ("stages_200", "stages_66", "copied_200", "copied_66")
    }
    presets.PRESETS["best"] = presets.BEST.model_copy(update=short)
    main(sys.argv[1:])
"""


def command(place, *more):
    (place / "bare").mkdir(exist_ok=True)
    (place / "bare" / "sitecustomize.py").write_text(BARE)
    (place / "job.py").write_text(JOB)
    words = [sys.executable, place / "job.py", "train", "all", "--out", place / "out", "--scratch", place / "scratch"]
    words += ["--draw", str(N), "--seed", "5", "--jobs", "1", "--member", "OU-66", "--member", "OU-J", "--member", "OU-JYH"]
    path = os.pathsep.join([str(place / "bare"), *sys.path])
    return subprocess.Popen(
        [*map(str, words), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )


def test_it_needs_little_of_a_scan_and_goes_on(tmp_path):
    stopped = command(tmp_path)
    plan = tmp_path / "out" / "OU-66" / "plan.json"
    wait_for("a run that has begun", lambda: plan.exists() or stopped.poll() is not None)
    os.kill(stopped.pid, signal.SIGTERM)
    _, err = stopped.communicate()
    assert stopped.returncode == 130, err
    (part,) = (tmp_path / "scratch").glob("*.npz")
    drawn = part.stat().st_mtime_ns
    with np.load(part) as arrays:
        assert arrays["vis"].shape == (N, 200, 200)
        assert 0 < arrays["is_lens"].sum() < N

    goes_on = command(tmp_path)
    out, err = goes_on.communicate()
    assert goes_on.returncode == 0, err
    assert [line.partition(":")[0] for line in out.splitlines() if "weights as trained" in line] == ["OU-66", "OU-JYH", "OU-J"]
    assert part.stat().st_mtime_ns == drawn
    network, record = read_member(tmp_path / "out" / "OU-J")
    assert record.plan.dataset_sha256 == f"drawn:train:5:{N}"
    assert record.plan.begins_as == "OU-JYH"
    assert all(np.isfinite(weights.numpy()).all() for weights in network.state_dict().values())
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 16 * 2**20
    # A dataset of the same preset and seed is not new to these members.
    with pytest.raises(ContentError, match="another dataset"):
        read_ensemble(tmp_path / "out", "0" * 64, {"drawn:train:5"})


@pytest.mark.parametrize("words", [[], ["--data", "x", "--draw", "8"]])
def test_a_set_is_given_or_drawn(words, tmp_path, capsys):
    with pytest.raises((UsageError, SystemExit)) as refused:
        main(["train", "all", "--out", str(tmp_path), *words])
    assert getattr(refused.value, "code", 64) == 64
