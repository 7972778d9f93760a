from contextlib import suppress

import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import UsageError
from scanner.query.region import Cone, parse_cone, parse_polygon, parse_radius


@pytest.mark.parametrize(
    ("text", "ra", "dec", "radius"),
    [
        ("150.1 2.2 0.5", 150.1, 2.2, 0.5),
        ("150.1,-2.2,10arcsec", 150.1, -2.2, 10 / 3600),
        ("150.1d +2.2deg 5 arcmin", 150.1, 2.2, 5 / 60),
        ('10:00:24 -00:30:00 3"', 150.1, -0.5, 3 / 3600),
        ("10h00m24.0s +2d12m0s 5'", 150.1, 2.2, 5 / 60),
        ("150d06m00s 2°12′0″ 7″", 150.1, 2.2, 7 / 3600),
        ("CIRCLE ICRS 150.1 −2.2 1e-3", 150.1, -2.2, 1e-3),
        ("circle 0 90 500mas", 0, 90, 500 / 3.6e6),
        ("0 0 180", 0, 0, 180),
    ],
)
def test_cones(text, ra, dec, radius):
    cone = parse_cone(text)
    assert (cone.ra, cone.dec, cone.radius_deg) == pytest.approx((ra, dec, radius), rel=1e-14)


@settings(max_examples=60)
@given(st.floats(0, 359.999), st.floats(-89.999, 89.999))
def test_sexagesimal_text_is_read_as_astropy_writes_it(ra, dec):
    place = SkyCoord(ra, dec, unit="deg")
    for style, sep in (("hmsdms", ":"), ("hmsdms", "hms")):
        sides = {"sep": ":"} if sep == ":" else {}
        cone = parse_cone(place.to_string(style, precision=9, **sides) + " 1")
        assert SkyCoord(cone.ra, cone.dec, unit="deg").separation(place) < 1e-8 * u.arcsec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no cone; write RA, DEC and RADIUS"),
        ("1 2", "is no cone"),
        ("1 2 3 4 5", "is no cone"),
        ("x 2 3", '"x" is no right ascension; write 150.1, 10:00:24'),
        ("1 2h3m 3", '"2h3m" is no declination'),
        ("1 2 3pc", '"3pc" is no radius; write 10arcsec'),
        ("10:61:00 0 1", "minutes and seconds go up to 59"),
        ("1 2 nan", '"nan" is no radius'),
        ("1 2 -1", "A radius of -1 degrees makes no sense"),
        ("25:00:00 0 1", "A right ascension of 375 degrees does not exist"),
        ("1" * 5000 + "x 0 1", '^"1{60}…" is no right ascension'),
    ],
)
def test_no_cones(text, message):
    with pytest.raises(UsageError, match=message):
        parse_cone(text)


@settings(max_examples=60)
@given(st.text(max_size=30))
def test_any_text_is_a_cone_or_refused_as_none(text):
    with suppress(UsageError):
        assert isinstance(parse_cone(text), Cone)


def test_polygons():
    for text in ("150 2, 151 2, 151 3", "POLYGON ICRS 150 2 151 2 151 3", "10:00:00 2d; 10:04:00 2d; 151 3"):
        assert parse_polygon(text).vertices.tolist() == [[150, 2], [151, 2], [151, 3]]
    for text in ("150 2, 151 2", "150 2, 151 2, 151", ""):
        with pytest.raises(UsageError, match="is no polygon; write RA and DEC of three vertices or more"):
            parse_polygon(text)


def test_radii():
    assert [parse_radius(text) for text in ("1", "1deg", " 60 arcmin ", "3600''", "60′")] == pytest.approx([1] * 5)
