"""A catalogue of the whole sky, poles and RA 0/360 included, and what answers queries about it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_catalogue import made_rows

from scanner.query.adql.functions import TableDescription
from scanner.query.adql.translate import Relation, answer, translate
from scanner.query.database import open_database


def _rows():
    random, n = np.random.default_rng(6), 3000
    ra = random.uniform(0, 360, n)
    dec = np.degrees(np.arcsin(random.uniform(-1, 1, n)))
    ra[:50] = random.normal(0, 0.02, 50) % 360
    dec[:50] = random.normal(0, 0.02, 50)
    dec[50:80] = 90 - abs(random.normal(0, 0.01, 30))
    dec[80:100] = -90 + abs(random.normal(0, 0.01, 20))
    ra[100], dec[100] = 0.0, 90.0
    rows = made_rows(ra, dec, seed=6).sort_by("_healpix_29")
    position = rows.schema.get_field_index("p_calibrated")
    p = rows["p_calibrated"].to_numpy().copy()
    p[::7] = np.nan
    return rows.set_column(position, rows.schema.field(position), pa.array(p))


@pytest.fixture(name="rows", scope="session")
def rows_fixture():
    return _rows()


@pytest.fixture(name="tables", scope="session")
def tables_fixture(rows):
    objects = TableDescription(rows.schema, "All objects", ("ra", "dec"), "_healpix_29")
    return {"made.objects": objects, "objects": objects}


@pytest.fixture(name="ask", scope="session")
def ask_fixture(rows, tables, tmp_path_factory):
    """From a query to its answer, by way of a file that the database is allowed to read."""
    folder = tmp_path_factory.mktemp("adql") / "dataset"
    folder.mkdir()
    pq.write_table(rows, folder / "rows.parquet", row_group_size=500)
    database = open_database([folder])
    relation = Relation("SELECT * FROM read_parquet(?)", (str(folder / "rows.parquet"),))

    def ask(query, most=None):
        translation = translate(query, tables)
        connection = database.cursor()
        asked = translation if most is None else translation.limited(most)
        batches = list(answer(connection, asked, relation))
        connection.close()
        return pa.Table.from_batches(batches, schema=translation.columns)

    return ask
