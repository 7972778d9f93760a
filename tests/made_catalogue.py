"""Catalogues of random objects, for tests of what is asked of them."""

import numpy as np
import pyarrow as pa

from scanner.atomic_file import tree_sha256
from scanner.catalogue import columns
from scanner.config import StorageConfig
from scanner.sphere import designations, healpix_29
from scanner.storage import open_store
from scanner.storage.verified import VerifiedFiles


def made_rows(ra, dec, seed=0, run="made-0123abcd"):
    """A ranked table of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA` at some positions in degrees, in order of rank."""
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    random, n = np.random.default_rng(seed), len(ra)
    p = random.beta(0.3, 3.0, n).astype(np.float32)
    texts = {"tile_id": random.choice(["102018211", "102018212"], n), "run": [run] * n, "bundle": ["made 1"] * n}
    known = random.random(n) < 0.02
    texts |= {"known_name": np.where(known, "J0000+0000", ""), "known_reference": np.where(known, "made table", "")}
    texts |= {"name": designations(ra, dec)}
    values = {column.name: random.random(n) for column in columns.CATALOGUE_COLUMNS}
    values |= {
        "target_id": random.permutation(n).astype(np.int64) + 1,
        "_healpix_29": healpix_29(ra, dec),
        "ra": ra,
        "dec": dec,
        "p_calibrated": p,
        "grid_value": np.round(p, 1),
        # As by a grid: most of what is probable, so that ranks of candidates have gaps.
        "is_candidate": (p > 0.5) & (np.arange(n) % 7 != 0),
        "magnitude_vis": random.uniform(17, 25, n),
        "known_separation": np.where(known, random.random(n), np.nan),
        "rank": np.zeros(n),
        "flags": random.integers(0, 4, n),
        "cell_count": random.integers(0, 99, n),
    }
    values |= texts
    arrays = [pa.array(np.asarray(values[field.name]).astype(field.type.to_pandas_dtype()), type=field.type)
              for field in columns.CATALOGUE_SCHEMA]  # fmt: skip
    rows = pa.Table.from_arrays(arrays, schema=columns.CATALOGUE_SCHEMA)
    # All are scored, of one bundle: the ranking's order.
    rows = rows.sort_by([("p_calibrated", "descending"), ("grid_value", "descending"), ("target_id", "ascending")])
    position = rows.schema.get_field_index("rank")
    return columns.with_column(rows, columns.RANK_COLUMN, np.arange(1, n + 1), position)


def files_of(folder, sha256=None, store=None):
    """What lies in ``folder/catalogue``, as a record that was written now would list it."""
    sha256 = tree_sha256(folder / "catalogue") if sha256 is None else sha256
    return VerifiedFiles(store or open_store(str(folder), StorageConfig()), "catalogue", sha256, "merge its runs again")
