import dataclasses
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from openTSNE import TSNE

from scanner.ensemble.embedding_grid import EmbeddingGrid, GridRule
from scanner.errors import ContentError
from scanner.records import Flag


def _training(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.6
    logits = (rng.normal(size=(n, 7)) + labels[:, None]).astype(np.float32)
    positions = (logits[:, :2] * 10 + rng.normal(size=(n, 2))).astype(np.float32)
    return logits, positions, labels


def _grid(cells=20, **options):
    return EmbeddingGrid.build(*_training(), held_out=_training(seed=1)[0], cells=cells, **options)


def _by_hand(positions, labels, place, cells):
    """Value, count and flags of one position, straight from the rules."""
    flags, edges, index = 0, [], []
    for axis in (0, 1):
        low, high = positions[:, axis].astype(float).min(), positions[:, axis].astype(float).max()
        if low == high:
            low, high = low - 0.5, high + 0.5
        edge = np.linspace(low, high, cells + 1)
        edges.append(edge)
        if not low <= place[axis] <= high:
            flags |= Flag.OUTSIDE_EMBEDDING
        cell = sum(edge[1:-1] <= place[axis])
        index.append(cell)
    members = {}
    for row, (x, y) in enumerate(positions.astype(float)):
        members.setdefault((sum(edges[0][1:-1] <= x), sum(edges[1][1:-1] <= y)), []).append(row)
    fraction = {cell: labels[rows].mean() for cell, rows in members.items()}
    cell = tuple(index)
    if cell in fraction:
        return fraction[cell], len(members[cell]), flags
    flags |= Flag.EMPTY_CELL
    around = [
        fraction[cell[0] + i, cell[1] + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if (cell[0] + i, cell[1] + j) in fraction
    ]
    if around:
        return np.mean(around), 0, flags
    nearest = min(sorted(fraction), key=lambda other: (other[0] - cell[0]) ** 2 + (other[1] - cell[1]) ** 2)
    return fraction[nearest], 0, flags | Flag.UNDEFINED_NEIGHBOURS


def test_every_cell_and_beyond_is_what_the_rules_say():
    logits, positions, labels = _training(60)
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=logits, cells=12)
    rng = np.random.default_rng(5)
    places = np.concatenate([rng.uniform(-60, 60, size=(300, 2)), positions]).astype(np.float32)
    found = grid.value_at(places)
    seen = 0
    for row, place in enumerate(places):
        value, count, flags = _by_hand(positions, labels, place.astype(float), 12)
        assert found.value[row] == pytest.approx(value, abs=1e-6)
        assert (found.cell_count[row], found.flags[row]) == (count, flags)
        seen |= int(flags)
    assert seen == Flag.EMPTY_CELL | Flag.UNDEFINED_NEIGHBOURS | Flag.OUTSIDE_EMBEDDING


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, (7, 2), elements=st.integers(-3, 3).map(float)),
    hnp.arrays(np.bool_, 7),
    hnp.arrays(np.float32, (5, 2), elements=st.floats(-5, 5, width=16)),
    st.integers(1, 6),
)
def test_small_grids_with_positions_on_the_edges(positions, labels, places, cells):
    logits = np.arange(49, dtype=np.float32).reshape(7, 7)
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=logits, cells=cells)
    assert grid.counts.sum() == 7
    found = grid.value_at(places)
    for row, place in enumerate(places):
        value, count, flags = _by_hand(positions, labels, place.astype(float), cells)
        assert found.value[row] == pytest.approx(value, abs=1e-6)
        assert (found.cell_count[row], found.flags[row]) == (count, flags)


def test_surer_than_of_any_training_object_is_not_unlike_training():
    logits, positions, labels = _training()
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=_training(seed=1)[0], cells=20)
    best = logits[[logits.sum(axis=1).argmax()]]
    surest = best.copy()
    surest[0, 5] = 20.0
    assert 20.0 - logits[:, 5].max() > grid.far_distance
    torn = np.where(np.arange(7) % 2, 19.0, -19.0).astype(np.float32)[None]
    flags = [int(grid.lookup(row).flags[0]) & Flag.FAR_FROM_TRAINING for row in (best, surest, torn)]
    assert flags == [0, 0, Flag.FAR_FROM_TRAINING]


def test_lookup_takes_the_place_of_the_nearest_training_object():
    logits, positions, labels = _training()
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=_training(seed=1)[0], cells=20)
    new = _training(200, seed=2)[0]
    found = grid.lookup(new)
    distance = np.linalg.norm(new[:, None].astype(float) - logits[None].astype(float), axis=2)
    np.testing.assert_array_equal(found.positions, positions[distance.argmin(axis=1)])
    within = np.minimum(np.maximum(new, logits.min(axis=0)), logits.max(axis=0)).astype(float)
    beyond = np.linalg.norm(within[:, None] - logits[None].astype(float), axis=2).min(axis=1)
    np.testing.assert_array_equal((found.flags & Flag.FAR_FROM_TRAINING) > 0, beyond > grid.far_distance)
    at = grid.value_at(positions[distance.argmin(axis=1)])
    np.testing.assert_array_equal(found.value, at.value)
    assert (found.cell_count > 0).all()


