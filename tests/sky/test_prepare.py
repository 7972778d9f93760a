"""Tiles made of images with other pixels, projections, frames and footprints: light stays where it is, and as much."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

from scanner.config import CutoutsConfig
from scanner.errors import OutputError, TileError, UsageError
from scanner.records import BANDS, RESAMPLING_METHODS, BandFiles, ImageRef, Tile
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.injection.places import survey_tile
from scanner.sky import tile_list
from scanner.sky.mosaic import ab_zero_point, celestial_wcs, open_mosaic
from scanner.sky.prepare import PrepareRequest, Source, prepare
from scanner.sky.regrid import gaussian, matching_kernel
from scanner.sky.tile_images import open_tile

CENTRE = SkyCoord(150.0, 2.0, unit="deg")
#: Flux in µJy of point sources, of a Gaussian PSF of this FWHM.
FLUX, FWHM_ARCSEC = 1000.0, 0.6


def made_wcs(scale, size, frame="icrs", angle=0.0, projection="TAN", centre=CENTRE, sip=False):
    """A WCS whose middle pixel is at the centre, in any frame."""
    wcs = WCS(naxis=2)
    place = {
        "icrs": lambda c: c,
        "galactic": lambda c: c.galactic,
        "ecliptic": lambda c: c.barycentricmeanecliptic,
        "fk5": lambda c: c.transform_to("fk5"),
        "fk4": lambda c: c.transform_to("fk4"),
    }[frame](centre)
    axes = {"galactic": ("GLON", "GLAT"), "ecliptic": ("ELON", "ELAT")}.get(frame, ("RA--", "DEC-"))
    wcs.wcs.ctype = [f"{axis}-{projection}{'-SIP' if sip else ''}" for axis in axes]
    if frame in ("fk4", "fk5"):
        wcs.wcs.radesys, wcs.wcs.equinox = frame.upper(), 1950.0 if frame == "fk4" else 2000.0
    sky = place.spherical
    wcs.wcs.crval = [sky.lon.deg, sky.lat.deg]
    wcs.wcs.crpix = [size / 2 + 0.5] * 2
    if projection == "CAR":
        # Cylinders are square only at their equator.
        wcs.wcs.crval = [sky.lon.deg, 0.0]
        wcs.wcs.crpix = [size / 2 + 0.5, size / 2 + 0.5 - sky.lat.deg * 3600 / scale]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.pc = [[cos, -sin], [sin, cos]]
    wcs.wcs.set()
    return wcs


def to_pixels(wcs, frame, sky):
    at = {
        "galactic": lambda c: c.galactic,
        "ecliptic": lambda c: c.barycentricmeanecliptic,
        "fk4": lambda c: c.transform_to("fk4"),
        "fk5": lambda c: c.transform_to("fk5"),
    }.get(frame, lambda c: c)(sky).spherical
    return wcs.all_world2pix(at.lon.deg, at.lat.deg, 0)


def stars(wcs, frame, shape, places):
    """Point sources integrated over pixels, and noise-free sky of 0."""
    image = np.zeros(shape)
    step = 1e-3
    for sky in places:
        x, y = (float(value) for value in to_pixels(wcs, frame, sky))
        # Local size of pixels, so that the PSF is round on the sky to first order.
        north = to_pixels(
            wcs, frame, sky.directional_offset_by(0.0 * CENTRE.ra, step / 3600 * 1.0 * (CENTRE.ra / CENTRE.ra.value))
        )
        per_pixel = step / float(np.hypot(north[0] - x, north[1] - y))
        width = FWHM_ARCSEC / 2.3548 / per_pixel * np.sqrt(2)
        profiles = [np.diff(0.5 * erf((np.arange(n + 1) - 0.5 - at) / width)) for n, at in ((shape[0], y), (shape[1], x))]
        image += FLUX * np.outer(*profiles)
    return image


def write(path, wcs, image, **cards):
    header = wcs.to_header(relax=True)
    header.update({"MAGZERO": 23.9, "BUNIT": "uJy"} | cards)
    fits.writeto(path, image.astype(np.float32), header, overwrite=True)
    return BandFiles(image=ImageRef(str(path)))


PLACES = CENTRE.spherical_offsets_by(
    *(np.array([[-6.0, 5.3, 0.17], [-5.1, -1.42, 6.23]]) / 3600 * (CENTRE.ra / CENTRE.ra.value))
)


def measured(mosaic, places):
    """Flux and offset in arcsec of each source, within 2.5"."""
    found = []
    image = mosaic.read(0, mosaic.shape[0], 0, mosaic.shape[1]).astype(np.float64)
    for sky in places:
        x, y = (float(value) for value in mosaic.wcs.all_world2pix(sky.ra.deg, sky.dec.deg, 0))
        x0, y0, reach = round(x), round(y), round(2.0 / mosaic.pixel_scale_arcsec)
        part = image[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
        rows, columns = np.indices(part.shape)
        total = part.sum()
        found.append(
            (
                total / FLUX,
                mosaic.pixel_scale_arcsec
                * np.hypot((columns * part).sum() / total + x0 - reach - x, (rows * part).sum() / total + y0 - reach - y),
            )
        )
    return np.array(found).T


CASES = [
    pytest.param(0.05, "icrs", 0.0, "TAN", id="HST-like"),
    pytest.param(0.2, "icrs", 30.0, "TAN", id="LSST-like, rotated"),
    pytest.param(0.1, "galactic", 20.0, "TAN", id="galactic, own pixels"),
    pytest.param(0.16, "galactic", 75.0, "TAN", id="galactic"),
    pytest.param(0.13, "ecliptic", 10.0, "STG", id="ecliptic"),
    pytest.param(0.13, "fk4", 10.0, "TAN", id="FK4"),
    pytest.param(0.15, "galactic", 0.0, "CAR", id="galactic cylinder"),
]


@pytest.mark.parametrize(("scale", "frame", "angle", "projection"), CASES)
def test_a_tile_of_other_pixels_or_another_frame_is_opened_with_its_light_in_place(tmp_path, scale, frame, angle, projection):
    size = round(24 / scale) // 2 * 2
    wcs = made_wcs(scale, size, frame, angle, projection)
    files = write(tmp_path / "vis.fits", wcs, stars(wcs, frame, (size, size), PLACES))
    with open_tile(Tile(tile_id="a", bands={"VIS": files}), CutoutsConfig()) as images:
        assert images.vis.pixel_scale_arcsec == pytest.approx(0.1, rel=0.01)
        flux, offset = measured(images.vis, PLACES)
        assert images.vis.zero_point == 23.9
        assert images.vis_resampled == (None if scale == 0.1 else pytest.approx(scale, rel=1e-3))
    np.testing.assert_allclose(flux, 1.0, atol=2e-3 if scale == 0.2 else 4e-4)
    assert offset.max() < 0.005


def test_light_is_not_painted_into_what_is_resampled(tmp_path):
    wcs = made_wcs(0.2, 100)
    files = write(tmp_path / "a.fits", wcs, np.ones((100, 100)))
    tile = Tile(tile_id="a", bands=dict.fromkeys(BANDS, files))
    with pytest.raises(TileError, match="scanner prepare"):
        survey_tile(tile, PRESETS["quick"].options, 10, [1], None)


@pytest.mark.parametrize("scale", [1.5, 0.001])
def test_pixels_of_no_survey_are_refused(tmp_path, scale):
    wcs = made_wcs(scale, 40)
    files = write(tmp_path / "vis.fits", wcs, np.ones((40, 40)))
    with pytest.raises(TileError, match=rf'vis\.fits.* {scale}" wide'):
        open_tile(Tile(tile_id="a", bands={"VIS": files}), CutoutsConfig())


def exposures(folder, n, scale=0.2, rms=False, levels=(0.0,), zero_points=(23.9,)):
    """Shifted and turned exposures of the same sky."""
    made = []
    for number in range(n):
        size = round(26 / scale) // 2 * 2
        shift = (np.array([1.7, -0.9]) * (number - 1) / 3600) * (CENTRE.ra / CENTRE.ra.value)
        wcs = made_wcs(scale, size, angle=13.0 * number, centre=CENTRE.spherical_offsets_by(*shift))
        zero = zero_points[number % len(zero_points)]
        image = (stars(wcs, "icrs", (size, size), PLACES) + levels[number % len(levels)]) * 10 ** (0.4 * (zero - 23.9))
        files = write(folder / f"{number}.fits", wcs, image, MAGZERO=zero)
        if rms:
            fits.writeto(
                folder / f"{number}-rms.fits", np.full(image.shape, 1.0 + number, np.float32) * 10 ** (0.4 * (zero - 23.9))
            )
            files = files.model_copy(update={"rms": ImageRef(str(folder / f"{number}-rms.fits"))})
        made.append(files)
    return made


def request_of(files, **settings):
    return PrepareRequest(sources=tuple(Source(band="VIS", files=one) for one in files), name="t", **settings)


def open_vis(listed):
    (tile,) = tile_list.read(listed).tiles.values()
    return open_mosaic(tile.bands["VIS"], band="VIS")


@pytest.mark.parametrize("method", RESAMPLING_METHODS)
def test_exposures_of_other_zero_points_become_one_image_in_microjansky(tmp_path, method):
    listed = prepare(request_of(exposures(tmp_path, 3, zero_points=(23.9, 25.0, 31.4)), method=method), tmp_path / "out")
    with open_vis(listed) as vis:
        assert (vis.zero_point, vis.unit) == (23.9, "uJy")
        flux, offset = measured(vis, PLACES)
    # Bilinear interpolation and the Gaussian of the adaptive method widen a PSF beyond the aperture, or lose a part of it.
    np.testing.assert_allclose(flux, 1.0, atol=2e-3 if method in ("spline", "exact") else 0.03)
    assert offset.max() < 0.01


def test_what_is_made_says_what_it_was_made_of_and_is_weighted_by_its_noise(tmp_path):
    listed = prepare(request_of(exposures(tmp_path, 2, rms=True)), tmp_path / "out")
    header = fits.getheader(tmp_path / "out" / "t-0000-0000" / "VIS.fits")
    assert (header["NIMAGES"], header["RESAMPLE"], header["INPUT"]) == (2, "spline", "VIS")
    assert "0.fits" in str(header["HISTORY"])
    with open_vis(listed) as vis:
        y, x = (n // 2 for n in vis.shape)
        # 1/σ² adds up; a pixel of 0.1" has half the noise of one of 0.2".
        assert vis.read_rms(y, y + 1, x, x + 1)[0, 0] == pytest.approx((1 + 1 / 4) ** -0.5 / 2, rel=1e-5)


def weighted(folder, weight, noise=1.0, size=120):
    """An image of noise on 0.2" pixels, and a weight map of this value."""
    image = np.random.default_rng(3).normal(scale=noise, size=(size, size))
    files = write(folder / "vis.fits", made_wcs(0.2, size), image)
    fits.writeto(folder / "vis-wht.fits", np.full(image.shape, weight, np.float32))
    return Source(band="VIS", files=files, weight=ImageRef(str(folder / "vis-wht.fits")))


def test_a_weight_map_tells_the_noise_and_bad_pixels(tmp_path):
    source = weighted(tmp_path, 0.25, noise=2.0)
    with fits.open(tmp_path / "vis-wht.fits", mode="update") as hdus:
        hdus[0].data[50:60, 40:70] = 0.0
    with open_vis(prepare(PrepareRequest(sources=(source,), name="t"), tmp_path / "out")) as vis:
        rms = vis.read_rms(20, 220, 20, 220)
        image = vis.read(20, 220, 20, 220)
    good = np.isfinite(image)
    np.testing.assert_allclose(rms[good], 1.0, rtol=1e-6)
    # A pixel of 0.2" is four of 0.1": 10 x 30 of them are bad, and what a spline takes from them.
    assert 1200 <= (~good).sum() < 2200
    areas = image[:80].reshape(8, 10, 20, 10).sum(axis=(1, 3))
    # The noise of areas of 10 x 10 pixels, of which there are 160.
    assert np.nanstd(areas) == pytest.approx(10.0, rel=0.15)


def test_images_are_averaged_by_their_weights_and_keep_their_light(tmp_path):
    sources, values = [], (1e-4, 3e-4)
    for number, (files, noise) in enumerate(zip(exposures(tmp_path, 2, scale=0.15), values, strict=True)):
        with fits.open(files.image.path, mode="update") as hdus:
            hdus[0].data += np.random.default_rng(number).normal(scale=noise, size=hdus[0].data.shape).astype(np.float32)
            weight = np.full(hdus[0].data.shape, noise**-2, np.float32)
        fits.writeto(tmp_path / f"{number}-wht.fits", weight)
        sources.append(Source(band="VIS", files=files, weight=ImageRef(str(tmp_path / f"{number}-wht.fits"))))
    with open_vis(prepare(PrepareRequest(sources=tuple(sources), name="t"), tmp_path / "out")) as vis:
        flux, _ = measured(vis, PLACES)
        y, x = (n // 2 for n in vis.shape)
        rms = vis.read_rms(y, y + 1, x, x + 1)[0, 0]
    np.testing.assert_allclose(flux, 1.0, atol=1e-4)
    assert rms == pytest.approx((1e8 + 1e8 / 9) ** -0.5 * (0.1 / 0.15), rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (2000.0, r"vis-wht\.fits: is no inverse variance, as its noise would be 0\.0224 where the image's is 0\.998"),
        (0.0, r"vis-wht\.fits: holds no positive weight"),
    ],
)
def test_a_map_that_is_no_inverse_variance_is_refused(tmp_path, weight, said):
    with pytest.raises(TileError, match=said):
        prepare(PrepareRequest(sources=(weighted(tmp_path, weight),), name="t"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_levels_that_differ_are_made_the_same_where_it_is_asked_for(tmp_path):
    files = exposures(tmp_path, 3, levels=(0.0, 5.0, -2.0))
    stds = []
    for match in (False, True):
        listed = prepare(request_of(files, match_background=match), tmp_path / f"out-{match}")
        with open_vis(listed) as vis:
            image = vis.read(0, vis.shape[0], 0, vis.shape[1])
            y, x = np.indices(image.shape)
            for sky in PLACES:
                at_x, at_y = vis.wcs.all_world2pix(sky.ra.deg, sky.dec.deg, 0)
                image[np.hypot(x - at_x, y - at_y) < 25] = np.nan
            stds.append(float(np.nanstd(image)))
    assert stds[0] > 0.1
    assert stds[1] < 1e-3


def test_a_wide_image_becomes_tiles_that_share_a_plane_and_what_is_made_stays(tmp_path):
    wcs = made_wcs(0.2, 470)
    image = np.random.default_rng(1).normal(size=(470, 470))
    files = write(tmp_path / "vis.fits", wcs, image)
    request = request_of([files], tile_pixels=600)
    listed = prepare(request, tmp_path / "out")
    tiles = tile_list.read(listed).tiles
    assert list(tiles) == ["t-0000-0000", "t-0000-0003", "t-0003-0000", "t-0003-0003"]
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.fits"))]
    prepare(request, tmp_path / "out")
    for path in prepare(request, tmp_path / "two", workers=2).parent.rglob("*.fits"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "two")).read_bytes()
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.fits"))]
    with pytest.raises(OutputError, match="other images or settings"):
        prepare(request_of([files], tile_pixels=600, method="interp"), tmp_path / "out")
    first, second = (fits.getdata(tmp_path / "out" / f"t-0000-000{n}" / "VIS.fits") for n in (0, 3))
    # Where the edge of the image is that of pixels, rounding decides which of them are inside.
    np.testing.assert_allclose(first[5:-5, 360:600], second[5:-5, :240], atol=1e-4)


def test_an_image_that_was_broken_off_leaves_no_half_tile(tmp_path):
    files = exposures(tmp_path, 1)

    def stop(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(request_of(files), tmp_path / "out", stop)
    assert not list((tmp_path / "out").iterdir())


def test_a_psf_is_widened_where_that_is_asked_for(tmp_path):
    (files,) = exposures(tmp_path, 1, scale=0.1)
    sources = (Source(band="VIS", files=files, fwhm_arcsec=FWHM_ARCSEC),)
    listed = prepare(PrepareRequest(sources=sources, name="t", fwhm_arcsec={"VIS": 0.9}), tmp_path / "out")
    with open_vis(listed) as vis:
        x, y = (round(float(value)) for value in vis.wcs.all_world2pix(PLACES[0].ra.deg, PLACES[0].dec.deg, 0))
        part = vis.read(y - 15, y + 16, x - 15, x + 16).astype(np.float64)
    rows = np.arange(31)
    profile = part.sum(axis=1) / part.sum()
    sigma = np.sqrt((profile * rows**2).sum() - (profile * rows).sum() ** 2) * 0.1
    # A pixel's own width is in both: 0.1 / sqrt(12).
    assert 2.3548 * np.sqrt(sigma**2 - 0.1**2 / 12) == pytest.approx(0.9, rel=0.02)
    with pytest.raises(TileError, match="sharpening"):
        prepare(PrepareRequest(sources=sources, name="t", fwhm_arcsec={"VIS": 0.4}), tmp_path / "other")


def test_a_kernel_turns_one_gaussian_into_another():
    kernel, gain = matching_kernel(gaussian(3.0), gaussian(5.0))
    axis = np.arange(len(kernel)) - len(kernel) // 2
    width = np.sqrt((kernel.sum(axis=0) * axis**2).sum()) * 2.3548
    assert width == pytest.approx(4.0, rel=0.01)
    assert gain == pytest.approx(1.0, abs=1e-3)


def test_images_without_vis_are_no_tile(tmp_path):
    (files,) = exposures(tmp_path, 1)
    with pytest.raises(UsageError, match="No image of VIS"):
        prepare(PrepareRequest(sources=(Source(band="Y", files=files),), name="t"), tmp_path / "out")


@pytest.mark.parametrize(
    ("cards", "zero_point"),
    [
        ({"MAGZERO": 25.0, "BUNIT": "nJy"}, 25.0),
        ({"BUNIT": "nJy"}, 31.4),
        # F814W of ACS: 25.94 AB, Hubble's handbook; 1 MJy/sr on 0.03" pixels, 2.1154e-14 sr, is 21.154 nJy.
        ({"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.03e-20, "PHOTPLAM": 8045.5}, pytest.approx(25.947, abs=0.002)),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 2.1154e-14}, pytest.approx(28.087, abs=0.002)),
        ({"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0}, -2.5 * np.log10(7.0e-20) - 5 * np.log10(8045.0) - 2.408),
        (
            {"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS", "EXPTIME": 100.0},
            -2.5 * np.log10(7.0e-20) - 5 * np.log10(8045.0) - 2.408 + 5.0,
        ),
        ({"BUNIT": "ADU"}, np.nan),
        ({"MAGZERO": "none"}, np.nan),
    ],
)
def test_zero_points_are_found_in_headers(cards, zero_point):
    found = ab_zero_point(fits.Header(cards), 0.1)
    assert found == pytest.approx(zero_point, nan_ok=True) if isinstance(zero_point, float) else found == zero_point


def test_a_galactic_image_is_named_in_equatorial_coordinates():
    wcs = made_wcs(0.1, 100, "galactic", 40.0)
    turned = celestial_wcs(wcs.to_header(), (100, 100), "g.fits")
    assert turned.wcs.ctype[0] == "RA---TAN"
    sky = SkyCoord(*turned.all_pix2world(10.0, 80.0, 0), unit="deg")
    assert sky.separation(wcs.pixel_to_world(10.0, 80.0).icrs).arcsec < 1e-5
