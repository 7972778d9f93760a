import threading
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D, block_reduce
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import plain_bundle

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut, cut_pixels
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.errors import TileError
from scanner.records import BANDS, BandFiles, Flag, ImageRef, Targets, Tile
from scanner.sky.tile_images import open_tile
from scanner.survey.scan.tile import score_batch

REAL = Path(__file__).parents[2] / "../shared/real"
CONFIG = CutoutsConfig()


def targets_at(x, y, wcs=None):
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    ra, dec = (np.zeros(len(x)), np.zeros(len(x))) if wcs is None else wcs.all_pix2world(x, y, 0)
    return Targets(np.arange(len(x), dtype=np.int64), ra, dec, x, y, np.full(len(x), np.nan, np.float32))


def everything(batches):
    batches = list(batches)
    names = [name for name in vars(batches[0]) if name != "targets"]
    result = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    for name in vars(batches[0].targets):
        result[name] = np.concatenate([getattr(batch.targets, name) for batch in batches])
    return result


def centroids(images):
    images = images.astype(np.float64)
    total = images.sum(axis=(1, 2))
    at = np.arange(images.shape[1])
    return np.stack([images.sum(axis=1) @ at / total, images.sum(axis=2) @ at / total], axis=1), total


@pytest.mark.parametrize(("case", "flux_tolerance"), [("bin", 1e-4), ("slice", 1e-4), ("warp", 1e-3)])
def test_point_sources_lie_where_the_offset_says_with_all_their_flux(make_tile, case, flux_tolerance):
    made = make_tile(case)
    with open_tile(made.tile, CONFIG) as images:
        assert images.alignment.case == case
        batch = next(cut(images, made.targets, 100))
    assert len(batch) == 49
    assert np.abs(batch.offset).max() <= (0.5 if case == "bin" else 1.5)
    assert (batch.bad_fraction == 0).all()
    centre = batch.offset.astype(np.float64)
    middle = slice(60, 140)
    position, flux = centroids(batch.vis[:, middle, middle])
    np.testing.assert_allclose(position + 60, 99.5 + centre, atol=0.001)
    np.testing.assert_allclose(flux, 1000, rtol=1e-4)
    for index, expected in enumerate((1000, 2000, 3000)):
        position, flux = centroids(batch.nisp[:, index, 18:48, 18:48])
        np.testing.assert_allclose(position + 18, 32.5 + centre / 3, atol=0.01)
        np.testing.assert_allclose(flux, expected, rtol=flux_tolerance)


def test_order_is_by_row_and_the_batch_size_makes_no_difference(make_tile):
    made = make_tile("slice", size=900, n=16)
    results = []
    for size in (1, 5, 16):
        with open_tile(made.tile, CONFIG) as images:
            results.append(everything(cut(images, made.targets, size)))
    assert (np.diff(results[0]["y"]) >= 0).all()
    assert sorted(results[0]["target_id"]) == sorted(made.targets.target_id)
    for other in results[1:]:
        for name, values in results[0].items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.parametrize("geometry", ["slice", "warp"])
@pytest.mark.parametrize("compressed", [False, True])
def test_batches_cut_in_several_threads_are_the_same_in_the_same_order(make_tile, tmp_path, geometry, compressed):
    made = make_tile(geometry, size=900, n=36)
    tile = made.tile
    if compressed:
        bands = {}
        for band, files in tile.bands.items():
            pixels, header = fits.getdata(files.image.path, header=True)
            packed = fits.CompImageHDU(
                pixels, header, quantize_level=0, compression_type="GZIP_2", tile_shape=(1, pixels.shape[1])
            )
            packed.writeto(tmp_path / f"{band}.fits.fz")
            bands[band] = BandFiles(image=ImageRef(str(tmp_path / f"{band}.fits.fz")))
        tile = Tile(tile_id="packed", bands=bands)
    spent = []
    with open_tile(tile, CONFIG) as images:
        alone = list(cut(images, made.targets, 5))
    with open_tile(tile, CONFIG) as images:
        together = list(cut(images, made.targets, 5, threads=4, spent=spent.append))
    assert [len(batch) for batch in together] == [len(batch) for batch in alone] == [5] * 7 + [1]
    for name, values in everything(alone).items():
        np.testing.assert_array_equal(values, everything(together)[name], err_msg=name)
    assert len(spent) == 8
    assert min(spent) > 0


