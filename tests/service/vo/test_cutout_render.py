"""What is written of a cutout: pixels with their place, pictures as they were asked for."""

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from scanner.cutouts.framed import of_store
from scanner.cutouts.quality import measure
from scanner.cutouts.store import StoreAttributes
from scanner.query.region import Cone
from scanner.records import BANDS, CutoutBatch, Targets
from scanner.report import colour
from scanner.report.colour import Stretch
from scanner.service.vo.soda import CutoutRequest, render

RA, DEC = 150.0, 2.0


def tile_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [1000.5, 1000.5]
    wcs.wcs.cdelt = [-0.1 / 3600, 0.1 / 3600]
    return wcs


@pytest.fixture
def framed():
    """A cutout round the tile's centre whose pixels all differ."""
    random = np.random.default_rng(1)
    vis = random.normal(0, 1, (1, 200, 200)).astype(np.float32)
    nisp = random.normal(0, 1, (1, 3, 66, 66)).astype(np.float32)
    vis[0, 90:110, 90:110] += 60
    measured = measure(vis, nisp)
    targets = Targets(
        np.array([7]), np.array([RA]), np.array([DEC]), np.array([999.5]), np.array([999.5]), np.array([20.0], np.float32)
    )
    batch = CutoutBatch(
        targets=targets, vis=vis, nisp=nisp, x0=np.array([900]), y0=np.array([900]), offset=np.zeros((1, 2), np.float32),
        bad_fraction=measured.bad_fraction, sky=measured.sky, sigma=measured.sigma, flags=np.zeros(1, np.uint32),
    )  # fmt: skip
    attributes = StoreAttributes(
        tile_id="1", n_objects=1, codec="exact", units=dict.fromkeys(BANDS, "adu"),
        zero_points={"VIS": 24.5, "Y": None, "J": None, "H": 30.0}, wcs=tile_wcs().to_header_string(),
    )  # fmt: skip
    return of_store(batch, attributes)


def opened(rendered):
    return fits.open(io.BytesIO(rendered.content))


def image(rendered):
    with Image.open(io.BytesIO(rendered.content)) as picture:
        return np.asarray(picture)[::-1]


def test_a_fits_file_has_every_band_with_its_pixels_place_unit_and_zero_point(framed):
    rendered = render(framed, CutoutRequest(), {"OBJECT": "x"})
    assert rendered.media_type == "application/fits"
    assert rendered.content == render(framed, CutoutRequest(), {"OBJECT": "x"}).content
    with opened(rendered) as hdus:
        assert hdus[0].header["OBJECT"] == "x"
        assert [hdu.name for hdu in hdus[1:]] == list(BANDS)
        np.testing.assert_array_equal(hdus["VIS"].data, framed.cutout.vis[0])
        np.testing.assert_array_equal(hdus["H"].data, framed.cutout.nisp[0, 2])
        assert [hdu.header.get("MAGZERO") for hdu in hdus[1:]] == [24.5, None, None, 30.0]
        assert {hdu.header["BUNIT"] for hdu in hdus[1:]} == {"adu"}
        for hdu, middle in zip(hdus[1:], (99.5, 32.5, 32.5, 32.5), strict=True):
            np.testing.assert_allclose(WCS(hdu.header).all_world2pix(RA, DEC, 0), middle, atol=1e-6)


def test_texts_that_fits_has_no_letters_for(framed):
    with opened(render(framed, CutoutRequest(), {"BUNDLE": "naïve ☉ 1", "RUN": "r" * 73})) as hdus:
        assert (hdus[0].header["BUNDLE"], hdus[0].header["RUN"]) == ("na?ve ? 1", "r" * 73)


def test_a_circle_leaves_the_smallest_part_that_holds_it_and_its_wcs_follows(framed):
    """2" beside the centre, 1" wide: 21 by 21 VIS pixels (its centre is a pixel's corner), where the sky says."""
    ra, dec, radius = RA + 2 / 3600 / np.cos(np.radians(DEC)), DEC - 3 / 3600, 1 / 3600
    with opened(render(framed, CutoutRequest(circle=Cone(ra, dec, radius)), {})) as hdus:
        for hdu, scale in zip(hdus[1:], (0.1, 0.3, 0.3, 0.3), strict=True):
            x, y = WCS(hdu.header).all_world2pix(ra, dec, 0)
            height, width = hdu.data.shape
            for centre, size in ((x, width), (y, height)):
                assert centre - 1 / scale >= -0.5 - 1e-6
                assert centre + 1 / scale <= size - 0.5 + 1e-6
                # One pixel less on either side would be too few.
                assert centre - 1 / scale < 0.5
                assert centre + 1 / scale > size - 1.5
        x, y = (round(float(value)) for value in tile_wcs().all_world2pix(ra, dec, 0))
        here = tuple(round(float(value)) for value in WCS(hdus["VIS"].header).all_world2pix(ra, dec, 0))
        assert hdus["VIS"].data[here[1], here[0]] == framed.cutout.vis[0, y - 900, x - 900]


