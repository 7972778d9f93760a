"""Records of runs that were never made, for tests of what only handles them."""

import hashlib
import io

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.config import load
from scanner.ensemble.calibration import DecisionRule
from scanner.records import CommitRecord
from scanner.survey.folder.ledger import COMMIT, SCORES, RunRecord


def run_record(**changes):
    """A run's record; ``targets__magnitude_limit=…`` changes its configuration."""
    flags = {key.replace("__", "."): changes.pop(key) for key in list(changes) if "__" in key}
    values = {
        "scanner_version": "0.1.0",
        "tile_list": "/sky/tiles.txt",
        "tile_ids": ("1",),
        "bundle_name": "ou",
        "bundle_version": "1",
        "bundle_fingerprint": "b",
        "provider": "cpu",
        "config_fingerprint": "c",
        "config": load(None, flags, {}),
        "decision": DecisionRule(threshold=0.8, decides_on="calibrated", sky_prevalence=1e-4, training_prevalence=0.5),
    }
    return RunRecord(**(values | changes))


def commit_record(**changes):
    """A tile's commit, of the run that :func:`run_record` makes."""
    values = {
        "tile_id": "1",
        "input_fingerprint": "i",
        "input_files": {},
        "config_fingerprint": "c",
        "bundle_fingerprint": "b",
        "target_source": "catalogue",
        "n_seen": 9,
        "n_outside": 2,
        "n_rejected": 4,
        "notes": (),
        "n_targets": 3,
        "n_scored": 2,
        "n_flagged": 1,
        "n_decided": 1,
        "sky_area_deg2": 0.1,
        "sha256": {},
        "seconds": {},
    }
    return CommitRecord(**(values | changes))


def commit_tile(folder, tile_id="1", rows=(1, 2, 3), lost=None, **changes):
    """Commit a tile with a table of one column; ``lost``: checksums of files that are not there. Returns its record."""
    content = io.BytesIO()
    pq.write_table(pa.table({"target_id": rows}), content)
    with folder.staged_tile(tile_id) as staging:
        (staging.path / SCORES).write_bytes(content.getvalue())
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        commit = commit_record(tile_id=tile_id, place=staging.place, sha256={SCORES: digest} | (lost or {}), **changes)
        (staging.path / COMMIT).write_bytes(commit.to_bytes())
    return commit
