import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import UsageError
from scanner.query.region import Cone
from scanner.service.vo import soda
from scanner.service.vo.soda import CutoutRequest


@pytest.mark.parametrize(
    ("given_", "picture", "bands"),
    [
        ("vis", "VIS", None),
        ("h", "H", None),
        ("Colour", "colour", None),
        ("all", "all", None),
        ("5e-7 6e-7", "VIS", ("VIS",)),
        ("9.0e-7 9.6e-7", "all", ("VIS", "Y")),
        ("-Inf +Inf", "all", ("VIS", "Y", "J", "H")),
        ("1.55e-6", "nisp", ("J", "H")),
        ("2.1e-6 9", "all", ()),
    ],
)
def test_bands_are_named_or_those_that_let_some_wavelengths_through(given_, picture, bands):
    assert soda.parse_band(given_) == (picture, bands)


@pytest.mark.parametrize("wrong", ["Z", "1 2 3", "nan 1", "9e-7 5e-7", "", "VIS Y"])
def test_other_bands_are_refused_by_name(wrong):
    with pytest.raises(UsageError, match=r"^BAND=.*none of VIS, Y, J, H, colour, nisp, all"):
        soda.parse_band(wrong)


def test_a_fits_file_has_the_bands_of_the_picture():
    assert CutoutRequest().fits_bands == ("VIS", "Y", "J", "H")
    assert CutoutRequest(picture="nisp").fits_bands == ("Y", "J", "H")
    assert CutoutRequest(picture="J").fits_bands == ("J",)
    assert CutoutRequest(bands=()).fits_bands == ()


def test_formats_by_name_and_media_type():
    assert soda.parse_format([]) == "fits"
    assert soda.parse_format(["image/fits"]) == "fits"
    assert soda.parse_format(["application/fits;whatever"]) == "fits"
    assert soda.parse_format(["tiff", "PNG"]) == "png"
    with pytest.raises(UsageError, match=r"FORMAT=tiff: is none of fits, png, webp"):
        soda.parse_format(["tiff"])


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 180))
def test_circles_come_exactly(ra, dec, radius):
    assert soda.parse_circle("CIRCLE", f"{ra!r} {dec!r} {radius!r}") == Cone(ra, dec, radius)
    assert soda.parse_position(f"circle {ra!r} {dec!r} {radius!r}") == Cone(ra, dec, radius)


@pytest.mark.parametrize(
    "wrong", ["", "1 2", "1 2 x", "361 0 1", "0 91 1", "0 0 -1", "nan 0 1", "0 0 inf", "0 nan 0", "1 2 3 4"]
)
def test_other_circles_are_refused(wrong):
    with pytest.raises(UsageError, match=r"^CIRCLE="):
        soda.parse_circle("CIRCLE", wrong)


def test_other_shapes_are_refused():
    with pytest.raises(UsageError, match=r"POS=RANGE 1 2 3 4: only CIRCLE"):
        soda.parse_position("RANGE 1 2 3 4")


@pytest.mark.parametrize(
    ("value", "right"), [("1", 1), ("8", 8), ("2.0", 2), ("0", None), ("9", None), ("1.5", None), ("x", None)]
)
def test_zoom_is_a_small_whole_number(value, right):
    if right is None:
        with pytest.raises(UsageError, match="ZOOM="):
            soda.parse_zoom(value)
    else:
        assert soda.parse_zoom(value) == right


@pytest.mark.parametrize("wrong", ["nan", "inf", "1e7", "one", ""])
def test_numbers_stay_within_their_limits(wrong):
    with pytest.raises(UsageError, match=r"WHITE=.*is no number from -5 to 1e\+06"):
        soda.parse_number("WHITE", wrong, -5, 1e6)
    assert math.isclose(soda.parse_number("WHITE", "1e6", -5, 1e6), 1e6)


def test_switches_and_curves():
    assert [soda.parse_switch("INVERT", word) for word in ("1", "TRUE", "0", "false")] == [True, True, False, False]
    with pytest.raises(UsageError, match="INVERT=yes"):
        soda.parse_switch("INVERT", "yes")
    assert soda.parse_curve("Log") == "log"
    with pytest.raises(UsageError, match="STRETCH=histogram: is none of asinh, linear, sqrt, log"):
        soda.parse_curve("histogram")