@pytest.mark.parametrize(
    ("circle", "shape"),
    [
        (Cone(RA, DEC, 30 / 3600), (200, 200)),
        (Cone(RA, DEC, 180), (200, 200)),
        (Cone(RA - 180, -DEC, 180), (200, 200)),
        (Cone(RA, DEC + 11 / 3600, 0.5 / 3600), None),
        (Cone(RA - 180, -DEC, 1), None),
        (Cone(RA, -90, 5), None),
        (Cone(RA, DEC + 9.95 / 3600, 0), (1, 1)),
    ],
)
def test_circles_round_beside_and_opposite(framed, circle, shape):
    rendered = render(framed, CutoutRequest(picture="VIS", circle=circle), {})
    drawn = render(framed, CutoutRequest("png", "VIS", circle=circle), {})
    if shape is None:
        assert rendered is None
        assert drawn is None
    else:
        with opened(rendered) as hdus:
            assert hdus["VIS"].data.shape == shape
        assert image(drawn).shape == shape


def test_the_inner_field_keeps_its_centre(framed):
    with opened(render(framed, CutoutRequest(size_arcsec=6.0), {})) as hdus:
        assert [hdu.data.shape for hdu in hdus[1:]] == [(60, 60)] + [(20, 20)] * 3
        for hdu in hdus[1:]:
            middle = (hdu.data.shape[0] - 1) / 2
            np.testing.assert_allclose(WCS(hdu.header).all_world2pix(RA, DEC, 0), middle, atol=1e-6)


@pytest.mark.parametrize(("picture", "side"), [("VIS", 200), ("colour", 200), ("nisp", 66), ("Y", 66), ("H", 66)])
def test_pictures_are_those_of_the_contact_sheet(framed, picture, side):
    cutout, stretch = framed.cutout, Stretch(white_sigma=30, softening_sigma=1, black_sigma=-1)
    vis, nisp, sky, sigma = cutout.vis[0], cutout.nisp[0], cutout.sky[0], cutout.sigma[0]
    expected = {
        "VIS": lambda: colour.vis_image(vis, sky, sigma, stretch),
        "colour": lambda: colour.colour_image(vis, nisp, sky, sigma, stretch),
        "nisp": lambda: colour.nisp_image(nisp, sky, sigma, stretch),
        "Y": lambda: colour.nisp_band_image(nisp[0], sky[1], sigma[1], stretch),
        "H": lambda: colour.nisp_band_image(nisp[2], sky[3], sigma[3], stretch),
    }[picture]()
    plain = image(render(framed, CutoutRequest("png", picture, stretch=stretch), {}))
    np.testing.assert_array_equal(plain, expected)
    assert plain.shape[0] == side
    inverted = image(render(framed, CutoutRequest("png", picture, stretch=stretch, invert=True), {}))
    np.testing.assert_array_equal(inverted, 255 - plain)
    zoomed = image(render(framed, CutoutRequest("png", picture, stretch=stretch, zoom=3), {}))
    np.testing.assert_array_equal(zoomed[1::3, 1::3], plain)
    small = render(framed, CutoutRequest("webp", picture, stretch=stretch), {})
    assert small.media_type == "image/webp"
    assert np.abs(image(small)[..., :3].mean() - plain.mean()) < 3


def test_all_is_three_panels_of_the_same_field(framed):
    panels = image(render(framed, CutoutRequest("png", "all", size_arcsec=10.0), {}))
    assert panels.shape == (100, 300, 3)
    whole = image(render(framed, CutoutRequest("png", "colour"), {}))
    np.testing.assert_array_equal(panels[:, 100:200], whole[50:150, 50:150])


def test_without_saturation_colours_are_grey(framed):
    grey = image(render(framed, CutoutRequest("png", "colour", saturation=0.0), {})).astype(int)
    assert (np.ptp(grey, axis=-1) <= 1).all()
    vivid, plain = (image(render(framed, CutoutRequest("png", "nisp", saturation=s), {})).astype(int) for s in (2.0, 1.0))
    assert np.ptp(vivid, axis=-1).mean() > 1.3 * np.ptp(plain, axis=-1).mean()


def test_no_band_no_cutout(framed):
    assert render(framed, CutoutRequest(bands=()), {}) is None
    assert render(framed, CutoutRequest("png", bands=()), {}) is None
