from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import TileError
from scanner.records import NISP_BANDS, BandFiles, ImageRef
from scanner.sky.alignment import Alignment, BandGeometry, align, map_pixels
from scanner.sky.mosaic import Mosaic, open_mosaic

REAL = Path(__file__).parents[2] / "../shared/real"


class Shape:
    """An image of which only the size matters."""

    def __init__(self, ny, nx):
        self.shape = (ny, nx)

    def window(self, y0, y1, x0, x1):
        return np.zeros((y1 - y0, x1 - x0), np.float32)

    def close(self):
        pass


def sky(scale, crpix, ra=150.0, dec=2.0, angle=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = crpix
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.pc = [[cos, -sin], [sin, cos]]
    return wcs


def mosaic(wcs, ny, nx, band="VIS"):
    return Mosaic(f"{band}.fits", band, Shape(ny, nx), wcs.to_header(relax=True))


def nisp(*mosaics):
    bands = mosaics * 3 if len(mosaics) == 1 else mosaics
    return dict(zip(NISP_BANDS, bands, strict=True))


VIS = mosaic(sky(0.1, [3000.5, 3000.5]), 6000, 6000)


def on_lattice(origin_x, origin_y, scale=0.3, ny=2000, nx=2000, **changes):
    """A band of 0.3" pixels whose pixel 0 begins with VIS pixel (origin_x, origin_y)."""
    crpix = [(3000.5 - 0.5 - origin_x) / 3 + 0.5, (3000.5 - 0.5 - origin_y) / 3 + 0.5]
    return mosaic(sky(scale, crpix, **changes), ny, nx, "Y")


@pytest.mark.parametrize("frame", [FK5(equinox="J1975"), FK5(equinox="J2000"), FK4(equinox="B1950")], ids=str)
def test_bands_in_another_frame_lie_where_they_are(frame):
    """NISP in the frame of another epoch, a quarter of a degree away in right ascension, on the same sky."""
    wcs = sky(0.3, [(3000.5 - 0.5) / 3 + 0.5] * 2)
    there = SkyCoord(150.0, 2.0, unit="deg").transform_to(frame)
    wcs.wcs.crval = [there.ra.deg, there.dec.deg]
    wcs.wcs.lonpole = 180.0 + there.position_angle(SkyCoord(0.0, 90.0, unit="deg").transform_to(frame)).deg
    wcs.wcs.radesys, wcs.wcs.equinox = frame.name.upper(), float(frame.equinox.value[1:])
    assert align(VIS, nisp(mosaic(wcs, 2000, 2000, "Y"))).bands["Y"] == BandGeometry("slice", 0, 0)


def test_the_same_grid_is_binned_on_every_corner():
    alignment = align(VIS, nisp(VIS))
    assert alignment.case == "bin"
    assert alignment.step == 1
    assert alignment.bands["J"] == BandGeometry("bin", 0, 0)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (17, -5), (-2000, 400)])
def test_a_shift_by_whole_pixels_is_binned(x, y):
    shifted = mosaic(sky(0.1, [3000.5 - x, 3000.5 - y]), 5000, 7000, "Y")
    assert align(VIS, nisp(shifted)).bands["Y"] == BandGeometry("bin", x, y)


@pytest.mark.parametrize("fraction", [0.15, 0.5, 0.85])
def test_a_shift_by_part_of_a_pixel_is_warped(fraction):
    shifted = mosaic(sky(0.1, [3000.5 - 4 - fraction, 3000.5]), 6000, 6000, "Y")
    alignment = align(VIS, nisp(shifted))
    assert (alignment.case, alignment.step) == ("warp", 3)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 2), (-14, 301), (-1, -2)])
def test_coarse_pixels_on_vis_edges_are_sliced(x, y):
    alignment = align(VIS, nisp(on_lattice(x, y)))
    assert alignment.bands["H"] == BandGeometry("slice", x, y)
    assert (alignment.case, alignment.step, alignment.phase_x, alignment.phase_y) == ("slice", 3, x % 3, y % 3)


@pytest.mark.parametrize(("shift", "case"), [(0.0, "slice"), (0.25, "slice"), (0.35, "warp"), (1.5, "warp")])
def test_edges_may_differ_by_a_tenth_of_a_nisp_pixel(shift, case):
    assert align(VIS, nisp(on_lattice(1 + shift, 0))).case == case


@pytest.mark.parametrize("angle", [0.02, 1.0, 45.0, 90.0, 180.0])
def test_any_rotation_is_warped(angle):
    assert align(VIS, nisp(on_lattice(0, 0, angle=angle))).case == "warp"
    assert align(VIS, nisp(mosaic(sky(0.1, [3000.5, 3000.5], angle=angle), 6000, 6000, "Y"))).case == "warp"


def test_a_rotation_too_small_to_matter_is_not_warped():
    """0.1 pixels of 0.3" at the edge of 2000 pixels is 0.0057 degrees."""
    assert align(VIS, nisp(on_lattice(0, 0, angle=0.004))).case == "slice"


def test_a_slightly_different_scale_is_warped_because_the_corners_show_it():
    assert align(VIS, nisp(on_lattice(0, 0, scale=0.3003))).case == "warp"


def test_another_tangent_point_is_warped_although_the_scales_agree():
    near = sky(0.3, [1000.5, 1000.5], ra=150.2)
    assert align(VIS, nisp(mosaic(near, 3000, 3000, "Y"))).case == "warp"


def test_bands_may_differ_and_share_one_lattice():
    bands = nisp(VIS, on_lattice(4, -1), on_lattice(1, 2))
    alignment = align(VIS, bands)
    assert alignment.case == "bin/slice/slice"
    assert (alignment.step, alignment.phase_x, alignment.phase_y) == (3, 1, 2)


