"""Centroid and flux of point sources injected at random sub-pixel positions, in the cutouts of all three alignment cases.

    python benchmarks/centroids.py [--sources 1000] [--kernels]

Noiseless Gaussian stars (VIS: FWHM 0.17", NISP: 0.48"), integrated over the pixels, one target on each. Where a star should be
in its cutout follows from the recorded offset alone: (99.5, 99.5) + offset in VIS, (32.5, 32.5) + offset / 3 in NISP.
``--kernels`` compares resampling kernels for the case ``warp`` at several rotations.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from reproject import reproject_adaptive, reproject_interp
from scipy import ndimage
from scipy.special import erf
from synthetic_tile import nisp_geometry, sky

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.records import BANDS, BandFiles, ImageRef, Targets, Tile
from scanner.sky.alignment import map_pixels
from scanner.sky.tile_images import open_tile

FWHM_ARCSEC = {"VIS": 0.17, "Y": 0.48, "J": 0.48, "H": 0.48}
SPACING = 66
FLUX = 1000.0


def stars(
    wcs: WCS, side: int, scale: float, fwhm: float, ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> NDArray[np.float64]:
    image = np.zeros((side, side))
    width = fwhm / 2.3548 / scale * np.sqrt(2)
    for x, y in zip(*wcs.all_world2pix(ra, dec, 0), strict=True):
        first = [round(float(centre)) - 10 for centre in (y, x)]
        profiles = [np.diff(0.5 * erf((np.arange(22) + low - 0.5 - at) / width)) for low, at in zip(first, (y, x), strict=True)]
        image[first[0] : first[0] + 21, first[1] : first[1] + 21] += FLUX * np.outer(*profiles)
    return image


def centroid_errors(
    images: NDArray[np.float32], expected: NDArray[np.float64], half: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances and relative flux errors of the stars within ``half`` pixels of the middle."""
    middle = images.shape[1] // 2
    window = images[:, middle - half : middle + half, middle - half : middle + half].astype(np.float64)
    flux, at = window.sum(axis=(1, 2)), np.arange(middle - half, middle + half)
    x, y = window.sum(axis=1) @ at / flux, window.sum(axis=2) @ at / flux
    return np.hypot(x - expected[:, 0], y - expected[:, 1]), np.abs(flux / FLUX - 1)


