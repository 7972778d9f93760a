import io

import numpy as np
import pytest
from PIL import Image

from scanner.explain import display


def test_the_lowest_is_blue_the_highest_red_and_zero_white_each_scaled_by_itself():
    found = display.signed_colours(np.array([[-0.2, -0.1, 0.0], [10.0, 5.0, 0.0]]))
    np.testing.assert_array_equal(found[0, 0], display.LOWEST)
    np.testing.assert_array_equal(found[1, 0], display.HIGHEST)
    np.testing.assert_array_equal(found[:, 2], 255)
    np.testing.assert_allclose(found[0, 1], (display.LOWEST + 255) / 2, atol=1)


@pytest.mark.parametrize("values", [[[0.0, 0.0]], [[0.0, 2.0]], [[-3.0, -1.0]]])
def test_maps_of_one_sign_have_no_colour_of_the_other(values):
    scaled = display.scaled(np.array(values))
    assert np.sign(scaled).tolist() == np.sign(values).tolist()
    assert np.abs(scaled).max() in (0.0, 1.0)


def test_a_map_lies_where_the_network_saw_it():
    """The centroid of one cell of a 50-cell map is that of its four pixels; of a 66-cell map within half a VIS pixel."""
    for cells, tolerance in ((50, 1e-9), (66, 0.5)):
        map_ = np.zeros((cells, cells))
        map_[10, 20] = 1.0
        found = display.placed(map_)
        assert found.shape == (200, 200)
        y, x = (axis.mean() for axis in np.nonzero(found))
        assert (y, x) == pytest.approx((10.5 * 200 / cells - 0.5, 20.5 * 200 / cells - 0.5), abs=tolerance)


def test_an_overlay_leaves_what_does_not_matter_as_it_is():
    grey = np.full((200, 200), 90, np.uint8)
    map_ = np.zeros((50, 50))
    map_[0, 0] = -1.0
    found = display.overlaid(grey, map_)
    np.testing.assert_array_equal(found[:4, :4], np.broadcast_to(display.LOWEST, (4, 4, 3)))
    assert (found[4:] == 90).all()


def test_nisp_is_red_h_green_j_blue_y_and_vis_is_grey():
    image = np.zeros((4, 66, 66), np.float32)  # J, Y, H, VIS
    image[0], image[1], image[2], image[3] = 0.2, 0.4, 1.0, 1.7
    found = display.input_pictures("OU-66", image)
    assert found["NISP"][5, 5].tolist() == [255, 51, 102]
    assert found["VIS"].shape == (66, 66)
    assert (found["VIS"] == 255).all()
    assert list(display.input_pictures("OU-Y", image[:1])) == ["Y"]
    assert list(display.input_pictures("OU-JYH", image[:3])) == ["NISP"]


def test_png_is_the_right_way_up():
    image = np.zeros((3, 2), np.uint8)
    image[2, 0] = 200
    read = np.asarray(Image.open(io.BytesIO(display.png(image))))
    assert read.tolist() == [[200, 0], [0, 0], [0, 0]]


def test_enlarging_repeats_pixels():
    found = display.enlarged(np.array([[1, 2], [3, 4]], np.uint8), 5)
    assert found.shape == (5, 5, 3)
    assert found[:, :, 1].tolist() == [[1, 1, 2, 2, 2]] * 2 + [[3, 3, 4, 4, 4]] * 3


def test_only_what_is_shown_is_left():
    shown = np.zeros((2, 2), np.bool_)
    shown[1, 0] = True
    found = display.only(np.full((4, 4, 3), 9, np.uint8), shown)
    assert found[2:, :2].min() == 9
    assert found.sum() == 9 * 4 * 3
