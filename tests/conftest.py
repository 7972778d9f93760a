"""What several test packages need: a small sky on disk, drawn once a session."""

from pathlib import Path

import pytest

from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles

REAL = Path(__file__).parents[2] / "shared" / "real"


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    """Folder of a tile list and three overlapping tiles of 640 px; the second has NISP at 0.3", rotated, the others at 0.1"."""
    folder = tmp_path_factory.mktemp("sky")
    request = TilesRequest(n_tiles=3, size=640, seed=3, overlap=0.3, lenses_per_tile=6, density=0.5)
    draw_tiles(request, folder, 1)
    return folder


@pytest.fixture(scope="session")
def real():
    """Folder of the real images; the test is skipped where they are not at hand."""
    if not REAL.is_dir():
        pytest.skip(f"the real Euclid images are not at {REAL}")
    return REAL
