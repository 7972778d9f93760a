"""LSDB and hats read what is written. They weigh a gigabyte, so only on demand, with a Python that has them::

python3 -m venv lsdb && lsdb/bin/pip install lsdb
LSDB_PYTHON=lsdb/bin/python pytest tests/catalogue/test_lsdb.py
"""

import json
import os
import subprocess

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from made_catalogue import made_rows
from scipy.spatial import KDTree
from waiting import LIMIT_S

from scanner.catalogue.columns import SOURCE_SCHEMA
from scanner.catalogue.hats import write_hats
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.merge import Merging, Rule
from scanner.sphere import chord, unit_vectors

LSDB_PYTHON = os.environ.get("LSDB_PYTHON")
#: Center and radius in degrees: at right ascension 0, at a pole, empty.
CONES = [(0.0, 0.0, 1.0), (359.9, -0.3, 0.2), (45.0, 89.8, 0.5), (120.0, 30.0, 0.1)]
QUESTIONS = """
import json, sys
import hats, lsdb
from hats.io.validation import is_valid_catalog

folder, cones = sys.argv[1], json.loads(sys.argv[2])
catalogue = lsdb.open_catalog(folder, columns="all")
found = {
    "valid": is_valid_catalog(folder, strict=True, verbose=False),
    "columns": sorted(catalogue.columns),
    "n": len(catalogue),
    "n_partitions": len(hats.read_hats(folder).get_healpix_pixels()),
    "cones": [sorted(catalogue.cone_search(ra, dec, r * 3600).compute()["target_id"].tolist()) for ra, dec, r in cones],
    "matched": len(catalogue.crossmatch(catalogue, radius_arcsec=0.01, suffixes=("_a", "_b")).compute()),
    "best": catalogue.query("rank == 1").compute()["name"].tolist(),
}
print("ANSWER" + json.dumps(found))
"""


MARGINS = """
import json, sys
import lsdb
from hats.io.validation import is_valid_catalog, is_valid_collection

folder, radius = sys.argv[1], float(sys.argv[2])
catalogue = lsdb.open_catalog(folder, columns="all")
matched = catalogue.crossmatch(catalogue, radius_arcsec=radius, n_neighbors=20, suffixes=("_a", "_b"))
found = {
    "valid": is_valid_collection(folder, verbose=False) and is_valid_catalog(folder + "/catalogue_10arcs", strict=True),
    "threshold": catalogue.margin.hc_structure.catalog_info.margin_threshold,
    "matched": len(matched.compute()),
}
print("ANSWER" + json.dumps(found))
"""


@pytest.mark.skipif(LSDB_PYTHON is None, reason="LSDB_PYTHON names no Python with lsdb (see the module's docstring)")
def test_lsdb_matches_across_borders_with_the_margin(tmp_path) -> None:
    random = np.random.default_rng(1)
    ra = np.concatenate([random.uniform(-0.3, 0.3, 8000) % 360, random.uniform(0, 360, 500)])
    dec = np.concatenate([random.uniform(-0.3, 0.3, 8000), random.uniform(89.5, 90, 500)])
    with Merging(tmp_path / "merging", Rule(0.01), KnownLensMatcher(None, 1.0)) as merging:
        merging.add(made_rows(ra, dec).select(SOURCE_SCHEMA.names))
        merging.merge()
        merging.write(tmp_path / "catalogue", "made", rows_per_partition=700)
    found = asked(MARGINS, tmp_path, 8.0)
    pairs = KDTree(unit_vectors(ra, dec)).query_pairs(chord(8.0))
    assert found == {"valid": True, "threshold": 10.0, "matched": 8500 + 2 * len(pairs)}


@pytest.mark.skipif(LSDB_PYTHON is None, reason="LSDB_PYTHON names no Python with lsdb (see the module's docstring)")
def test_lsdb_opens_searches_and_matches(tmp_path) -> None:
    random = np.random.default_rng(1)
    ra = np.concatenate([random.uniform(-2, 2, 4000) % 360, random.uniform(0, 360, 1000)])
    dec = np.concatenate([random.uniform(-2, 2, 4000), random.uniform(89, 90, 1000)])
    rows = made_rows(ra, dec)
    partitions = write_hats(rows, tmp_path / "catalogue", "made", rows_per_partition=700)
    found = asked(QUESTIONS, tmp_path / "catalogue", json.dumps(CONES))
    assert found["valid"]
    # The HEALPix index is LSDB's index, and none of its columns.
    assert found["columns"] == sorted(set(rows.column_names) - {"_healpix_29"})
    assert found["n"] == found["matched"] == 5000
    assert found["n_partitions"] == len(partitions) > 4
    assert found["best"] == [rows["name"][0].as_py()]
    places, targets = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg"), rows["target_id"].to_numpy()
    for (at_ra, at_dec, radius), told in zip(CONES, found["cones"], strict=True):
        inside = places.separation(SkyCoord(at_ra, at_dec, unit="deg")).deg <= radius
        assert told == sorted(targets[inside].tolist())
    assert found["cones"][0]
    assert not found["cones"][3]


def asked(script, *words):
    """What LSDB's Python answers."""
    answer = subprocess.run(
        [str(LSDB_PYTHON), "-W", "ignore", "-c", script, *map(str, words)],
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    return json.loads(answer.stdout.partition("ANSWER")[2])
