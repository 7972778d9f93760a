import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from plain_catalogue import listed as candidates_of
from plain_catalogue import merged

from scanner.catalogue import columns
from scanner.catalogue.export import Provenance, write_candidates, write_failed
from scanner.errors import OutputError
from scanner.records import FailedTile

PROVENANCE = Provenance(
    software="scanner 0.1.0", config_fingerprint="0123456789abcdef" * 2, bundle="default 1", bundle_fingerprint="f" * 64
)


@pytest.fixture(name="candidates", scope="module")
def candidates_fixture(random_rows: Callable[..., pa.Table]) -> pa.Table:
    return candidates_of(merged(random_rows(300)), 20)


@pytest.fixture(name="written", scope="module")
def written_fixture(candidates: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_candidates(candidates, tmp_path_factory.mktemp("export") / "candidates", PROVENANCE)


def assert_same_values(found: Table, candidates: pa.Table) -> None:
    assert found.colnames == candidates.column_names
    assert len(found) == len(candidates) == 20
    for name in found.colnames:
        expected = np.asarray(candidates[name].to_pylist())
        # What is not known is masked where a format has no NaN, and empty text where it has no empty text.
        values = (
            np.ma.filled(found[name], np.nan if found[name].dtype.kind == "f" else "")
            if found[name].dtype.kind in "fU"
            else np.asarray(found[name])
        )
        np.testing.assert_array_equal(values.astype(expected.dtype), expected, err_msg=name)
        assert (str(found[name].unit) if found[name].unit else "") == columns.column(name).unit.replace("pixel", "pix")


def test_regions(written: tuple[Path, ...], candidates: pa.Table) -> None:
    lines = written[3].read_text().splitlines()
    assert lines[:3] == ["# Region file format: DS9 version 4.1", "global color=yellow", "icrs"]
    assert len(lines) == 3 + len(candidates)
    first = candidates.slice(0, 1).to_pylist()[0]
    colour = "color=green " if first["is_candidate"] else ""
    assert lines[3] == f'circle({first["ra"]:.7f},{first["dec"]:.7f},2") # {colour}text={{{first["name"]}}}'


def test_fits(written: tuple[Path, ...], candidates: pa.Table) -> None:
    assert_same_values(Table.read(written[0]), candidates)
    with fits.open(written[0], checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus["CANDIDATES"].header
        assert header["CREATOR"] == "scanner 0.1.0"
        assert header["BUNDLEID"] == "f" * 64
        assert header["RADESYS"] == "ICRS"
        for number, name in enumerate(candidates.column_names, start=1):
            column = columns.column(name)
            assert header[f"TTYPE{number}"] == name
            assert header[f"TCOMM{number}"] == column.description
            assert header[f"TUCD{number}"] == column.ucd
            assert header.get(f"TUNIT{number}", "") == column.unit
            expected = {"bool": "L", "int32": "J", "int64": "K", "float32": "E", "float64": "D", "string": "A"}
            assert header[f"TFORM{number}"].lstrip("0123456789") == expected[column.dtype]
        assert not any(keyword.startswith("DATE") for keyword in header)


def test_ecsv(written: tuple[Path, ...], candidates: pa.Table) -> None:
    found = Table.read(written[1])
    assert_same_values(found, candidates)
    assert dict(found.meta) == PROVENANCE.model_dump()
    for name in found.colnames:
        assert found[name].description == columns.column(name).description
        assert found[name].meta["ucd"] == columns.column(name).ucd


def test_votable(written: tuple[Path, ...], candidates: pa.Table) -> None:
    report = io.StringIO()
    assert votable.validate(str(written[2]), output=report, xmllint=False), report.getvalue()
    document = votable.parse(str(written[2]), verify="exception")
    assert document.version == "1.4"
    table = document.get_first_table()
    assert_same_values(table.to_table(), candidates)
    for field in table.fields:
        column = columns.column(field.name)
        assert (field.ucd, " ".join(field.description.split())) == (column.ucd, column.description)
        assert field.ref == ("sky" if field.name in ("ra", "dec") else None)
    assert document.resources[0].coordinate_systems[0].system == "ICRS"
    infos = {info.name: info.value for info in document.resources[0].infos}
    assert infos == {
        "CREATOR": "scanner 0.1.0",
        "CONFIGID": "0123456789abcdef" * 2,
        "BUNDLE": "default 1",
        "BUNDLEID": "f" * 64,
    }


def test_same_rows_same_bytes(written: tuple[Path, ...], candidates: pa.Table, tmp_path: Path) -> None:
    again = write_candidates(pa.concat_tables([candidates.slice(0, 3), candidates.slice(3)]), tmp_path / "other", PROVENANCE)
    assert [path.name for path in again] == ["other.fits", "other.ecsv", "other.vot", "other.reg"]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in again)


def test_no_candidates(tmp_path: Path) -> None:
    empty = columns.CANDIDATE_SCHEMA.empty_table()
    for path in write_candidates(empty, tmp_path / "candidates", PROVENANCE)[:3]:
        found = Table.read(path)
        assert len(found) == 0
        assert found.colnames == empty.column_names


def test_a_place_that_is_taken_is_one_sentence(candidates: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "candidates.vot").mkdir()
    with pytest.raises(OutputError, match=r"candidates\.vot: cannot be written"):
        write_candidates(candidates, tmp_path / "candidates", PROVENANCE)
    assert {path.name for path in tmp_path.iterdir()} == {"candidates.fits", "candidates.ecsv", "candidates.vot"}


def test_unregistered_column(candidates: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="colour"):
        write_candidates(candidates.append_column("colour", pa.array(np.zeros(20))), tmp_path / "candidates", PROVENANCE)


def test_failed_tiles(tmp_path: Path) -> None:
    path = tmp_path / "failed-tiles.ecsv"
    failed = [
        FailedTile(tile_id="b", reason='list.txt:3: "Köln 1": no such folder, check it.'),
        FailedTile(tile_id="10", reason="vis.fits: truncated\nat 7 bytes."),
    ]
    write_failed(failed, path)
    found = Table.read(path)
    assert found["tile_id"].tolist() == ["10", "b"]
    assert found["reason"].tolist() == [failed[1].reason, failed[0].reason]
    first = path.read_bytes()
    write_failed(failed[::-1], path)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["failed-tiles.ecsv"]
    write_failed([], path)
    assert len(Table.read(path)) == 0
