from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from scanner.errors import OutputError
from scanner.report import plots


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: str) -> np.ndarray:
    return np.abs(image - np.rint(np.array(to_rgb(colour)) * 255)).max(axis=-1) <= 6


def counted(*arrays: np.ndarray) -> plots.ScoreCounts:
    """In two parts, as a large catalogue comes."""
    counts = plots.ScoreCounts()
    for part in (slice(7), slice(7, None)):
        counts.add(*(array[part] for array in arrays))
    return counts


def scores(path: Path, threshold: float, n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(3)
    grid = rng.beta(0.4, 2, n)
    grid[:10], grid[10:20], grid[20:30] = np.nan, 0.001, 0.999
    plots.score_distribution(path, counted(grid, grid**2, grid >= threshold), threshold=threshold, beta=0.03)
    return pixels(path)


def span(image: np.ndarray) -> tuple[int, int]:
    """Columns of grid values 0 and 1: where the bars of the left panel begin and end."""
    half = image[:, : int(0.52 * image.shape[1])]
    bars = np.flatnonzero((near(half, plots.SCORED) | near(half, plots.CANDIDATE)).sum(axis=0) > 20)
    return int(bars.min()), int(bars.max()) + 1


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_the_threshold_stands_at_its_value(tmp_path: Path, threshold: float) -> None:
    image = scores(tmp_path / "scores.png", threshold)
    line = np.flatnonzero(near(image, plots.THRESHOLD).sum(axis=0) > 0.6 * image.shape[0])
    left, right = span(image)
    assert (line.mean() - left) / (right - left) == pytest.approx(threshold, abs=0.01)


def test_candidates_stand_right_of_the_threshold_only(tmp_path: Path) -> None:
    image = scores(tmp_path / "scores.png", 0.5)
    left, right = span(image)
    candidates = np.flatnonzero(near(image, plots.CANDIDATE)[:, left:right].any(axis=0)) / (right - left)
    assert candidates.min() > 0.49
    assert near(image, plots.SCORED)[:, left : (left + right) // 2 - 10].any()


def test_without_a_grid_the_calibrated_probability_carries_the_threshold(tmp_path: Path) -> None:
    calibrated = np.linspace(0.001, 0.999, 500)
    nothing = np.full(500, np.nan)
    plots.score_distribution(
        tmp_path / "s.png", counted(nothing, calibrated, calibrated > 0.9), threshold=0.9, beta=None, decides_on="calibrated"
    )
    image = pixels(tmp_path / "s.png")
    bars = np.flatnonzero((near(image, plots.SCORED) | near(image, plots.CANDIDATE)).sum(axis=0) > 20)
    line = np.flatnonzero(near(image, plots.THRESHOLD).sum(axis=0) > 0.6 * image.shape[0])
    assert (line.mean() - bars.min()) / (bars.max() + 1 - bars.min()) == pytest.approx(0.9, abs=0.01)


def test_every_scored_object_is_counted_once() -> None:
    grid = np.array([0.0, 1.0, 0.5, np.nan, 0.2])
    calibrated = np.array([0.0, 1.0, 1e-9, np.nan, 1e-3])
    counts = counted(np.tile(grid, 3), np.tile(calibrated, 3), np.tile(grid > 0.4, 3))
    assert (counts.n_scored, counts.n_chosen) == (12, 6)
    for kind in (counts.grid, counts.calibrated, counts.calibrated_decades):
        assert kind.sum(axis=1).tolist() == [12, 6]
    assert counts.grid[0, [0, 10, 25, -1]].tolist() == [3, 3, 3, 3]
    assert counts.calibrated_decades[0, 0] == 6


def test_no_objects_at_all_still_make_a_figure(tmp_path: Path) -> None:
    plots.score_distribution(tmp_path / "scores.png", plots.ScoreCounts(), threshold=0.6, beta=1.0)
    assert near(pixels(tmp_path / "scores.png"), plots.THRESHOLD).any()


def tsne(path: Path, positions: np.ndarray) -> np.ndarray:
    fraction = np.full((100, 100), np.nan)
    fraction[80:, :20] = 1.0
    fraction[:20, 80:] = 0.0
    plots.embedding_map(path, np.linspace(-40, 40, 101), np.linspace(-40, 40, 101), fraction, positions, threshold=0.6)
    return pixels(path)


def test_cells_lie_at_their_coordinates(tmp_path: Path) -> None:
    image = tsne(tmp_path / "tsne.png", np.empty((0, 2)))
    cividis = mpl.colormaps["cividis"]
    map_area = image[:, : int(0.85 * image.shape[1])]
    rows, cols = np.nonzero(np.abs(map_area - np.rint(np.array(cividis(1.0)[:3]) * 255)).max(axis=-1) <= 3)
    empty_rows, empty_cols = np.nonzero(near(map_area, plots.EMPTY_CELL))
    # Lens fraction 1 fills the cells of large x and small y: lower right.
    assert cols.min() > np.median(empty_cols)
    assert rows.min() > np.median(empty_rows)


def test_candidates_are_ringed_where_they_fell(tmp_path: Path) -> None:
    blank = tsne(tmp_path / "blank.png", np.empty((0, 2)))
    image = tsne(tmp_path / "tsne.png", np.array([[0.0, 0.0], [np.nan, np.nan]]))
    area = near(blank, plots.EMPTY_CELL)
    rows, cols = np.flatnonzero(area.sum(axis=1) > 200), np.flatnonzero(area.sum(axis=0) > 200)
    middle = (rows.min() + rows.max()) / 2, (cols.min() + cols.max()) / 2
    ring_rows, ring_cols = np.nonzero(near(image, plots.THRESHOLD) & area)
    assert (ring_rows.mean(), ring_cols.mean()) == pytest.approx(middle, abs=3)


def test_same_input_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    scores(tmp_path / "a.png", 0.5)
    tsne(tmp_path / "c.png", np.zeros((1, 2)))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 40, "image.cmap": "jet"}):
        scores(tmp_path / "b.png", 0.5)
        tsne(tmp_path / "d.png", np.zeros((1, 2)))
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "d.png").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "scores.png"
    with pytest.raises(OutputError, match=re.escape(f"{path}: cannot be written")):
        scores(path, 0.5)
