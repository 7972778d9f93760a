import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.simulation.injection.measured import shapes


def gaussian(q, angle, dx, dy, sigma=3.0, side=49):
    axis = np.arange(side) - 0.5 * (side - 1)
    x, y = (axis - dx)[None, :], (axis - dy)[:, None]
    along, across = math.cos(angle) * x + math.sin(angle) * y, (math.cos(angle) * y - math.sin(angle) * x) / q
    return np.exp(-0.5 * (along**2 + across**2) / sigma**2).astype(np.float32)


@settings(max_examples=30)
@given(
    q=st.floats(0.4, 0.9),
    angle=st.floats(-1.5, 1.5),
    dx=st.floats(-2.0, 2.0),
    dy=st.floats(-2.0, 2.0),
)
def test_shape_of_a_gaussian(q, angle, dx, dy):
    found_q, found_angle = shapes(gaussian(q, angle, dx, dy)[None], np.array([dx]), np.array([dy]))
    assert abs(found_q[0] - q) < 0.02
    turn = (found_angle[0] - angle + math.pi / 2) % math.pi - math.pi / 2
    assert abs(turn) < 0.03


def test_what_has_no_light_has_no_shape():
    images = np.stack([np.zeros((49, 49)), -gaussian(0.8, 0.0, 0.0, 0.0), gaussian(0.8, 0.0, 0.0, 0.0)]).astype(np.float32)
    q, angle = shapes(images, np.zeros(3), np.zeros(3))
    assert np.isnan(q[:2]).all()
    assert np.isnan(angle[:2]).all()
    assert np.isfinite(q[2])
