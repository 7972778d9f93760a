import numpy as np
import pytest
from astropy.coordinates import Angle, SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from scanner.sphere import designations, parse_designation


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (0.0, 0.0, "EUCL J000000.00+000000.0"),
        (359.999999999, 89.99999999, "EUCL J235959.99+895959.9"),
        (360.0, -90.0, "EUCL J000000.00-900000.0"),
        (-1.0, -0.00001, "EUCL J235600.00-000000.0"),
        # Truncated: 52.82 deg is 03h31m16.80s exactly, and 27.80 deg is 27°48′00.0″, though neither is a binary fraction.
        (52.82, -27.80, "EUCL J033116.80-274800.0"),
        (52.820049, -27.800027, "EUCL J033116.81-274800.0"),
        (np.nan, 1.0, "EUCL J?"),
    ],
)
def test_known_names(ra: float, dec: float, name: str) -> None:
    assert designations(np.array([ra]), np.array([dec])) == [name]


@given(
    centiseconds=st.integers(0, 24 * 360_000 - 1),
    deciseconds=st.integers(-90 * 36_000, 90 * 36_000),
    inside=st.floats(0.001, 0.999),
)
def test_truncates_and_agrees_with_astropy(centiseconds: int, deciseconds: int, inside: float) -> None:
    """A position inside a cell of the name's last digits is named after the cell's corner nearest to (0, 0)."""
    sign = -1 if deciseconds < 0 else 1
    ra = (centiseconds + inside) / 24_000
    dec = sign * (abs(deciseconds) + (inside if abs(deciseconds) < 90 * 36_000 else 0)) / 36_000
    corner = SkyCoord(centiseconds / 24_000, deciseconds / 36_000, unit="deg")
    right = Angle(corner.ra).to_string("hourangle", sep="", precision=2, pad=True)
    up = Angle(corner.dec).to_string("deg", sep="", precision=1, pad=True, alwayssign=True)
    assert designations(np.array([ra]), np.array([dec])) == [f"EUCL J{right}{up}"]


@pytest.mark.parametrize("prefix", ["EUCL", "LSST", "HSC-SSP"])
def test_a_name_of_any_survey_is_read_again(prefix: str) -> None:
    (name,) = designations(np.array([150.1]), np.array([-2.3]), prefix)
    assert name.startswith(f"{prefix} J1000")
    full, ra, dec = parse_designation(name)
    assert full == name
    assert (ra, dec) == pytest.approx((150.1, -2.3), abs=5e-5)
    assert parse_designation(name.partition(" ")[2])[0] == name.partition(" ")[2]
