import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import ScannerError, TileError
from scanner.records import ImageRef
from scanner.sky import source_catalogue
from scanner.sky.source_catalogue import Sources

#: As Euclid's MER writes it: flux in µJy, ids of 19 digits, negative in the south.
MER = {
    "OBJECT_ID": np.array([-528200000278000000, 528300000278000001, 7], dtype=np.int64),
    "RIGHT_ASCENSION": np.array([52.82, 52.83, 359.999]),
    "DECLINATION": np.array([-27.80, -27.81, 0.5]),
    "SEGMENTATION_AREA": np.array([40, 39, 1000], dtype=np.int32),
    "FLUX_DETECTION_TOTAL": np.array([3.63078, -1.0, 36.3078], dtype=np.float32),
    "VIS_DET": np.array([1, 1, 0], dtype=np.int16),
    "KRON_RADIUS": np.array([1.0, 2.0, 3.0]),
}
FORMATS = ("cat.fits", "CAT.FITS.GZ", "cat.ecsv", "cat.csv", "cat.parquet")


def write(folder: Path, name: str, columns: dict[str, Any]) -> ImageRef:
    path = folder / name
    match name.lower().split(".", 1)[1]:
        case "fits":
            Table(columns).write(path)
        case "fits.gz":
            Table(columns).write(folder / "plain.fits")
            path.write_bytes(gzip.compress((folder / "plain.fits").read_bytes()))
        case "ecsv":
            Table(columns).write(path, format="ascii.ecsv")
        case "csv":
            Table(columns).write(path, format="ascii.csv")
        case _:
            pq.write_table(pa.table(columns), path)
    return ImageRef(path=str(path))


def read_csv(folder: Path, text: str) -> Sources:
    path = folder / "text.csv"
    path.write_text(text, encoding="utf-8")
    return source_catalogue.read(ImageRef(path=str(path)))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_in_either_case(tmp_path: Path, name: str, lower: bool) -> None:
    columns = {key.lower() if lower else key: values for key, values in MER.items()}
    sources = source_catalogue.read(write(tmp_path, name, columns))
    assert len(sources) == 3
    np.testing.assert_array_equal(sources.ra, MER["RIGHT_ASCENSION"])
    np.testing.assert_array_equal(sources.dec, MER["DECLINATION"])
    assert sources.target_id is not None
    assert sources.target_id.tolist() == MER["OBJECT_ID"].tolist()
    assert sources.area is not None
    assert sources.area.tolist() == [40, 39, 1000]
    # 3.63078 µJy is AB 22.5; a negative flux and one that is not of VIS have no magnitude.
    np.testing.assert_allclose(sources.magnitude, [22.5, np.nan, np.nan], atol=1e-5)


def test_which_column_wins(tmp_path: Path) -> None:
    text = "number,Dec,ALPHA_J2000,ra,DELTA_J2000,mag,MAGNITUDE_VIS,FLUX_DETECTION_TOTAL\n1,2,3,4,5,6,7,8\n"
    sources = read_csv(tmp_path, text)
    assert (sources.ra.tolist(), sources.dec.tolist()) == ([4.0], [2.0])
    assert sources.magnitude is not None
    assert sources.magnitude.tolist() == [7.0]
    assert sources.target_id is None
    assert sources.area is None


@pytest.mark.parametrize(
    ("ra", "dec"),
    [("03:31:16.8", "-27:48:00"), ("3h31m16.8s", "-27d48m00s"), (" 52.82 ", "-27.8"), ("03 31 16.8", "-27 48 0.0")],
)
def test_sexagesimal_text(tmp_path: Path, ra: str, dec: str) -> None:
    sources = read_csv(tmp_path, f"ra,dec\n{ra},{dec}\n")
    np.testing.assert_allclose([sources.ra[0], sources.dec[0]], [52.82, -27.8], rtol=1e-12)


