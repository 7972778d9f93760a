"""What counts as equal, as near enough, as different."""

import numpy as np
import pyarrow as pa
import pytest
from made_records import commit_tile, run_record

from scanner.catalogue import columns
from scanner.config import RunConfig, StorageConfig
from scanner.cutouts import store
from scanner.cutouts.quality import measure
from scanner.errors import InputMissingError
from scanner.records import BANDS, BandFiles, CutoutBatch, ImageRef, Targets, Tile
from scanner.survey.folder.resume import open_run
from scanner.survey.objects import (
    BAD_FRACTION_TOLERANCE,
    PROBABILITY_TOLERANCE,
    ReplayedPixels,
    ReplayReport,
    candidate_cutouts,
    compare_pixels,
    compare_rows,
)


def row(**changes):
    values = {
        column.name: {"string": "t", "bool": True, "int32": 0, "int64": 7}.get(column.dtype, 0.5)
        for column in columns.SCORE_COLUMNS
    }
    values |= changes
    arrays = [pa.array([values[field.name]], type=field.type, from_pandas=False) for field in columns.SCORE_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=columns.SCORE_SCHEMA)


def found(**changes):
    return {value.name: value for value in compare_rows(row(), row(**changes)) if value.agreement != "equal"}


def test_equal_rows_are_equal_and_unknown_is_equal_to_unknown():
    assert found() == {}
    values = compare_rows(row(p_ou_j=np.nan), row(p_ou_j=np.nan))
    assert {value.agreement for value in values} == {"equal"}
    (unknown,) = (value for value in values if value.then is None)
    assert (unknown.name, unknown.now) == ("p_ou_j", None)
    assert found(p_ou_j=np.nan)["p_ou_j"].agreement == "different"


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("p_ou_200", PROBABILITY_TOLERANCE), ("p_calibrated", PROBABILITY_TOLERANCE), ("bad_vis", BAD_FRACTION_TOLERANCE)],
)
def test_sums_may_differ_a_little(name, tolerance):
    assert found(**{name: np.nextafter(np.float32(0.5), np.float32(1))})[name].agreement == "within tolerance"
    assert found(**{name: 0.5 + 0.9 * tolerance})[name].agreement == "within tolerance"
    assert found(**{name: 0.5 + 1.1 * tolerance})[name].agreement == "different"


@pytest.mark.parametrize("change", [{"grid_value": 0.50001}, {"tsne_x": 0.50001}, {"is_candidate": False}, {"flags": 16}])
def test_what_is_looked_up_or_decided_may_not(change):
    (value,) = found(**change).values()
    assert value.agreement == "different"


def report(agreement="equal", pixels="not kept", now="here"):
    (value,) = compare_rows(row(), row())[:1]
    return ReplayReport(
        run_folder="out",
        tile_id="t",
        target_id=7,
        name="EUCL J",
        rank=None,
        ra=0.5,
        dec=0.5,
        machine_then="here",
        machine_now=now,
        differences=(),
        pixels=ReplayedPixels(agreement=pixels),
        values=(value.model_copy(update={"agreement": agreement}),),
    )


def test_the_worst_decides_and_tolerance_is_for_other_machines():
    assert report().passed
    assert not report("within tolerance").passed
    assert report("within tolerance", now="there").passed
    assert not report("different", now="there").passed
    assert not report("equal", pixels="different").passed
    assert report("equal", pixels="within tolerance", now="there").agreement == "within tolerance"


def cutout(seed=0):
    random = np.random.default_rng(seed)
    vis = random.normal(0.3, 0.02, (1, 200, 200)).astype(np.float32)
    nisp = random.normal(-1.0, 0.5, (1, 3, 66, 66)).astype(np.float32)
    vis[0, 90:110, 90:110] += 5
    vis[0, :3] = np.nan
    quality = measure(vis, nisp)
    place = np.array([10], np.int64)
    targets = Targets(place, *(np.array([1.0]) for _ in range(4)), np.array([20.0], np.float32))
    return CutoutBatch(
        targets=targets, vis=vis, nisp=nisp, x0=place, y0=place, offset=np.zeros((1, 2), np.float32),
        bad_fraction=quality.bad_fraction, sky=quality.sky, sigma=quality.sigma, flags=np.zeros(1, np.uint32),
    )  # fmt: skip


def stored(batch):
    """A cutout as a compact store gives it back."""
    vis = store.decode(store.encode(batch.vis, batch.sky[:, 0], batch.sigma[:, 0]), batch.sky[:, 0], batch.sigma[:, 0])
    nisp = store.decode(store.encode(batch.nisp, batch.sky[:, 1:], batch.sigma[:, 1:]), batch.sky[:, 1:], batch.sigma[:, 1:])
    return CutoutBatch(**{**vars(batch), "vis": vis, "nisp": nisp})


def changed(batch, amount, band="vis"):
    pixels = getattr(batch, band).copy()
    pixels[..., 33, 33] += np.float32(amount)
    return CutoutBatch(**{**vars(batch), band: pixels})


def test_exact_pixels():
    new = cutout()
    assert compare_pixels(new, new, "exact") == ReplayedPixels(agreement="equal", codec="exact", largest_distance=0.0)
    near = compare_pixels(changed(new, 5e-4 * new.sigma[0, 0]), new, "exact")
    assert near.agreement == "within tolerance"
    assert near.largest_distance == pytest.approx(5e-4, rel=0.1)
    assert compare_pixels(changed(new, 1.0, "nisp"), new, "exact").agreement == "different"
    assert compare_pixels(changed(new, np.nan), new, "exact").agreement == "different"


def test_compact_pixels():
    new = cutout()
    kept = compare_pixels(stored(new), new, "compact")
    assert kept.agreement == "equal"
    assert 0.9 < kept.largest_distance <= 1
    # A pixel between two codes may get the other one from another machine's last digits.
    sigma = float(new.sigma[0, 0])
    half_step = store.largest_error(new.vis, new.sky[:, 0], new.sigma[:, 0])[0, 33, 33] * sigma
    beyond = float(stored(new).vis[0, 33, 33] - new.vis[0, 33, 33]) + half_step + 5e-4 * sigma
    assert compare_pixels(stored(new), changed(new, beyond), "compact").agreement == "within tolerance"
    assert compare_pixels(changed(stored(new), sigma), new, "compact").agreement == "different"


def test_a_cutout_from_another_place_is_different():
    new = cutout()
    moved = CutoutBatch(**{**vars(new), "x0": new.x0 + 1})
    assert compare_pixels(moved, new, "exact").agreement == "different"


def test_a_tile_that_has_gone_stops_the_drawing_and_is_named(tmp_path):
    """Not as a tile that failed: its rows are in the catalogue."""
    images = {band: BandFiles(image=ImageRef(path=str(tmp_path / f"{band}.fits"))) for band in BANDS}
    columns = {name: [1.0] for name in ("ra", "dec", "x", "y", "magnitude_vis")}
    row = pa.table({"tile_id": ["1"], "target_id": [7], **columns})
    with open_run(str(tmp_path / "out"), StorageConfig(), run_record()) as folder:
        commit_tile(folder)
        with pytest.raises(InputMissingError, match=r"VIS\.fits.*cutouts were not kept"):
            candidate_cutouts(row, folder, {"1": Tile(tile_id="1", bands=images)}, RunConfig())
        assert candidate_cutouts(row.slice(0, 0), folder, {}, RunConfig()) is None