def test_training_objects_find_themselves():
    logits, positions, labels = _training()
    found = EmbeddingGrid.build(logits, positions, labels, held_out=logits, cells=60).lookup(logits)
    np.testing.assert_array_equal(found.positions, positions)
    np.testing.assert_allclose(found.value[found.cell_count == 1], labels[found.cell_count == 1])


def test_a_thousandth_of_the_held_out_objects_is_far():
    held_out = _training(4000, seed=1)[0]
    grid = EmbeddingGrid.build(*_training(), held_out=held_out, cells=20)
    far = (grid.lookup(held_out).flags & Flag.FAR_FROM_TRAINING) > 0
    assert 3 <= far.sum() <= 5
    assert (grid.lookup(np.full((1, 7), 50.0)).flags & Flag.FAR_FROM_TRAINING).all()


def test_an_object_is_found_alike_in_any_batch():
    grid, new = _grid(), _training(300, seed=3)[0]
    together = grid.lookup(new)
    for row in range(0, 300, 37):
        alone = grid.lookup(new[row])
        for name in ("positions", "value", "cell_count", "flags"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[row])


def test_all_of_the_papers_45_000_rows_are_kept():
    # "The position of the image in this 2D reduction": with fewer rows kept, others' positions would be taken for their own.
    logits, positions, labels = _training(45_000)
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=logits[:100])
    assert grid.logits.shape == (45_000, 7)
    some = np.arange(0, 45_000, 450)
    np.testing.assert_array_equal(grid.lookup(logits[some]).positions, positions[some])


@pytest.fixture(scope="module")
def moved():
    """A grid of probabilities whose new objects are placed by openTSNE, and the log-odds of new objects."""
    rng = np.random.default_rng(11)
    labels = rng.random(600) < 0.6
    logits = (1.5 * rng.normal(size=(600, 7)) + np.where(labels, 2, -2)[:, None]).astype(np.float32)
    rule = GridRule(embeds="probabilities", places="opentsne")
    shown = 1 / (1 + np.exp(-logits[:400].astype(float)))
    fitted = TSNE(
        early_exaggeration_iter=60, n_iter=140, random_state=1, n_jobs=1, neighbors="exact", negative_gradient_method="fft"
    ).fit(shown)
    positions = np.asarray(fitted, np.float32)
    transformed = np.asarray(fitted.transform(1 / (1 + np.exp(-logits[400:].astype(float)))))
    offset = positions - np.asarray(fitted)  # transform moves the whole map to the origin
    grid = EmbeddingGrid.build(logits[:400], positions, labels[:400], held_out=logits[400:], cells=30, rule=rule)
    return grid, logits[400:], transformed + offset.mean(axis=0)


def test_new_objects_go_where_opentsne_puts_them(moved):
    grid, new, transformed = moved
    found = grid.lookup(new)
    distance = np.hypot(*(found.positions - transformed).T)
    assert np.median(distance) < 0.05
    assert (distance < 1.0).mean() > 0.95


def test_the_eight_neighbour_rule_is_live(moved):
    # "In some cases, the embeddings for elements of the test set fell in grid elements that contained zero entries from the
    # training data ... the mean of the eight surrounding grid values if they are defined" (section 3.3).
    grid, new, _ = moved
    found = grid.lookup(new)
    empty = (found.flags & Flag.EMPTY_CELL) > 0
    assert 0.02 < empty.mean() < 0.9
    assert (found.cell_count[empty] == 0).all()
    cell = [
        np.clip(np.searchsorted(edges, places, side="right") - 1, 0, 29)
        for edges, places in zip((grid.x_edges, grid.y_edges), found.positions.T, strict=True)
    ]
    seen = 0
    for row in np.flatnonzero(empty & (found.flags == Flag.EMPTY_CELL)):
        x, y = cell[0][row], cell[1][row]
        around = np.pad(grid.lens_fraction, 1, constant_values=np.nan)[x : x + 3, y : y + 3]
        assert found.value[row] == pytest.approx(np.nanmean(around), abs=1e-6)
        seen += 1
    assert seen > 3


def test_where_opentsne_puts_an_object_does_not_depend_on_the_others(moved):
    grid, new, _ = moved
    together = grid.lookup(new)
    for rows in (slice(5, 6), slice(100, 117)):
        np.testing.assert_allclose(grid.lookup(new[rows]).positions, together.positions[rows], atol=1e-5)