def test_who_stops_early_leaves_no_thread_that_cuts(make_tile):
    made = make_tile("bin", size=900, n=36)
    with open_tile(made.tile, CONFIG) as images:
        batches = cut(images, made.targets, 2, threads=3)
        next(batches)
        assert any(thread.name.startswith("cut") for thread in threading.enumerate())
        batches.close()
        assert not any(thread.name.startswith("cut") for thread in threading.enumerate())


def write_stamp(folder, size, ring_arcsec, rms=None):
    """A bright ring in Gaussian noise (sigma 0.01 of VIS, 0.03 of NISP's 0.3" pixels) on ``size``² pixels, of four bands."""
    random = np.random.default_rng(size)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [size / 2 + 0.5] * 2
    wcs.wcs.cdelt = [-0.1 / 3600, 0.1 / 3600]
    axis = (np.arange(size) - (size - 1) / 2) * 0.1
    light = 0.3 * np.exp(-0.5 * ((np.hypot(axis, axis[:, None]) - ring_arcsec) / 0.8) ** 2)
    bands = {}
    for band in BANDS:
        fits.writeto(
            folder / f"{band}.fits", (light + 0.5 + random.normal(0, 0.01, light.shape)).astype(np.float32), wcs.to_header()
        )
        bands[band] = BandFiles(image=ImageRef(str(folder / f"{band}.fits")))
        if rms is not None:
            fits.writeto(folder / f"{band}-rms.fits", np.full(light.shape, rms, np.float32))
            bands[band] = bands[band].model_copy(update={"rms": ImageRef(str(folder / f"{band}-rms.fits"))})
    return Tile(tile_id="stamp", bands=bands)


@pytest.mark.parametrize(
    ("size", "ring_arcsec", "rms"),
    [pytest.param(100, 2.0, None, id="a dark edge"), pytest.param(66, 2.8, 0.0102, id="light to the edge, but an RMS map")],
)
def test_a_stamp_smaller_than_a_cutout_is_padded_and_its_own_light_is_not_taken_for_noise(tmp_path, size, ring_arcsec, rms):
    with open_tile(write_stamp(tmp_path, size, ring_arcsec, rms), CONFIG) as images:
        (batch,) = cut(images, targets_at([(size - 1) / 2], [(size - 1) / 2]), 1)
    assert batch.flags[0] & Flag.PADDED
    assert batch.flags[0] & Flag.OUTSIDE_MOSAIC
    assert np.isnan(batch.vis).mean() == 1 - (size / 200) ** 2
    np.testing.assert_array_equal(batch.bad_fraction, 0)
    np.testing.assert_allclose(batch.sigma, [[0.01, 0.03, 0.03, 0.03]], rtol=0.3)
    vis, nisp = fill_bad_pixels(batch)
    np.testing.assert_allclose(vis[0, :20].std(), batch.sigma[0, 0], rtol=0.05)
    assert np.isfinite(nisp).all()


def test_what_is_bad_within_a_stamp_still_counts(tmp_path):
    tile = write_stamp(tmp_path, 120, 1.0)
    with fits.open(tmp_path / "VIS.fits", mode="update") as hdus:
        hdus[0].data[:30] = np.nan
    with open_tile(tile, CONFIG) as images:
        (batch,) = cut(images, targets_at([59.5], [59.5]), 1)
    np.testing.assert_allclose(batch.bad_fraction, [[0.25, 0, 0, 0]], atol=1e-6)


def test_an_object_at_the_edge_of_a_stamp_cannot_be_judged(tmp_path):
    with open_tile(write_stamp(tmp_path, 100, 2.0), CONFIG) as images:
        (batch,) = cut(images, targets_at([20.0], [49.5]), 1)
    assert not batch.flags[0] & Flag.PADDED
    assert batch.bad_fraction[0, 0] == 0.75


