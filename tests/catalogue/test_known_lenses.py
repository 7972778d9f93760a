import importlib.util

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.catalogue import known_lenses
from scanner.catalogue.known_lenses import KnownLenses, KnownLensMatcher, load_known_lenses
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.storage import open_store


@pytest.mark.parametrize("name", ["lenses.fits", "lenses.vot", "lenses.ecsv", "lenses.csv"])
def test_every_format_says_the_same(tmp_path, name) -> None:
    table = Table({"Name": ["B", "A"], "RA": [10.5, 359.0], "DEC": [-3.25, 88.0], "ref": ["2024A&A...1", ""]})
    table.write(tmp_path / name, format="votable" if name.endswith("vot") else None)
    found = load_known_lenses(str(tmp_path / name))
    assert found.ra.tolist() == [10.5, 359.0]
    assert found.dec.tolist() == [-3.25, 88.0]
    assert found.name == ("B", "A")
    assert found.reference == ("2024A&A...1", name)


def test_names_units_and_angles_as_tables_have_them(tmp_path) -> None:
    path = tmp_path / "lenses.csv"
    path.write_text("Lens Name,RAJ2000,DEJ2000,Bibcode\nJ1,03:31:16.8,-27:48:00,paper\nJ2,00:00:04,+00:00:30,\nJ3,,,paper\n")
    found = load_known_lenses(str(path))
    assert found.name == ("J2", "J1")
    np.testing.assert_allclose(found.ra, [1 / 60, 52.82], atol=1e-9)
    np.testing.assert_allclose(found.dec, [30 / 3600, -27.8], atol=1e-9)
    table = Table({"RA [deg]": [370.0, 20.0, np.nan], "DEC [deg]": [0.0, 1.0, 1.0]})
    table["id"] = MaskedColumn([7, 8, 9], mask=[False, True, False])
    table.write(tmp_path / "lenses.ecsv")
    found = load_known_lenses(str(tmp_path / "lenses.ecsv"))
    assert found.ra.tolist() == [10.0, 20.0]
    assert found.name == ("7", "J20.0000+1.0000")
    table = Table({"ra": [0.5], "dec": [60.0]})
    table["ra"].unit, table["dec"].unit = "hourangle", "arcmin"
    table.write(tmp_path / "units.ecsv")
    found = load_known_lenses(str(tmp_path / "units.ecsv"))
    assert (found.ra.round(9).tolist(), found.dec.tolist()) == ([7.5], [1.0])


@pytest.mark.skipif(importlib.util.find_spec("lenscat") is None, reason="lenscat is not installed here")
def test_the_table_of_lenscat() -> None:
    found = load_known_lenses("lenscat")
    assert len(found) > 10_000
    (jackpot,) = (i for i, name in enumerate(found.name) if name == "SDSSJ0946+1006")
    assert (
        SkyCoord(found.ra[jackpot], found.dec[jackpot], unit="deg").separation(SkyCoord("09h46m56.68s +10d06m52.6s")).arcsec < 2
    )
    assert found.reference[jackpot].startswith("Bolton et al. (2008) - arXiv:0805.1931 | Moustakas")
    assert all(found.reference)
    assert found.ra.min() >= 0
    assert found.ra.max() < 360


def test_a_table_on_an_object_store(s3) -> None:
    location = s3.fresh()
    open_store(location, s3.config).write("lenses.csv", b"name,ra,dec\nJ1,1.0,2.0\n")
    assert load_known_lenses(f"{location}/lenses.csv", s3.config).name == ("J1",)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("lenses.txt", "ra dec", ContentError, "no table of known lenses that can be read; give FITS"),
        ("lenses.csv", "name,right\nA,1\n", ContentError, "no column holds the ra and dec .* Columns: name, right"),
        ("lenses.csv", "ra,dec\nhere,there\n", ContentError, "column ra holds something else than angles"),
        ("lenses.csv", "ra,dec\n10,95\n", ContentError, "no row has a position"),
        ("lenses.fits", "nothing", ContentError, "the table of known lenses cannot be read"),
        ("gone.csv", None, InputMissingError, "is not there; check its path"),
    ],
)
def test_refused(tmp_path, name, content, error, message) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message) as caught:
        load_known_lenses(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_lenscat(monkeypatch) -> None:
    monkeypatch.setattr(known_lenses.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputMissingError, match="pip install --no-deps lenscat"):
        load_known_lenses("lenscat", StorageConfig())


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), place=st.sampled_from([(0.0, 0.0), (359.999, 60.0), (10.0, 89.999), (200.0, -89.999)])
)  # fmt: skip
def test_the_nearest_is_found_as_by_brute_force(seed, place) -> None:
    random = np.random.default_rng(seed)

    def around(n):
        ra, dec = (place[i] + random.normal(0, 3 / 3600, n) / (1 if i else np.cos(np.radians(place[1]))) for i in (0, 1))
        return ra % 360.0, np.clip(dec, -90, 90)

    (ra, dec), (lens_ra, lens_dec) = around(20), around(6)
    names = tuple("abcdef")
    matcher = KnownLensMatcher(KnownLenses(lens_ra, lens_dec, names, tuple(f"of {name}" for name in names)), 2.0)
    found = matcher.describe(pa.table({"ra": ra, "dec": dec}))
    separation = SkyCoord(ra, dec, unit="deg")[:, None].separation(SkyCoord(lens_ra, lens_dec, unit="deg")).arcsec
    for row, distances in zip(found.to_pylist(), separation, strict=True):
        nearest = int(distances.argmin())
        if distances[nearest] <= 2.0:
            assert (row["known_name"], row["known_reference"]) == (names[nearest], f"of {names[nearest]}")
            assert row["known_separation"] == pytest.approx(distances[nearest], abs=1e-4)
        else:
            assert (row["known_name"], row["known_reference"]) == ("", "")
            assert np.isnan(row["known_separation"])
