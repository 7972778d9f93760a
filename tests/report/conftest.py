from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from scanner.catalogue import columns
from scanner.records import CutoutBatch, FailedTile, Scores, Targets
from scanner.report.contact_sheet import RunSummary
from scanner.sphere import designations

REPOSITORY = Path(__file__).parents[2]


def gaussian(size: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A unit-flux source at pixel (x, y), integers at pixel centres."""
    rows, cols = np.indices((size, size))
    image = np.exp(-0.5 * ((cols - x) ** 2 + (rows - y) ** 2) / sigma**2)
    return image / image.sum()


def make_batch(n: int, seed: int = 1) -> CutoutBatch:
    """Noise with a galaxy in the middle; VIS sigma 0.003, NISP sigma 4, as in Q1."""
    rng = np.random.default_rng(seed)
    galaxy = np.hypot(*(np.indices((200, 200)) - 99.5))
    nisp_galaxy = np.hypot(*(np.indices((66, 66)) - 32.5))
    vis = rng.normal(0, 0.003, (n, 200, 200)) + 0.3 * np.exp(-galaxy / 6)
    nisp = rng.normal(0, 4, (n, 3, 66, 66)) + 800 * np.exp(-nisp_galaxy / 2)
    targets = Targets(
        target_id=np.arange(n, dtype=np.int64) * 7 + 2**60,
        ra=np.linspace(52.8, 53.1, n),
        dec=np.linspace(-28.1, 0.2, n),
        x=np.full(n, 1000.0),
        y=np.full(n, 1000.0),
        magnitude=np.linspace(19, 22, n, dtype=np.float32),
    )
    return CutoutBatch(
        targets=targets,
        vis=vis.astype(np.float32),
        nisp=nisp.astype(np.float32),
        x0=np.full(n, 900),
        y0=np.full(n, 900),
        offset=np.zeros((n, 2), np.float32),
        bad_fraction=np.zeros((n, 4), np.float32),
        sky=np.zeros((n, 4), np.float32),
        sigma=np.tile(np.array([0.003, 4, 4, 4], np.float32), (n, 1)),
        flags=np.zeros(n, np.uint32),
    )


def make_candidates(batch: CutoutBatch, **replaced: object) -> pa.Table:
    """The ranked table of a batch, as the catalogue makes it; ``replaced`` are fields of the scores."""
    n = len(batch)
    values: dict[str, object] = {
        "logits": np.tile(np.linspace(-2, 8, 7, dtype=np.float32), (n, 1)),
        "tsne": np.zeros((n, 2), np.float32),
        "grid_value": np.linspace(0.98, 0.7, n, dtype=np.float32),
        "cell_count": np.full(n, 1234),
        "calibrated": np.linspace(0.9, 0.5, n, dtype=np.float32),
        "decision": np.ones(n, bool),
        "flags": np.zeros(n, np.uint32),
    }
    rows = columns.score_table(batch, Scores(**(values | replaced)), "102018665")  # type: ignore[arg-type]
    rows = columns.with_column(rows, columns.RANK_COLUMN, np.arange(1, n + 1), 0)
    return columns.with_column(rows, columns.NAME_COLUMN, designations(batch.targets.ra, batch.targets.dec), 1)


def make_summary(**replaced: object) -> RunSummary:
    values: dict[str, object] = {
        "title": "Two tiles",
        "n_tiles": 3,
        "n_failed": 1,
        "n_targets": 10_012,
        "n_scored": 9_822,
        "n_objects": 9_900,
        "n_candidates": 4,
        "last_candidate_rank": 4,
        "sky_prevalence": 1e-4,
        "area_deg2": 0.284,
        "bundle_name": "demo",
        "bundle_version": "1.2.0",
        "bundle_licence": "CC-BY-4.0",
        "threshold": 0.625,
        "beta": 0.03,
        "scanner_version": "9.8.7",
        "command": "scanner run tile-list.txt",
        "failed_tiles": (FailedTile(tile_id="T3", reason="T3/VIS.fits: truncated; fetch it again."),),
    }
    return RunSummary.model_validate(values | replaced)


@pytest.fixture(scope="session")
def real() -> Path:
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"the real Euclid images are not at {folder}")
    return folder
