"""A catalogue over the whole sky, in many small files and row groups, with objects where the sky's coordinates are awkward."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_catalogue import files_of, made_rows

from scanner.catalogue import hats
from scanner.query.catalogue import Catalogue
from scanner.query.region import overlapping
from scanner.sphere import healpix_29

ROW_GROUP_ROWS = 128


@dataclass(frozen=True)
class Published:
    """``rows``: what was written, in order of rank; ``folder``: which ``catalogue`` lies in; ``catalogue``: the same, open."""

    rows: pa.Table
    folder: Path
    catalogue: Catalogue

    @property
    def ra(self):
        return self.rows["ra"].to_numpy()

    @property
    def dec(self):
        return self.rows["dec"].to_numpy()


def awkward_sky(n):
    """Positions all over the sky, on the poles, at RA 0 from both sides, on the equator, and some in a dense field."""
    random = np.random.default_rng(6)
    ra, dec = random.uniform(0, 360, n), np.degrees(np.arcsin(random.uniform(-1, 1, n)))
    ra[:40], dec[:40] = np.tile([0, 1e-9, 360 - 1e-9, 180], 10), np.linspace(-90, 90, 40)
    ra[40:60], dec[40:60] = random.uniform(0, 360, 20), np.repeat([90, -90, 90 - 1e-7, -90 + 1e-7], 5)
    ra[60 : n // 4], dec[60 : n // 4] = random.normal(0, 0.5, n // 4 - 60) % 360, random.normal(-30, 0.5, n // 4 - 60)
    ra[n // 4 : n // 4 + 200], dec[n // 4 : n // 4 + 200] = random.uniform(0, 360, 200), 90 - random.exponential(0.5, 200)
    return ra, dec


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    rows = made_rows(*awkward_sky(12_000), seed=1)
    unknown = pa.array(np.where(np.arange(len(rows)) % 50 == 7, np.nan, rows["p_calibrated"].to_numpy()).astype(np.float32))
    place = rows.schema.get_field_index("p_calibrated")
    rows = rows.set_column(place, rows.schema.field(place), unknown)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hats, "ROW_GROUP_ROWS", ROW_GROUP_ROWS)
        hats.write_hats(rows, folder / "catalogue", "made", rows_per_partition=600)
    return Published(rows, folder, Catalogue.open(files_of(folder)))


@pytest.fixture(scope="session")
def covers():
    """Whether a region's ranges, which have to be in order and apart, hold every position inside it."""

    def _covers(region, ra, dec):
        index, ranges = healpix_29(ra, dec), region.ranges()
        assert (ranges[:, 0] < ranges[:, 1]).all()
        assert (ranges[1:, 0] > ranges[:-1, 1]).all()
        return overlapping(ranges, index, index + 1)[region.contains(ra, dec)].all()

    return _covers


@pytest.fixture(scope="session")
def assert_same():
    """Tables have the same fields, with their metadata, and the same values; NaN is NaN."""

    def _assert_same(found, expected):
        assert found.schema.equals(expected.schema, check_metadata=True)
        for name in expected.column_names:
            np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(expected[name]), err_msg=name)

    return _assert_same