def measure(case: str, sources: int) -> None:
    side = -(-int(np.ceil(np.sqrt(sources)) * SPACING + 400) // 6) * 6
    random = np.random.default_rng(1)
    grid = 200 + SPACING * np.arange(int(np.ceil(np.sqrt(sources))))
    x, y = (axis.ravel()[:sources] + random.uniform(-0.5, 0.5, sources) for axis in np.meshgrid(grid, grid))
    vis_wcs = sky(0.1, side)
    ra, dec = vis_wcs.all_pix2world(x, y, 0)
    with tempfile.TemporaryDirectory() as folder:
        bands = {}
        for band in BANDS:
            wcs, band_side, scale = (vis_wcs, side, 0.1) if band == "VIS" else nisp_geometry(case, side)
            path = Path(folder, f"{band}.fits")
            image = stars(wcs, band_side, scale, FWHM_ARCSEC[band], ra, dec)
            fits.PrimaryHDU(image.astype(np.float32), header=wcs.to_header()).writeto(path)
            bands[band] = BandFiles(image=ImageRef(path=str(path)))
        targets = Targets(np.arange(sources, dtype=np.int64), ra, dec, x, y, np.full(sources, np.nan, np.float32))
        with open_tile(Tile(tile_id="1", bands=bands), CutoutsConfig()) as images:
            assert images.alignment.case == case
            found = {band: ([], []) for band in BANDS}
            for batch in cut(images, targets, 64):
                offset = batch.offset.astype(np.float64)
                for index, band in enumerate(BANDS):
                    if band == "VIS":
                        errors = centroid_errors(batch.vis, 99.5 + offset, 20)
                    else:
                        errors = centroid_errors(batch.nisp[:, index - 1], 32.5 + offset / 3, 9)
                    for values, new in zip(found[band], errors, strict=True):
                        values.append(new)
    for band, values in found.items():
        distance, flux = (np.concatenate(value) for value in values)
        print(
            f"{case:6s} {band:4s} {len(distance)} sources: centroid error max {distance.max():.5f}, rms "
            f"{np.sqrt(np.mean(distance**2)):.5f} pixels; flux error max {flux.max():.1e}"
        )


def bicubic(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution, a = -1/2."""

    def weights(part: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        distances = [np.abs(step - part) for step in range(-1, 3)]
        near = [1.5 * d**3 - 2.5 * d**2 + 1 for d in distances]
        far = [-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in distances]
        return [np.where(d < 1, inner, np.where(d < 2, outer, 0)) for d, inner, outer in zip(distances, near, far, strict=True)]

    return _convolve(image, x, y, weights, 2)


def lanczos(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lanczos-3, its weights scaled to a sum of one."""

    def weights(part: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        raw = [np.sinc(step - part) * np.sinc((step - part) / 3) for step in range(-2, 4)]
        return [weight / sum(raw) for weight in raw]

    return _convolve(image, x, y, weights, 3)


def _convolve(
    image: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: Callable[[NDArray[np.float64]], list[NDArray[np.float64]]],
    reach: int,
) -> NDArray[np.float64]:
    side = image.shape[0]
    column, row = (np.clip(np.floor(axis).astype(int), reach, side - reach - 1) for axis in (x, y))
    weights_x, weights_y = weights(x - column), weights(y - row)
    out = np.zeros_like(x)
    for j, weight_y in enumerate(weights_y):
        line = sum(weight * image[row + j - reach + 1, column + i - reach + 1] for i, weight in enumerate(weights_x))
        out += weight_y * line
    return out


def kernels_for(
    image: NDArray[np.float64], band: WCS, out: WCS, band_x: NDArray[np.float64], band_y: NDArray[np.float64]
) -> dict[str, Callable[[], NDArray[np.float64]]]:
    """Ways to resample an image onto the pixels of ``out``, which lie at (band_x, band_y) in it."""
    arguments = {"shape_out": image.shape, "return_footprint": False, "roundtrip_coords": False}
    return {
        "bilinear": lambda: ndimage.map_coordinates(image, (band_y, band_x), order=1),
        "bicubic (Keys)": lambda: bicubic(image, band_x, band_y),
        "Lanczos-3": lambda: lanczos(image, band_x, band_y),
        "B-spline, cubic": lambda: ndimage.map_coordinates(image, (band_y, band_x), order=3),
        "B-spline, quintic": lambda: ndimage.map_coordinates(image, (band_y, band_x), order=5),
        "reproject_interp, bilinear": lambda: reproject_interp((image, band), out, **arguments),
        "reproject_interp, bicubic": lambda: reproject_interp((image, band), out, order="bicubic", **arguments),
        "reproject_adaptive, Hann": lambda: reproject_adaptive(
            (image, band), out, kernel="hann", conserve_flux=True, **arguments
        ),
    }


def compare_kernels(side: int = 600) -> None:
    random = np.random.default_rng(2)
    band = sky(0.3, side)
    grid = np.arange(170, 430, 26)
    x, y = (axis.ravel() + random.uniform(0, 1, len(grid) ** 2) for axis in np.meshgrid(grid, grid))
    ra, dec = band.all_pix2world(x, y, 0)
    image = stars(band, side, 0.3, FWHM_ARCSEC["Y"], ra, dec)
    for angle in (0.5, 3.0, 20.0, 45.0):
        out = sky(0.3, side, angle, 0.31)
        out_x, out_y = out.all_world2pix(ra, dec, 0)
        ideal = stars(out, side, 0.3, FWHM_ARCSEC["Y"], ra, dec)
        columns, rows = np.meshgrid(np.arange(side, dtype=float), np.arange(side, dtype=float))
        kernels = kernels_for(image, band, out, *map_pixels(out, band, columns, rows))
        for name, kernel in kernels.items():
            start = time.process_time()
            warped = kernel()
            seconds = time.process_time() - start
            flux, distance, residual = [], [], []
            for star_x, star_y in zip(out_x, out_y, strict=True):
                low_x, low_y = round(star_x) - 10, round(star_y) - 10
                window = (slice(low_y, low_y + 21), slice(low_x, low_x + 21))
                total, at = warped[window].sum(), np.arange(21)
                flux.append(abs(total / FLUX - 1))
                star = warped[window].sum(axis=0) @ at / total + low_x, warped[window].sum(axis=1) @ at / total + low_y
                distance.append(np.hypot(star[0] - star_x, star[1] - star_y))
                residual.append(np.abs(warped[window] - ideal[window]).max() / ideal[window].max())
            print(
                f"{angle:4.1f} deg {name:27s} flux {max(flux):.1e}  centroid {max(distance):.1e} pixels  "
                f"largest residual {max(residual):.3f} of the peak  {side**2 / seconds / 1e6:5.1f} Mpix/s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--kernels", action="store_true")
    arguments = parser.parse_args()
    if arguments.kernels:
        compare_kernels()
        return
    for case in ("bin", "slice", "warp"):
        measure(case, arguments.sources)


if __name__ == "__main__":
    main()
