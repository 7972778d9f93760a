import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.io import fits, votable
from astropy.table import Table

from scanner.catalogue.export import TableFact, TableHeading
from scanner.errors import UsageError
from scanner.query.catalogue import Search, search
from scanner.query.formats import FILE_FORMATS, format_of
from scanner.query.region import Cone

HEADING = TableHeading(
    "objects", "An answer", (TableFact("query", "QUERY", "--cone '0 −30 20″' " + "x" * 90, "what was asked"),)
)
READ_AS = {"fits": "fits", "votable": "votable", "ecsv": "ascii.ecsv"}


@pytest.fixture(name="answer", scope="module")
def answer_fixture(published):
    columns = (
        "rank",
        "name",
        "ra",
        "dec",
        "separation",
        "p_calibrated",
        "known_separation",
        "is_candidate",
        "flags",
        "target_id",
    )
    return search(published.catalogue, Search(Cone(0, -30, 0.1), columns=columns))


@pytest.mark.parametrize("format_", READ_AS)
@pytest.mark.parametrize("n", [None, 0])
def test_values_and_what_is_said_of_them(answer, format_, n):
    answer = answer.slice(0, n)
    content = FILE_FORMATS[format_].write(answer, HEADING)
    assert content == FILE_FORMATS[format_].write(answer, HEADING)
    found = Table.read(io.BytesIO(content), format=READ_AS[format_])
    assert found.colnames == answer.column_names
    for field in answer.schema:
        assert (found[field.name].unit or "") == field.metadata[b"unit"].decode()
        if len(answer):
            read = found[field.name]
            values = np.asarray(read.filled(np.nan) if np.ma.isMaskedArray(read) and read.dtype.kind == "f" else read)
            np.testing.assert_array_equal(values, np.asarray(answer[field.name].to_pylist()).astype(values.dtype))


def test_ucds_and_what_was_asked(answer):
    with fits.open(io.BytesIO(FILE_FORMATS["fits"].write(answer, HEADING))) as hdus:
        header = hdus["OBJECTS"].header
        assert header["TUCD3"] == "pos.eq.ra;meta.main"
        assert header["QUERY"].startswith("--cone '0 ?30 20?' xxx")
    resource = votable.parse(io.BytesIO(FILE_FORMATS["votable"].write(answer, HEADING))).resources[0]
    assert [field.ucd for field in resource.tables[0].fields] == [field.metadata[b"ucd"].decode() for field in answer.schema]
    assert resource.infos[-1].value == HEADING.entries[0].value
    parquet = pq.read_table(io.BytesIO(FILE_FORMATS["parquet"].write(answer, HEADING)))
    assert parquet.schema.metadata[b"query"].decode() == HEADING.entries[0].value
    assert parquet.schema.field("separation").metadata[b"ucd"] == b"pos.angDistance"
    np.testing.assert_array_equal(parquet["known_separation"].to_numpy(), answer["known_separation"].to_numpy())


def test_csv_leaves_empty_what_is_not_known(answer):
    content = FILE_FORMATS["csv"].write(answer, HEADING)
    assert b"nan" not in content.lower()
    found = pyarrow.csv.read_csv(io.BytesIO(content))
    assert found.column_names == answer.column_names
    assert found["ra"].to_pylist() == answer["ra"].to_pylist()
    assert found["known_separation"].null_count == np.isnan(answer["known_separation"].to_numpy()).sum() > 0


def test_ds9(answer):
    lines = FILE_FORMATS["ds9"].write(answer, HEADING).decode().splitlines()
    assert lines[:3] == ["# Region file format: DS9 version 4.1", "global color=yellow", "icrs"]
    assert len(lines) == 3 + len(answer)
    row = answer.slice(0, 1).to_pylist()[0]
    colour = "color=green " if row["is_candidate"] else ""
    assert lines[3] == f'circle({row["ra"]:.7f},{row["dec"]:.7f},2") # {colour}text={{{row["name"]}}}'
    bare = pa.table({"ra": [1.0], "dec": [2.0], "name": ["a}b{"]})
    assert FILE_FORMATS["ds9"].write(bare, HEADING).decode().splitlines()[3] == 'circle(1.0000000,2.0000000,2") # text={a)b(}'
    unnamed = FILE_FORMATS["ds9"].write(bare.drop_columns("name"), HEADING)
    assert unnamed.decode().splitlines()[3] == 'circle(1.0000000,2.0000000,2")'
    with pytest.raises(UsageError, match="need the columns ra and dec"):
        FILE_FORMATS["ds9"].write(bare.drop_columns("ra"), HEADING)
    with pytest.raises(UsageError, match="ra and dec in degrees, as numbers"):
        FILE_FORMATS["ds9"].write(pa.table({"ra": ["1"], "dec": [2.0]}), HEADING)
    numbered = pa.table({"ra": [1.0], "dec": [2.0], "name": [7]})
    assert FILE_FORMATS["ds9"].write(numbered, HEADING).decode().endswith("text={7}\n")


def test_names_tell_formats():
    assert {format_of(f"x.{suffix}") for suffix in ("fits", "VOT", "ecsv", "csv", "parquet", "reg")} == set(FILE_FORMATS)
    with pytest.raises(UsageError, match=r"x\.txt: its name tells no format"):
        format_of("x.txt")