def test_a_real_lens_in_a_stamp_of_ten_arcseconds_is_scored(real):
    path = next((real / "euclid-q1-102018665").glob("*.fits"))

    def files(name):
        return BandFiles(image=ImageRef(str(path), f"{name}_BGSUB"), rms=ImageRef(str(path), f"{name}_RMS"))

    tile = Tile(tile_id="q1", bands={band: files(band if band == "VIS" else f"NIR_{band}") for band in BANDS})
    with open_tile(tile, CONFIG) as images:
        (batch,) = cut(images, targets_at([49.5], [49.5]), 1)
    assert (batch.bad_fraction < 0.01).all()
    scorer = Scorer(bundles.load(plain_bundle()))
    scores = score_batch(scorer, batch)
    assert not scores.flags[0] & (Flag.TOO_MANY_BAD_PIXELS | Flag.BANDS_MISSING)
    assert scores.grid_value[0] > 0.9
    assert scores.calibrated[0] > 10 * scorer.bundle.manifest.calibration.sky_prevalence


def test_no_targets_no_batches(make_tile):
    made = make_tile("bin", size=400, n=1)
    with open_tile(made.tile, CONFIG) as images:
        assert list(cut(images, targets_at([], []), 8)) == []


def test_units_zero_points_and_area(make_tile):
    made = make_tile("slice", size=600, n=4)
    with open_tile(made.tile, CONFIG) as images:
        assert images.zero_points == {"VIS": 24.0, "Y": 25.0, "J": 26.0, "H": 27.0}
        assert set(images.units.values()) == {"adu"}
        np.testing.assert_allclose(images.sky_area_deg2, (60 / 3600) ** 2, rtol=1e-4)
        assert images.vis.band == "VIS"


