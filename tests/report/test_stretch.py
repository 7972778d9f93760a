import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import UsageError
from scanner.report import colour
from scanner.report.colour import Stretch


def brightness(values, **how):
    """Of a row of pixels, repeated to a square."""
    values = np.asarray(values, dtype=np.float64)
    return Stretch(**how).brightness(np.tile(values, (len(values), 1)), 0.1)[0]


@given(
    st.lists(st.floats(-1e6, 1e9), min_size=2, max_size=30),
    st.floats(*colour.WHITE_SIGMA),
    st.floats(-50, 39),
    st.sampled_from(colour.CURVES),
)
def test_brightness_keeps_the_order_of_significance(values, white, black, curve):
    drawn = brightness(np.sort(values), white_sigma=white, black_sigma=black, curve=curve)
    assert (np.diff(drawn) >= 0).all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1


@pytest.mark.parametrize("curve", colour.CURVES)
def test_brightness_runs_from_black_to_white_and_keeps_missing_pixels(curve):
    drawn = brightness([-5.0, 1.0, 5.0, 100.0, 1e5, np.nan], white_sigma=100.0, black_sigma=1.0, curve=curve)
    assert drawn[[0, 1]].tolist() == [0, 0]
    assert drawn[[3, 4]] == pytest.approx([1, 1])
    assert np.isnan(drawn[5])


def test_an_arc_of_five_sigma_is_seen_beside_a_core_of_a_hundred():
    (arc, _) = brightness([5.0, 100.0], white_sigma=100.0)
    assert 0.3 < arc < 0.5
    assert brightness([5.0, 100.0], white_sigma=100.0, curve="linear")[0] == pytest.approx(0.05)
    assert brightness([4.0, 100.0], white_sigma=100.0, curve="sqrt")[0] == pytest.approx(0.2)
    assert brightness([1.0, 100.0], white_sigma=100.0, curve="log")[0] == pytest.approx(np.log(11) / np.log(1001))
    assert brightness([5.0, 100.0], white_sigma=100.0, softening_sigma=0.5)[0] > arc


def test_white_follows_the_object_between_its_limits():
    image = np.zeros((200, 200))
    assert colour.white_level(image, 0.1) == colour.WHITE_SIGMA[0]
    image[90:110, 90:110] = 150.0
    assert colour.white_level(image, 0.1) == pytest.approx(150.0)
    image[90:110, 90:110] = 9000.0
    assert colour.white_level(image, 0.1) == colour.WHITE_SIGMA[1]
    image[...] = 0.0
    image[:20, :20] = 9000.0
    assert colour.white_level(image, 0.1) == colour.WHITE_SIGMA[0], "a star in the corner must not darken the object"
    assert colour.white_level(np.full((66, 66), np.nan), 0.3) == colour.WHITE_SIGMA[0]


@pytest.mark.parametrize("wrong", [{"black_sigma": 40.0}, {"black_sigma": 5.0, "white_sigma": 5.0}, {"softening_sigma": 0.0}])
def test_what_makes_no_curve_is_refused(wrong):
    with pytest.raises(UsageError, match=r"is not below white|makes no curve"):
        Stretch(**wrong)