@pytest.mark.parametrize(
    ("unit", "values", "degrees"),
    [
        ("rad", [np.pi / 4], 45.0),
        ("hourangle", [3.0], 45.0),
        ("deg", ["45:00:00"], 45.0),
        ("hourangle", ["3:00:00"], 45.0),
        ("arcmin", [2700.0], 45.0),
        (None, [405.0], 45.0),
        (None, [-315.0], 45.0),
    ],
)
def test_units_of_positions(tmp_path: Path, unit: str | None, values: list[Any], degrees: float) -> None:
    table = Table({"RA": values, "DEC": [0.0]})
    table["RA"].unit = unit
    table.write(tmp_path / "units.ecsv", format="ascii.ecsv")
    np.testing.assert_allclose(source_catalogue.read(ImageRef(path=str(tmp_path / "units.ecsv"))).ra, degrees, rtol=1e-12)


def test_text_units_that_astropy_does_not_know(tmp_path: Path) -> None:
    field = [
        pa.field("ra", pa.string(), metadata={"unit": '"h:m:s"'}),
        pa.field("dec", pa.string(), metadata={"unit": '"d:m:s"'}),
    ]
    pq.write_table(pa.table([["03:00:00"], ["-10:30:00"]], schema=pa.schema(field)), tmp_path / "text.parquet")
    sources = source_catalogue.read(ImageRef(path=str(tmp_path / "text.parquet")))
    np.testing.assert_allclose([sources.ra[0], sources.dec[0]], [45.0, -10.5])


@pytest.mark.parametrize(("unit", "flux"), [("Jy", 3.63078e-6), ("nJy", 3630.78), ("uJy", 3.63078), ("", 3.63078)])
def test_units_of_flux(tmp_path: Path, unit: str, flux: float) -> None:
    table = Table({"RA": [1.0], "DEC": [0.0], "FLUX_DETECTION_TOTAL": [flux]})
    if unit:
        table["FLUX_DETECTION_TOTAL"].unit = unit
    table.write(tmp_path / "flux.fits")
    np.testing.assert_allclose(source_catalogue.read(ImageRef(path=str(tmp_path / "flux.fits"))).magnitude, [22.5], atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_missing_is_nan(tmp_path: Path, name: str) -> None:
    table = {
        "ra": MaskedColumn([1.0, 2.0, 3.0], mask=[False, True, False]),
        "dec": np.array([0.0, 0.0, 91.0]),
        "id": np.array([2**62 + 1, 2, 3]),
        "mag": np.array([20.0, np.nan, 99.0]),
    }
    if name.endswith("parquet"):
        table["ra"] = pa.array([1.0, None, 3.0])
    sources = source_catalogue.read(write(tmp_path, name, table))
    np.testing.assert_array_equal(sources.ra, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(sources.dec, [0.0, np.nan, np.nan])
    np.testing.assert_array_equal(sources.magnitude, [20.0, np.nan, 99.0])
    assert sources.target_id is not None
    assert sources.target_id.tolist() == [2**62 + 1, 2, 3]


def test_integer_null_of_fits(tmp_path: Path) -> None:
    columns = [
        fits.Column("ra", "D", array=[1.0, 2.0]),
        fits.Column("dec", "D", array=[1.0, 2.0]),
        fits.Column("SEGMENTATION_AREA", "J", array=[50, -1], null=-1),
        fits.Column("OBJECT_ID", "K", array=[5, -1], null=-1),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "null.fits")
    sources = source_catalogue.read(ImageRef(path=str(tmp_path / "null.fits")))
    np.testing.assert_array_equal(sources.area, [50.0, np.nan])
    assert sources.target_id is None


@pytest.mark.parametrize("ids", [["a", "b"], [1.5, 2.0], [2**63, 5]])
def test_ids_that_are_no_whole_numbers(tmp_path: Path, ids: list[Any]) -> None:
    table = pa.table({"ra": [1.0, 2.0], "dec": [0.0, 0.0], "ID": pa.array(ids, pa.uint64()) if 2**63 in ids else ids})
    pq.write_table(table, tmp_path / "ids.parquet")
    assert source_catalogue.read(ImageRef(path=str(tmp_path / "ids.parquet"))).target_id is None


def test_extension_of_a_fits_file(tmp_path: Path) -> None:
    path = str(tmp_path / "many.fits")
    tables = [fits.BinTableHDU(Table({"ra": [ra], "dec": [0.0]}), name=name) for ra, name in ((1.0, "FIRST"), (2.0, "SECOND"))]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2)), name="IMAGE"), *tables]).writeto(path)
    assert source_catalogue.read(ImageRef(path=path)).ra.tolist() == [1.0]
    assert source_catalogue.read(ImageRef(path=path, extension="SECOND")).ra.tolist() == [2.0]
    assert source_catalogue.read(ImageRef(path=path, extension=2)).ra.tolist() == [1.0]
    with pytest.raises(TileError, match=r"many.fits\[IMAGE\]: is not a binary table"):
        source_catalogue.read(ImageRef(path=path, extension="IMAGE"))
    with pytest.raises(TileError, match=r"many.fits\[THIRD\]: the catalogue cannot be read"):
        source_catalogue.read(ImageRef(path=path, extension="THIRD"))


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows(tmp_path: Path, name: str) -> None:
    assert len(source_catalogue.read(write(tmp_path, name, {key: values[:0] for key, values in MER.items()}))) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_without_positions_the_columns_are_named(tmp_path: Path, name: str) -> None:
    columns = {key: values for key, values in MER.items() if key != "DECLINATION"}
    with pytest.raises(
        TileError, match=rf"{name}: no column holds the dec; .* found: OBJECT_ID, RIGHT_ASCENSION, SEGM"
    ) as caught:
        source_catalogue.read(write(tmp_path, name, columns))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ra,dec\nabc,1\n", "column ra holds something else than angles"),
        ("ra,dec\n1:2:3:4,1\n", "column ra holds something else than angles"),
        ("ra,dec,mag\n1,1,bright\n", "column mag holds something else than numbers"),
        ("ra,dec\n1,1\n2\n", "the catalogue cannot be read"),
        ("", "the catalogue cannot be read"),
        ("\n", "the catalogue cannot be read"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TileError, match=r"text.csv: ") as caught:
        read_csv(tmp_path, text)
    assert says in str(caught.value)


