"""Labelled sets of other people's tables: every pixel in its place, every row accounted for."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from made_stamps import FLUX, centroid, plane, write_slde, write_vis

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.labels.importing import import_labels
from scanner.records import Flag, Targets
from scanner.sky import tile_list
from scanner.sky.tile_images import open_tile
from scanner.training.data import TrainingData

ARCSEC = 1 / 3600


def write_csv(path, **columns):
    Table(columns).write(path, format="ascii.csv")
    return path


def left_out(folder):
    """Reasons by row."""
    return {int(row["source_row"]): str(row["reason"]) for row in Table.read(folder / "left-out.ecsv")}


def check_source(dataset, row, band=0, within_pixels=0.1):
    """The source of a made stamp lies where the truth says, with its flux."""
    batch = dataset.store.read(row)
    image = batch.vis[0] if band == 0 else batch.nisp[0, band - 1]
    scale = 0.1 if band == 0 else 0.3
    x, y, flux = centroid(image)
    expected_y, expected_x = dataset.truth.position[row] / scale
    assert abs(x - expected_x) < within_pixels
    assert abs(y - expected_y) < within_pixels
    assert flux == pytest.approx(list(FLUX.values())[band], rel=1e-4)


@pytest.mark.parametrize("off", [0.0, 0.03, 0.37])
def test_a_vis_stamp_is_padded_and_lacks_nisp(tmp_path, off):
    place = (150.0 + off * ARCSEC, 2.0 - off * ARCSEC)
    write_vis(tmp_path / "stamps" / "one.fits", 150.0, 2.0, source=place, TILEIDX=102)
    table = write_csv(
        tmp_path / "t.csv", ra=[place[0]], dec=[place[1]], label=[1], file=["one.fits"], weight=[0.5], theta_E=[1.25]
    )
    record = import_labels(table, tmp_path / "set", cutouts=tmp_path / "stamps")
    assert (record.n_objects, record.n_lenses, record.n_left_out) == (1, 1, {})
    dataset = LabelledSet(tmp_path / "set")
    check_source(dataset, 0)
    batch = dataset.store.read(0)
    assert np.isnan(batch.nisp).all()
    # Of a padded stamp the quality is that of the pixels that are there.
    assert batch.bad_fraction[0] == pytest.approx([0, 1, 1, 1])
    assert batch.flags[0] & Flag.PADDED
    assert batch.flags[0] & Flag.OUTSIDE_MOSAIC
    # Copied, not resampled: every pixel of the stamp is one of the cutout.
    assert np.isin(fits.getdata(tmp_path / "stamps" / "one.fits"), batch.vis[0]).all()
    (row,) = pq.read_table(tmp_path / "set" / "truth.parquet").to_pylist()
    expected = {
        "source_row": 0,
        "source_file": "one.fits",
        "source_label": "1",
        "weight": 0.5,
        "field": "102",
        "theta_e_arcsec": 1.25,
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("nisp_scale", [0.1, 0.3])
def test_bands_of_a_multi_extension_file(tmp_path, nisp_scale):
    write_slde(tmp_path / "lens" / "102018665_NEG7" / "102018665_NEG7.fits", 60.0, -50.0, nisp_scale=nisp_scale)
    table = write_csv(tmp_path / "t.csv", id_str=["102018665_NEG7"], right_ascension=[60.0], declination=[-50.0], grade=["A"])
    import_labels(table, tmp_path / "set", cutouts=tmp_path / "lens", preset="slde")
    dataset = LabelledSet(tmp_path / "set")
    for band in range(4):
        check_source(dataset, 0, band)
    assert dataset.store.read(0).bad_fraction.max() == 0
    assert (dataset.truth.class_name[0], dataset.fields) == ("grade A", ["102018665"])


def test_cubes_and_arrays_without_a_wcs(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    planes = np.stack([plane(10.0, 5.0, 240, 0.1, band=band)[0] for band in FLUX])
    np.save(folder / "cube.npy", planes)
    np.save(folder / "flat.npy", planes[0])
    fits.PrimaryHDU(planes, plane(10.0, 5.0, 240, 0.1)[1].to_header()).writeto(folder / "fits-cube.fits")
    table = write_csv(tmp_path / "t.csv", id=["cube", "flat", "fits-cube"], label=["lens", "other", "lens"])
    with pytest.raises(ContentError, match=r"cube\.npy: has no WCS; state the width of its pixels with --scale"):
        import_labels(table, tmp_path / "set", cutouts=folder)
    import_labels(table, tmp_path / "set", cutouts=folder, scale_arcsec=0.1)
    dataset = LabelledSet(tmp_path / "set")
    for row, bands in ((0, range(4)), (1, range(1)), (2, range(4))):
        for band in bands:
            check_source(dataset, row, band)
    # A WCS says where it is on the sky; an array does not.
    assert dataset.store.ra[2] == pytest.approx(10.0, abs=1e-6)
    assert np.isnan(dataset.store.ra[:2]).all()
    with pytest.raises(ContentError, match=r'cube\.npy: the VIS pixels are 0\.2" wide; they must be 0\.1"'):
        import_labels(table, tmp_path / "other", cutouts=folder, scale_arcsec=0.2)
    assert not (tmp_path / "other").exists()


def test_files_of_several_scales_are_refused(tmp_path):
    write_vis(tmp_path / "stamps" / "a.fits", 150.0, 2.0)
    pixels, wcs = plane(151.0, 2.0, 101, 0.2)
    fits.PrimaryHDU(pixels, wcs.to_header()).writeto(tmp_path / "stamps" / "b.fits")
    table = write_csv(tmp_path / "t.csv", id=["a", "b"], label=[1, 0])
    with pytest.raises(ContentError, match=r'b\.fits: the VIS pixels are 0\.2" wide'):
        import_labels(table, tmp_path / "set", cutouts=tmp_path / "stamps")
    with pytest.raises(ContentError, match=r'a\.fits: its WCS says that the VIS pixels are 0\.1" wide, and --scale says 0\.2'):
        import_labels(table, tmp_path / "set", cutouts=tmp_path / "stamps", scale_arcsec=0.2)


def test_every_row_is_in_the_set_or_in_the_list(tmp_path):
    stamps = tmp_path / "stamps"
    for number in range(6):
        write_vis(stamps / f"{number}.fits", 150.0 + number, 2.0)
    masked = fits.getdata(stamps / "3.fits").copy()
    masked[:60] = np.nan
    fits.update(stamps / "3.fits", masked, fits.getheader(stamps / "3.fits"))
    (stamps / "4.fits").write_bytes(b"SIMPLE  = no")
    (stamps / "picture.jpg").write_bytes(b"\xff\xd8")
    rows = [
        ("0.fits", 150.0, "A"),
        ("0.fits", 150.0 + 0.5 * ARCSEC, "B"),  # the same object, within 1"
        ("1.fits", 151.0, "A"),
        ("1.fits", 151.0, "X"),  # the same object, no lens
        ("2.fits", 152.0, "C"),
        ("3.fits", 153.0, "A"),
        ("4.fits", 154.0, "A"),
        ("gone.fits", 157.0, "A"),
        ("5.fits", 160.0, "A"),  # not where the file is
        ("picture.jpg", 158.0, "X"),
        ("5.fits", 155.0, "X"),
    ]
    files, ra, grades = (list(column) for column in zip(*rows, strict=True))
    table = write_csv(tmp_path / "t.csv", file=files, ra=ra, dec=[2.0] * len(rows), grade=grades)
    record = import_labels(table, tmp_path / "set", cutouts=stamps)
    assert record.n_left_out == {
        "contradiction": 2, "unreadable": 2, "label not used": 1, "duplicate": 1, "masked": 1, "missing file": 1, "outside": 1,
    }  # fmt: skip
    found = pq.read_table(tmp_path / "set" / "truth.parquet")["source_row"].to_pylist()
    assert found == [0, 10]
    reasons = left_out(tmp_path / "set")
    assert sorted([*found, *reasons]) == list(range(len(rows)))
    expected = ["duplicate", "contradiction", "contradiction", "label not used", "masked", "unreadable", "missing file"]
    assert [reasons[row] for row in range(1, 10)] == [*expected, "outside", "unreadable"]
    details = {int(row["source_row"]): str(row["detail"]) for row in Table.read(tmp_path / "set" / "left-out.ecsv")}
    assert details[2] == "one object, several verdicts (row 2: A; row 3: X)"
    assert details[1] == "the object of row 0, which stays"
    assert "grey values are no fluxes" in details[9]
    only_bad = write_csv(tmp_path / "bad.csv", file=["gone.fits"], ra=[157.0], dec=[2.0], grade=["A"])
    with pytest.raises(ContentError, match=r"no row could be used \(1 missing file\); the first: gone.fits is not in"):
        import_labels(only_bad, tmp_path / "none", cutouts=stamps)
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def from_tiles(sky, tmp_path_factory):
    """A set of the objects of three tiles, the visible lenses as grade A, others as X, and one object that lies in none."""
    folder = tmp_path_factory.mktemp("labels")
    truth = pq.read_table(sky / "truth.parquet").to_pandas()
    truth = truth[truth.magnitude_vis < 23]
    grades = ["A" if is_lens else "X" for is_lens in truth.is_lens]
    table = write_csv(folder / "grades.csv", RA=[*truth.ra, 0.0], Dec=[*truth.dec, 80.0], Grade=[*grades, "X"])
    record = import_labels(table, folder / "set", tiles=str(sky / "tile-list.txt"))
    return folder / "set", record, truth


def test_cutouts_of_tiles_are_those_of_a_scan(from_tiles, sky):
    folder, record, truth = from_tiles
    dataset = LabelledSet(folder)
    rows = pq.read_table(folder / "truth.parquet").to_pylist()
    assert record.n_objects == len(rows) > 20
    assert left_out(folder)[len(truth)] == "outside"
    assert sum(record.n_left_out.values()) + len(rows) == len(truth) + 1
    tiles = tile_list.read(sky / "tile-list.txt").tiles
    assert {row["field"] for row in rows} == set(tiles)
    for tile_id, tile in tiles.items():
        of_tile = [number for number, row in enumerate(rows) if row["field"] == tile_id]
        with open_tile(tile, CutoutsConfig()) as images:
            ra, dec = (np.array([rows[number][axis] for number in of_tile]) for axis in ("ra", "dec"))
            x, y = images.vis.wcs.all_world2pix(ra, dec, 0)
            targets = Targets(np.array(of_tile), ra, dec, x, y, np.full(len(of_tile), np.nan, np.float32))
            for scanned in cut(images, targets, 1):
                kept = dataset.store.read(int(scanned.targets.target_id[0]))
                np.testing.assert_array_equal(kept.vis, scanned.vis)
                np.testing.assert_array_equal(kept.nisp, scanned.nisp)
                np.testing.assert_allclose(kept.offset, scanned.offset, atol=1e-4)


def test_of_several_tiles_the_one_that_has_all_of_an_object_is_taken(from_tiles, sky):
    dataset = LabelledSet(from_tiles[0])
    cut_off = np.flatnonzero(dataset.store.read(slice(None)).flags & Flag.OUTSIDE_MOSAIC)
    assert 0 < len(cut_off) < len(dataset)
    for tile in tile_list.read(sky / "tile-list.txt").tiles.values():
        with open_tile(tile, CutoutsConfig()) as images:
            ra, dec = dataset.store.ra[cut_off], dataset.store.dec[cut_off]
            from_edge = np.min([axis for x in images.vis.wcs.all_world2pix(ra, dec, 0) for axis in (x, 640 - x)], axis=0)
            assert (from_edge < 105).all()


def test_a_tile_that_cannot_be_used_costs_its_objects_and_is_named(from_tiles, sky, tmp_path):
    lines = [str(sky / line) for line in (sky / "tile-list.txt").read_text().splitlines() if not line.startswith("#")]
    (tmp_path / "bad.fits").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("\n".join(["id=bad VIS=bad.fits", *lines]))
    truth = from_tiles[2].iloc[:12]
    grades = ["A", "X"] * 6
    write_csv(tmp_path / "t.csv", RA=truth.ra, Dec=truth.dec, Grade=grades)
    record = import_labels(tmp_path / "t.csv", tmp_path / "set", tiles=str(tmp_path / "list.txt"))
    assert [tile.tile_id for tile in record.failed_tiles] == ["bad"]
    assert record.n_objects + sum(record.n_left_out.values()) == len(truth)
    details = Table.read(tmp_path / "set" / "left-out.ecsv")["detail"].tolist() if record.n_left_out else []
    assert all("1 could not" in detail for detail in details if detail.startswith("lies in no tile"))


def test_the_truth_of_a_simulated_sky_comes_back(from_tiles):
    folder, record, truth = from_tiles
    rows = pq.read_table(folder / "truth.parquet").to_pylist()
    assert [row["is_lens"] for row in rows] == [bool(truth.is_lens.iloc[row["source_row"]]) for row in rows]
    assert record.n_lenses == sum(row["is_lens"] for row in rows) > 0


def test_no_field_is_on_two_sides_of_a_split(from_tiles):
    data = TrainingData([from_tiles[0]])
    fields = np.array(data.datasets[0].fields)
    parts = [set(fields[part]) for part in (data.split.train, data.split.validation, data.split.calibration)]
    assert all(parts)
    assert not any(one & other for number, one in enumerate(parts) for other in parts[number + 1 :])


def test_a_set_for_evaluation_is_never_trained_on(from_tiles, sky, tmp_path):
    table = tmp_path / "t.csv"
    truth = from_tiles[2].iloc[:5]
    write_csv(table, RA=truth.ra, Dec=truth.dec, Grade=["A", "X", "A", "X", "A"])
    import_labels(table, tmp_path / "set", tiles=str(sky / "tile-list.txt"), purpose="evaluation")
    assert json.loads((tmp_path / "set" / "dataset.json").read_bytes())["purpose"] == "evaluation"
    with pytest.raises(UsageError, match="for evaluation only and must never be trained on"):
        TrainingData([tmp_path / "set"])


def test_what_is_refused(from_tiles, sky, tmp_path):
    table = write_csv(tmp_path / "t.csv", ra=[1.0], dec=[2.0], label=["lens"])
    with pytest.raises(UsageError, match="either --tiles LIST"):
        import_labels(table, tmp_path / "set")
    with pytest.raises(UsageError, match="--scale is the width"):
        import_labels(table, tmp_path / "set", tiles=str(sky / "tile-list.txt"), scale_arcsec=0.1)
    with pytest.raises(OutputError, match="is there already"):
        import_labels(table, from_tiles[0], tiles=str(sky / "tile-list.txt"))
    with pytest.raises(InputMissingError, match="the folder of cutouts is not there"):
        import_labels(table, tmp_path / "set", cutouts=tmp_path / "none")
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv"}
