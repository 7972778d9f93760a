"""Collections of made catalogues: many objects, without a run behind them."""

import atexit

import numpy as np
import pyarrow as pa
import pytest
from made_catalogue import files_of, made_rows

from scanner.catalogue import export
from scanner.catalogue.columns import RANK_COLUMN, with_column
from scanner.catalogue.hats import write_hats
from scanner.query.catalogue import Catalogue
from scanner.query.processes import QueryProcesses
from scanner.service.collections import serve
from scanner.service.settings import LimitsConfig
from scanner.survey.published import Published

#: Where the collections are asked, which live as long as the tests.
_processes = QueryProcesses(1024)
atexit.register(_processes.close)


def collection_of(rows, folder, rows_per_partition=500):
    """An open collection of a table."""
    write_hats(rows, folder / "catalogue", "made", rows_per_partition)
    catalogue = Catalogue.open(files_of(folder))
    published = Published(
        str(folder), "made", "made", files_of(folder), None, ("made 1",), {"made-0123abcd": None}, {"made-0123abcd": 1e-4}, 0.0
    )
    return serve(published, catalogue, export.tile_table([]), LimitsConfig(), _processes)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A collection of 2000 objects round RA 0, with ties in the scores and some that are not known; and its rows, by rank."""
    random = np.random.default_rng(5)
    ra, dec = random.normal(0, 3, 2000) % 360, np.clip(random.normal(88, 3, 2000), -90, 90)
    rows = made_rows(ra, dec, seed=5)
    for name in ("p_ou_j", "magnitude_vis", "p_calibrated"):
        values = rows[name].to_numpy().copy()
        values[random.random(len(values)) < 0.1] = np.nan
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), [values])
    return collection_of(rows, tmp_path_factory.mktemp("made")), rows


@pytest.fixture(scope="session")
def made_in_one_place(tmp_path_factory):
    """A collection of 120 objects at the pole, as of a survey whose three runs scored the same 40; and its rows, by rank."""
    runs = [made_rows([0.0] * 40, [90.0] * 40, seed=1, run=f"made-{number}") for number in (2, 0, 1)]
    rows = pa.concat_tables(runs).combine_chunks()
    rows = with_column(rows, RANK_COLUMN, np.arange(1, len(rows) + 1), rows.schema.get_field_index("rank"))
    return collection_of(rows, tmp_path_factory.mktemp("one-place")), rows
