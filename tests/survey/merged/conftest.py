"""Two runs whose tiles overlap, at right ascension 0, and a third that scanned one of these tiles again."""

import numpy as np
import pytest
from made_runs import made_run, score_rows

RUNS = ("north", "south", "again")


def sky(seed, n, low, high):
    """Positions in a strip of a hundredth of a degree over right ascension 0."""
    random = np.random.default_rng(seed)
    return (random.uniform(-0.005, 0.005, n) % 360.0, random.uniform(low, high, n))


@pytest.fixture(scope="session")
def tables():
    """Tables by run and tile: the strips 0 to 2 and 1 to 3 hold the same objects from 1 to 2."""
    shared = sky(1, 60, 0.01, 0.02)
    ra, dec = (np.concatenate([a, b]) for a, b in zip(sky(2, 60, 0.0, 0.01), shared, strict=True))
    south_ra, south_dec = (np.concatenate([a, b]) for a, b in zip(shared, sky(3, 60, 0.02, 0.03), strict=True))
    return {
        "north": {"t1": score_rows(ra, dec, "t1", seed=4), "t3": score_rows(*sky(8, 20, 0.05, 0.06), "t3", first_id=900)},
        "south": {"t2": score_rows(south_ra, south_dec + 0.1 / 3600, "t2", seed=5, first_id=500)},
        "again": {"t1": score_rows(ra, dec, "t1", seed=6)},
    }


@pytest.fixture(scope="session")
def runs(tables, tmp_path_factory):
    """Their folders by name."""
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        made_run(folder / name, tables[name], failed=("t9",) if name == "south" else (), tile_list=f"/sky/{name}.txt")
    return {name: folder / name for name in RUNS}


@pytest.fixture(scope="session")
def other_bundle(tables, tmp_path_factory):
    """A run of the same tile as ``again``, scored with another bundle."""
    folder = tmp_path_factory.mktemp("other") / "other"
    made_run(folder, tables["again"], tile_list="/sky/other.txt", bundle_name="new", bundle_version="2", bundle_fingerprint="n")
    return folder
