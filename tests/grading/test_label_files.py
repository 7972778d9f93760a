import io

import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from scanner.grading.grade import Place
from scanner.grading.labels import LABEL_COLUMNS, LABEL_FORMATS, LABEL_SCHEMA, label_bytes, label_table
from scanner.grading.store import GradeStore

ASTROPY = {"ecsv": "ascii.ecsv", "csv": "ascii.csv", "fits": "fits", "votable": "votable"}


@pytest.mark.parametrize("name", LABEL_FORMATS)
def test_a_table_without_rows_has_its_columns(name):
    content = label_bytes(label_table((), {}), name)
    table = pq.read_table(io.BytesIO(content)) if name == "parquet" else Table.read(io.BytesIO(content), format=ASTROPY[name])
    assert len(table) == 0
    assert list(getattr(table, "colnames", None) or table.column_names) == [column.name for column in LABEL_COLUMNS]


@pytest.mark.parametrize("name", LABEL_FORMATS)
def test_hostile_comments_come_back_as_they_were_written(name, tmp_path):
    comment = "<b> & ]]> \"quoted\", 'single' \\ = # ; ünï 星 <!-- -->"
    store = GradeStore(tmp_path / "grades.sqlite")
    store.give(Place("run-1/10/7", "EUCL J1", 10.0, 0.0), "Ann", "A", comment)
    content = label_bytes(label_table(store.standing(), store.places()), name)
    if name == "parquet":
        found = pq.read_table(io.BytesIO(content))["comments"][0].as_py()
    else:
        found = str(Table.read(io.BytesIO(content), format=ASTROPY[name])["comments"][0])
    assert found == "Ann: " + (comment if name != "fits" else comment.encode("ascii", "replace").decode())


def test_headers_tell_what_columns_mean():
    with fits.open(io.BytesIO(label_bytes(LABEL_SCHEMA.empty_table(), "fits"))) as opened:
        header = opened[1].header
    told = {header[f"TTYPE{n}"]: (header.get(f"TUCD{n}"), header.get(f"TCOMM{n}")) for n in range(1, len(LABEL_COLUMNS) + 1)}
    assert told == {column.name: (column.ucd, column.description) for column in LABEL_COLUMNS}