@pytest.fixture(scope="module")
def noise_tiles(tmp_path_factory):
    """A noise tile of each case, and each NISP band as it lies on the VIS lattice, padded with NaN."""
    random = np.random.default_rng(8)
    pad = 400
    made = {}
    for case, step, origin in (("bin", 1, (7, -11)), ("slice", 3, (-4, 5))):
        folder = tmp_path_factory.mktemp(case)
        vis = random.normal(0, 1, (330, 300)).astype(np.float32)
        nisp = random.normal(5, 1, (3, 320 // step, 310 // step)).astype(np.float32)
        bands = {}
        for band, image in zip(BANDS, (vis, *nisp), strict=True):
            scale, crpix = 0.1, np.array([150.5, 165.5])
            if band != "VIS":
                scale, crpix = 0.1 * step, (crpix - 0.5 - origin) / step + 0.5
            wcs = WCS(naxis=2)
            wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10.0, -40.0], crpix
            wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
            fits.PrimaryHDU(image, header=wcs.to_header()).writeto(folder / f"{band}.fits")
            bands[band] = BandFiles(image=ImageRef(path=str(folder / f"{band}.fits")))
        padded = np.pad(vis, pad, constant_values=np.nan)
        made[case] = (Tile(tile_id="1", bands=bands), padded, nisp, pad, origin)
    return made


@settings(max_examples=60)
@given(x=st.floats(-250, 550), y=st.floats(-250, 550), case=st.sampled_from(["bin", "slice"]))
def test_any_position_gives_the_padded_image(noise_tiles, x, y, case):
    tile, padded, nisp, pad, origin = noise_tiles[case]
    with open_tile(tile, CONFIG) as images:
        batch = next(cut(images, targets_at(x, y), 4))
    x0, y0 = int(batch.x0[0]), int(batch.y0[0])
    expected = padded[y0 + pad : y0 + pad + 200, x0 + pad : x0 + pad + 200]
    np.testing.assert_array_equal(batch.vis[0], expected)
    np.testing.assert_allclose(batch.bad_fraction[0, 0], np.isnan(expected).mean(), atol=1e-6)
    for index, band in enumerate(nisp):
        if case == "bin":
            band_padded = np.pad(band, pad, constant_values=np.nan)
            row, column = y0 + 1 - origin[1] + pad, x0 + 1 - origin[0] + pad
            wanted = block_reduce(band_padded[row : row + 198, column : column + 198], 3)
        else:
            band_padded = np.pad(band, pad, constant_values=np.nan)
            assert (x0 + 1 - origin[0]) % 3 == 0
            assert (y0 + 1 - origin[1]) % 3 == 0
            row, column = (y0 + 1 - origin[1]) // 3 + pad, (x0 + 1 - origin[0]) // 3 + pad
            wanted = band_padded[row : row + 66, column : column + 66]
        np.testing.assert_allclose(batch.nisp[0, index], wanted, rtol=2e-5, atol=2e-5)
    outside = np.isnan(batch.vis).any() or np.isnan(batch.nisp).any()
    assert bool(batch.flags[0] & Flag.OUTSIDE_MOSAIC) == bool(outside)
    assert not batch.flags[0] & Flag.MASKED_PIXELS


@pytest.mark.parametrize("case", ["bin", "slice", "warp"])
def test_flags_tell_outside_from_masked(make_tile, case):
    made = make_tile(case, size=900, n=9)
    noise = np.random.default_rng(3)
    for image in made.images.values():
        image += noise.normal(0, 0.01, image.shape)
    made.images["VIS"][435:465, 435:465] = np.nan
    # Too few to hide anything.
    made.images["VIS"][140:144, 140:144] = np.nan
    ra, dec = made.vis_wcs.all_pix2world(300, 600, 0)
    column, row = (int(value) for value in made.nisp_wcs.all_world2pix(ra, dec, 0))
    half = 15 if case == "bin" else 5
    made.images["J"][row - half : row + half, column - half : column + half] = np.nan
    made.write()
    targets = targets_at([150, 450, 300, 40, 899, 400], [150, 450, 600, 450, 899, 30], made.vis_wcs)
    with open_tile(made.tile, CONFIG) as images:
        batch = next(cut(images, targets, 10))
    bits = batch.flags & np.uint32(Flag.OUTSIDE_MOSAIC | Flag.MASKED_PIXELS)
    by_id = dict(zip(batch.targets.target_id.tolist(), bits.tolist(), strict=True))
    assert by_id == {0: 0, 1: Flag.MASKED_PIXELS, 2: Flag.MASKED_PIXELS, 3: Flag.OUTSIDE_MOSAIC, 4: 1, 5: 1}
    masked = batch.bad_fraction[batch.targets.target_id == 2]
    assert masked[0, 2] > 0
    assert masked[0, [0, 1, 3]].max() == 0


def test_a_cutout_may_reach_over_the_edge_and_be_masked_too(make_tile):
    made = make_tile("slice", size=900, n=4)
    made.images["VIS"][:25, :25] = np.nan
    made.write()
    with open_tile(made.tile, CONFIG) as images:
        batch = next(cut(images, targets_at([40], [40]), 1))
    assert batch.flags[0] & Flag.OUTSIDE_MOSAIC
    assert batch.flags[0] & Flag.MASKED_PIXELS


def test_rms_and_flag_companions_mask_all_nine_pixels_of_a_sum(make_tile, tmp_path):
    made = make_tile("bin", size=400, n=1)
    rms, flag = np.ones((400, 400), np.float32), np.zeros((400, 400), np.int32)
    rms[200, 200] = 1e16
    flag[150, 160] = 3
    fits.PrimaryHDU(rms).writeto(tmp_path / "rms.fits")
    fits.PrimaryHDU(flag).writeto(tmp_path / "flag.fits")
    y = BandFiles(
        image=made.tile.bands["Y"].image,
        rms=ImageRef(path=str(tmp_path / "rms.fits")),
        flag=ImageRef(path=str(tmp_path / "flag.fits")),
    )
    tile = Tile(tile_id="1", bands={**made.tile.bands, "Y": y})
    with open_tile(tile, CONFIG) as images:
        batch = next(cut(images, targets_at([199.5], [199.5]), 1))
    # The first of the 198 columns is x0 + 1 = 101.
    bad = [[(150 - 101) // 3, (160 - 101) // 3], [(200 - 101) // 3, (200 - 101) // 3]]
    assert np.argwhere(np.isnan(batch.nisp[0, 0])).tolist() == bad
    assert np.isfinite(batch.nisp[0, 1:]).all()
    with open_tile(tile, CutoutsConfig(flag_mask=4)) as images:
        batch = next(cut(images, targets_at([199.5], [199.5]), 1))
    assert np.argwhere(np.isnan(batch.nisp[0, 0])).tolist() == bad[1:]


def test_infinities_become_nan_in_slices_and_in_sums(make_tile):
    made = make_tile("bin", size=400, n=1)
    for band in ("VIS", "Y"):
        made.images[band][200, 200:202] = np.inf, -np.inf
    made.write()
    with open_tile(made.tile, CONFIG) as images:
        batch = next(cut(images, targets_at([199.5], [199.5]), 1))
    assert np.argwhere(np.isnan(batch.vis[0])).tolist() == [[100, 100], [100, 101]]
    assert np.argwhere(np.isnan(batch.nisp[0, 0])).tolist() == [[33, 33]]
    assert np.isfinite(batch.nisp[0, 1:]).all()
    assert batch.bad_fraction[0] == pytest.approx([2 / 40_000, 1 / 4356, 0, 0])
    assert not batch.flags[0] & Flag.MASKED_PIXELS


def test_a_cutout_can_be_made_again_from_its_corner(make_tile):
    made = make_tile("slice", size=900, n=9)
    with open_tile(made.tile, CONFIG) as images:
        batch = next(cut(images, made.targets, 9))
        vis, nisp = cut_pixels(images, batch.x0[3:5], batch.y0[3:5])
    np.testing.assert_array_equal(vis, batch.vis[3:5])
    np.testing.assert_array_equal(nisp, batch.nisp[3:5])


def test_a_tile_whose_band_is_missing_blank_or_elsewhere_is_refused(make_tile):
    made = make_tile("bin", size=400, n=1)
    made.images["J"][:] = np.nan
    made.write()
    with pytest.raises(TileError, match=r"J\.fits: the J mosaic holds not one good pixel"):
        open_tile(made.tile, CONFIG)
    Path(made.tile.bands["J"].image.path).unlink()
    with pytest.raises(TileError, match=r"J\.fits: is not there"):
        open_tile(made.tile, CONFIG)


def test_a_tile_without_vis_is_refused_and_without_another_band_where_all_are_wanted(make_tile):
    made = make_tile("bin", size=400, n=1)
    some = Tile(tile_id="102018665", bands={band: made.tile.bands[band] for band in ("VIS", "J")})
    with pytest.raises(TileError, match="tile 102018665: names no Y and no H mosaic; all of VIS"):
        open_tile(some, CutoutsConfig(require_all_bands=True))
    with pytest.raises(TileError, match="tile 102018665: names no VIS mosaic; VIS is needed"):
        open_tile(some.model_copy(update={"bands": {"J": made.tile.bands["J"]}}), CONFIG)


def test_a_band_that_a_tile_does_not_have_is_cut_as_nothing(make_tile):
    made = make_tile("slice", size=400, n=3)
    some = made.tile.model_copy(update={"bands": {band: made.tile.bands[band] for band in ("VIS", "Y", "J")}})
    with open_tile(made.tile, CONFIG) as whole, open_tile(some, CONFIG) as images:
        expected, found = everything(cut(whole, made.targets, 3)), everything(cut(images, made.targets, 3))
        assert images.absent == ("H",)
    for name in ("vis", "x0", "y0"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(found["nisp"][:, :2], expected["nisp"][:, :2])
    assert np.isnan(found["nisp"][:, 2]).all()
    assert found["bad_fraction"][:, 3].tolist() == [1.0, 1.0, 1.0]


def test_scratch_holds_nothing_after_a_warp(make_tile, tmp_path):
    made = make_tile("warp", size=600, n=4)
    scratch = tmp_path / "scratch"
    with open_tile(made.tile, CONFIG, scratch) as images:
        first = everything(cut(images, made.targets, 4))
        again = everything(cut(images, made.targets, 3))
    np.testing.assert_array_equal(first["nisp"], again["nisp"])
    assert list(scratch.iterdir()) == []


def real_tile(folder, suffix):
    files = sorted((REAL / folder).glob("*.fits"))
    if not files:
        pytest.skip(f"{REAL / folder} is not there")
    names = {"VIS": "VIS", "Y": "NIR_Y", "J": "NIR_J", "H": "NIR_H"}
    bands = {
        band: BandFiles(
            image=ImageRef(path=str(files[0]), extension=f"{name}_{suffix}"),
            rms=ImageRef(path=str(files[0]), extension=f"{name}_RMS"),
        )
        for band, name in names.items()
    }
    return files[0], names, Tile(tile_id=folder, bands=bands)


@pytest.mark.parametrize(("folder", "suffix"), [("euclid-group", "FLUX"), ("euclid-q1-102018665", "BGSUB")])
def test_real_images_agree_with_plain_astropy(folder, suffix):
    path, names, tile = real_tile(folder, suffix)
    with fits.open(path) as hdus:
        wcs = WCS(hdus[f"VIS_{suffix}"].header)
        size = hdus[f"VIS_{suffix}"].shape[0]
        pixels = {}
        for band, name in names.items():
            good = hdus[f"{name}_RMS"].data < 1e15
            pixels[band] = np.where(good, hdus[f"{name}_{suffix}"].data, np.nan).astype(np.float64)
            assert WCS(hdus[f"{name}_{suffix}"].header).wcs.compare(wcs.wcs, 2)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(3, size - 5, 5) + 0.3, np.linspace(2, size - 2, 5) - 0.2))
    targets = targets_at(x, y, wcs)
    with open_tile(tile, CONFIG) as images:
        assert images.alignment.case == "bin"
        batch = next(cut(images, targets, 100))
        assert images.zero_points["VIS"] == fits.getheader(path, f"VIS_{suffix}")["MAGZERO"]
    for row in range(len(batch)):
        position = wcs.world_to_pixel(wcs.pixel_to_world(batch.targets.x[row], batch.targets.y[row]))
        corner = [float(np.round(value + 0.5) - 0.5) for value in position]
        # Cutout2D rounds the middle pixel of an even cutout up.
        arguments = {"position": (corner[0] + 0.5, corner[1] + 0.5), "mode": "partial", "fill_value": np.nan}
        vis = Cutout2D(pixels["VIS"], size=200, wcs=wcs, **arguments)
        np.testing.assert_array_equal(batch.vis[row], vis.data.astype(np.float32))
        assert vis.origin_original == (max(batch.x0[row], 0), max(batch.y0[row], 0))
        on_sky = vis.wcs.pixel_to_world(99.5 + batch.offset[row, 0], 99.5 + batch.offset[row, 1])
        assert on_sky.separation(wcs.pixel_to_world(batch.targets.x[row], batch.targets.y[row])).arcsec < 1e-4
        for index, band in enumerate(("Y", "J", "H")):
            fine = Cutout2D(pixels[band], size=198, **arguments)
            binned = block_reduce(fine.data, 3)
            np.testing.assert_allclose(batch.nisp[row, index], binned, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(np.nansum(batch.nisp[row, index]), np.nansum(binned), rtol=1e-5)
    reaches_out = (batch.x0 < 0) | (batch.y0 < 0) | (batch.x0 + 200 > size) | (batch.y0 + 200 > size)
    np.testing.assert_array_equal((batch.flags & Flag.OUTSIDE_MOSAIC) != 0, reaches_out)


def test_real_bands_are_aligned_with_each_other():
    """Cross-correlating the bands of the real group finds no shift: the galaxies lie on the same cutout pixels."""
    _, _, tile = real_tile("euclid-group", "FLUX")
    with open_tile(tile, CONFIG) as images:
        batch = next(cut(images, targets_at([149.5], [149.5]), 1))
    vis = block_reduce(batch.vis[0, 1:199, 1:199], 3)
    reference = np.fft.rfft2(np.arcsinh(np.nan_to_num(vis) / 0.05))
    for image in batch.nisp[0]:
        correlation = np.fft.irfft2(reference.conj() * np.fft.rfft2(np.arcsinh(np.nan_to_num(image) / 20)), s=(66, 66))
        peak = np.unravel_index(np.argmax(correlation), correlation.shape)
        assert peak == (0, 0)
        for before, after in ((correlation[-1, 0], correlation[1, 0]), (correlation[0, -1], correlation[0, 1])):
            shift = 0.5 * (before - after) / (before - 2 * correlation[0, 0] + after)
            assert abs(shift) < 0.1


def test_the_small_real_image_is_mostly_outside_and_says_so():
    _, _, tile = real_tile("euclid-q1-102018665", "BGSUB")
    with open_tile(tile, CONFIG) as images:
        batch = next(cut(images, targets_at([49.5], [49.5]), 1))
    assert batch.flags[0] & Flag.OUTSIDE_MOSAIC
    assert 0.74 < np.isnan(batch.vis).mean() < 0.78
    np.testing.assert_allclose(np.isnan(batch.nisp).mean(axis=(0, 2, 3)), 1 - (33 / 66) ** 2, atol=0.02)
    assert np.isfinite(batch.sky).all()
