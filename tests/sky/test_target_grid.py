import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scanner.sky.targets import grid_positions


def test_known_grid() -> None:
    x, y = grid_positions((300, 500), 0.1, 10.0)
    assert x.tolist() == [49.5, 149.5, 249.5, 349.5, 449.5] * 3
    assert y.tolist() == [49.5] * 5 + [149.5] * 5 + [249.5] * 5


@given(ny=st.integers(1, 400), nx=st.integers(1, 400), step=st.floats(0.5, 60))
def test_centred_evenly_spaced_and_inside(ny: int, nx: int, step: float) -> None:
    x, y = grid_positions((ny, nx), 0.1, step)
    for values, length in ((x, nx), (y, ny)):
        places = np.unique(values)
        assert len(places) == max(1, int(length / (step / 0.1)))
        np.testing.assert_allclose(np.diff(places), step / 0.1)
        np.testing.assert_allclose(places + places[::-1], length - 1)
        assert places[0] >= -0.5
        assert places[-1] <= length - 0.5
    assert len(x) == len(y) == len(np.unique(x)) * len(np.unique(y))