@pytest.mark.parametrize(("column", "unit"), [("RA", "mag"), ("RA", "furlong"), ("FLUX_DETECTION_TOTAL", "adu")])
def test_bad_units(tmp_path: Path, column: str, unit: str) -> None:
    names = ["RA", "DEC", "FLUX_DETECTION_TOTAL"]
    fields = [pa.field(name, pa.float64(), metadata={"unit": unit if name == column else ""}) for name in names]
    pq.write_table(pa.table([[1.0]] * 3, schema=pa.schema(fields)), tmp_path / "u.parquet")
    with pytest.raises(TileError, match=f"column {column} is in '{unit}', which is no unit of"):
        source_catalogue.read(ImageRef(path=str(tmp_path / "u.parquet")))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.fits", "is not there"),
        ("none.csv", "is not there"),
        ("cat.txt", "give FITS, ECSV, VOTable, CSV or Parquet"),
        ("s3://bucket/cat.parquet", "reads nothing from s3"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, says: str) -> None:
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(TileError, match=says):
        source_catalogue.read(ImageRef(path=path))


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files(tmp_path: Path, name: str) -> None:
    many = {key: np.resize(values, 3000) for key, values in MER.items()}
    path = Path(write(tmp_path, name, many).path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3] if "csv" not in name else whole[:-9])
    with pytest.raises(TileError, match=rf"{name}: the (catalogue cannot be read|gzip file is damaged or truncated)"):
        source_catalogue.read(ImageRef(path=str(path)))


def test_image_instead_of_a_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(TileError, match="holds no binary table"):
        source_catalogue.read(ImageRef(path=str(tmp_path / "image.fits")))


@settings(max_examples=150)
@given(
    name=st.sampled_from(["x.fits", "x.fits.gz", "x.ecsv", "x.csv", "x.parquet"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text("ra,dec\n0123456789:. -+nan\"#%{}'", max_size=80).map(str.encode),
        st.binary(max_size=100).map(lambda rest: b"# %ECSV 1.0\n# ---\n" + rest),
        st.binary(max_size=100).map(lambda rest: b"SIMPLE  =                    T" + rest),
    ),
)
def test_nothing_but_a_scanner_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    caught = None
    try:
        sources = source_catalogue.read(ImageRef(path=str(path)))
    except ScannerError as error:
        caught = error
    if caught is not None:
        assert str(caught).startswith(str(path))
        assert "\n" not in str(caught)
    else:
        assert ((sources.ra >= 0) & (sources.ra <= 360) | np.isnan(sources.ra)).all()
