"""A real finished run for the tests of the service, and the real server over it."""

import pytest

from scanner.config import load
from scanner.survey.run import RunRequest, run_survey
from scanner.survey.scan.tile_task import scan_tile

#: So many objects are decided that there is something to look at; every cutout is kept, as it was.
SETTINGS = {
    "scoring.beta": 2.0,
    "targets.magnitude_limit": 22.0,
    "cutouts.keep": "all",
    "cutouts.codec": "exact",
    "catalogue.sheet_candidates": 1,
}


def _in_this_process(jobs, n_jobs, config, on_progress):
    """Scan tile after tile in a plain loop: a cluster takes seconds to start."""
    for job in jobs:
        yield scan_tile(job, on_progress)


@pytest.fixture(scope="session")
def served_run(sky, tmp_path_factory):
    """Folder of a finished run of the three tiles of ``sky``; only to be read."""
    out = tmp_path_factory.mktemp("served") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanner.survey.run.scan_tiles", _in_this_process)
        run_survey(RunRequest(f"{sky}/tile-list.txt", str(out), load(None, SETTINGS, {})))
    return out