def test_a_rule_survives_the_file(moved, tmp_path):
    grid, new, _ = moved
    grid.save(tmp_path / "grid.npz")
    again = EmbeddingGrid.load(tmp_path / "grid.npz", grid.rule)
    np.testing.assert_array_equal(again.lookup(new).positions, grid.lookup(new).positions)
    # Without it the same arrays are read as log-odds.
    plain = EmbeddingGrid.load(tmp_path / "grid.npz")
    assert plain.rule == GridRule(embeds="log-odds", places="nearest")
    assert (plain.lookup(new).cell_count > 0).all()


def test_equal_logits_are_kept_once():
    logits, positions, labels = _training(20)
    logits[7] = logits[3]
    grid = EmbeddingGrid.build(logits, positions, labels, held_out=logits)
    assert len(grid.logits) == 19
    np.testing.assert_array_equal(grid.lookup(logits[7]).positions[0], positions[3])
    assert grid.counts.shape == (100, 100)
    assert grid.counts.sum() == 20


def test_a_grid_survives_its_file_and_has_the_same_bytes(tmp_path):
    grid = _grid()
    grid.save(tmp_path / "grid.npz")
    again = EmbeddingGrid.load(tmp_path / "grid.npz")
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "grid.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    new = _training(50, seed=6)[0]
    np.testing.assert_array_equal(again.lookup(new).value, grid.lookup(new).value)
    assert float(again.far_distance) == float(grid.far_distance)


def test_what_is_no_grid_is_refused(tmp_path):
    path, grid = tmp_path / "grid.npz", _grid()
    for content in (b"", b"PK\x03\x04 broken", b"text"):
        path.write_bytes(content)
        with pytest.raises(ContentError, match=r"grid\.npz: not an embedding grid"):
            EmbeddingGrid.load(path)
    arrays = vars(grid)
    np.savez(path, **{name: values for name, values in arrays.items() if name in ("logits", "positions")})
    with pytest.raises(ContentError, match="not an embedding grid"):
        EmbeddingGrid.load(path)
    np.savez(
        path, **{**{name: arrays[name] for name in EmbeddingGrid.__dataclass_fields__}, "counts": np.zeros((3, 3), np.int64)}
    )
    with pytest.raises(ContentError, match="do not fit together"):
        EmbeddingGrid.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lens_fraction", np.nan), ("lens_fraction", 1.5), ("lens_fraction", -0.1), ("logits", np.nan), ("positions", np.inf),
        ("x_edges", 0.0), ("y_edges", np.nan), ("counts", -1), ("far_distance", np.nan), ("far_distance", -1.0),
    ],
)  # fmt: skip
def test_a_grid_of_impossible_values_is_refused(tmp_path, name, value):
    grid = _grid()
    array = np.full_like(getattr(grid, name), value)
    dataclasses.replace(grid, **{name: array}).save(tmp_path / "grid.npz")
    with pytest.raises(ContentError, match=f"{name} of the embedding grid holds impossible values"):
        EmbeddingGrid.load(tmp_path / "grid.npz")


def test_arrays_are_as_long_and_of_the_type_that_they_say(tmp_path):
    """No memory is asked for on the word of a header."""
    grid, path = _grid(), tmp_path / "grid.npz"
    arrays = {name: getattr(grid, name) for name in EmbeddingGrid.__dataclass_fields__}
    np.savez(path, **{**arrays, "lens_fraction": np.full(grid.lens_fraction.shape, "0.5")})
    with pytest.raises(ContentError, match="array 'lens_fraction' holds <U3, not float32"):
        EmbeddingGrid.load(path)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 7)})
    np.savez(path, **arrays)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "huge.npz", "w") as changed:
        for entry in whole.namelist():
            changed.writestr(entry, huge.getvalue() if entry == "logits.npy" else whole.read(entry))
    with pytest.raises(ContentError, match="array 'logits' is not as long as it says"):
        EmbeddingGrid.load(tmp_path / "huge.npz")
    np.savez_compressed(path, **arrays)
    with pytest.raises(ContentError, match="is not as long as it says"):
        EmbeddingGrid.load(path)


def test_what_is_not_finite_is_refused():
    grid = _grid()
    with pytest.raises(ValueError, match="logits must be finite"):
        grid.lookup(np.full((1, 7), np.nan))
    with pytest.raises(ValueError, match="positions must be finite"):
        grid.value_at(np.array([[np.nan, 0.0]]))
    logits, positions, labels = _training(20)
    with pytest.raises(ValueError, match="do not belong together"):
        EmbeddingGrid.build(logits, positions[:-1], labels, held_out=logits)
    with pytest.raises(ValueError, match="must be finite"):
        EmbeddingGrid.build(logits, positions * np.inf, labels, held_out=logits)