def test_a_band_sliced_on_another_lattice_is_warped():
    alignment = align(VIS, nisp(on_lattice(1, 2), on_lattice(2, 2), VIS))
    assert alignment.case == "slice/warp/bin"
    assert alignment.bands["J"] == BandGeometry("warp", -2, -1)
    assert (alignment.phase_x, alignment.phase_y) == (1, 2)


def refused(match, vis, band):
    with pytest.raises(TileError, match=match):
        align(vis, nisp(band))


def test_wrong_pixel_scales_are_refused():
    refused('VIS pixels are 0.3" wide; they must be 0.1"', on_lattice(0, 0), VIS)
    refused('VIS pixels are 0.102" wide', mosaic(sky(0.102, [100, 100]), 500, 500), VIS)
    refused('Y pixels are 1.2" wide', VIS, on_lattice(0, 0, scale=1.2))


@pytest.mark.parametrize("scale", [0.05, 0.4])
def test_bands_of_finer_and_coarser_pixels_than_euclids_are_resampled(scale):
    band = mosaic(sky(scale, [1000.5, 1000.5]), 2000, 2000, "Y")
    assert align(VIS, nisp(band)).bands["Y"].case == "warp"


@pytest.mark.parametrize(("ra", "dec"), [(151.0, 2.0), (150.0, 3.0), (330.0, -2.0), (240.0, 2.0), (150.0, 89.0)])
def test_bands_elsewhere_on_the_sky_are_refused(ra, dec):
    elsewhere = mosaic(sky(0.3, [1000.5, 1000.5], ra=ra, dec=dec), 2000, 2000, "Y")
    refused(r"Y\.fits: the Y mosaic does not overlap the VIS mosaic VIS\.fits", VIS, elsewhere)


def test_a_small_band_inside_vis_overlaps():
    small = mosaic(sky(0.3, [900.5, 20.5]), 40, 40, "Y")
    assert align(VIS, nisp(small)).case == "slice"
    vis = mosaic(sky(0.1, [60.5, 60.5]), 120, 120)
    assert align(vis, nisp(on_lattice(0, 0))).case == "slice"


@settings(max_examples=300)
@given(
    x=st.floats(-300, 20000),
    y=st.floats(-300, 20000),
    step=st.sampled_from([1, 3]),
    phase=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_the_centre_is_the_nearest_corner_of_the_lattice(x, y, step, phase):
    phase = phase if step == 3 else (0, 0)
    alignment = Alignment({}, step, *phase)
    x0, y0, offset = alignment.place(np.array([x]), np.array([y]))
    for first, position, shift, part in ((x0[0], x, offset[0, 0], phase[0]), (y0[0], y, offset[0, 1], phase[1])):
        np.testing.assert_allclose(first + 99.5 + shift, position, atol=1e-4)
        assert abs(shift) <= step / 2 + 1e-6
        assert (first + 100 - part) % step == 0


@settings(max_examples=60)
@given(
    ra=st.floats(0, 360),
    dec=st.floats(-85, 85),
    origin=st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
    crpix=st.tuples(st.floats(-20000, 20000), st.floats(-20000, 20000)),
    x=st.floats(100, 1900),
    y=st.floats(100, 1900),
    angle=st.floats(0, 360),
    fine=st.booleans(),
)
def test_vis_and_nisp_cutouts_share_their_centre_on_the_sky(ra, dec, origin, crpix, x, y, angle, fine):
    vis = mosaic(sky(0.1, crpix, ra, dec, angle), 2000, 2000)
    scale = 1 if fine else 3
    nisp_crpix = [(pixel - 0.5 - first) / scale + 0.5 for pixel, first in zip(crpix, origin, strict=True)]
    band = mosaic(sky(0.1 * scale, nisp_crpix, ra, dec, angle), 2100 // scale, 2100 // scale, "Y")
    alignment = align(vis, nisp(band))
    assert alignment.case == ("bin" if fine else "slice")
    x0, y0, _ = alignment.place(np.array([x]), np.array([y]))
    column, row = alignment.bands["Y"].first_pixel(x0, y0)
    size = 198 if fine else 66
    band_x, band_y = map_pixels(vis.wcs, band.wcs, x0 + 99.5, y0 + 99.5)
    np.testing.assert_allclose(band_x, column + (size - 1) / 2, atol=0.01)
    np.testing.assert_allclose(band_y, row + (size - 1) / 2, atol=0.01)


def real_tile(path, suffix):
    bands = {}
    for band, name in (("VIS", "VIS"), ("Y", "NIR_Y"), ("J", "NIR_J"), ("H", "NIR_H")):
        files = BandFiles(image=ImageRef(path=str(path), extension=f"{name}_{suffix}"))
        bands[band] = open_mosaic(files, band=band)
    return bands


@pytest.mark.parametrize(("folder", "suffix"), [("euclid-group", "FLUX"), ("euclid-q1-102018665", "BGSUB")])
def test_real_euclid_images_lie_on_one_grid(folder, suffix):
    files = sorted((REAL / folder).glob("*.fits"))
    if not files:
        pytest.skip(f"{REAL / folder} is not there")
    bands = real_tile(files[0], suffix)
    alignment = align(bands["VIS"], {band: bands[band] for band in NISP_BANDS})
    assert alignment == Alignment(dict.fromkeys(NISP_BANDS, BandGeometry("bin", 0, 0)), 1, 0, 0)
    header = fits.getheader(files[0], f"VIS_{suffix}")
    assert header["CRPIX1"] == fits.getheader(files[0], f"NIR_H_{suffix}")["CRPIX1"]
    for opened in bands.values():
        opened.close()
