"""The self-contained job, on the processor and in miniature, where the libraries of a scan are missing."""

import subprocess
import sys

import numpy as np
import pytest
from waiting import LIMIT_S

from scanner.errors import ContentError
from scanner.training.assemble import read_ensemble
from scanner.training.checkpoint import read_member

JOB = """
import sys
for name in ("astropy", "zarr", "pyarrow", "sep", "lenstronomy", "openTSNE", "matplotlib", "dask", "distributed"):
    sys.modules[name] = None
from scanner.training import gpu_job, presets
short = {
    name: tuple(stage.model_copy(update={"passes": 0.6, "batch": 8, "validations": 1}) for stage in getattr(presets.BEST, name))
    for name in ("stages_200", "stages_66", "copied_200", "copied_66")
}
gpu_job.PRESETS["best"] = presets.BEST.model_copy(update=short)
sys.exit(gpu_job.main(sys.argv[1:]))
"""


def run(place, *more):
    words = [
        "--out",
        place / "out",
        "--device",
        "cpu",
        "--objects",
        "120",
        "--seed",
        "3",
        "--member",
        "OU-66",
        "OU-J",
        "OU-JYH",
    ]
    done = subprocess.run(
        [sys.executable, "-c", JOB, *map(str, words), *more], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_needs_nothing_of_a_scan_and_goes_on(tmp_path):
    assert run(tmp_path, "--budget", "0.001s")[-1].startswith("the budget is spent")
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, "--budget", "240s")[-1] == "done"
    (part,) = (tmp_path / "scratch").glob("*.npz")
    with np.load(part) as arrays:
        assert arrays["vis"].shape == (120, 200, 200)
        assert 0 < arrays["is_lens"].sum() < 120
    network, record = read_member(tmp_path / "out" / "OU-J")
    assert record.plan.dataset_sha256 == "drawn:train:3:120"
    assert record.plan.begins_as == "OU-JYH"
    assert all(np.isfinite(weights.numpy()).all() for weights in network.state_dict().values())
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 16 * 2**20
    # A dataset of the same preset and seed is not new to these members.
    with pytest.raises(ContentError, match="another dataset"):
        read_ensemble(tmp_path / "out", "0" * 64, {"drawn:train:3"})
