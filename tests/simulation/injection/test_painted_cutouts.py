import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut_pixels
from scanner.cutouts.store import CutoutStore
from scanner.errors import InputMissingError, OutputError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.records import BANDS
from scanner.simulation.injection.inject import inject
from scanner.simulation.injection.places import InjectionRecord, InjectionRequest
from scanner.sky import tile_list
from scanner.sky.tile_images import open_tile


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def request_of(tiles, **changes):
    settings = {"preset": "train", "n_objects": 10, "seed": 3, "tiles": tiles, "codec": "exact"}
    return InjectionRequest(**(settings | changes))


@pytest.fixture(scope="module")
def tiles(sky):
    return tuple(tile_list.read(sky / "tile-list.txt").tiles.values())


@pytest.fixture(scope="module")
def painted(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("painted") / "set"
    inject(request_of(tiles), out)
    return out


def test_training_and_evaluation_can_read_it(painted):
    dataset = LabelledSet(painted)
    assert len(dataset) == 10
    assert dataset.preset == "train"
    record = InjectionRecord.from_bytes((painted / "dataset.json").read_bytes(), painted, "")
    assert record.complete
    assert record.n_lenses == dataset.truth.is_lens.sum()
    assert [tile.alignment for tile in record.tiles] == ["bin", "warp", "bin"]
    assert not (painted / "parts").exists()
    truth = pq.read_table(painted / "truth.parquet")
    assert set(truth["tile_id"].to_pylist()) <= {tile.tile_id for tile in record.request.tiles}
    assert truth.schema.field("ra").metadata[b"unit"] == b"deg"


def test_what_is_not_painted_is_real(painted, tiles):
    """Painted minus real pixels is light where it was painted, and nothing elsewhere."""
    truth = pq.read_table(painted / "truth.parquet").to_pylist()
    batch = CutoutStore(painted / "cutouts.zarr").read(np.arange(10))
    by_id = {tile.tile_id: tile for tile in tiles}
    for k, row in enumerate(truth):
        with open_tile(by_id[row["tile_id"]], CutoutsConfig()) as images:
            vis, _ = cut_pixels(images, batch.x0[k : k + 1], batch.y0[k : k + 1])
        difference = batch.vis[k] - vis[0]
        assert (np.isnan(difference) == np.isnan(vis[0])).all()
        # Unrelated galaxies are painted into every cutout (here and there onto bad pixels), and most of it is left alone.
        assert np.nanmax(difference) > 0.003 or batch.bad_fraction[k, 0] > 0.0
        if not row["into_sky"]:  # clusters painted whole fill a cutout
            assert np.nanmedian(np.abs(difference)) < 0.0003  # a tenth of the sky's sigma
        place = [batch.targets.x[k] - batch.x0[k] - 99.5, batch.targets.y[k] - batch.y0[k] - 99.5]
        assert place == pytest.approx([10 * row["x_arcsec"], 10 * row["y_arcsec"]], abs=0.02)


def test_equal_requests_give_equal_bytes_also_after_an_interruption(painted, tiles, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inject(request_of(tiles), tmp_path / "again", progress=stop)
    assert not (tmp_path / "again" / "truth.parquet").exists()
    inject(request_of(tiles), tmp_path / "again", workers=2)
    assert hashes(tmp_path / "again") == hashes(painted)
    assert inject(request_of(tiles), tmp_path / "again").complete


def test_another_request_is_refused(painted, tiles):
    with pytest.raises(OutputError, match=r"holds another injection .*seed 3.* not the one asked for .*seed 4"):
        inject(request_of(tiles, seed=4), painted)
    with pytest.raises(OutputError, match="with other tiles"):
        inject(request_of((*tiles[1:], tiles[0])), painted)


def test_a_folder_with_something_else_is_refused(tiles, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"not empty and holds no dataset\.json"):
        inject(request_of(tiles), tmp_path)


def test_too_many_objects_are_refused(tiles, tmp_path):
    with pytest.raises(UsageError, match="bright early-type galaxies are needed and there are"):
        inject(request_of(tiles, n_objects=300, ground="galaxies"), tmp_path / "out")


def changed_tile(tile, folder, change):
    """A copy of a tile whose images went through ``change(pixels, header)``."""
    bands = {}
    for band in BANDS:
        files = tile.bands[band]
        with fits.open(files.image.path) as hdus:
            pixels, header = change(hdus[0].data.astype(np.float32), hdus[0].header.copy())
        path = folder / f"{band}.fits"
        fits.writeto(path, pixels, header)
        bands[band] = files.model_copy(update={"image": replace(files.image, path=str(path)), "rms": None})
    return tile.model_copy(update={"bands": bands})


def test_zero_points_come_from_the_header(tiles, tmp_path):
    def fainter(pixels, header):
        header["MAGZERO"] += 1.0
        return pixels * np.float32(10.0**0.4), header

    for name in ("same", "fainter"):
        (tmp_path / name).mkdir()
    same = changed_tile(tiles[0], tmp_path / "same", lambda pixels, header: (pixels, header))
    other = changed_tile(tiles[0], tmp_path / "fainter", fainter)
    for tile, name in ((same, "a"), (other, "b")):
        inject(request_of((tile,), n_objects=5, ground="sky"), tmp_path / name)
    a, b = (CutoutStore(tmp_path / name / "cutouts.zarr").read(np.arange(5)) for name in "ab")
    np.testing.assert_allclose(a.vis, b.vis, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(a.nisp, b.nisp, atol=2e-2, rtol=1e-4)


@pytest.mark.parametrize(("keyword", "word"), [("MAGZERO", "has no MAGZERO"), ("CTYPE1", "WCS")])
def test_headers_that_lack_something_are_named(tiles, tmp_path, keyword, word):
    def without(pixels, header):
        del header[keyword]
        return pixels, header

    (tmp_path / "tile").mkdir()
    tile = changed_tile(tiles[0], tmp_path / "tile", without)
    with pytest.raises(InputMissingError, match=rf"^tile {tile.tile_id}: .*VIS\.fits.*{word}"):
        inject(request_of((tile,)), tmp_path / "out")


def test_a_missing_mosaic_is_named(tiles, tmp_path):
    missing = replace(tiles[0].bands["Y"].image, path=str(tmp_path / "gone.fits"))
    bands = tiles[0].bands | {"Y": tiles[0].bands["Y"].model_copy(update={"image": missing})}
    with pytest.raises(InputMissingError, match=r"gone\.fits: is not there"):
        inject(request_of((tiles[0].model_copy(update={"bands": bands}),)), tmp_path / "out")


def test_a_bare_sky_has_no_places(tiles, tmp_path):
    def bare(pixels, header):
        rng = np.random.default_rng(0)
        return rng.normal(0.0, 0.003, pixels.shape).astype(np.float32), header

    (tmp_path / "tile").mkdir()
    tile = changed_tile(tiles[0], tmp_path / "tile", bare).model_copy(update={"catalogue": None})
    with pytest.raises(UsageError, match="bright early-type galaxies are needed and there are 0"):
        inject(request_of((tile,), ground="galaxies"), tmp_path / "out")


def test_real_images(real, tmp_path):
    path = real / "euclid-group" / "group.fits"
    words = [
        f"{band}={path}[{name}_FLUX] {band}_RMS={path}[{name}_RMS] {band}_PSF={path}[{name}_PSF]"
        for band, name in (("VIS", "VIS"), ("Y", "NIR_Y"), ("J", "NIR_J"), ("H", "NIR_H"))
    ]
    (tmp_path / "list.txt").write_text("id=group " + " ".join(words))
    request = request_of(tuple(tile_list.read(tmp_path / "list.txt").tiles.values()), n_objects=4, ground="sky")
    record = inject(request, tmp_path / "out")
    assert {optics.psf for optics in record.tiles[0].bands.values()} == {"image"}
    batch = CutoutStore(tmp_path / "out" / "cutouts.zarr").read(np.arange(4))
    assert (batch.bad_fraction <= 0.25).all()
    assert 0.0024 < np.median(batch.sigma[:, 0]) < 0.0034
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["complete"]
    shutil.rmtree(tmp_path / "out")
