import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord

from scanner.catalogue import export
from scanner.catalogue.columns import TILE_SCHEMA
from scanner.catalogue.export import TileRow, covered_sky, tile_table, without_folders
from scanner.errors import ContentError

#: Tiles where naive arithmetic on right ascensions and declinations goes wrong, and one where it does not.
ACROSS_ZERO = "POLYGON ICRS 359.75 -0.25 0.25 -0.25 0.25 0.25 359.75 0.25"
AROUND_THE_POLE = "POLYGON ICRS 45 89.7 135 89.7 225 89.7 315 89.7"
PLAIN = "POLYGON ICRS 52.75 -28.25 53.25 -28.25 53.25 -27.75 52.75 -27.75"


def row(tile_id: str, region: str = "", **others: object) -> TileRow:
    values: dict[str, object] = {"run": "made-0123abcd", "bundle": "made 1", "state": "done", "files": {}, "s_region": region}
    return TileRow(tile_id=tile_id, **(values | others))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "ra", "dec"), [(ACROSS_ZERO, 0.0, 0.0), (PLAIN, 53.0, -28.0), (AROUND_THE_POLE, None, 90.0)]
)
def test_centres(region: str, ra: float | None, dec: float) -> None:
    found = tile_table([row("1", region)]).to_pylist()[0]
    assert ra is None or abs(found["ra"] - ra) < 1e-6
    assert abs(found["dec"] - dec) < 1e-3
    assert 0 <= found["ra"] < 360


def test_the_table_is_in_order_and_tells_no_folders() -> None:
    failed = row("1", state="failed", reason="/data/sky/list.txt:3: no folder /data/sky/b, look there")
    done = row("2", PLAIN, files={"Y.image": "s3://bucket/tiles/y.fits[NIR]", "VIS.image": "/data/vis.fits"}, n_scored=7)
    other = row("1", run="a-0123abcd")
    found = tile_table([done, failed, other])
    assert found.schema.equals(TILE_SCHEMA, check_metadata=True)
    assert str(found.to_pylist()) == str(tile_table([other, failed, done]).to_pylist())
    assert [(line["run"], line["tile_id"]) for line in found.to_pylist()] == [
        ("a-0123abcd", "1"), ("made-0123abcd", "1"), ("made-0123abcd", "2"),
    ]  # fmt: skip
    assert found["reason"][1].as_py() == "list.txt:3: no folder b, look there"
    assert np.isnan(found["ra"][1].as_py())
    assert found["files"][2].as_py() == '{"VIS.image": "vis.fits", "Y.image": "y.fits[NIR]"}'
    assert found["n_scored"][2].as_py() == 7


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/a/vis.fits[VIS]: gone", "vis.fits[VIS]: gone"),
        ("3/4 of the pixels are bad", "3/4 of the pixels are bad"),
        ("'/a/b c/d.fits': gone", "'b c/d.fits': gone"),
    ],
)
def test_messages_without_folders(text: str, shown: str) -> None:
    assert without_folders(text) == shown


def test_the_footprint_covers_the_tiles_and_little_else() -> None:
    regions = [ACROSS_ZERO, PLAIN, "", AROUND_THE_POLE, PLAIN]
    covered = covered_sky(tile_table(row(str(number), region) for number, region in enumerate(regions))).footprint
    assert covered.max_order == export.FOOTPRINT_ORDER
    inside = SkyCoord([359.76, 0.24, 0.0, 53.2, 10.0, 200.0], [-0.24, 0.24, 0.0, -28.2, 90.0, 89.9], unit="deg")
    outside = SkyCoord([359.74, 0.26, 53.26, 10.0, 180.0], [0.0, 0.0, -28.0, 89.5, 0.0], unit="deg")
    assert covered.contains_skycoords(inside).all()
    assert not covered.contains_skycoords(outside).any()
    square = 0.5**2 * (1 + np.cos(np.radians(28)))
    pole = 2 * np.radians(0.3) ** 2 * np.degrees(1) ** 2
    assert abs(covered.sky_fraction * 41252.96 / (square + pole) - 1) < 0.05


def test_no_tiles() -> None:
    assert covered_sky(tile_table([])).footprint.empty()
    assert covered_sky(tile_table([])).area_deg2 == 0


def test_sky_of_several_tiles_is_counted_once() -> None:
    half = "POLYGON ICRS 53.0 -28.25 53.5 -28.25 53.5 -27.75 53.0 -27.75"
    tile = {"sky_area_deg2": 0.2}
    one, two = row("1", PLAIN, **tile), row("2", half, **tile)
    assert covered_sky(tile_table([one])).area_deg2 == 0.2
    assert covered_sky(tile_table([one, row("3", PLAIN, run="again", **tile)])).area_deg2 == pytest.approx(0.2)
    assert covered_sky(tile_table([one, two])).area_deg2 == pytest.approx(0.3, rel=0.01)
    assert covered_sky(tile_table([one, row("4", half, state="failed", **tile)])).area_deg2 == 0.2
    assert len(tile_table([])) == 0


@pytest.mark.parametrize("region", ["CIRCLE ICRS 1 2 3", "POLYGON ICRS 1 2 3 4", "POLYGON ICRS a b c d e f"])
def test_other_outlines_are_refused(region: str) -> None:
    with pytest.raises(ContentError, match="no outline"):
        covered_sky(pa.table({"state": ["done"], "s_region": [region], "sky_area_deg2": [0.1]}))
