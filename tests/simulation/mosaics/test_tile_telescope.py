import numpy as np

from scanner.records import BANDS
from scanner.simulation.mosaics import strips
from scanner.simulation.mosaics.field import draw_telescope
from scanner.simulation.telescope.noise import SKY_SIGMA

TELESCOPE = draw_telescope(5, 3)
X, Y = 0.1 * np.arange(3000), 0.1 * np.arange(2400)


def test_a_telescope_is_the_same_whoever_asks_and_differs_between_tiles():
    assert repr(draw_telescope(5, 3)) == repr(TELESCOPE)
    assert draw_telescope(5, 4).roll != TELESCOPE.roll
    assert draw_telescope(6, 3).roll != TELESCOPE.roll


def test_maps_of_strips_are_the_maps_of_the_whole():
    for band in BANDS:
        for map_of in (TELESCOPE.depth, TELESCOPE.background):
            whole = map_of(band, X, Y)
            np.testing.assert_array_equal(map_of(band, X, Y[700:900]), whole[700:900])


def test_gaps_leave_three_exposures_and_two_where_they_cross():
    left = TELESCOPE.depth("VIS", X, Y)
    assert set(np.unique(left).tolist()) == {2.0, 3.0, 4.0}
    assert 0.7 < (left == 4.0).mean() < 0.95
    assert (left == 2.0).mean() < 0.02


def test_background_is_small_and_smooth():
    for band, one_sigma in (("VIS", SKY_SIGMA["VIS"]), ("H", SKY_SIGMA["H"] / 9.0)):
        wave = TELESCOPE.background(band, X, Y) / one_sigma
        assert np.abs(wave).max() < 0.8
        assert np.abs(np.diff(wave, axis=0)).max() < 0.02


def test_artefacts_and_marks_near_a_strip_are_those_of_the_tile():
    across = (0.0, 300.0)
    whole = {repr(item) for item in TELESCOPE.artefacts("VIS", across, (0.0, 240.0), 10.0)}
    near = list(TELESCOPE.artefacts("VIS", across, (100.0, 110.0), 10.0))
    assert len(whole) > 5
    assert {repr(item) for item in near} <= whole
    assert all(item.channels == (0,) for item in near)
    assert all(set(item.channels) <= {1, 2, 3} for item in TELESCOPE.artefacts("J", across, (0.0, 240.0), 10.0))


def test_marks_take_exposures_along_a_line():
    left = np.full((100, 120), 4.0, dtype=np.float32)
    x, y = 0.1 * np.arange(120), 0.1 * np.arange(100)
    one = next(TELESCOPE.marks("VIS", (0.0, 1.0), (0.0, 1.0)))
    line = type(one)(*(np.array([value]) for value in (6.0, 5.0, 4.0, 0.15, 0.0, 3.0)))
    strips._lose(left, line, x, y)
    rows, columns = np.nonzero(left == 3.0)
    assert np.ptp(rows) == 2
    assert 40 <= np.ptp(columns) <= 43
    strips._lose(left, line, x + 100.0, y)
    assert (left[left < 4.0] == 3.0).all()
